"""What may go of the history: which batches are old, and the events, commands and free pages behind them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from ..sprint import BatchStatus, CommandStatus
from .reads_history import HistoryReads
from .schema import batches, commands, events


@dataclass(frozen=True, slots=True)
class Age:
    """What is old: batches that ended before ``before`` (ms), and those up to the id ``up_to``."""

    before: int
    up_to: int = 0


@dataclass(frozen=True, slots=True)
class Room:
    """Pages of the file, those among them that hold nothing, and whether it can give those back."""

    shrinks: bool
    pages: int
    free: int


def expired(age: Age) -> sa.Select[tuple[int]]:
    """The ids of the batches that are old and over.

    A live batch never is, nor the newest interrupted one, which a click resumes, nor one with a command
    that is still open: its verdict may lie in a file and be adopted.
    """
    resumable = sa.select(sa.func.max(batches.c.id)).where(batches.c.status == BatchStatus.INTERRUPTED)
    unjudged = sa.select(commands.c.batch_id).where(
        commands.c.status == sa.text(f"'{CommandStatus.RUNNING}'")
    )
    return sa.select(batches.c.id).where(
        batches.c.ended_at.is_not(None),
        (batches.c.ended_at < age.before) | (batches.c.id <= age.up_to),
        batches.c.status != BatchStatus.RUNNING,
        batches.c.id != sa.func.coalesce(resumable.scalar_subquery(), 0),
        batches.c.id.not_in(unjudged),
    )


class AgingReads(HistoryReads):
    """Reads for whoever deletes what is old."""

    def newest_end(self) -> int | None:
        """When the last of all batches ended (ms); None while none has."""
        found = self._number(sa.select(sa.func.max(batches.c.ended_at)))
        return found or None

    def id_of_newest(self, batches_kept: int) -> int:
        """The id of the newest batch that is not among so many newest ones; 0 where all are."""
        query = sa.select(batches.c.id).order_by(batches.c.id.desc()).limit(1).offset(batches_kept)
        return self._number(query)

    def old_events(self, age: Age, most: int) -> list[int]:
        """The ids of up to ``most`` events of old batches."""
        query = sa.select(events.c.id).where(events.c.batch_id.in_(expired(age))).limit(most)
        return self._numbers(query)

    def old_commands(self, age: Age, among: Collection[int]) -> set[int]:
        """Those of these commands that belong to old batches."""
        query = sa.select(commands.c.id).where(
            commands.c.id.in_(list(among)), commands.c.batch_id.in_(expired(age))
        )
        return set(self._numbers(query))

    def old_batches(self, age: Age, among: Collection[int]) -> set[int]:
        """Those of these batches that are old."""
        return set(self._numbers(expired(age).where(batches.c.id.in_(list(among)))))

    def known_commands(self, among: Collection[int]) -> set[int]:
        """Those of these commands that have a row."""
        return set(self._numbers(sa.select(commands.c.id).where(commands.c.id.in_(list(among)))))

    def known_batches(self, among: Collection[int]) -> set[int]:
        """Those of these batches that have a row."""
        return set(self._numbers(sa.select(batches.c.id).where(batches.c.id.in_(list(among)))))

    def room(self) -> Room:
        """How much of the file holds nothing."""
        with self._reading() as connection:
            mode, pages, free = (
                int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())
                for name in ("auto_vacuum", "page_count", "freelist_count")
            )
        return Room(shrinks=mode != 0, pages=pages, free=free)

    def _numbers(self, query: sa.Select[Any]) -> list[int]:
        with self._reading() as connection:
            return [int(number) for number in connection.execute(query).scalars()]
