"""What the scripted model does: a small story, carried out with the tools that the CLI offers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .mock_api import Answer, Model, Reply, Request, Use

MODULE = '''"""How thirsty a plant is."""


def days_left(interval: int, since: int) -> int:
    """Days until the next watering; negative when it is late."""
    return interval - since
'''
TEST = """import unittest

from windowsill.thirst import days_left


class ThirstTest(unittest.TestCase):
    def test_a_watered_plant_can_wait(self) -> None:
        self.assertEqual(days_left(3, 1), 2)
"""
STORY = """# Story 1.2: Thirst schedule

Status: ready-for-dev

## Story

As a plant owner, I want to know how long each plant can wait, so that none dries out.

## Acceptance Criteria

1. The days that are left come from the interval and the days since the last watering.

## Tasks / Subtasks

- [ ] Count the days that are left (AC: 1)

## Dev Notes

The plants are in `windowsill/plant.py`.

## Dev Agent Record

### Completion Notes List

### File List
"""
CONTEXT = "# Project context\n\nPython 3, standard library, unittest.\n"


def bash(command: str) -> Reply:
    """One shell command."""
    return Reply([Use("Bash", {"command": command, "description": "a step of the work"})])


def answer(**values: Any) -> Reply:
    """The structured output, which ends the run."""
    return Reply([Use("StructuredOutput", values)])


def _write(facts: Mapping[str, Any], path: str, content: str) -> Use:
    return Use("Write", {"file_path": f"{facts['project']['root']}/{path}", "content": content})


def report(facts: Mapping[str, Any], task: str) -> str:
    """The shell command that reports a task, as the prompt asks for it."""
    story = facts["stories"][0]
    told = {"epic_id": story["epic"], "story_id": story["key"], "command": facts["command"]}
    return f"sprintrunner log '{json.dumps({**told, 'task_id': task, 'status': 'start'})}'"


def _context(facts: Mapping[str, Any]) -> list[Reply]:
    path = facts["project"]["context_file"]
    return [Reply([_write(facts, path, CONTEXT)]), answer(summary="Wrote the context.")]


def _create(facts: Mapping[str, Any]) -> list[Reply]:
    stories = facts["stories"]
    return [
        Reply([_write(facts, story["story_file"], STORY) for story in stories]),
        answer(
            stories=[{"key": story["key"], "tech_spec": "SKIP"} for story in stories],
            summary="Wrote the story.",
        ),
    ]


def _discover(facts: Mapping[str, Any]) -> list[Reply]:
    documents = [_write(facts, story["discovery_file"], "# Discovery\n") for story in facts["stories"]]
    return [Reply(documents), answer(summary="Looked around.")]


def _review_document(facts: Mapping[str, Any]) -> list[Reply]:
    path = f"{facts['project']['root']}/{facts['stories'][0]['story_file']}"
    return [
        Reply([Use("Read", {"file_path": path})]),
        answer(critical_issues=False, findings=[], summary="Nothing to change."),
    ]


def _develop(facts: Mapping[str, Any]) -> list[Reply]:
    story = facts["stories"][0]["story_file"]
    return [
        Reply([_write(facts, "windowsill/thirst.py", MODULE), _write(facts, "tests/test_thirst.py", TEST)]),
        bash(f"{report(facts, 'tests')} && python3 -m unittest 2>&1 | tail -3"),
        bash(f"sed -i 's/- \\[ \\]/- [x]/' '{story}'"),
        answer(summary="Built it, the tests are green."),
    ]


def _review_code(facts: Mapping[str, Any]) -> list[Reply]:
    if facts["attempt"] > 1:
        return [answer(highest_severity="NONE", findings=[], summary="Nothing left.")]
    path = f"{facts['project']['root']}/windowsill/thirst.py"
    edit = {"file_path": path, "old_string": "Days until", "new_string": "Whole days until"}
    found = {"severity": "MEDIUM", "title": "The unit is not named", "file": "windowsill/thirst.py"}
    return [
        Reply([Use("Read", {"file_path": path})]),
        Reply([Use("Edit", edit)]),
        answer(highest_severity="MEDIUM", findings=[{**found, "status": "fixed"}], summary="One fixed."),
    ]


_WORK: Mapping[str, Callable[[Mapping[str, Any]], list[Reply]]] = {
    "generate-project-context": _context,
    "create-story": _create,
    "create-story-discovery": _discover,
    "story-review": _review_document,
    "dev-story": _develop,
    "code-review": _review_code,
}


def works(request: Request) -> Reply:
    """The model when all goes well."""
    turns = _WORK[request.command](request.facts)
    return turns[min(request.turn, len(turns) - 1)]


def approves(request: Request) -> Reply:
    """A code review that runs the tests and finds nothing."""
    if request.turn == 0:
        return bash("python3 -m unittest 2>&1 | tail -3")
    return approves_at_once(request)


def approves_at_once(request: Request) -> Reply:
    """A code review that finds nothing, without a look."""
    return answer(highest_severity="NONE", findings=[], summary="Nothing found.")


@dataclass
class Trouble:
    """A review that approves, but for the first ``times`` requests from one turn on."""

    instead: Callable[[], Answer]
    times: int = 1
    turn: int = 1
    otherwise: Model = approves
    #: How often it has struck.
    struck: int = field(default=0, init=False)

    def __call__(self, request: Request) -> Answer:
        """The trouble while it lasts, then the work."""
        if request.turn >= self.turn and self.struck < self.times:
            self.struck += 1
            return self.instead()
        return self.otherwise(request)
