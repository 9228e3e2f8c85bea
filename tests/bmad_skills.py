"""Synthetic BMAD skills for tests, in our own words: the shape of the real ones, not their text."""

from __future__ import annotations

from pathlib import Path

ARTEFACTS = "_bmad-output/implementation-artifacts"

_TEXT = """---
name: bmad-{name}
description: 'A stand-in for tests'
---

# {name}

Follow `./steps/step-01.md` of {{skill-root}}. **HALT** and ask the user to choose:

1. Do it
2. Leave it
"""


def skill(root: Path, name: str) -> Path:
    """Install one skill for Claude."""
    path = root / ".claude/skills" / f"bmad-{name}" / "SKILL.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_TEXT.format(name=name))
    return path


def classic(root: Path) -> None:
    """The three skills of the classic way."""
    for name in ("create-story", "dev-story", "code-review"):
        skill(root, name)


def auto(root: Path, *, review: bool = True) -> None:
    """Build Auto, with or without the skill for a code review."""
    skill(root, "build-auto")
    if review:
        skill(root, "code-review")


def spec(root: Path, key: str, status: str, *, more: str = "", body: str = "") -> str:
    """Write the spec of a story; return its path relative to the project."""
    path = root / ARTEFACTS / f"spec-{key}.md"
    path.write_text(f"---\ntitle: '{key}'\nstatus: '{status}' # draft | done\n{more}---\n\n{body}")
    return path.relative_to(root).as_posix()
