"""Whose instructions carry a story: our own (``builtin``), or the BMAD skills of the project."""

from __future__ import annotations

from ..errors import Refused
from ..project import Project
from ..project.config import read as read_config
from .base import Developed, Pipeline
from .bmad import BuildAuto, Classic
from .skills import Installed, Skill, find

#: The key of BMAD's own configuration that chooses where both ways are installed.
CHOICE = "sprintrunner_pipeline"
_WAYS = ("classic", "build-auto")


class NoPipeline(Refused):
    """The BMAD skills that the pipeline needs are not installed."""


def choose(project: Project, setting: str) -> Pipeline:
    """The pipeline for the setting ``pipeline``; skills are read now and not again.

    Raises NoPipeline with one sentence where nothing usable is installed.
    """
    if setting != "bmad":
        return Pipeline()
    installed = find(project.root)
    way = _way(project, installed)
    if way == "build-auto" and installed.auto is not None:
        return BuildAuto(project, installed.auto, installed.skills.get("code-review"))
    return Classic(installed.skills, advice(project, installed))


def _way(project: Project, installed: Installed) -> str:
    classic = installed.all_of("create-story", "dev-story")
    if not classic and installed.auto is None:
        raise NoPipeline(_lacking(installed))
    wanted = _wanted(project)
    if wanted and wanted not in _WAYS:
        raise NoPipeline(
            f"{CHOICE} in BMAD's configuration must be {' or '.join(_WAYS)}, not {wanted[:40]!r}."
        )
    there = {"classic": classic, "build-auto": installed.auto is not None}
    if wanted and not there[wanted]:
        raise NoPipeline(f"{CHOICE} in BMAD's configuration says {wanted}, which is not installed.")
    return wanted or ("classic" if classic else "build-auto")


def _wanted(project: Project) -> str:
    # Read anew: a server lives long, and this is changed between two batches.
    return read_config(project.root).get(CHOICE, "")


def _lacking(installed: Installed) -> str:
    if installed.problems:
        return f"The BMAD skills cannot be used: {installed.problems[0]}"
    half = [name for name in ("create-story", "dev-story") if name in installed.skills]
    missing = "create-story" if half == ["dev-story"] else "dev-story"
    why = f"bmad-{half[0]} without bmad-{missing}" if half else "no create-story, dev-story or build-auto"
    return (
        f"pipeline is bmad, but the project has {why} in .claude/skills, .agents/skills, .claude/commands or "
        "BMAD's own folder; install BMAD's skills, or set pipeline to builtin."
    )


def advice(project: Project, installed: Installed) -> str:
    """How to choose where both ways are installed; empty where there is nothing to choose."""
    if not installed.all_of("create-story", "dev-story") or installed.auto is None:
        return ""
    if _wanted(project):
        return ""
    return (
        f'Both ways are installed, the classic one is used; {CHOICE} = "build-auto" under [modules.bmm] in '
        "_bmad/custom/config.toml chooses the other."
    )


__all__ = [
    "CHOICE",
    "BuildAuto",
    "Classic",
    "Developed",
    "Installed",
    "NoPipeline",
    "Pipeline",
    "Skill",
    "advice",
    "choose",
    "find",
]
