"""The daily backup: when it is due, and that the deletion of what is old is left to idle hours."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sprintrunner import housekeeping, retention
from sprintrunner.housekeeping import Housekeeper
from sprintrunner.store import Store

DAY = 86_400


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "sprint-runner.db")
    yield opened
    opened.close()


def batch(store: Store, status: str = "completed", days_ago: float = 0) -> int:
    ended = store.now() - int(days_ago * DAY * 1000)
    with store.transaction() as tx:
        number = tx.insert_batch(
            status=status, started_at=ended, ended_at=None if status == "running" else ended
        )
        tx.append("batch:warning", {"batch_id": number, "warning": "w"})
    return number


def backups(store: Store) -> list[Path]:
    return sorted((store.path.parent / "backups").glob("*.db"))


def age(path: Path, days: float) -> None:
    then = time.time() - days * DAY
    os.utime(path, (then, then))


def look(store: Store) -> None:
    Housekeeper(store, store.path.parent).look()


def test_an_empty_database_is_not_copied(store: Store) -> None:
    look(store)
    assert backups(store) == []


def test_there_is_one_copy_a_day(store: Store) -> None:
    batch(store)
    look(store)
    look(store)
    assert len(backups(store)) == 1
    age(backups(store)[0], 1.1)
    look(store)
    assert len(backups(store)) == 2


def test_a_live_batch_puts_the_copy_off_for_a_day_and_no_longer(store: Store) -> None:
    batch(store, "running")
    look(store)
    assert backups(store) == []
    age(store.backup(store.path.parent / "backups"), 1.5)
    look(store)
    assert len(backups(store)) == 1
    age(backups(store)[0], 2.1)
    look(store)
    assert len(backups(store)) == 2


def test_what_is_old_goes_too(store: Store) -> None:
    old, new = batch(store, days_ago=retention.KEEP_DAYS + 1), batch(store)
    look(store)
    assert (store.count_events(old), store.count_events(new)) == (0, 1)


def test_nothing_is_deleted_while_a_batch_is_live(store: Store) -> None:
    old = batch(store, days_ago=retention.KEEP_DAYS + 1)
    batch(store)
    batch(store, "running")
    look(store)
    assert store.count_events(old) == 1


def test_it_works_in_a_thread_of_its_own_and_can_be_stopped_twice(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "_FIRST_LOOK", 0.01)
    batch(store)
    keeper = Housekeeper(store, store.path.parent)
    keeper.start()
    limit = time.monotonic() + 10
    while not backups(store) and time.monotonic() < limit:
        time.sleep(0.01)
    keeper.stop()
    keeper.stop()
    assert backups(store)


def test_trouble_with_the_copy_is_told_on_the_pages_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "_FIRST_LOOK", 0.01)
    monkeypatch.setattr(housekeeping, "_EACH", 0.01)
    batch(store)
    (store.path.parent / "backups").write_text("in the way")
    keeper = Housekeeper(store, store.path.parent)
    looks: list[float] = []
    look = keeper.look
    monkeypatch.setattr(keeper, "look", lambda: (looks.append(0), look()))
    keeper.start()
    limit = time.monotonic() + 10
    while len(looks) < 4 and time.monotonic() < limit:
        time.sleep(0.01)
    keeper.stop()
    told = [event for event in store.last_events(50) if event.type == "error"]
    assert len(told) == 1 and "backups" in str(told[0].payload["message"])
