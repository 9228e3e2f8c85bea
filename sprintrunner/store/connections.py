"""The connections to the database: pragmas, honest BEGIN IMMEDIATE, and none that crosses a fork."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event, pool

#: How long a statement waits for a lock that another process holds, in ms.
BUSY_MS = 5_000
_JOURNAL_LIMIT = 64 * 1024 * 1024

_COMMON = (
    f"PRAGMA busy_timeout={BUSY_MS}",
    "PRAGMA foreign_keys=ON",
    "PRAGMA trusted_schema=OFF",
)
_WRITER = (
    *_COMMON,
    "PRAGMA synchronous=FULL",
    "PRAGMA fullfsync=ON",
    f"PRAGMA journal_size_limit={_JOURNAL_LIMIT}",
)
# A checkpoint that races another connection's commit can lose it in SQLite before 3.51.3, so that only
# the writer, which is one, ever checkpoints.
_READER = (*_COMMON, "PRAGMA wal_autocheckpoint=0", "PRAGMA query_only=ON")


def _prepare(engine: sa.Engine, pragmas: tuple[str, ...], begin: str) -> None:
    """Take BEGIN away from the driver, which would send a deferred one, and too late."""

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        for pragma in pragmas:
            connection.execute(pragma)

    @event.listens_for(engine, "begin")
    def began(connection: sa.Connection) -> None:
        connection.exec_driver_sql(begin)


def _engine(path: Path, size: int) -> sa.Engine:
    url = sa.URL.create("sqlite", database=str(path))
    return sa.create_engine(
        url,
        poolclass=pool.QueuePool,
        pool_size=size,
        max_overflow=0 if size == 1 else 60,
        connect_args={"check_same_thread": False, "timeout": BUSY_MS / 1000},
    )


def writer_engine(path: Path) -> sa.Engine:
    """An engine of exactly one connection, whose transactions hold the write lock from the start."""
    engine = _engine(path, 1)
    _prepare(engine, _WRITER, "BEGIN IMMEDIATE")
    return engine


def reader_engine(path: Path) -> sa.Engine:
    """An engine whose connections cannot write; each transaction sees one state of the database."""
    engine = _engine(path, 4)
    _prepare(engine, _READER, "BEGIN")
    return engine


class Connections:
    """The two engines of one process, and the lock that lets one thread write at a time."""

    def __init__(self, path: Path) -> None:
        self.pid = os.getpid()
        self.lock = threading.Lock()
        self.writer = writer_engine(path)
        self.reader = reader_engine(path)

    def close(self) -> None:
        """Close all; the writer last, because the last one to close checkpoints."""
        self.reader.dispose()
        self.writer.dispose()


#: Kept for ever: closing a connection that a fork copied could checkpoint under its real owner, and one to
#: a deleted file would remove the write-ahead log that now stands under that name.
_NEVER_CLOSED: list[Connections] = []


def of_this_process(path: Path, present: Connections) -> Connections:
    """Return ``present``, or new connections where it belongs to the process we were forked from."""
    if present.pid == os.getpid():
        return present
    return renewed(path, present)


def renewed(path: Path, present: Connections) -> Connections:
    """New connections in the place of ``present``, which is neither used nor closed any more."""
    _NEVER_CLOSED.append(present)
    return Connections(path)
