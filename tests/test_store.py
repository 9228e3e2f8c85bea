"""The store keeps what it was given, whole or not at all, and refuses what may not stand in it."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sprintrunner.errors import Conflict, InvalidEvent, InvalidStatus, StoreError
from sprintrunner.sprint import BatchState, BatchStatus, CommandStatus, StoryStatus
from sprintrunner.store import Store, Tx, schema


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "state" / "sprint-runner.db")
    yield opened
    opened.close()


def raw(store: Store) -> sqlite3.Connection:
    """A connection as any other program would open it."""
    connection = sqlite3.connect(store.path, isolation_level=None)
    connection.execute("PRAGMA foreign_keys=ON")
    return connection


def a_batch(store: Store, **columns: object) -> int:
    with store.transaction() as tx:
        return tx.insert_batch(**columns)


def a_story(store: Store, batch: int, key: str = "1-1-login", status: str = "backlog") -> int:
    with store.transaction() as tx:
        return tx.insert_story(batch_id=batch, story_key=key, epic_id=key.split("-")[0], status=status)


def test_a_row_comes_back_as_it_was_given(store: Store) -> None:
    with store.transaction() as tx:
        batch = tx.insert_batch(
            max_cycles=None, requested=["1-1-a"], left_paths={"ä.py": "00ff"}, stop_after_story=True
        )
        story = tx.insert_story(batch_id=batch, story_key="1-1-a", epic_id="1", status=StoryStatus.REVIEW)
        command = tx.insert_command(
            batch_id=batch,
            story_id=story,
            story_keys="1-1-a",
            command="code-review",
            attempt=3,
            cost_usd=0.25,
            verdict={"highest_severity": "NONE"},
            story_ids=[story],
        )
    row = store.batch(batch)
    assert row is not None
    assert (row.max_cycles, row.requested, row.left_paths) == (None, ["1-1-a"], {"ä.py": "00ff"})
    assert (row.status, row.state, row.stop_after_story) == (BatchStatus.RUNNING, BatchState.STARTING, True)
    found = store.command(command)
    assert found is not None
    assert (found.task_id, found.status, found.counted, found.cost_usd, found.tokens_in) == (
        "code-review",
        CommandStatus.RUNNING,
        True,
        0.25,
        None,
    )
    assert found.verdict == {"highest_severity": "NONE"}
    assert store.commands_of_story("1-1-a") == [found]
    assert store.running_commands() == store.commands_running() == [found]


def test_times_are_milliseconds_of_now(store: Store) -> None:
    before = Store.now()
    row = store.batch(a_batch(store))
    assert row is not None and before <= row.started_at <= Store.now()
    assert before > 1_600_000_000_000


def test_an_illegal_story_status_is_refused_with_the_seven_legal_ones(store: Store) -> None:
    batch = a_batch(store)
    with pytest.raises(InvalidStatus) as refused:
        a_story(store, batch, status="finished")
    assert all(str(status) in str(refused.value) for status in StoryStatus)
    story = a_story(store, batch)
    with pytest.raises(InvalidStatus), store.transaction() as tx:
        tx.update_story(story, status="")
    with pytest.raises(InvalidStatus), store.transaction() as tx:
        tx.update_story(story, status=None)
    assert [row.status for row in store.stories(batch)] == ["backlog"]


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO batches (started_at, status) VALUES (1, 'busy')",
        "INSERT INTO stories (batch_id, story_key, epic_id, status) VALUES (1, 'k', '1', 'finished')",
        "INSERT INTO stories (batch_id, story_key, epic_id, status) VALUES (1, 'k', '1', NULL)",
        "INSERT INTO stories (batch_id, story_key, epic_id, status) VALUES (99, 'k', '1', 'done')",
        "INSERT INTO stories (batch_id, story_key, epic_id, status) VALUES ('x', 'k', '1', 'done')",
        "INSERT INTO commands (batch_id, command, task_id, started_at, status) VALUES (1, 'c', 't', 1, 'ok')",
        "INSERT INTO commands (batch_id, command, task_id, started_at, attempt) VALUES (1, 'c', 't', 1, 'x')",
        "INSERT INTO events (batch_id, timestamp, event_type) VALUES (1, 1, 'batch:paused')",
        "INSERT INTO events (batch_id, timestamp, event_type) VALUES (1, 1, 'pong')",
        "INSERT INTO events (batch_id, timestamp) VALUES (1, 1)",
        "INSERT INTO events (batch_id, timestamp, event_type) VALUES (99, 1, 'error')",
        "INSERT INTO events (story_id, timestamp, event_type) VALUES (99, 1, 'error')",
        "INSERT INTO events (command_id, timestamp, event_type) VALUES (99, 1, 'error')",
        "INSERT INTO events (timestamp, event_type) VALUES ('noon', 'error')",
        "INSERT INTO background_tasks (batch_id, task_type, spawned_at, status) VALUES (1, 't', 1, 'odd')",
    ],
)
def test_the_database_itself_refuses(store: Store, statement: str) -> None:
    a_batch(store)
    connection = raw(store)
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(
    "columns",
    [
        {"max_cycles": "2"},
        {"max_cycles": True},
        {"max_cycles": 2.5},
        {"max_cycles": 2**70},
        {"stop_after_story": "yes"},
        {"stop_after_story": 2},
        {"agent": 7},
        {"status": "busy"},
        {"colour": "red"},
    ],
)
def test_a_value_of_the_wrong_type_is_refused(store: Store, columns: dict[str, object]) -> None:
    with pytest.raises((StoreError, InvalidStatus)):
        a_batch(store, **columns)
    assert store.count_batches() == 0


def test_events_point_to_batches_stories_and_commands(store: Store) -> None:
    connection = raw(store)
    targets = {row[2] for row in connection.execute("PRAGMA foreign_key_list(events)")}
    columns = {row[1]: row for row in connection.execute("PRAGMA table_info(events)")}
    connection.close()
    assert targets == {"batches", "stories", "commands"}
    assert columns["event_type"][3] == 1


def test_the_columns_of_the_first_version_are_there(store: Store) -> None:
    wanted = {
        "batches": "id started_at ended_at max_cycles cycles_completed status",
        "stories": "id batch_id story_key epic_id status started_at ended_at",
        "commands": "id story_id command task_id started_at ended_at status output_summary",
        "events": "id batch_id story_id command_id timestamp event_type epic_id story_key command task_id "
        "status message",
        "background_tasks": "id batch_id story_key task_type spawned_at completed_at status",
    }
    for table, names in wanted.items():
        assert set(names.split()) <= set(schema.metadata.tables[table].columns.keys())


def test_only_one_batch_runs(store: Store) -> None:
    first = a_batch(store)
    with pytest.raises(Conflict, match="A batch is already running for this project"):
        a_batch(store)
    with store.transaction() as tx:
        tx.update_batch(first, status="stopped", ended_at=Store.now())
    second = a_batch(store)
    with pytest.raises(Conflict), store.transaction() as tx:
        tx.update_batch(first, status="running")
    live = store.live_batch()
    assert live is not None and live.id == second


def test_of_fifty_threads_that_start_a_batch_one_wins(store: Store) -> None:
    gate, answers = threading.Barrier(50), []

    def start() -> None:
        gate.wait()
        try:
            answers.append(a_batch(store))
        except Conflict as refused:
            answers.append(str(refused))

    threads = [threading.Thread(target=start) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([answer for answer in answers if isinstance(answer, int)]) == 1
    assert answers.count("A batch is already running for this project") == 49


def test_a_transaction_that_raises_leaves_nothing(store: Store) -> None:
    woken: list[int] = []
    store.listen(lambda: woken.append(1))
    with pytest.raises(ZeroDivisionError), store.transaction() as tx:
        batch = tx.insert_batch()
        tx.append("batch:start", {"batch_id": batch, "max_cycles": None})
        raise ZeroDivisionError
    assert (store.count_batches(), store.last_event_id(), woken) == (0, 0, [])


def test_a_refusal_that_the_caller_swallowed_still_spoils_the_transaction(store: Store) -> None:
    def half(tx: Tx) -> None:
        tx.insert_batch()
        with pytest.raises(Conflict):
            tx.insert_batch()

    with pytest.raises(StoreError, match="nothing was recorded"), store.transaction() as tx:
        half(tx)
    assert store.count_batches() == 0


def test_transactions_do_not_nest_and_do_not_hang(store: Store) -> None:
    with store.transaction(), pytest.raises(StoreError, match="nest"), store.transaction():
        pass
    a_batch(store)


def test_an_update_of_a_row_that_is_not_there_is_an_error(store: Store) -> None:
    for name in ("batch", "story", "command", "background_task"):
        with pytest.raises(StoreError, match="has no row 7"), store.transaction() as tx:
            getattr(tx, f"update_{name}")(7, status="done" if name == "story" else "failed")


def test_a_story_enters_a_batch_once_and_an_attempt_is_unique(store: Store) -> None:
    batch = a_batch(store)
    story = a_story(store, batch)
    with pytest.raises(StoreError):
        a_story(store, batch)
    attempt = {"batch_id": batch, "story_id": story, "story_keys": "1-1-login", "command": "dev-story"}
    with store.transaction() as tx:
        tx.insert_command(**attempt)
    with pytest.raises(StoreError), store.transaction() as tx:
        tx.insert_command(**attempt)
    with store.transaction() as tx:
        tx.insert_command(**attempt, attempt=2)


def test_listeners_are_woken_after_the_commit_and_only_for_events(store: Store) -> None:
    seen: list[int] = []
    store.listen(lambda: seen.append(store.last_event_id()))
    a_batch(store)
    assert seen == []
    with store.transaction() as tx:
        number = tx.append("batch:warning", {"batch_id": 1, "warning": "w"})
        assert seen == []
    assert seen == [number]


def test_a_listener_that_fails_or_writes_harms_nobody(store: Store) -> None:
    def fails() -> None:
        raise RuntimeError("not my day")

    written: list[int] = []

    def writes() -> None:
        if not written:
            written.append(0)
            with store.transaction() as tx:
                written.append(tx.append("batch:warning", {"batch_id": 1, "warning": "from a listener"}))

    a_batch(store)
    store.listen(fails)
    store.listen(writes)
    with store.transaction() as tx:
        tx.append("batch:warning", {"batch_id": 1, "warning": "w"})
    assert written == [0, 2] and store.last_event_id() == 2


def test_an_event_is_checked_against_the_table_of_types(store: Store) -> None:
    a_batch(store)
    for kind, payload in [
        ("batch:start", {"batch_id": 1}),
        ("batch:paused", {"batch_id": 1}),
        ("pong", {}),
    ]:
        with pytest.raises(InvalidEvent), store.transaction() as tx:
            tx.append(kind, payload)
    with pytest.raises(StoreError, match="nothing was recorded"), store.transaction() as tx:
        tx.append("batch:warning", {"batch_id": 1, "warning": "w"})
        with pytest.raises(InvalidEvent):
            tx.append("batch:warning", {})
    assert store.last_event_id() == 0


def test_the_flat_columns_of_an_event_come_from_its_payload(store: Store) -> None:
    batch = a_batch(store)
    story = a_story(store, batch)
    payload = {
        "story_key": "1-1-login",
        "command": "dev-story",
        "task_id": "tests",
        "status": "start",
        "message": "running pytest",
        "epic_id": "1",
    }
    with store.transaction() as tx:
        tx.append("command:progress", payload, batch_id=batch, story_id=story)
        tx.append("story:status", {"story_key": "1-1-login", "old_status": "review", "new_status": "done"})
        tx.append("cycle:start", {"cycle_number": 1, "story_keys": ["1-1-a", "1-2-b"]})
    connection = raw(store)
    names = "batch_id, story_id, event_type, epic_id, story_key, command, task_id, status, message"
    found = connection.execute(f"SELECT {names} FROM events ORDER BY id").fetchall()
    connection.close()
    assert found[0] == (
        batch, story, "command:progress", "1", "1-1-login", "dev-story", "tests", "start", "running pytest",
    )  # fmt: skip
    assert (found[1][4], found[1][7]) == ("1-1-login", "done")
    assert found[2][4] == "1-1-a,1-2-b"
    assert store.events_after(0)[0].payload == payload


def test_event_ids_are_never_used_again(store: Store) -> None:
    a_batch(store)
    with store.transaction() as tx:
        last = [tx.append("batch:warning", {"batch_id": 1, "warning": "w"}) for _ in range(3)][-1]
    connection = raw(store)
    connection.execute("DELETE FROM events")
    connection.close()
    with store.transaction() as tx:
        assert tx.append("batch:warning", {"batch_id": 1, "warning": "w"}) == last + 1


def test_a_payload_of_ten_megabytes_is_cut_with_a_marker(store: Store) -> None:
    a_batch(store)
    with store.transaction() as tx:
        tx.append("batch:warning", {"batch_id": 1, "warning": "ö" * 10_000_000, "more": list(range(10**5))})
    payload = store.events_after(0)[0].payload
    assert payload["warning"].startswith("öö") and "characters cut" in payload["warning"]
    assert payload["truncated"] is True and payload["batch_id"] == 1
    assert len(json.dumps(payload, ensure_ascii=False).encode()) <= schema.PAYLOAD_LIMIT + 64


def test_a_payload_that_no_cut_makes_small_keeps_the_keys_that_must_be_there(store: Store) -> None:
    with store.transaction() as tx:
        wide = {f"key {number}": "x" * 100 for number in range(50_000)}
        deep = {str(number): {str(inner): ["y" * 60] * 12 for inner in range(12)} for number in range(12)}
        payload = {"cycle_number": 7, "story_keys": {"a": deep, "b": deep}, **wide, "c": deep, "d": deep}
        tx.append("cycle:start", payload)
    found = store.events_after(0)[0].payload
    assert found["cycle_number"] == 7 and found["truncated"] is True and "story_keys" in found


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None))
    | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec=None)), inner),
    max_leaves=30,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(warning=_JSON, extra=st.dictionaries(st.text(st.characters(codec=None)), _JSON, max_size=5))
def test_whatever_a_payload_holds_it_is_stored_and_read_back_as_json(
    store: Store, warning: object, extra: dict[str, object]
) -> None:
    payload = {**extra, "batch_id": None, "warning": warning}
    with store.transaction() as tx:
        number = tx.append("batch:warning", payload)
    event = store.events_after(number - 1)[0]
    assert event.id == number and "warning" in event.payload
    text = json.dumps(event.as_json(), allow_nan=False, ensure_ascii=False)
    assert text.encode("utf-8") and "\\u0000" not in text


def test_text_that_utf_8_cannot_hold_is_mended_in_every_column(store: Store) -> None:
    batch = a_batch(store, reason="a\x00b\ud800c")
    row = store.batch(batch)
    assert row is not None and row.reason == "a\ufffdb\ufffdc"
    assert store.latest_record("\ud800") is None
    assert store.commands_of_story("\x00") == []


def test_findings_are_kept_once_and_their_rounds_in_order(store: Store) -> None:
    batch = a_batch(store)
    story = a_story(store, batch)
    with store.transaction() as tx:
        command = tx.insert_command(batch_id=batch, story_keys="1-1-login", command="code-review")
        first = tx.upsert_finding(story, "a", severity="HIGH", title="t", line=3)
        assert tx.upsert_finding(story, "a", severity="LOW", status="fixed", seen=2) == first
        tx.add_finding_round(first, command, "open")
        tx.add_finding_round(first, command, "fixed")
    [finding] = store.findings(story)
    assert (finding.severity, finding.status, finding.seen, finding.line) == ("LOW", "fixed", 2, 3)
    assert [(told.command_id, told.status) for told in store.finding_rounds(story)] == [(command, "fixed")]
    with pytest.raises(InvalidStatus), store.transaction() as tx:
        tx.upsert_finding(story, "b", severity="AWFUL")


def test_background_tasks_are_kept(store: Store) -> None:
    batch = a_batch(store)
    with store.transaction() as tx:
        task = tx.insert_background_task(batch_id=batch, task_type="story-review", story_key="1-1-a")
        tx.update_background_task(task, status="succeeded", completed_at=Store.now())
    [row] = store.background_tasks(batch)
    assert (row.task_type, row.status) == ("story-review", CommandStatus.SUCCEEDED)


def test_the_file_belongs_to_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.db"
    store = Store.open(path)
    a_batch(store)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    store.close()
    assert set(modes.values()) == {0o600} and "x.db-wal" in modes
    path.chmod(0o664)
    Store.open(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_pragmas_are_those_that_were_chosen(store: Store) -> None:
    names = ["journal_mode", "synchronous", "foreign_keys", "busy_timeout", "trusted_schema", "query_only"]
    with store.transaction() as tx:
        found = {name: tx._connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names}
    assert found == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 5000,
        "trusted_schema": 0,
        "query_only": 0,
    }
    with store._reading() as connection:
        assert connection.exec_driver_sql("PRAGMA query_only").scalar() == 1
        assert connection.exec_driver_sql("PRAGMA wal_autocheckpoint").scalar() == 0
        with pytest.raises(sa.exc.OperationalError):
            connection.exec_driver_sql("DELETE FROM events")


def test_a_transaction_holds_the_write_lock_from_its_start(store: Store) -> None:
    other = raw(store)
    other.execute("PRAGMA busy_timeout=0")
    with store.transaction(), pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("BEGIN IMMEDIATE")
    other.execute("BEGIN IMMEDIATE")
    other.close()


def test_no_connection_crosses_a_fork(store: Store) -> None:
    a_batch(store)
    mine = store._connections()
    with mine.lock:  # the child must not wait for a lock that only the parent could release
        child = os.fork()
        if child == 0:
            code = 1
            try:
                with store.transaction() as tx:
                    tx.append("batch:warning", {"batch_id": 1, "warning": "from a child"})
                code = 0 if store._connections() is not mine and store.count_batches() == 1 else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store._connections() is mine
    assert [event.payload["warning"] for event in store.events_after(0)] == ["from a child"]
    with store.transaction() as tx:
        assert tx.append("batch:warning", {"batch_id": 1, "warning": "from the parent"}) == 2


def test_no_other_module_opens_the_database(repository: Path) -> None:
    package = repository / "sprintrunner"
    for source in package.rglob("*.py"):
        if "store" not in source.relative_to(package).parts:
            text = source.read_text(encoding="utf-8")
            assert "sqlite3.connect" not in text and "create_engine" not in text, source


def test_what_must_not_be_stored_is_taken_out_at_the_door(store: Store) -> None:
    store.scrub = lambda text: text.replace("s3cret", "[x]")
    with store.transaction() as tx:
        batch = tx.insert_batch(branch="s3cret", reason="the s3cret")
        story = tx.insert_story(
            batch_id=batch, story_key="s3cret", status="backlog", evidence={"s3cret": ["a s3cret"]}
        )
        for _ in range(2):
            tx.upsert_finding(story, "id s3cret", severity="LOW", title="t s3cret")
        warning = {"batch_id": batch, "warning": "w s3cret", "more": [{"s3cret": "s3cret"}]}
        event = tx.append("batch:warning", warning)
    row, found = store.batch(batch), store.story(story)
    assert row is not None and found is not None
    # Names are compared with the outside, and stay as they are.
    assert (row.branch, row.reason, found.story_key) == ("s3cret", "the [x]", "s3cret")
    assert found.evidence == {"[x]": ["a [x]"]}
    assert [(one.identity, one.title) for one in store.findings(story)] == [("id [x]", "t [x]")]
    payload = store.events_after(event - 1)[0].payload
    assert payload["warning"] == "w [x]" and payload["more"] == [{"[x]": "[x]"}]
