"""The reads of the history: batches by outcome, sums over many batches, events by what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
#: How batches end that no person has to look at.
_CALM = (str(BatchStatus.COMPLETED), str(BatchStatus.ALL_DONE))
_WITH_BLOCKED = sa.select(stories.c.batch_id).where(_BLOCKED)


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
    task: str = ""
    ids: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class BatchSums:
    """Sums over batches: how many, their length in ms, how many needed nobody, stories by status."""

    count: int
    ms: int
    calm: int
    stories: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class CommandSum:
    """Sums over commands of one name and status; cost in dollars, None where no agent told one."""

    command: str
    status: str
    count: int
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

    def batch_sums(self, wanted: BatchFilter) -> BatchSums:
        """Sums over all batches that fit."""
        length = sa.func.coalesce(batches.c.ended_at, batches.c.started_at) - batches.c.started_at
        calm = batches.c.status.in_(_CALM) & batches.c.id.not_in(_WITH_BLOCKED)
        query = sa.select(
            sa.func.count(), sa.func.coalesce(sa.func.sum(length), 0), sa.func.sum(calm.cast(sa.Integer))
        )
        found = self._one(_fitting(query.select_from(batches), wanted), tuple) or (0, 0, 0)
        told = self._all(_story_counts(wanted), tuple)
        return BatchSums(
            int(found[0]), max(0, found[1]), int(found[2] or 0), {name: int(n) for name, n in told}
        )

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

    def command_sums(self, wanted: BatchFilter) -> list[CommandSum]:
        """Sums over the commands of the batches that fit, by name and status."""
        columns = (commands.c.command, commands.c.status)
        query = sa.select(*columns, sa.func.count(), sa.func.sum(commands.c.cost_usd))
        query = query.where(commands.c.batch_id > 0)
        if wanted != BatchFilter():
            query = query.where(commands.c.batch_id.in_(_fitting(sa.select(batches.c.id), wanted)))
        return self._all(query.group_by(*columns), lambda row: CommandSum(*tuple(row)))

    def command_times(self, first_batch: int) -> list[CommandTime]:
        """Each ended command of the batches from ``first_batch`` on."""
        query = sa.select(commands.c.command, commands.c.status, _length(), commands.c.cost_usd)
        query = query.where(commands.c.batch_id >= _id(first_batch), commands.c.ended_at.is_not(None))
        return self._all(query, lambda row: _time(*tuple(row)))

    def review_rounds(self, wanted: BatchFilter, first_batch: int = 1) -> dict[int, int]:
        """How many stories had one code review in a batch, how many two, and so on."""
        each = sa.select(sa.func.count().label("rounds")).where(
            commands.c.batch_id >= _id(first_batch), commands.c.command == _REVIEW
        )
        if wanted != BatchFilter():
            each = each.where(commands.c.batch_id.in_(_fitting(sa.select(batches.c.id), wanted)))
        inner = each.group_by(commands.c.batch_id, commands.c.story_keys).subquery()
        query = sa.select(inner.c.rounds, sa.func.count()).group_by(inner.c.rounds)
        return {int(rounds): int(count) for rounds, count in self._all(query, tuple)}

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

    def count_newer(self, wanted: EventFilter, after: int, most: int) -> int:
        """How many events above the id ``after`` fit, ``most`` at most."""
        query = _matching(sa.select(events.c.id), wanted).where(events.c.id > _id(after))
        found = query.order_by(events.c.id).limit(_bounded(most)).subquery()
        return self._number(sa.select(sa.func.count()).select_from(found))

    def count_where(self, wanted: EventFilter) -> int:
        """How many events fit."""
        if wanted == EventFilter(kind=_PROGRESS):
            # Too many to look at: all, less those of other types, which an index counts.
            others = sa.select(sa.func.count()).select_from(events)
            return self.count_events() - self._number(others.where(sa.text(EVENTS_WITHOUT_PROGRESS)))
        return self._number(_matching(sa.select(sa.func.count()).select_from(events), wanted))


def _time(command: str, status: str, ms: int, cost: float | None) -> CommandTime:
    # The clock may have been set back meanwhile.
    return CommandTime(command, status, max(0, ms), cost)


def _moment(key: str, at: int) -> tuple[str, int]:
    return key, at


def _id(number: int) -> int:
    return max(0, min(number, _LARGEST))


def _length() -> sa.ColumnElement[int]:
    return commands.c.ended_at - commands.c.started_at


def _story_counts(wanted: BatchFilter) -> sa.Select[Any]:
    query = sa.select(stories.c.status, sa.func.count()).group_by(stories.c.status)
    if wanted == BatchFilter():
        return query
    return query.where(stories.c.batch_id.in_(_fitting(sa.select(batches.c.id), wanted)))


def _fitting(query: sa.Select[Any], wanted: BatchFilter) -> sa.Select[Any]:
    if wanted.outcome == "blocked":
        query = query.where(batches.c.id.in_(_WITH_BLOCKED))
    elif wanted.outcome in set(BatchStatus):
        query = query.where(batches.c.status == wanted.outcome)
    return query.where(batches.c.agent == wanted.agent) if wanted.agent else query


def _matching(query: sa.Select[Any], wanted: EventFilter) -> sa.Select[Any]:
    if wanted.batch_id is not None:
        query = query.where(events.c.batch_id == (wanted.batch_id if _known(wanted.batch_id) else -1))
    if wanted.kind and wanted.bad:
        # Not the bare column: the index of the bad ones is by far the smaller.
        query = query.where(sa.func.coalesce(events.c.event_type, "") == wanted.kind)
    elif wanted.kind:
        query = query.where(events.c.event_type == wanted.kind)
        if wanted.kind != _PROGRESS:
            # Said in the words of the index, or SQLite cannot use it.
            query = query.where(sa.text(EVENTS_WITHOUT_PROGRESS))
    if wanted.keys:
        query = query.where(events.c.story_key.in_(_texts(wanted.keys)))
    if wanted.task:
        query = query.where(events.c.task_id == clean(wanted.task))
    if wanted.bad:
        query = query.where(sa.text(EVENTS_BAD))
    return query if wanted.ids is None else query.where(events.c.id.in_(wanted.ids))


def _texts(keys: Sequence[str]) -> list[str]:
    return [clean(key) for key in keys]
