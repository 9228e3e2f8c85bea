"""Who comes next, where each enters, and when a batch ends."""

from __future__ import annotations

from itertools import product

import pytest

from sprintrunner.scheduler import after_cycle, candidates, choose, entry_phase
from sprintrunner.sprint import (
    BatchStatus,
    Command,
    Entry,
    StoryStatus,
    assign_epics,
    is_startable_key,
    kind_of,
    normalise,
)
from sprintrunner.workflow import ENTRY, PHASES, STATUS_AT, STORY_COMMANDS, reaches


def sprint(*lines: str) -> tuple[Entry, ...]:
    """Entries of ``key: status`` lines."""
    entries = []
    for number, line in enumerate(lines, 1):
        key, raw = line.split(": ")
        kind = kind_of(key)
        status, status_class = normalise(raw, kind)
        entries.append(
            Entry(key, kind, None, raw, status, status_class, number, startable=is_startable_key(key))
        )
    return assign_epics(entries)


def chosen(entries: tuple[Entry, ...], *, order: str = "file", pair: bool = True, **limits) -> list[str]:
    found = candidates(entries, order=order, taken=limits.get("taken", ()), only=limits.get("only"), **{})
    return [entry.key for entry in choose(found, pair=pair)]


PLAN = sprint(
    "epic-1: in-progress",
    "1-1-a: done",
    "1-2-b: backlog",
    "1-3-c: review",
    "epic-1-retrospective: optional",
    "epic-2: backlog",
    "2-1-d: in-progress",
    "2-10-e: ready-for-dev",
    "2-2-f: ready-for-dev",
)


def test_the_file_decides_the_order_and_a_mate_comes_from_the_same_epic() -> None:
    assert chosen(PLAN) == ["1-2-b", "1-3-c"]
    assert chosen(PLAN, pair=False) == ["1-2-b"]
    assert chosen(PLAN, taken={"1-2-b"}) == ["1-3-c"]
    assert chosen(PLAN, taken={"1-2-b", "1-3-c"}) == ["2-1-d", "2-10-e"]


def test_by_status_what_is_furthest_comes_first_then_the_natural_order_of_keys() -> None:
    assert chosen(PLAN, order="status") == ["2-1-d", "2-2-f"]
    listed = candidates(PLAN, order="status", taken=(), only=None)
    assert [e.key for e in listed] == ["2-1-d", "1-3-c", "2-2-f", "2-10-e", "1-2-b"]


def test_only_the_asked_stories_are_candidates() -> None:
    assert chosen(PLAN, only={"2-2-f"}) == ["2-2-f"]
    assert chosen(PLAN, only={"1-1-a"}) == []


def test_epics_and_retrospectives_are_never_started() -> None:
    entries = sprint("epic-1: backlog", "epic-1-retrospective: optional", "epic-1-retro-item-2: backlog")
    assert chosen(entries) == []


@pytest.mark.parametrize(
    "status", ["done", "blocked", "on-hold", "cancelled", "optional", "banana", "deferred", "ready-to-merge"]
)
def test_a_story_that_is_not_open_is_never_started(status: str) -> None:
    assert chosen(sprint("epic-1: backlog", f"1-1-a: {status}")) == []


@pytest.mark.parametrize("key", ["../../etc/passwd", "1-1-a,b", "1-1-" + "x" * 300, "-rf"])
def test_a_key_unfit_for_file_names_is_never_started(key: str) -> None:
    assert chosen(sprint(f"{key}: backlog", "1-1-a: backlog")) == ["1-1-a"]


def test_stories_without_an_epic_are_not_paired() -> None:
    assert chosen(sprint("login: backlog", "logout: backlog")) == ["login"]


def test_nothing_left_is_an_empty_cycle() -> None:
    assert choose([], pair=True) == ()


# where a story enters


def enters(status: StoryStatus, **given: object) -> Command:
    values = {
        "has_file": True,
        "tech_spec": None,
        "created_by_us": False,
        "has_tech_spec": False,
        **given,
    }
    return entry_phase(status, **values)  # type: ignore[arg-type]


def test_each_status_enters_at_its_own_phase() -> None:
    assert enters(StoryStatus.BACKLOG, has_file=False) is Command.CREATE_STORY
    assert enters(StoryStatus.READY_FOR_DEV) is Command.DEV_STORY
    assert enters(StoryStatus.IN_PROGRESS) is Command.DEV_STORY
    assert enters(StoryStatus.REVIEW) is Command.CODE_REVIEW


def test_without_a_file_only_a_story_in_review_goes_on() -> None:
    assert enters(StoryStatus.READY_FOR_DEV, has_file=False) is Command.CREATE_STORY
    assert enters(StoryStatus.IN_PROGRESS, has_file=False) is Command.CREATE_STORY
    assert enters(StoryStatus.REVIEW, has_file=False) is Command.CODE_REVIEW


def test_a_tech_spec_is_made_only_for_a_ready_story_of_ours_that_needs_and_lacks_one() -> None:
    for decision, ours, has in product(("REQUIRED", "SKIP", None), (True, False), (True, False)):
        phase = enters(StoryStatus.READY_FOR_DEV, tech_spec=decision, created_by_us=ours, has_tech_spec=has)
        needed = decision == "REQUIRED" and ours and not has
        assert phase is (Command.CREATE_TECH_SPEC if needed else Command.DEV_STORY)
    begun = enters(StoryStatus.IN_PROGRESS, tech_spec="REQUIRED", created_by_us=True)
    assert begun is Command.DEV_STORY


# how a batch ends


@pytest.mark.parametrize(
    ("stop", "limit", "completed", "cycles", "ended"),
    [
        (False, False, 1, None, None),
        (False, False, 1, 2, None),
        (False, False, 2, 2, BatchStatus.COMPLETED),
        (True, False, 2, 2, BatchStatus.STOPPED),
        (True, True, 2, 2, BatchStatus.STOPPED),
        (False, True, 2, 2, BatchStatus.LIMIT),
    ],
)
def test_a_batch_ends_by_the_first_reason_that_holds(stop, limit, completed, cycles, ended) -> None:
    assert after_cycle(stop_asked=stop, limit=limit, completed=completed, max_cycles=cycles) is ended


# the workflow as data


def test_every_command_is_a_phase_and_every_open_status_an_entry() -> None:
    assert set(PHASES) == set(Command)
    assert set(STATUS_AT) == set(STORY_COMMANDS)
    open_ones = {s for s in StoryStatus if normalise(s)[1] == "open"}
    assert set(ENTRY) == open_ones


def test_an_entry_reaches_itself_and_what_follows() -> None:
    assert reaches(Command.DEV_STORY, Command.DEV_STORY)
    assert reaches(Command.CREATE_STORY, Command.COMMIT)
    assert not reaches(Command.CODE_REVIEW, Command.DEV_STORY)
