"""The reads of the history: batches by outcome, sums over many batches, events by what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from ..events import Event
from ..sprint import BatchStatus, StoryStatus
from . import rows
from .payload import clean
from .reads import _EVENT, _LARGEST, Reads, _bounded, _known
from .rows import BatchRow, CommandRow
from .schema import (
    EVENTS_BAD,
    EVENTS_WITHOUT_PROGRESS,
    batches,
    command_stories,
    commands,
    events,
    stories,
)

_PROGRESS = "command:progress"
_BLOCKED = stories.c.status == str(StoryStatus.BLOCKED)
_REVIEW = "code-review"


@dataclass(frozen=True, slots=True)
class BatchFilter:
    """Which batches. ``outcome`` is a batch status or ``blocked`` (some story of it is); empty = all."""

    outcome: str = ""
    agent: str = ""


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events. ``ids`` None = any; ``keys`` are values of the column, joined keys included."""

    batch_id: int | None = None
    kind: str = ""
    keys: tuple[str, ...] = ()
    bad: bool = False
    ids: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class CommandSum:
    """Sums over the commands of one batch with the same name and status. Time in ms, cost in dollars."""

    batch_id: int
    command: str
    status: str
    count: int
    ms: int
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class CommandTime:
    """One command that ended. ``ms`` ≥ 0, ``cost_usd`` None where no agent told one."""

    command: str
    status: str
    ms: int
    cost_usd: float | None


class HistoryReads(Reads):
    """The reads of the store, those of the history included."""

    # Batches

    def outcomes(self) -> dict[str, int]:
        """How many batches there are of each status, and under ``blocked`` those with a blocked story."""
        query = sa.select(batches.c.status, sa.func.count()).group_by(batches.c.status)
        found: dict[str, int] = {status: int(count) for status, count in self._all(query, tuple)}
        blocked = sa.select(sa.func.count(sa.distinct(stories.c.batch_id))).where(_BLOCKED)
        return {**found, "blocked": self._number(blocked)}

    def batch_agents(self) -> list[str]:
        """The agents that batches were run with."""
        query = sa.select(batches.c.agent).where(batches.c.agent > "").distinct().order_by(batches.c.agent)
        return self._all(query, lambda row: str(row[0]))

    def batches_where(self, wanted: BatchFilter, limit: int, offset: int = 0) -> list[BatchRow]:
        """A part of the batches that fit, newest first."""
        query = _fitting(sa.select(batches), wanted).order_by(batches.c.id.desc())
        return self._all(query.limit(_bounded(limit)).offset(_bounded(offset, _LARGEST)), rows.batch_row)

    def batch_spans(self, wanted: BatchFilter) -> list[tuple[int, str, int, int | None]]:
        """Id, status, start and end of all batches that fit, newest first."""
        columns = sa.select(batches.c.id, batches.c.status, batches.c.started_at, batches.c.ended_at)
        query = _fitting(columns, wanted).order_by(batches.c.id.desc())
        return self._all(query.limit(_bounded(_LARGEST)), lambda row: _span(*tuple(row)))

    def story_counts(self, first: int, last: int) -> dict[int, dict[str, int]]:
        """How many stories of each status the batches with ids from ``first`` to ``last`` have."""
        query = sa.select(stories.c.batch_id, stories.c.status, sa.func.count())
        query = query.where(stories.c.batch_id.between(_id(first), _id(last)))
        found: dict[int, dict[str, int]] = {}
        for batch, status, count in self._all(query.group_by(stories.c.batch_id, stories.c.status), tuple):
            found.setdefault(batch, {})[status] = int(count)
        return found

    # Commands

    def commands_after(self, cursor: int, limit: int) -> list[CommandRow]:
        """The commands with an id above ``cursor``, oldest first."""
        query = sa.select(commands).where(commands.c.id > _id(cursor)).order_by(commands.c.id)
        return self._all(query.limit(_bounded(limit)), rows.command_row)

    def command_sums(self, first: int, last: int) -> list[CommandSum]:
        """Sums over the commands of the batches with ids from ``first`` to ``last``."""
        length = sa.func.coalesce(sa.func.sum(_length()), 0)
        columns = (commands.c.batch_id, commands.c.command, commands.c.status)
        query = sa.select(*columns, sa.func.count(), length, sa.func.sum(commands.c.cost_usd))
        query = query.where(commands.c.batch_id.between(_id(first), _id(last))).group_by(*columns)
        return self._all(query, lambda row: CommandSum(*tuple(row)))

    def command_times(self, first_batch: int) -> list[CommandTime]:
        """Each ended command of the batches from ``first_batch`` on."""
        query = sa.select(commands.c.command, commands.c.status, _length(), commands.c.cost_usd)
        query = query.where(commands.c.batch_id >= _id(first_batch), commands.c.ended_at.is_not(None))
        return self._all(query, lambda row: _time(*tuple(row)))

    def review_rounds(self, first: int, last: int) -> list[tuple[int, str, int]]:
        """Batch, story key and number of code reviews, of the batches from ``first`` to ``last``."""
        query = sa.select(commands.c.batch_id, commands.c.story_keys, sa.func.count())
        query = query.where(commands.c.batch_id.between(_id(first), _id(last)), commands.c.command == _REVIEW)
        grouped = query.group_by(commands.c.batch_id, commands.c.story_keys)
        return self._all(grouped, lambda row: _three(*tuple(row)))

    # Stories

    def done_moments(self) -> list[tuple[str, int]]:
        """Each story that was ever done, and when first (ms), in the order of time."""
        query = sa.select(stories.c.story_key, sa.func.min(stories.c.ended_at))
        query = query.where(stories.c.status == str(StoryStatus.DONE), stories.c.ended_at.is_not(None))
        found = self._all(query.group_by(stories.c.story_key), lambda row: _moment(*tuple(row)))
        return sorted(found, key=lambda one: one[1])

    def joined_keys(self, key: str) -> tuple[str, ...]:
        """The values that ``events.story_key`` has where a story is meant: alone, and with its pair."""
        ids = (
            sa.select(command_stories.c.command_id)
            .join(stories, stories.c.id == command_stories.c.story_id)
            .where(stories.c.story_key == clean(key))
        )
        query = sa.select(commands.c.story_keys).where(commands.c.id.in_(ids)).distinct()
        return tuple(dict.fromkeys((clean(key), *self._all(query, lambda row: str(row[0])))))

    # Events

    def events_where(self, wanted: EventFilter, before: int | None, limit: int) -> list[Event]:
        """The newest events that fit, below the id ``before``, newest first."""
        query = _matching(_EVENT, wanted)
        below = _LARGEST if before is None else _id(before)
        query = query.where(events.c.id < below).order_by(events.c.id.desc())
        return self._all(query.limit(_bounded(limit)), rows.event_of)

    def newer_event(self, wanted: EventFilter, after: int, limit: int) -> int | None:
        """The id below which the page before the one that begins at ``after`` starts; None on the first."""
        query = _matching(sa.select(events.c.id), wanted).where(events.c.id > _id(after))
        found = self._all(query.order_by(events.c.id).limit(_bounded(limit)), lambda row: int(row[0]))
        return found[-1] + 1 if found else None

    def count_where(self, wanted: EventFilter) -> int:
        """How many events fit."""
        if wanted == EventFilter(kind=_PROGRESS):
            # Too many to look at: all, less those of other types, which an index counts.
            others = sa.select(sa.func.count()).select_from(events)
            return self.count_events() - self._number(others.where(sa.text(EVENTS_WITHOUT_PROGRESS)))
        return self._number(_matching(sa.select(sa.func.count()).select_from(events), wanted))


