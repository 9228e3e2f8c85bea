"""Backups of the database file, and what becomes of a damaged one."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

import sqlalchemy as sa

from . import opening
from .opening import StoreDamaged, prepare

#: How many backups are kept.
KEEP = 7
#: The folder of the backups, beside the database.
FOLDER = "backups"


def backups(path: Path, folder: Path) -> list[Path]:
    """The backups of the database ``path`` in ``folder``, newest first."""
    return sorted(folder.glob(f"{path.stem}-*.db"), reverse=True)


def newest_backup(path: Path, folder: Path) -> Path | None:
    """The newest backup of the database ``path`` in ``folder``."""
    return next(iter(backups(path, folder)), None)


def back_up(path: Path, folder: Path, keep: int = KEEP) -> Path:
    """Copy a database that may be in use; raises sqlite3.Error. No half copy ever has a backup's name."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    copy = folder / f"{path.stem}-{time.time_ns()}.db"
    part = copy.with_suffix(".part")
    # What a kill or a full disk left of an earlier copy would add up.
    for half in folder.glob(f"{path.stem}-*.part"):
        half.unlink(missing_ok=True)
    # The copy is made by SQLite: opening the file in any other way would drop our own locks on it.
    try:
        with closing(sqlite3.connect(path, isolation_level=None, timeout=5)) as connection:
            connection.execute("VACUUM INTO ?", (str(part),))
    except sqlite3.Error:
        part.unlink(missing_ok=True)
        raise
    part.chmod(0o600)
    part.replace(copy)
    for old in backups(path, folder)[max(keep, 1) :]:
        old.unlink(missing_ok=True)
    return copy


def write_back(engine: sa.Engine, path: Path) -> bool:
    """Put what an open connection to the deleted file ``path`` holds in its place; False for nothing."""
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    with engine.connect() as connection:
        held = connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar()
        if held:
            connection.connection.cursor().execute("COMMIT")
            connection.connection.cursor().execute("VACUUM INTO ?", (str(part),))
    if not held:
        path.unlink(missing_ok=True)  # a connection that had to be made anew has created an empty one
        return False
    part.chmod(0o600)
    # A log of the old file would be replayed into the new one.
    for ending in ("-wal", "-shm"):
        path.with_name(path.name + ending).unlink(missing_ok=True)
    part.replace(path)
    return True


def set_aside(path: Path) -> Path:
    """Rename a damaged database and its side files; return the new name of the database."""
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    aside = path.with_name(f"{path.name}.damaged-{stamp}-{os.getpid()}")
    opening.settle(path)
    for ending in ("-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            path.with_name(path.name + ending).rename(aside.with_name(aside.name + ending))
    return aside


def _restored(path: Path, folder: Path) -> Path | None:
    """Put the newest backup that is whole in the place of ``path``."""
    for backup in backups(path, folder):
        part = path.with_name(path.name + ".part")
        shutil.copyfile(backup, part)
        part.chmod(0o600)
        part.replace(path)
        with suppress(StoreDamaged):
            prepare(path)
            return backup
        path.unlink()
    return None


def mend(path: Path) -> str | None:
    """Make sure that ``path`` can be opened; return the sentence that says what was done, or None.

    A damaged file is moved aside and the newest whole backup takes its place, or an empty database where
    there is none. Raises StoreRefused for all that a backup cannot help.
    """
    path = Path(path).absolute()
    try:
        prepare(path)
    except StoreDamaged:
        aside = set_aside(path)
        backup = _restored(path, path.parent / FOLDER)
        prepare(path)
        instead = f"the backup {backup.name} was restored" if backup else "there was no backup to restore"
        return f"The database was damaged and moved to {aside}; {instead}."
    return None
