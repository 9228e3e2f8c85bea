"""Databases for the checks on crashes: one of the first schema, and events in numbers."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from sprintrunner import store

FIRST = "0001"


def old_database(path: Path, events: int) -> str:
    """Make a database of the first schema with so many events in it; returns the version."""
    config = Config()
    config.set_main_option("script_location", str(Path(store.__file__).parent / "migrations"))
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, FIRST)
    engine.dispose()
    fill(path, events)
    return FIRST


def fill(path: Path, events: int) -> None:
    """Add an ended batch with so many events."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "INSERT INTO batches (started_at, ended_at, status, state) VALUES (1, 2, 'completed', 'ended')"
        )
        batch = connection.execute("SELECT max(id) FROM batches").fetchone()[0]
        row = (batch, 1, "batch:warning", '{"batch_id": 1, "warning": "' + "x" * 200 + '"}')
        connection.executemany(
            "INSERT INTO events (batch_id, timestamp, event_type, payload) VALUES (?, ?, ?, ?)",
            [row] * events,
        )


def version_of(path: Path) -> str:
    """The schema version a file is at; raises sqlite3.Error when it cannot be opened."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as connection:
        return str(connection.execute("SELECT version_num FROM alembic_version").fetchone()[0])
