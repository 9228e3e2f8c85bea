"""Puts events into the database of a world by a connection of its own: more than any agent could cause."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Mapping
from typing import Any

from harness import World

_SQL = "INSERT INTO events (batch_id, timestamp, event_type, message, payload) VALUES (?, ?, ?, ?, ?)"


def events(world: World, count: int, size: int = 40, *, batch: int | None = None, chunk: int = 500) -> int:
    """Append so many warnings of about ``size`` bytes, ``chunk`` a transaction; returns the newest id."""
    filled = "w" * size
    # The server's writer alone makes checkpoints: some releases of SQLite lose commits otherwise.
    connection = sqlite3.connect(world.database, timeout=60, isolation_level=None)
    try:
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        for start in range(0, count, chunk):
            rows = (_row(batch, f"{number} {filled}") for number in range(start, min(count, start + chunk)))
            _write(connection, rows)
        return int(connection.execute("SELECT max(id) FROM events").fetchone()[0])
    finally:
        connection.close()


def _write(connection: sqlite3.Connection, rows: Iterable[tuple[Any, ...]]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(_SQL, rows)
    connection.execute("COMMIT")


def _row(batch: int | None, text: str) -> tuple[Any, ...]:
    kind = "error" if batch is None else "batch:warning"
    payload: Mapping[str, Any] = (
        {"type": "flood", "message": text} if batch is None else {"batch_id": batch, "warning": text}
    )
    return (batch, int(time.time() * 1000), kind, text[:200], json.dumps(payload))
