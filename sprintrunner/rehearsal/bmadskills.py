"""Build Auto as the agent plays it: a spec with a status, clean commits, and a review of its own."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from .codereview import review
from .desk import Desk
from .develop import build
from .facts import Facts, Story
from .recipes import recipe_for
from .verdicts import Verdict, plain

SKILLS = ("bmad-build-auto", "bmad-dev-auto")
SPEC = """---
title: '{title}'
type: 'feature'
status: 'draft' # draft | ready-for-dev | in-progress | in-review | done | blocked
review_loop_iteration: 0
followup_review_recommended: true
baseline_revision: {baseline}
deferred: []
---

<intent-contract>

## Intent

{title}

</intent-contract>
"""
RESULT = "\n## Auto Run Result\n\nStatus: {status}\nBlocking condition: {condition}\n"


def script_for(facts: Facts) -> Callable[[Desk], Verdict] | None:
    """What the agent does when the prompt drives Build Auto; None for every other skill."""
    if not facts.skill.endswith(SKILLS):
        return None
    return follow_up if facts.command == "code-review" else build_auto


def told(attempt: int) -> tuple[str, str]:
    """Status and condition that ``REHEARSAL_SPEC`` wants of this attempt: ``in-progress,blocked: why``.

    The last one holds for all later attempts.
    """
    wanted = [word.strip() for word in os.environ.get("REHEARSAL_SPEC", "done").split(",")]
    status, _, condition = wanted[min(attempt, len(wanted)) - 1].partition(":")
    return status.strip(), condition.strip()


def build_auto(desk: Desk) -> Verdict:
    """Carry the one story of the command; the spec says how far it came."""
    story, facts = desk.facts.stories[0], desk.facts
    if not facts.spec and desk.bash("git status --porcelain", "Is the tree clean?").output:
        return _halt_early(desk, "the working tree is not clean")
    spec = Path(facts.spec) if facts.spec else _new_spec(desk, story)
    status, condition = told(facts.attempt)
    if status in ("draft", "ready-for-dev"):
        return _halt(desk, spec, status, condition)
    _set_status(desk, spec, "in-progress")
    if status == "in-progress":
        return _halt(desk, spec, status, condition)
    recipe = recipe_for(story)
    build(desk, recipe, recipe.code)
    _set_status(desk, spec, "in-review")
    if status != "done":
        return _halt(desk, spec, status, condition)
    return plain(_finish(desk, spec, f"feat: {story.key}"))


def follow_up(desk: Desk) -> Verdict:
    """A fresh review pass over a spec that is done; it commits what it mends."""
    spec = Path(desk.facts.spec)
    _set_status(desk, spec, "in-review")
    verdict = review(desk)
    _finish(desk, spec, f"fix: review of {desk.facts.stories[0].key}")
    return verdict


def _new_spec(desk: Desk, story: Story) -> Path:
    folder = Path(str(desk.facts.project.get("implementation") or story.story_file.parent))
    names = [f"spec-{story.key}{tail}.md" for tail in ("", *(f"-{number}" for number in range(2, 10)))]
    spec = next(folder / name for name in names if not (folder / name).exists())
    baseline = desk.bash("git rev-parse HEAD", "The revision before").output
    desk.write(spec, SPEC.format(title=story.title.replace("'", "''"), baseline=baseline))
    return spec


def _set_status(desk: Desk, spec: Path, status: str) -> None:
    text = desk.read(spec)
    desk.write(spec, re.sub(r"^status: '[\w-]*'", f"status: '{status}'", text, count=1, flags=re.MULTILINE))


def _halt(desk: Desk, spec: Path, status: str, condition: str) -> Verdict:
    _set_status(desk, spec, status)
    if condition:
        desk.write(spec, desk.read(spec) + RESULT.format(status=status, condition=condition))
    return plain(f"{spec} is {status}.")


def _halt_early(desk: Desk, condition: str) -> Verdict:
    folder = Path(str(desk.facts.project.get("implementation") or "."))
    text = "---\nstatus: blocked\n---\n" + RESULT.format(status="blocked", condition=condition)
    desk.write(folder / f"bmad-build-auto-result-{desk.facts.stories[0].key}.md", text)
    return plain(f"Blocked: {condition}.")


def _finish(desk: Desk, spec: Path, subject: str) -> str:
    """Done, committed and clean; a tree that does not get clean is no success."""
    _set_status(desk, spec, "done")
    desk.bash(f"git add -A && git commit -q -m '{subject}'", "Commit the story")
    left = desk.bash("git status --porcelain", "Is the tree clean?").output
    if left:
        _halt(desk, spec, "blocked", "finalization left repository dirty")
    return f"{spec} is {'blocked' if left else 'done'}."
