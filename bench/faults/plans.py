"""The projects the checks work on: the sample project with stories of our own choice."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from sprintrunner.rehearsal import sample

#: Where the sample keeps its artefacts and its status file.
ARTEFACTS = "_bmad-output/implementation-artifacts"
STATUS_FILE = f"{ARTEFACTS}/sprint-status.yaml"
CONTEXT = "_bmad-output/planning-artifacts/project-context.md"
#: The story most checks work on: one that the rehearsal agent has no recipe for, so every text is generic.
STORY = "1-1-grow-a-leaf"

_STORY_TEXT = """# Story 1.1: {title}

Status: ready-for-dev

## Story

As a gardener I want to {title}.

## Acceptance Criteria

1. There is a function that does it.

## Tasks / Subtasks

- [ ] Task 1: Write it, tests first.

## Dev Agent Record

### File List
"""


def build(folder: Path, stories: Sequence[tuple[str, str]], toml: str = "") -> Path:
    """The sample project in ``folder`` with these stories (key, status); story files where they are due.

    Without stories the sample's own five stay. ``toml`` replaces ``sprintrunner.toml``.
    """
    root = sample.create(folder)
    (root / "sprintrunner.toml").write_text(toml or "# settings of the bench come from the environment\n")
    (root / CONTEXT).write_text("# Project Context\n\nPython, standard library only.\n")
    if stories:
        (root / STATUS_FILE).write_text(_status_file(stories))
    for key, status in stories:
        if status in ("ready-for-dev", "in-progress", "review"):
            text = _STORY_TEXT.format(title=key.split("-", 2)[2].replace("-", " "))
            (root / ARTEFACTS / f"{key}.md").write_text(text)
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "Plan for the bench")
    return root


def _status_file(stories: Sequence[tuple[str, str]]) -> str:
    lines = ["# A sprint of the bench", "project: Windowsill", "", "development_status:"]
    epics: Mapping[str, None] = dict.fromkeys(key.split("-")[0] for key, _ in stories)
    for epic in epics:
        lines.append(f"  epic-{epic}: in-progress")
        lines += [f"  {key}: {status}" for key, status in stories if key.split("-")[0] == epic]
    return "\n".join([*lines, ""])


def git(root: Path, *words: str) -> str:
    """The output of a git command in the project; raises CalledProcessError."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(["git", *words], cwd=root, env=clean, check=True, capture_output=True, text=True)
    return done.stdout


def status_of(root: Path, key: str) -> str:
    """What the status file says of a story; empty when it does not name it."""
    for line in (root / STATUS_FILE).read_text().splitlines():
        name, _, value = line.strip().partition(":")
        if name == key:
            return value.split("#")[0].strip()
    return ""


def commits_of(root: Path, key: str) -> int:
    """How many commits reachable from HEAD carry the story's trailer."""
    told = git(root, "log", "--format=%(trailers:key=Sprint-Story,valueonly)")
    return sum(key in line.replace(",", " ").split() for line in told.splitlines())
