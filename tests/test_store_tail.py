"""The newest events kept in memory: what a follower reads is what the table holds, whoever wrote it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sprintrunner.events import EventType
from sprintrunner.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store.open(tmp_path / "sprint-runner.db")
    yield made
    made.close()


def tell(store: Store, message: str, **more: Any) -> int:
    with store.transaction() as tx:
        return tx.append(EventType.ERROR, {"type": "test", "message": message, **more})


def told(store: Store, cursor: int, limit: int = 500) -> list[str]:
    return [event.payload["message"] for event in store.events_after(cursor, limit)]


def without_queries(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Store) -> Any:
        raise AssertionError("the table was read")

    monkeypatch.setattr(Store, "_reading", refuse)


def test_the_next_event_comes_without_a_query_and_equals_the_row(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tell(store, "one")
    tell(store, "two\x00", big="x" * 200_000, pair=("a", 1), odd={1: float("nan")})
    (from_table,) = Store.open(store.path).events_after(first, 1)
    without_queries(store, monkeypatch)
    assert store.events_after(first, 1) == [from_table]


def test_a_rolled_back_event_is_never_read(store: Store) -> None:
    first = tell(store, "one")
    with pytest.raises(ZeroDivisionError), store.transaction() as tx:
        tx.append(EventType.ERROR, {"type": "test", "message": "never"})
        _ = 1 / 0
    assert told(store, first) == []
    tell(store, "two")
    assert told(store, first) == ["two"]


def test_what_another_process_wrote_in_between_is_not_left_out(store: Store) -> None:
    other = Store.open(store.path)
    first = tell(store, "one")
    tell(other, "two, elsewhere")
    tell(store, "three")
    tell(other, "four, elsewhere")
    seen: list[str] = []
    cursor = first
    while more := store.events_after(cursor, 500):
        seen += [event.payload["message"] for event in more]
        cursor = more[-1].id
    assert seen == ["two, elsewhere", "three", "four, elsewhere"]
    other.close()


def test_who_is_far_behind_reads_the_table(store: Store) -> None:
    for number in range(200):
        tell(store, str(number))
    assert told(store, 0) == [str(number) for number in range(200)]
    assert told(store, 190, 3) == ["190", "191", "192"]


def test_deleted_events_are_gone_for_followers_too(store: Store) -> None:
    first = tell(store, "one")
    second = tell(store, "two")
    store.delete_events([second])
    assert told(store, first) == []
