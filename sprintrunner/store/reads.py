"""The reads: each one short query on a connection that cannot write, fetched whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import sqlalchemy as sa

from ..errors import StoreError
from ..events import Event
from . import rows
from .payload import clean
from .rows import BatchRow, CommandRow, FindingRow, RoundRow, Row, StoryRow, TaskRow, Totals
from .schema import (
    background_tasks,
    batches,
    command_stories,
    commands,
    events,
    finding_rounds,
    findings,
    now,
    stories,
)

#: SQLite takes no larger integer; a larger one from outside names no row.
_LARGEST = 2**63 - 1
#: Most rows one read returns.
MOST = 100_000

Value = TypeVar("Value")

_EVENT: sa.Select[Any] = sa.select(events.c.id, events.c.event_type, events.c.timestamp, events.c.payload)


def _known(number: int) -> bool:
    return 0 < number <= _LARGEST


def _bounded(number: int, most: int = MOST) -> int:
    return max(0, min(number, most))


class Reads:
    """The named reads. All raise StoreError, a sentence, where the database does not answer."""

    def _reading(self) -> AbstractContextManager[sa.Connection]:
        raise NotImplementedError

    def _all(self, query: sa.Select[Any], make: Callable[[sa.Row[Any]], Value]) -> list[Value]:
        with self._reading() as connection:
            found = connection.execute(query).all()
        return [make(row) for row in found]

    def _one(self, query: sa.Select[Any], make: Callable[[sa.Row[Any]], Value]) -> Value | None:
        with self._reading() as connection:
            found = connection.execute(query).first()
        return None if found is None else make(found)

    def _number(self, query: sa.Select[Any]) -> int:
        with self._reading() as connection:
            return int(connection.execute(query).scalar() or 0)

    def _by_id(self, table: sa.Table, number: int, make: Callable[[sa.Row[Any]], Row]) -> Row | None:
        if not _known(number):
            return None
        return self._one(sa.select(table).where(table.c.id == number), make)

    def check(self) -> None:
        """Return when the database answers, else raise StoreError."""
        with self._reading() as connection:
            connection.execute(sa.select(batches.c.id).limit(1)).first()

    # Batches

    def batch(self, batch_id: int) -> BatchRow | None:
        """One batch by its id."""
        return self._by_id(batches, batch_id, rows.batch_row)

    def live_batch(self) -> BatchRow | None:
        """The batch with the status running; there is at most one."""
        return self._one(sa.select(batches).where(batches.c.status == sa.text("'running'")), rows.batch_row)

    def latest_batch(self) -> BatchRow | None:
        """The newest batch, running or not."""
        return self._one(sa.select(batches).order_by(batches.c.id.desc()).limit(1), rows.batch_row)

    def batches(self, limit: int = 20, offset: int = 0) -> list[BatchRow]:
        """A part of the history, newest first."""
        query = sa.select(batches).order_by(batches.c.id.desc())
        return self._all(query.limit(_bounded(limit)).offset(_bounded(offset, _LARGEST)), rows.batch_row)

    def count_batches(self) -> int:
        """How many batches there are."""
        return self._number(sa.select(sa.func.count()).select_from(batches))

    def background_tasks(self, batch_id: int) -> list[TaskRow]:
        """The background tasks of a batch, oldest first."""
        table = background_tasks
        if not _known(batch_id):
            return []
        return self._all(
            sa.select(table).where(table.c.batch_id == batch_id).order_by(table.c.id), rows.task_row
        )

    def open_background_tasks(self) -> list[TaskRow]:
        """The background tasks of all batches that have not ended, oldest first."""
        table = background_tasks
        return self._all(
            sa.select(table).where(table.c.completed_at.is_(None)).order_by(table.c.id), rows.task_row
        )

    # Stories

    def stories(self, batch_id: int) -> list[StoryRow]:
        """The stories of a batch in the order they entered it."""
        if not _known(batch_id):
            return []
        query = sa.select(stories).where(stories.c.batch_id == batch_id).order_by(stories.c.id)
        return self._all(query, rows.story_row)

    def story(self, story_id: int) -> StoryRow | None:
        """One row of ``stories`` by its id."""
        return self._by_id(stories, story_id, rows.story_row)

    def story_record(self, batch_id: int, key: str) -> StoryRow | None:
        """What one batch recorded of one story."""
        if not _known(batch_id):
            return None
        wanted = (stories.c.batch_id == batch_id) & (stories.c.story_key == clean(key))
        return self._one(sa.select(stories).where(wanted), rows.story_row)

    def story_history(self, key: str) -> list[StoryRow]:
        """What every batch recorded of one story, oldest first."""
        query = sa.select(stories).where(stories.c.story_key == clean(key)).order_by(stories.c.id)
        return self._all(query, rows.story_row)

    def latest_record(self, key: str) -> StoryRow | None:
        """What the newest batch that met this story recorded of it."""
        query = sa.select(stories).where(stories.c.story_key == clean(key))
        return self._one(query.order_by(stories.c.id.desc()).limit(1), rows.story_row)

    def latest_records(self) -> dict[str, StoryRow]:
        """The newest row of every story any batch met, by key."""
        newest = sa.select(sa.func.max(stories.c.id)).group_by(stories.c.story_key)
        found = self._all(sa.select(stories).where(stories.c.id.in_(newest)), rows.story_row)
        return {row.story_key: row for row in found}

    # Commands

    def command(self, command_id: int) -> CommandRow | None:
        """One command by its id."""
        return self._by_id(commands, command_id, rows.command_row)

    def commands(self, batch_id: int) -> list[CommandRow]:
        """The commands of a batch, oldest first."""
        if not _known(batch_id):
            return []
        query = sa.select(commands).where(commands.c.batch_id == batch_id).order_by(commands.c.id)
        return self._all(query, rows.command_row)

    def commands_of_story(self, key: str) -> list[CommandRow]:
        """Every command that served this story, of all batches, oldest first."""
        ids = sa.select(command_stories.c.command_id).join(
            stories, stories.c.id == command_stories.c.story_id
        )
        wanted = commands.c.id.in_(ids.where(stories.c.story_key == clean(key)))
        return self._all(sa.select(commands).where(wanted).order_by(commands.c.id), rows.command_row)

    def running_commands(self) -> list[CommandRow]:
        """The commands whose status is running, oldest first."""
        # The literal, not a parameter: only so can the database use the partial index.
        query = sa.select(commands).where(commands.c.status == sa.text("'running'")).order_by(commands.c.id)
        return self._all(query, rows.command_row)

    def commands_running(self) -> list[CommandRow]:
        """Another name of ``running_commands``."""
        return self.running_commands()

    def keys_of(self, command_id: int) -> list[str]:
        """The keys of the stories that a command serves."""
        found = self.command(command_id)
        return [] if found is None else [key for key in found.story_keys.split(",") if key]

    # Events

    def events_after(self, cursor: int, limit: int = 500, batch_id: int | None = None) -> list[Event]:
        """The events with an id above ``cursor``, oldest first."""
        if cursor >= _LARGEST or (batch_id is not None and not _known(batch_id)):
            return []
        query = _EVENT.where(events.c.id > max(cursor, 0))
        if batch_id is not None:
            query = query.where(events.c.batch_id == batch_id)
        return self._all(query.order_by(events.c.id).limit(_bounded(limit)), rows.event_of)

    def last_events(self, limit: int = 50, batch_id: int | None = None) -> list[Event]:
        """The newest events, oldest of them first."""
        query = _EVENT
        if batch_id is not None:
            if not _known(batch_id):
                return []
            query = query.where(events.c.batch_id == batch_id)
        found = self._all(query.order_by(events.c.id.desc()).limit(_bounded(limit)), rows.event_of)
        return found[::-1]

    def last_event_id(self) -> int:
        """The newest cursor; 0 before the first event."""
        return self._number(sa.select(sa.func.max(events.c.id)))

    def count_events(self, batch_id: int | None = None) -> int:
        """How many events a batch, or the whole log, has."""
        query = sa.select(sa.func.count()).select_from(events)
        if batch_id is None:
            return self._number(query)
        return self._number(query.where(events.c.batch_id == batch_id)) if _known(batch_id) else 0

    def event_counts(self, batch_id: int) -> dict[str, int]:
        """How many events of each type a batch has."""
        if not _known(batch_id):
            return {}
        query = sa.select(events.c.event_type, sa.func.count()).where(events.c.batch_id == batch_id)
        found = self._all(query.group_by(events.c.event_type), tuple)
        return {kind: int(count) for kind, count in found}

    # Findings

    def findings(self, story_id: int) -> list[FindingRow]:
        """The ledger of a story's row, oldest first."""
        if not _known(story_id):
            return []
        query = sa.select(findings).where(findings.c.story_id == story_id).order_by(findings.c.id)
        return self._all(query, rows.finding_row)

    def finding_rounds(self, story_id: int) -> list[RoundRow]:
        """What each review of a story said of each finding, in the order of the reviews."""
        if not _known(story_id):
            return []
        table = finding_rounds
        query = sa.select(table).join(findings, findings.c.id == table.c.finding_id)
        query = query.where(findings.c.story_id == story_id).order_by(table.c.command_id, table.c.finding_id)
        return self._all(query, rows.round_row)

    # Sums

    def batch_totals(self, batch_id: int) -> Totals:
        """What a batch used; all zero for one that does not exist."""
        return self.totals_of([batch_id]).get(batch_id, Totals())

    def totals_of(self, batch_ids: Iterable[int]) -> dict[int, Totals]:
        """What several batches used, by id, in one read."""
        wanted = [number for number in batch_ids if _known(number)]
        with self._reading() as connection:
            spent = connection.execute(_spent(wanted)).all()
            met = connection.execute(_met(wanted)).all()
            spans = connection.execute(_spans(wanted)).all()
        sums: dict[int, Sequence[Any]] = {row[0]: row[1:] for row in spent}
        counts = {row[0]: row[1] for row in met}
        return {row[0]: _totals(sums.get(row[0]), counts.get(row[0], 0), row[1], row[2]) for row in spans}

    def cost_since(self, moment: int) -> float | None:
        """Dollars of all commands started at or after ``moment`` (ms); None where no agent told a cost."""
        query = sa.select(sa.func.sum(commands.c.cost_usd)).where(commands.c.started_at >= moment)
        if abs(moment) > _LARGEST:
            raise StoreError(f"{moment} is no point in time")
        return self._one(query, lambda row: None if row[0] is None else float(row[0]))

    def story_costs(self, batch_id: int) -> dict[str, float]:
        """Dollars a story in one batch, by key; a command for two stories counts half for each."""
        costs: dict[str, float] = {}
        for command in self.commands(batch_id):
            keys = [key for key in command.story_keys.split(",") if key]
            for key in keys if command.cost_usd is not None else []:
                costs[key] = costs.get(key, 0.0) + (command.cost_usd or 0.0) / len(keys)
        return costs


