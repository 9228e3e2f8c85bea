"""The report says what a batch did and what needs a person."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sprintrunner import report
from sprintrunner.errors import NotFound
from sprintrunner.sprint import BatchState, BatchStatus, CommandStatus, StoryStatus
from sprintrunner.store import Store, Tx

START = 1_700_000_000_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "sprint-runner.db")
    yield opened
    opened.close()


def _batch(tx: Tx, **changes: Any) -> int:
    columns: dict[str, Any] = {
        "started_at": START,
        "ended_at": START + 600_000,
        "max_cycles": 2,
        "cycles_completed": 1,
        "status": BatchStatus.COMPLETED,
        "state": BatchState.ENDED,
    }
    return tx.insert_batch(**columns | changes)


def _story(tx: Tx, batch_id: int, key: str, **changes: Any) -> int:
    columns: dict[str, Any] = {"epic_id": key.split("-")[0], "status": StoryStatus.DONE, "started_at": START}
    return tx.insert_story(batch_id=batch_id, story_key=key, **columns | changes)


def _command(
    tx: Tx, batch_id: int, stories: dict[str, int], command: str, attempt: int, **changes: Any
) -> int:
    columns: dict[str, Any] = {
        "command": command,
        "task_id": command,
        "started_at": START,
        "ended_at": START + 60_000,
        "status": CommandStatus.SUCCEEDED,
        "cost_usd": 0.5,
        "tokens_in": 100,
        "tokens_out": 10,
        "tokens_cache_read": 7,
    }
    return tx.insert_command(
        batch_id=batch_id,
        story_keys=",".join(stories),
        story_ids=list(stories.values()),
        attempt=attempt,
        **columns | changes,
    )


def _review(severity: str) -> dict[str, Any]:
    return {"highest_severity": severity, "findings": [], "summary": ""}


def test_without_a_batch_there_is_nothing_to_report(store: Store) -> None:
    with pytest.raises(NotFound, match="No batch has run"):
        report.build(store)
    with pytest.raises(NotFound, match="no batch 7"):
        report.build(store, 7)


def test_a_pair_shares_the_cost_of_its_common_commands(store: Store) -> None:
    with store.transaction() as tx:
        batch = _batch(tx)
        keys = {key: _story(tx, batch, key) for key in ("1-1-a", "1-2-b")}
        _command(tx, batch, keys, "create-story", 1)
        _command(tx, batch, {"1-1-a": keys["1-1-a"]}, "dev-story", 1, cost_usd=None)
    found = report.build(store)
    assert [story.cost_usd for story in found.stories] == [0.25, 0.25]
    assert (found.cost_usd, found.commands, found.seconds) == (0.5, 2, 600)
    assert found.tokens == report.Tokens(200, 20, 14)


def test_an_unknown_cost_is_not_called_nothing(store: Store) -> None:
    with store.transaction() as tx:
        batch = _batch(tx)
        _command(tx, batch, {"1-1-a": _story(tx, batch, "1-1-a")}, "dev-story", 1, cost_usd=None)
    assert "cost unknown" in "\n".join(report.lines(report.build(store)))


def test_the_verdicts_of_the_reviews_stand_in_order_and_an_invalid_one_claims_nothing(store: Store) -> None:
    with store.transaction() as tx:
        batch = _batch(tx)
        story = {"1-1-a": _story(tx, batch, "1-1-a", commit_sha="a" * 40)}
        _command(tx, batch, story, "code-review", 1, verdict=_review("HIGH"))
        _command(tx, batch, story, "code-review", 2, verdict=_review("NONE"), status=CommandStatus.FAILED)
        _command(tx, batch, story, "code-review", 3, verdict=_review("NONE"))
    found = report.build(store)
    assert [verdict.severity for verdict in found.stories[0].verdicts] == ["HIGH", None, "NONE"]
    assert found.commits == ("a" * 40,)
    assert "reviews: HIGH → failed → NONE" in "\n".join(report.lines(found))


def test_what_needs_a_person_comes_last_with_its_sentence(store: Store) -> None:
    with store.transaction() as tx:
        batch = _batch(tx, status=BatchStatus.LIMIT, reason="the budget of the day is spent")
        _story(tx, batch, "1-1-a", status=StoryStatus.BLOCKED, reason="10 reviews")
    text = report.lines(report.build(store))
    assert text[-3:] == [
        "Needs you:",
        "  1-1-a is blocked: 10 reviews",
        "  The batch was ended by a limit: the budget of the day is spent",
    ]


def test_a_story_that_a_person_has_seen_asks_no_more(store: Store) -> None:
    with store.transaction() as tx:
        batch = _batch(tx)
        _story(tx, batch, "1-1-a", status=StoryStatus.BLOCKED, reason="10 reviews", acknowledged=1)
    assert report.lines(report.build(store))[-1] == "Nothing needs you."


def test_hostile_names_cannot_steer_the_terminal(store: Store) -> None:
    with store.transaction() as tx:
        batch = _batch(tx, reason="\x1b[2Jgone")
        _story(tx, batch, "1-1-\x1b]0;owned\x07", status=StoryStatus.BLOCKED, reason="\x9b31m")
    assert all(line.isprintable() for line in report.lines(report.build(store)))


def test_the_report_as_json_holds_everything(store: Store) -> None:
    with store.transaction() as tx:
        batch = _batch(tx)
        _story(tx, batch, "1-1-a", evidence={"verify": "2 commands passed"})
    value = json.loads(json.dumps(report.build(store, 1).as_json()))
    assert (value["batch_id"], value["status"], value["max_cycles"]) == (1, "completed", 2)
    assert value["stories"][0]["evidence"] == {"verify": "2 commands passed"}
