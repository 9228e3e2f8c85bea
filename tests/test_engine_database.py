"""A database that takes nothing: what runs is ended in order, nothing begins, and it goes on (R11)."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engine import FIRST, Engine, engine_in, statuses, until

from sprintrunner.errors import SprintRunnerError, StoreUnavailable
from sprintrunner.sprint import BatchStatus


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with engine_in(tmp_path, statuses=statuses(first="ready-for-dev")) as made:
        made.env(REHEARSAL_FAULT="hang@dev-story:1")
        yield made


def in_development(engine: Engine) -> int:
    batch_id = engine.start(FIRST)
    until(lambda: engine.ran("dev-story"))
    return batch_id


def take_away(engine: Engine) -> Callable[[], Any]:
    """Put another file in the place of the database; returns what puts it back."""
    path = engine.live.store.path
    kept = path.with_name("kept.db")
    path.rename(kept)
    path.write_text("not the database")
    return lambda: kept.replace(path)


def test_a_batch_goes_on_when_the_database_takes_records_again(engine: Engine) -> None:
    batch_id = in_development(engine)
    give_back = take_away(engine)
    until(lambda: engine.live.store.trouble)
    until(lambda: not [run for run in engine.runs() if Path(f"/proc/{run['pid']}").exists()])
    with pytest.raises(SprintRunnerError):
        engine.submit("start", batch_size=1)
    give_back()
    row = until(lambda: (r := engine.live.store.batch(batch_id)) and r.status == BatchStatus.ALL_DONE and r)
    assert row.resume_count == 0  # a verdict came
    assert "takes records again" in engine.warnings(batch_id)
    assert [c.status for c in engine.commands(batch_id, "dev-story")] == ["interrupted", "succeeded"]
    assert engine.raw_status(FIRST) == "done"


def test_a_stop_that_is_asked_meanwhile_holds(engine: Engine) -> None:
    batch_id = in_development(engine)
    give_back = take_away(engine)
    until(lambda: engine.live.store.trouble)
    assert engine.submit("stop")["status"] == "stopping"
    give_back()
    row = until(lambda: (r := engine.live.store.batch(batch_id)) and r.ended_at and r)
    assert row.status == BatchStatus.STOPPED
    until(lambda: not engine.live.store.trouble)
    assert engine.ran("dev-story") == 1


def test_the_server_can_end_although_the_database_stays_away(engine: Engine) -> None:
    batch_id = in_development(engine)
    give_back = take_away(engine)
    until(lambda: engine.live.store.trouble)
    began = time.monotonic()
    engine.close()
    assert time.monotonic() - began < 10
    give_back()
    engine.env(REHEARSAL_FAULT="")
    engine.open()
    row = until(lambda: (r := engine.live.store.batch(batch_id)) and r.ended_at and r)
    assert row.status == BatchStatus.ALL_DONE
    assert engine.raw_status(FIRST) == "done"


def test_trouble_without_a_batch_is_over_as_soon_as_a_write_is_taken(engine: Engine) -> None:
    store = engine.live.store
    give_back = take_away(engine)
    with pytest.raises(StoreUnavailable), store.transaction():
        pass
    assert store.trouble
    give_back()
    until(lambda: not store.trouble)
    store.check()


def test_a_restored_backup_is_said_and_nothing_of_it_goes_on_by_itself(engine: Engine) -> None:
    batch_id = in_development(engine)
    engine.live.store.backup(engine.state / "backups")
    path = engine.live.store.path
    engine.submit("stop")
    engine.wait(batch_id)
    engine.close()
    path.write_bytes(b"spoiled " * 4000)
    engine.open()
    assert "restored" in engine.live.store.notice
    row = engine.live.store.batch(batch_id)
    assert row is not None and row.status == BatchStatus.INTERRUPTED
    told = [p["message"] for p in engine.payloads(batch_id, "error")]
    assert told == [engine.live.store.notice]
    assert engine.ran("dev-story") == 1


def test_a_run_in_the_terminal_says_it_and_goes_on_too(engine: Engine) -> None:
    words = [sys.executable, "-P", "-m", "sprintrunner", "--project", str(engine.root), "run", "1"]
    with subprocess.Popen(
        [*words, "--story", FIRST], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as running:
        until(lambda: engine.ran("dev-story"))
        path = engine.state / "sprint-runner.db"
        kept = path.rename(path.with_name("kept.db"))
        path.write_text("not the database")
        agent = engine.runs()[-1]["pid"]
        until(lambda: not Path(f"/proc/{agent}").exists())
        kept.replace(path)
        told, _ = running.communicate(timeout=120)
    assert running.returncode == 0, told.decode()
    assert b"deleted or replaced" in told
    assert engine.raw_status(FIRST) == "done"
