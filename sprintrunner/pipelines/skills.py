"""Finds the BMAD skills, commands and workflows that are installed in a project, of every era."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from .. import project as projects
from ..errors import ProjectError
from ..project.config import install_folder

#: What is looked for, without BMAD's own prefix.
NAMES = ("create-story", "dev-story", "code-review", "build-auto", "dev-auto")
#: Since 6.2: a folder a skill. Codex and others share the second place.
_SKILL_FOLDERS = (".claude/skills", ".agents/skills")
#: Before that: a file a command, flat (6.0 and 6.1) or below a folder (alphas; typed with colons).
_COMMANDS: Mapping[str, str] = {
    ".claude/commands/bmad-bmm-{}.md": "/bmad-bmm-{}",
    ".claude/commands/bmad-{}.md": "/bmad-{}",
    ".claude/commands/bmad_bmm_{}.md": "/bmad_bmm_{}",
    ".claude/commands/bmad-bmm-workflows-{}.md": "/bmad-bmm-workflows-{}",
    ".claude/commands/bmad/bmm/workflows/{}.md": "/bmad:bmm:workflows:{}",
}
#: The workflow itself, where no command for an agent was installed.
_WORKFLOWS = ("workflow.yaml", "workflow.md", "SKILL.md")
_LIMIT = 200_000  # bytes of one instruction file; real ones have 1 to 40 KB
_FRONTMATTER = re.compile(r"\A---[ \t]*\n.*?^---[ \t]*\n", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Skill:
    """One installed piece of BMAD. ``text``: its instructions as read once, without frontmatter.

    ``path`` and ``folder`` are relative to the project; bare paths in the text start at ``folder``. ``form``
    is skill, command or workflow.
    """

    name: str
    call: str
    form: str
    path: str
    folder: str
    text: str


@dataclass(frozen=True, slots=True)
class Installed:
    """What was found, and one sentence for each piece that is there and cannot be used."""

    skills: Mapping[str, Skill]
    problems: tuple[str, ...] = ()

    def all_of(self, *names: str) -> bool:
        """Whether every one of these can be used."""
        return all(name in self.skills for name in names)

    @property
    def auto(self) -> Skill | None:
        """The skill that carries a story alone; its name until 6.10 was dev-auto."""
        return self.skills.get("build-auto") or self.skills.get("dev-auto")


def find(root: Path) -> Installed:
    """Look for all that ``NAMES`` lists; of several forms the newest one wins. Never raises."""
    manifest = _manifest(root)
    found: dict[str, Skill] = {}
    problems: list[str] = []
    for name in NAMES:
        for path, call, form in _places(root, name, manifest):
            try:
                found[name] = _read(root, path, name, call, form)
                break
            except ProjectError as error:
                problems.append(error.sentence)
    return Installed(found, tuple(problems))


def _places(root: Path, name: str, manifest: Mapping[str, str]) -> Iterator[tuple[Path, str, str]]:
    """Yield what exists, as (file, how a person calls it, form)."""
    for folder in _SKILL_FOLDERS:
        for full in (f"bmad-{name}", f"bmad-bmm-{name}"):
            yield from _existing(root / folder / full / "SKILL.md", f"/{full}", "skill")
    for pattern, call in _COMMANDS.items():
        yield from _existing(root / pattern.format(name), call.format(name), "command")
    if f"bmad-{name}" in manifest:
        # Listed is not installed: since 6.3 the listed folders are gone once an agent has its copy.
        yield from _existing(root / manifest[f"bmad-{name}"], f"/bmad-{name}", "skill")
    install = install_folder(root)
    if install is not None:
        for folder in (name, f"bmad-{name}"):
            for file in _WORKFLOWS:
                path = install / "bmm/workflows/4-implementation" / folder / file
                yield from _existing(path, name, "skill" if file == "SKILL.md" else "workflow")


def _existing(path: Path, call: str, form: str) -> Iterator[tuple[Path, str, str]]:
    # A dangling link exists here, so that it is named as a problem.
    if path.is_symlink() or path.exists():
        yield path, call, form


def _read(root: Path, path: Path, name: str, call: str, form: str) -> Skill:
    text = projects.read_inside(root, path, _LIMIT).replace("\r\n", "\n")
    body = _FRONTMATTER.sub("", text, count=1).strip()
    if not body:
        raise ProjectError(f"{path} is empty.")
    where = path.relative_to(root)
    return Skill(name, call, form, where.as_posix(), where.parent.as_posix(), body)


def _manifest(root: Path) -> dict[str, str]:
    """Map the skills that BMAD's own list names to their files; empty without a readable list."""
    install = install_folder(root)
    if install is None:
        return {}
    try:
        text = projects.read_inside(root, install / "_config" / "skill-manifest.csv", 1_000_000)
        rows = list(csv.DictReader(text.splitlines()))
    except (ProjectError, csv.Error):
        return {}
    return {
        str(row["canonicalId"]): str(row["path"])
        for row in rows
        if row.get("canonicalId") and _is_plain(row.get("path"))
    }


def _is_plain(path: str | None) -> bool:
    return bool(path) and not str(path).startswith(("/", "~")) and ".." not in Path(str(path)).parts