def _spent(wanted: Sequence[int]) -> sa.Select[Any]:
    """Sums over the commands of batches: cost, tokens in, out and through the cache, count."""
    cache = sa.func.coalesce(commands.c.tokens_cache_read, 0) + sa.func.coalesce(
        commands.c.tokens_cache_write, 0
    )
    return (
        sa.select(
            commands.c.batch_id,
            sa.func.sum(commands.c.cost_usd),
            sa.func.coalesce(sa.func.sum(commands.c.tokens_in), 0),
            sa.func.coalesce(sa.func.sum(commands.c.tokens_out), 0),
            sa.func.coalesce(sa.func.sum(cache), 0),
            sa.func.count(),
        )
        .where(commands.c.batch_id.in_(wanted))
        .group_by(commands.c.batch_id)
    )


def _met(wanted: Sequence[int]) -> sa.Select[Any]:
    query = sa.select(stories.c.batch_id, sa.func.count()).where(stories.c.batch_id.in_(wanted))
    return query.group_by(stories.c.batch_id)


def _spans(wanted: Sequence[int]) -> sa.Select[Any]:
    return sa.select(batches.c.id, batches.c.started_at, batches.c.ended_at).where(batches.c.id.in_(wanted))


def _totals(sums: Sequence[Any] | None, met: int, started: int, ended: int | None) -> Totals:
    # The clock may have been set back meanwhile.
    seconds = max(0.0, ((ended or now()) - started) / 1000)
    if sums is None:
        return Totals(stories=met, seconds=seconds)
    cost, tokens_in, tokens_out, cache, count = sums
    return Totals(cost, tokens_in, tokens_out, cache, count, met, seconds)
