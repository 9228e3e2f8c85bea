"""Projects with as many stories as a program wants."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

ARTEFACTS = "_bmad-output/implementation-artifacts"
STATUS_FILE = f"{ARTEFACTS}/sprint-status.yaml"
CONTEXT = "_bmad-output/planning-artifacts/project-context.md"


def keys(count: int, per_epic: int = 20) -> list[str]:
    """So many story keys, spread over epics."""
    return [f"{n // per_epic + 1}-{n % per_epic + 1}-grow-shelf-{n}" for n in range(count)]


def plan(root: Path, stories: Sequence[tuple[str, str]], toml: str = "") -> None:
    """Give the sample project these stories (key, status) and settings, committed."""
    lines = ["# A sprint of the bench", "project: Windowsill", "", "development_status:"]
    for epic in dict.fromkeys(key.split("-")[0] for key, _ in stories):
        lines.append(f"  epic-{epic}: in-progress")
        lines += [f"  {key}: {status}" for key, status in stories if key.split("-")[0] == epic]
    (root / STATUS_FILE).write_text("\n".join([*lines, ""]))
    (root / "sprintrunner.toml").write_text(toml or "# settings of the bench come from the environment\n")
    (root / CONTEXT).write_text("# Project Context\n\nPython, standard library only.\n")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "Plan for the bench")


def git(root: Path, *words: str) -> str:
    """The output of a git command in the project."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(["git", *words], cwd=root, env=clean, check=True, capture_output=True, text=True)
    return done.stdout