def _span(number: int, status: str, began: int, ended: int | None) -> tuple[int, str, int, int | None]:
    return number, status, began, ended


def _time(command: str, status: str, ms: int, cost: float | None) -> CommandTime:
    # The clock may have been set back meanwhile.
    return CommandTime(command, status, max(0, ms), cost)


def _three(batch: int, keys: str, count: int) -> tuple[int, str, int]:
    return batch, keys, count


def _moment(key: str, at: int) -> tuple[str, int]:
    return key, at


def _id(number: int) -> int:
    return max(0, min(number, _LARGEST))


def _length() -> sa.ColumnElement[int]:
    return commands.c.ended_at - commands.c.started_at


def _fitting(query: sa.Select[Any], wanted: BatchFilter) -> sa.Select[Any]:
    if wanted.outcome == "blocked":
        query = query.where(batches.c.id.in_(sa.select(stories.c.batch_id).where(_BLOCKED)))
    elif wanted.outcome in set(BatchStatus):
        query = query.where(batches.c.status == wanted.outcome)
    return query.where(batches.c.agent == wanted.agent) if wanted.agent else query


def _matching(query: sa.Select[Any], wanted: EventFilter) -> sa.Select[Any]:
    if wanted.batch_id is not None:
        query = query.where(events.c.batch_id == (wanted.batch_id if _known(wanted.batch_id) else -1))
    if wanted.kind:
        query = query.where(events.c.event_type == wanted.kind)
        if wanted.kind != _PROGRESS:
            # Said in the words of the index, or SQLite cannot use it.
            query = query.where(sa.text(EVENTS_WITHOUT_PROGRESS))
    if wanted.keys:
        query = query.where(events.c.story_key.in_(_texts(wanted.keys)))
    if wanted.bad:
        query = query.where(sa.text(EVENTS_BAD))
    return query if wanted.ids is None else query.where(events.c.id.in_(wanted.ids))


def _texts(keys: Sequence[str]) -> list[str]:
    return [clean(key) for key in keys]
