"""What a command is asked to do: its inputs gathered, its prompt and context written to files."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import context, project, prompts
from ..agents import Adapter
from ..errors import ProjectError
from ..settings import Settings
from ..sprint import Command
from ..verdict import Finding
from ..workflow import PHASES
from .house import Batch, Story, keys_of

#: Variables of a command's tree that are ours; everything else named SPRINTRUNNER_* is taken out.
_RESUME_PROMPT = (
    "You were interrupted before you had finished. Look at what is already there, go on where you "
    "stopped, and end as you were asked to.\n\n"
)


@dataclass(frozen=True)
class Order:
    """One command for some stories. ``documents`` replaces artefact paths (background reviews of copies)."""

    command: Command
    stories: Sequence[Story]
    cheap: bool = False
    background: bool = False
    failure: str = ""
    findings: Sequence[Finding] = ()
    unticked: Sequence[str] = ()
    max_attempts: int = 1
    documents: Mapping[tuple[str, str], Path] = field(default_factory=dict)
    cycle: int | None = None

    @property
    def keys(self) -> str:
        """The story keys as events carry them; empty for the project context."""
        return keys_of(self.stories)


@dataclass(frozen=True)
class Papers:
    """The files of one command's run folder, and what is worth saying about them."""

    prompt: Path
    context: Path | None
    schema: dict[str, Any] | None
    schema_file: Path | None
    exit: Path
    warnings: tuple[str, ...]


def _relative(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _document(batch: Batch, order: Order, key: str, kind: str) -> Path:
    given = order.documents.get((key, kind))
    if given is not None:
        return given
    return story_path(batch, key) if kind == "story" else artefact(batch, key, kind)


def story_path(batch: Batch, key: str) -> Path:
    """The story's file as it is, or where it will be written."""
    found = batch.house.project
    return project.story_file(found, key, batch.known_keys or (key,)) or project.artefact(found, key, "story")


def artefact(batch: Batch, key: str, kind: str) -> Path:
    """Where a companion of the story lies."""
    return project.artefact(batch.house.project, key, kind)


def prompt_values(
    batch: Batch, order: Order, attempt: int, values: Settings, git_status: str
) -> dict[str, Any]:
    """Everything a prompt template may use; paths are relative to the project."""
    house, root = batch.house, batch.house.project.root
    return {
        "command": str(order.command),
        "attempt": attempt,
        "max_attempts": order.max_attempts,
        "stories": [_story_values(batch, order, story) for story in order.stories],
        "project": {
            "name": house.project.name,
            "root": str(root),
            "planning": _relative(root, house.project.planning),
            "implementation": _relative(root, house.project.implementation),
            "context_file": _relative(root, project.context_file(house.project)),
        },
        "open_findings": [
            {"id": f.identity, "severity": str(f.severity), "title": f.title, "file": f.file, "line": f.line}
            for f in order.findings
        ],
        "failure": order.failure,
        "verify": list(values.verify),
        "git_status": git_status,
        "injected": [],
        "unticked": list(order.unticked),
    }


def _story_values(batch: Batch, order: Order, story: Story) -> dict[str, Any]:
    root = batch.house.project.root
    paths = {
        f"{kind.replace('-', '_')}_file": _relative(root, _document(batch, order, story.key, kind))
        for kind in ("story", "discovery", "tech-spec")
    }
    return {
        "key": story.key,
        "epic": story.epic,
        "title": story.title,
        "tech_spec": story.tech_spec or "",
        "snapshot": story.snapshot or "",
        "epic_text": project.epic_text(batch.house.project, story.epic) or "",
        **paths,
    }


def _parts(batch: Batch, order: Order) -> list[context.Part]:
    found: list[context.Part] = []
    kinds = PHASES[order.command].injected
    if "context" in kinds:
        copy = batch.frozen / "project-context.md"
        if copy.is_file():
            found.append(
                context.Part("context", "Project context", copy, copy.read_text("utf-8", "replace"), 2)
            )
    for story in order.stories:
        for priority, kind in ((0, "story"), (4, "discovery"), (3, "tech-spec")):
            path = _document(batch, order, story.key, kind)
            if kind in kinds and path.exists():
                text = path.read_text("utf-8", "replace") if (story.key, kind) in order.documents else None
                found.append(context.Part(kind, f"{kind} {story.key}", path, text, priority))
    return found


def write_papers(
    batch: Batch, order: Order, folder: Path, attempt: int, adapter: Adapter, values: Settings, resume: bool
) -> Papers:
    """Write prompt, context and schema of one command into its run folder (0700, outside the tree)."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    built = context.build(
        batch.house.project.root,
        _parts(batch, order),
        warning_kb=values.injection_warning_kb,
        error_kb=values.injection_error_kb,
    )
    status = (
        batch.house.git.text("status", "--short") if "git-status" in PHASES[order.command].injected else ""
    )
    facts = prompt_values(batch, order, attempt, values, status)
    facts["injected"] = built.injected
    text = batch.pipeline.render(str(order.command), facts, batch.frozen / "prompts", batch.known_keys)
    if resume:
        text = _RESUME_PROMPT + text
    schema = prompts.SCHEMAS.get(str(order.command))
    schema_file = None
    if schema is not None:
        schema_file = folder / "schema.json"
        schema_file.write_text(json.dumps(adapter.schema_document(schema)), "utf-8")
    context_file = None
    if built.text:
        context_file = folder / "context.md"
        context_file.write_text(built.text, "utf-8", "replace")
    prompt = folder / "prompt.md"
    prompt.write_text(adapter.stdin_text(text, built.text), "utf-8", "replace")
    return Papers(prompt, context_file, schema, schema_file, folder / "exit.json", tuple(built.warnings))


def environment(
    batch: Batch,
    order: Order,
    *,
    command_id: int,
    attempt: int,
    run_id: str,
    adapter: Adapter,
    values: Settings,
) -> dict[str, str]:
    """The environment of a command's tree (contract section 6)."""
    dropped = set(values.env_drop)
    base = {
        name: value
        for name, value in batch.house.env.items()
        if not name.startswith("SPRINTRUNNER_") and name not in dropped
    }
    base["PATH"] = _path_with_ours(base.get("PATH", ""))
    ours = {
        "SPRINTRUNNER_BATCH_ID": str(batch.id),
        "SPRINTRUNNER_COMMAND_ID": str(command_id),
        "SPRINTRUNNER_COMMAND": str(order.command),
        "SPRINTRUNNER_ATTEMPT": str(attempt),
        "SPRINTRUNNER_STORY_KEYS": order.keys,
        "SPRINTRUNNER_EPIC_ID": order.stories[0].epic if order.stories else "",
        "SPRINTRUNNER_PROJECT": str(batch.house.project.root),
        "SPRINTRUNNER_RUN_ID": run_id,
        "SPRINTRUNNER_STATE_DIR": str(batch.house.state_dir),
    }
    return {**adapter.environment(base), **ours}


def _path_with_ours(path: str) -> str:
    """PATH with the folder of our own executable at its end, for ``sprintrunner log``."""
    beside = Path(sys.executable).with_name("sprintrunner")
    found = beside if beside.exists() else Path(shutil.which("sprintrunner") or "")
    folder = str(found.parent) if found.name else ""
    parts = [part for part in path.split(":") if part]
    return ":".join([*parts, folder] if folder and folder not in parts else parts)


def read_document(batch: Batch, path: Path) -> str:
    """The text of an artefact, empty where it cannot be read."""
    try:
        return project.read_inside(batch.house.project.root, path)
    except (ProjectError, OSError):
        return ""
