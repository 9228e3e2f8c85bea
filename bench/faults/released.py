"""The stored databases of all released schema versions (tests/data/databases), as files of their time."""

from __future__ import annotations

import gzip
import sqlite3
from contextlib import closing
from pathlib import Path

from sprintrunner import store

_STORED = Path(__file__).resolve().parents[2] / "tests" / "data" / "databases"
_TABLES = ("batches", "stories", "commands", "events", "background_tasks")


def versions() -> list[str]:
    """Every version the program knows, oldest first."""
    folder = Path(store.__file__).parent / "migrations" / "versions"
    return sorted(path.name.split("_")[0] for path in folder.glob("[0-9]*.py"))


def put(version: str, path: Path) -> None:
    """Place the stored database of a version at ``path``; OSError where none is stored."""
    path.write_bytes(gzip.decompress((_STORED / f"{version}.db.gz").read_bytes()))
    path.chmod(0o600)


def version_of(path: Path) -> str:
    """The version a database is at."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as connection:
        return str(connection.execute("SELECT version_num FROM alembic_version").fetchone()[0])


def counted(path: Path) -> dict[str, int]:
    """How many rows each table of the contract has."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as connection:
        return {name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in _TABLES}
