"""The store: opens the database, hands out transactions, and wakes those who follow the log."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import exc

from ..errors import StoreError, StoreUnavailable
from ..events import Event
from . import connections, opening, schema, upkeep
from .aging import Age, AgingReads
from .failures import is_damage, translate, translated
from .tail import Tail
from .writes import Tx

log = logging.getLogger(__name__)


DAMAGED = (
    "The database is damaged: it could not be backed up. Restart Sprint Runner between two batches: it moves"
    " the file aside and restores the newest backup."
)


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


class Store(AgingReads):
    """One project's database; safe to use from all threads, and after a fork."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._listeners: tuple[Callable[[], None], ...] = ()
        self._present = connections.Connections(path)
        self._file = _identity(path)
        self._writing: int | None = None
        self._tail = Tail()
        #: Takes out of every text what must not be stored; see redact.
        self.scrub: Callable[[str], str] = str
        #: Why the last write was not taken, empty since one was.
        self.trouble = ""
        #: What was done to the file before it was opened, for a person to read.
        self.notice = ""

    @classmethod
    def open(cls, path: Path) -> Store:
        """Open ``path``, create or migrate it; StoreRefused says what is wrong and leaves it untouched."""
        path = Path(path).absolute()
        opening.prepare(path)
        return cls(path)

    def close(self) -> None:
        """Close the connections of this process. The store opens new ones when it is used again."""
        self._connections().close()

    @staticmethod
    def now() -> int:
        """Milliseconds since the epoch, UTC."""
        return schema.now()

    def listen(self, wake: Callable[[], None]) -> None:
        """Have ``wake`` called, in the writing thread, after each commit that appended an event."""
        self._listeners = (*self._listeners, wake)

    def events_after(self, cursor: int, limit: int = 500, batch_id: int | None = None) -> list[Event]:
        """The events with an id above ``cursor``, oldest first."""
        held = self._tail.after(cursor, limit) if batch_id is None else []
        return held or super().events_after(cursor, limit, batch_id)

    def backup(self, folder: Path, keep: int = upkeep.KEEP) -> Path:
        """Write a consistent copy into ``folder``, keep the newest ``keep``; safe while others write.

        It reads all of the file: what it finds damaged is looked at again by the next start.
        """
        self._check_file()
        try:
            with translated():
                return upkeep.back_up(self.path, folder, keep)
        except StoreUnavailable as error:
            if is_damage(error.__cause__):
                opening.doubt(self.path)
                raise StoreUnavailable(DAMAGED) from error
            raise

    def prune_events(self, before: int, chunk: int = 1_000) -> int:
        """Delete the events of batches that ended before ``before`` (ms), a chunk a transaction.

        Batches, stories and commands stay, and so does all that belongs to a batch that is live or can be
        resumed. Returns how many.
        """
        total = 0
        while gone := self.delete_events(self.old_events(Age(before), chunk)):
            total += gone
        return total

    def delete_events(self, ids: Sequence[int]) -> int:
        """Delete these events in one transaction; return how many there were."""
        if not ids:
            return 0
        with self.transaction() as tx:
            gone = tx.delete_events(ids)
        self._tail = Tail()
        return gone

    def give_back(self, pages: int) -> None:
        """Cut up to so many free pages off the file, in one transaction."""
        with self.transaction() as tx:
            tx.give_back(pages)

    def rewrite(self) -> None:
        """Write the whole file anew, so that it can give room back; other writers wait meanwhile."""
        present = self._connections()
        with present.lock, translated(), present.writer.connect() as connection:
            self._check_writable()
            # Not through the engine's own begin: a VACUUM is no part of a transaction.
            cursor = connection.connection.cursor()
            cursor.execute("PRAGMA auto_vacuum=INCREMENTAL")
            cursor.execute("VACUUM")

    def _connections(self) -> connections.Connections:
        if self._present.pid != os.getpid():
            self._present = connections.of_this_process(self.path, self._present)
            self._writing = None
        return self._present

    def _check_file(self) -> None:
        """A deleted file can still be written, into nowhere: nothing of that may be called recorded."""
        with suppress(OSError):
            if _identity(self.path) == self._file:
                return
        raise StoreUnavailable(f"{self.path} was deleted or replaced while in use; restart Sprint Runner.")

    def _check_writable(self) -> None:
        """A connection that is open would go on writing a file that a person has made read-only."""
        self._check_file()
        if not os.access(self.path, os.W_OK):
            raise StoreUnavailable(f"{self.path} is read-only; nothing was recorded. Make it writable.")

    def check(self) -> None:
        """Return when the database answers and took the last write, else raise StoreError."""
        super().check()
        if self.trouble:
            raise StoreUnavailable(self.trouble)

    def put_back(self) -> str:
        """Write a database that was deleted while in use back from the connection that still holds it.

        Returns the sentence that says so; empty where the file is there, or nothing holds it any more.
        """
        if self.path.exists():
            return ""
        present = self._connections()
        with present.lock, translated():
            if not upkeep.write_back(present.writer, self.path):
                return ""
            self._present = connections.renewed(self.path, present)
            self._file = _identity(self.path)
        return f"{self.path.name} was deleted while in use; all that was recorded has been written back."

    def probe(self) -> None:
        """Raise StoreUnavailable unless the database takes a write that needs room; nothing is left of it."""
        with self.transaction() as tx:
            tx.probe()

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        self._check_file()
        with translated(), self._connections().reader.connect() as connection:
            yield connection

    @contextmanager
    def transaction(self) -> Iterator[Tx]:
        """Write: all that happens inside is kept, or nothing of it.

        Raises StoreError (a sentence) when the database does not take it, Conflict for a second running
        batch. Waits for other writers: threads as long as it takes, processes 5 s.
        """
        present = self._connections()
        if self._writing == threading.get_ident():
            raise StoreError("transactions do not nest; use the one that is open")
        with present.lock:
            self._writing = threading.get_ident()
            try:
                self._check_writable()
                with self._begun(present.writer) as tx:
                    yield tx
                self._tail.add(tx.appended)
                self.trouble = ""
            except StoreUnavailable as error:
                if not self.trouble:
                    log.error("%s", error.sentence)
                self.trouble = error.sentence
                raise
            finally:
                self._writing = None
        if tx.appended:
            self._wake()

    @contextmanager
    def _begun(self, engine: sa.Engine) -> Iterator[Tx]:
        try:
            connection = engine.connect()
            with connection:
                try:
                    connection.begin()
                    tx = Tx(connection, self.scrub)
                    yield tx
                    self._finish(connection, tx)
                except exc.OperationalError:
                    # Full, locked or read-only: the next transaction starts with a fresh connection.
                    connection.invalidate()
                    raise
                except StoreError as error:
                    if isinstance(error.__cause__, exc.OperationalError):
                        connection.invalidate()
                    raise
        except exc.SQLAlchemyError as error:
            raise translate(error) from error

    @staticmethod
    def _finish(connection: sa.Connection, tx: Tx) -> None:
        """Commit, unless a statement failed and the caller went on as if it had not."""
        if tx.failure is not None:
            kind = StoreUnavailable if isinstance(tx.failure, StoreUnavailable) else StoreError
            raise kind(f"nothing was recorded: {tx.failure}") from tx.failure
        connection.commit()

    def _wake(self) -> None:
        for wake in self._listeners:
            try:
                wake()
            except Exception:
                # What is committed stays committed; a listener's trouble is its own.
                log.exception("a listener of the event log failed")
