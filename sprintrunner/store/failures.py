"""What the database complains of, in sentences a person can act on."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import exc

from ..errors import Conflict, StoreError, StoreUnavailable

BATCH_RUNNING = "A batch is already running for this project"

#: By the first part of SQLite's own name of the error.
_SENTENCES = {
    "SQLITE_BUSY": "The database is locked by another program; nothing was recorded. End that program.",
    "SQLITE_LOCKED": "The database is locked by another program; nothing was recorded. End that program.",
    "SQLITE_FULL": "The disk is full: the database did not accept the record. Make room.",
    "SQLITE_IOERR": "The database file could not be written (disk full or failing); nothing was recorded.",
    "SQLITE_READONLY": "The database file is read-only; nothing was recorded. Make it writable.",
    "SQLITE_PERM": "The database file may not be written by this user; nothing was recorded.",
    "SQLITE_CANTOPEN": "The database file cannot be opened; check that its folder exists and is writable.",
    "SQLITE_CORRUPT": "The database file is damaged; stop Sprint Runner and restore a backup.",
    "SQLITE_NOTADB": "The database file is not a database any more; stop Sprint Runner, restore a backup.",
    "SQLITE_TOOBIG": "A value was too large for the database; nothing was recorded.",
}


def code_of(error: BaseException | None) -> str:
    """SQLite's name of an error such as ``SQLITE_FULL``; empty for others."""
    return str(getattr(error, "sqlite_errorname", "") or "")


def _family(error: BaseException | None) -> str:
    return "_".join(code_of(error).split("_")[:2])


def is_damage(error: BaseException | None) -> bool:
    """Whether it says that the file is damaged."""
    return _family(error) in ("SQLITE_CORRUPT", "SQLITE_NOTADB")


def sentence_of(error: BaseException | None) -> str:
    """What went wrong, for a person."""
    return _SENTENCES.get(_family(error)) or f"The database refused: {error}."


def _failed(error: BaseException | None) -> StoreError:
    """A fault of the file or its disk may pass; what the database objects to in a record will not."""
    passing = _family(error) in _SENTENCES.keys() - {"SQLITE_TOOBIG"}
    return (StoreUnavailable if passing else StoreError)(sentence_of(error))


def _refusal(error: exc.IntegrityError) -> StoreError | Conflict:
    told = str(error.orig)
    if "batches.status" in told or "one_running_batch" in told:
        return Conflict(BATCH_RUNNING)
    return StoreError(f"The database refused the record: {told}.")


def translate(error: exc.SQLAlchemyError | sqlite3.Error) -> StoreError | Conflict:
    """The error of ours for one of the database or its driver."""
    if isinstance(error, exc.IntegrityError):
        return _refusal(error)
    if isinstance(error, exc.DBAPIError):
        return _failed(error.orig)
    if isinstance(error, exc.TimeoutError):
        return StoreUnavailable("The database is too busy; try again.")
    return _failed(error)


@contextmanager
def translated() -> Iterator[None]:
    """Let only errors of ours out."""
    try:
        yield
    except (exc.SQLAlchemyError, sqlite3.Error) as error:
        raise translate(error) from error
