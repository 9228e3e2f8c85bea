"""The reads are right, and none of them walks through the whole history."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from sprintrunner.errors import StoreError
from sprintrunner.store import Store, Totals, schema

HUGE = 10**23


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Three batches of two stories, each with two commands of its own and one for both."""
    opened = Store.open(tmp_path_factory.mktemp("reads") / "x.db")
    for number in range(1, 4):
        _fill(opened, number)
    yield opened
    opened.close()


def _fill(store: Store, number: int) -> None:
    with store.transaction() as tx:
        batch = tx.insert_batch(started_at=number * 10_000, max_cycles=1)
        tx.append("batch:start", {"batch_id": batch, "max_cycles": 1})
        keys = ["1-1-login", "1-10-logout"]
        ids = [
            tx.insert_story(batch_id=batch, story_key=key, epic_id="1", status="in-progress") for key in keys
        ]
        shared = {
            "batch_id": batch,
            "story_keys": ",".join(keys),
            "command": "create-story",
            "status": "succeeded",
        }
        command = tx.insert_command(**shared, cost_usd=1.0, tokens_in=10, started_at=number, story_ids=ids)
        tx.append("command:start", {**_names(",".join(keys))}, batch_id=batch, command_id=command)
        for key, story in zip(keys, ids, strict=True):
            _fill_story(tx, batch, key, story)
        tx.append("batch:end", {"batch_id": batch, "cycles_completed": 1, "status": "completed"})
        if number < 3:
            tx.update_batch(batch, status="completed", state="ended", ended_at=number * 10_000 + 4_500)


def _names(key: str) -> dict[str, str]:
    return {"story_key": key, "command": "dev-story", "task_id": "dev-story"}


def _fill_story(tx: Any, batch: int, key: str, story: int) -> None:
    for attempt in (1, 2):
        command = tx.insert_command(
            batch_id=batch,
            story_id=story,
            story_keys=key,
            command="dev-story",
            attempt=attempt,
            status="running" if batch == 3 and attempt == 2 else "failed",
            cost_usd=0.5 if attempt == 1 else None,
            tokens_out=7,
            tokens_cache_read=3,
            tokens_cache_write=1,
            story_ids=[story],
        )
        tx.append("command:start", _names(key), batch_id=batch, story_id=story, command_id=command)


def test_the_history_is_told_newest_first_and_in_parts(store: Store) -> None:
    assert [row.id for row in store.batches()] == [3, 2, 1]
    assert [row.id for row in store.batches(limit=1, offset=1)] == [2]
    assert store.batches(limit=0) == store.batches(limit=-1) == store.batches(5, 99) == []
    assert store.count_batches() == 3


def test_the_live_and_the_latest_batch_are_found(store: Store) -> None:
    live, latest = store.live_batch(), store.latest_batch()
    assert live == latest and live is not None and live.id == 3


def test_a_story_is_found_in_each_batch_and_by_its_whole_key(store: Store) -> None:
    assert [row.batch_id for row in store.story_history("1-1-login")] == [1, 2, 3]
    assert store.story_history("1-1") == []
    latest = store.latest_record("1-1-login")
    assert latest is not None and latest == store.story(latest.id) == store.story_record(3, "1-1-login")
    assert {key: row.batch_id for key, row in store.latest_records().items()} == {
        "1-1-login": 3,
        "1-10-logout": 3,
    }


def test_a_command_for_two_stories_is_listed_under_both(store: Store) -> None:
    for key in ("1-1-login", "1-10-logout"):
        found = [(row.batch_id, row.command, row.attempt) for row in store.commands_of_story(key)]
        one = [("create-story", 1), ("dev-story", 1), ("dev-story", 2)]
        assert found == [(batch, *what) for batch in (1, 2, 3) for what in one]
    assert store.keys_of(store.commands(1)[0].id) == ["1-1-login", "1-10-logout"]


def test_running_commands_are_found(store: Store) -> None:
    assert [(row.batch_id, row.attempt) for row in store.running_commands()] == [(3, 2), (3, 2)]


def test_events_follow_a_cursor_without_gap(store: Store) -> None:
    everything = store.events_after(0)
    assert [event.id for event in everything] == list(range(1, store.last_event_id() + 1))
    assert store.events_after(5, limit=3) == everything[5:8]
    mine = store.events_after(0, batch_id=2)
    assert mine and store.last_events(4, batch_id=2) == mine[-4:]
    assert store.last_events(4) == everything[-4:]
    assert store.count_events(2) == len(mine) == sum(store.event_counts(2).values())
    assert store.event_counts(2)["command:start"] == 5
    assert store.count_events() == len(everything)


def test_the_sums_of_a_batch_leave_unknown_costs_out(store: Store) -> None:
    totals = store.batch_totals(1)
    assert totals == Totals(2.0, 10, 28, 16, 5, 2, 4.5)
    assert store.totals_of([1, 2, 99]) == {1: totals, 2: totals}
    assert store.batch_totals(99) == Totals()
    assert store.story_costs(1) == {"1-1-login": 1.0, "1-10-logout": 1.0}


def test_a_cost_nobody_told_is_none_not_nothing(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "x.db")
    with store.transaction() as tx:
        batch = tx.insert_batch(started_at=Store.now() + 3_600_000)
        tx.insert_command(batch_id=batch, command="dev-story")
    totals = store.batch_totals(batch)
    assert totals.cost_usd is None and store.cost_since(0) is None
    assert totals.seconds == 0, "a clock that was set back does not make a negative duration"
    store.close()


