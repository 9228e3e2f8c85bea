"""What the terminal says of an event, and what a run's exit status says of its batch."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from sprintrunner.cli import lines, outcome
from sprintrunner.events import REQUIRED_KEYS, Event, EventType
from sprintrunner.sprint import BatchStatus

COMMAND = {"story_key": "1-1-a,1-2-b", "command": "code-review", "task_id": "code-review"}


def _said(kind: EventType, payload: dict[str, Any]) -> str | None:
    line = lines.of_event(Event(1, kind, 1_700_000_000_000, payload))
    return line and line.split("  ", 1)[1]


@pytest.mark.parametrize(
    ("kind", "payload", "words"),
    [
        (EventType.BATCH_START, {"batch_id": 3, "max_cycles": 1}, "batch 3 starts, for 1 cycle"),
        (
            EventType.BATCH_START,
            {"batch_id": 3, "max_cycles": None},
            "batch 3 starts, until nothing is left to do",
        ),
        (
            EventType.BATCH_END,
            {"batch_id": 3, "cycles_completed": 2, "status": "all_done"},
            "batch 3 ended: all done after 2 cycles",
        ),
        (
            EventType.CYCLE_START,
            {"cycle_number": 1, "story_keys": ["1-1-a", "1-2-b"]},
            "cycle 1: 1-1-a, 1-2-b",
        ),
        (EventType.CYCLE_END, {"cycle_number": 1, "completed_stories": []}, "cycle 1 ended, done: none"),
        (EventType.COMMAND_START, COMMAND | {"attempt": 1}, "1-1-a, 1-2-b  code-review starts"),
        (EventType.COMMAND_START, COMMAND | {"attempt": 2}, "1-1-a, 1-2-b  code-review (attempt 2) starts"),
        (
            EventType.COMMAND_END,
            COMMAND | {"status": "failed", "reason": "no result"},
            "1-1-a, 1-2-b  code-review failed: no result",
        ),
        (
            EventType.STORY_STATUS,
            {"story_key": "1-1-a", "old_status": "review", "new_status": "done"},
            "1-1-a  review → done",
        ),
        (EventType.ERROR, {"type": "agent", "message": "not found"}, "error: not found"),
    ],
)
def test_an_event_that_matters_has_a_line(kind: EventType, payload: dict[str, Any], words: str) -> None:
    assert _said(kind, payload) == words


@pytest.mark.parametrize("kind", [EventType.COMMAND_START, EventType.COMMAND_END])
def test_a_task_inside_a_command_has_none(kind: EventType) -> None:
    assert _said(kind, COMMAND | {"task_id": "tests", "status": "succeeded"}) is None


@pytest.mark.parametrize("kind", list(EventType))
def test_no_event_can_steer_the_terminal(kind: EventType) -> None:
    payload = dict.fromkeys(REQUIRED_KEYS[kind] | {"reason"}, "\x1b[2J\u202e\n\x9b1m")
    numbers = {"cycles_completed": 1, "max_cycles": 1}
    if "task_id" in payload:
        payload["command"] = payload["task_id"]
    line = lines.of_event(
        Event(1, kind, 0, payload | {key: numbers[key] for key in numbers if key in payload})
    )
    assert line is None or line.isprintable()


EXPECTED = {
    BatchStatus.FAILED: 1,
    BatchStatus.STOPPED: 3,
    BatchStatus.INTERRUPTED: 3,
    BatchStatus.LIMIT: 5,
    BatchStatus.COMPLETED: 0,
    BatchStatus.ALL_DONE: 0,
}


@pytest.mark.parametrize(("status", "stories"), list(itertools.product(EXPECTED, ["done", "blocked"])))
def test_the_exit_status_follows_the_order_of_the_contract(status: BatchStatus, stories: str) -> None:
    expected = EXPECTED[status] or (4 if stories == "blocked" else 0)
    assert outcome.exit_status(status, [("1-1-a", "done"), ("1-2-b", stories)]) == expected


def test_a_story_asked_for_by_name_that_cannot_be_done_is_not_success() -> None:
    assert outcome.exit_status(BatchStatus.ALL_DONE, [("1-1-a", "blocked")], ["1-1-a"]) == 4
    assert outcome.exit_status(BatchStatus.ALL_DONE, [], ["1-1-a"]) == 4
    assert outcome.exit_status(BatchStatus.ALL_DONE, [("1-1-a", "done")], ["1-1-a"]) == 0
    assert outcome.exit_status(BatchStatus.COMPLETED, [("1-1-a", "done")], ["1-1-a", "1-2-b"]) == 0