def test_the_cost_of_a_day_counts_from_its_first_moment(store: Store) -> None:
    assert store.cost_since(2) == 3 * 2.0 - 1.0
    assert store.cost_since(Store.now() + 10_000) is None


def test_numbers_no_database_can_hold_name_nothing(store: Store) -> None:
    for number in (HUGE, -HUGE, 2**63, 0, -1):
        nothing = [
            store.batch(number), store.story(number), store.command(number), store.story_record(number, "k"),
        ]  # fmt: skip
        assert nothing == [None] * 4
        assert store.stories(number) == store.commands(number) == store.findings(number) == []
        assert store.finding_rounds(number) == store.background_tasks(number) == store.keys_of(number) == []
        assert store.events_after(0, batch_id=number) == store.last_events(5, batch_id=number) == []
        assert store.count_events(number) == 0 and store.event_counts(number) == {}
        assert store.batch_totals(number) == Totals()
    assert store.events_after(HUGE) == [] and store.events_after(2**63 - 1) == []
    assert len(store.events_after(-HUGE, limit=HUGE)) == store.last_event_id()
    assert store.batches(HUGE, HUGE) == []
    with pytest.raises(StoreError):
        store.cost_since(HUGE)


def test_an_answer_is_one_state_even_while_others_write(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "x.db")
    with store.transaction() as tx:
        batch = tx.insert_batch()
    ended = threading.Event()

    def write() -> None:
        number = 0
        while not ended.is_set():
            number += 1
            with store.transaction() as tx:
                story = tx.insert_story(batch_id=batch, story_key=str(number), status="backlog")
                tx.insert_command(batch_id=batch, command="x", attempt=number, story_ids=[story])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = [store.batch_totals(batch) for _ in range(60)]
    finally:
        ended.set()
        writer.join()
    store.close()
    assert all(totals.stories == totals.commands for totals in seen)
    assert seen[-1].commands > seen[0].commands


@contextmanager
def statements(store: Store) -> Iterator[list[tuple[str, Any]]]:
    """All that the reads of this block ask the database."""
    asked: list[tuple[str, Any]] = []
    engine = store._connections().reader

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, *_rest: Any) -> None:
        if statement.startswith("SELECT"):
            asked.append((statement, values))

    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        yield asked
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)


READS: dict[str, Callable[[Store], Any]] = {
    "batch": lambda store: store.batch(1),
    "live_batch": lambda store: store.live_batch(),
    "stories": lambda store: store.stories(1),
    "story": lambda store: store.story(1),
    "story_record": lambda store: store.story_record(1, "1-1-login"),
    "story_history": lambda store: store.story_history("1-1-login"),
    "latest_record": lambda store: store.latest_record("1-1-login"),
    "command": lambda store: store.command(1),
    "commands": lambda store: store.commands(1),
    "commands_of_story": lambda store: store.commands_of_story("1-1-login"),
    "running_commands": lambda store: store.running_commands(),
    "events_after": lambda store: store.events_after(store.last_event_id()),
    "events_after of a batch": lambda store: store.events_after(3, batch_id=1),
    "last_events of a batch": lambda store: store.last_events(50, batch_id=1),
    "last_event_id": lambda store: store.last_event_id(),
    "count_events of a batch": lambda store: store.count_events(1),
    "event_counts": lambda store: store.event_counts(1),
    "findings": lambda store: store.findings(1),
    "finding_rounds": lambda store: store.finding_rounds(1),
    "background_tasks": lambda store: store.background_tasks(1),
    "totals_of": lambda store: store.totals_of([1, 2]),
    "cost_since": lambda store: store.cost_since(1),
}


@pytest.mark.parametrize("name", READS)
def test_a_read_goes_through_an_index(store: Store, name: str) -> None:
    with statements(store) as asked:
        READS[name](store)
    assert asked
    with store._reading() as connection:
        for statement, values in asked:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all()
            steps = [row[3] for row in plan if row[3].startswith(("SCAN", "SEARCH", "USE TEMP"))]
            scans = [step for step in steps if step.startswith("SCAN") and "one_running_batch" not in step]
            # ``max(id)`` is told as a search, a partial index over the running ones as a scan of it alone.
            assert [step for step in scans if "commands_running" not in step] == [], steps


def test_the_newest_row_of_every_story_is_found_in_the_index_of_keys(store: Store) -> None:
    with statements(store) as asked:
        store.latest_records()
    with store._reading() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {asked[0][0]}", asked[0][1]).all()
    told = " | ".join(row[3] for row in plan)
    assert "USING COVERING INDEX stories_by_key" in told and "USING INTEGER PRIMARY KEY" in told


def test_every_foreign_key_of_a_hot_table_has_an_index() -> None:
    for table in ("stories", "commands", "command_stories", "findings"):
        found = schema.metadata.tables[table]
        first = {next(iter(index.columns)).name for index in found.indexes}
        first |= {next(iter(rule.columns)).name for rule in found.constraints if len(rule.columns) > 1}  # type: ignore[attr-defined]
        for key in found.foreign_keys:
            assert key.parent.name in first, f"{table}.{key.parent.name}"
