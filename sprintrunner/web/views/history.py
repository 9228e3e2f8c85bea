"""The batches of the past: the list with its bars, and one batch with its stories, commands and events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...sprint import StoryStatus
from ...store import BatchRow, StoryRow, Totals
from . import rail
from .commands import CommandLine, lines_of
from .rail import Line
from .reading import Reading, keys_of, took

#: Events on the page of one batch; the API has them all.
MOST_EVENTS = 200


@dataclass(frozen=True, slots=True)
class BatchLine:
    """One row of the list; ``percent`` is its duration measured against the longest on the page."""

    batch: BatchRow
    totals: Totals
    ms: int
    done: int
    blocked: int
    percent: float

    @property
    def tokens(self) -> int:
        """All tokens, those from the cache included."""
        return self.totals.tokens_in + self.totals.tokens_out + self.totals.tokens_cache


@dataclass(frozen=True, slots=True)
class Batches:
    """One page of the list; offsets are None where there is nothing that way."""

    lines: tuple[BatchLine, ...]
    total: int
    first: int
    newer: int | None
    older: int | None


def batches(reading: Reading, offset: int) -> Batches:
    """Read one page of the list, newest first."""
    limit = reading.layers.values.default_batch_list_limit
    rows = reading.store.batches(limit, offset)
    totals = reading.store.totals_of([row.id for row in rows])
    times = [(row.ended_at or reading.now) - row.started_at for row in rows]
    longest = max(times, default=1) or 1
    lines = tuple(
        _line(reading, row, totals.get(row.id, Totals()), ms, longest)
        for row, ms in zip(rows, times, strict=True)
    )
    total = reading.store.count_batches()
    return Batches(
        lines=lines,
        total=total,
        first=offset + 1,
        newer=max(0, offset - limit) if offset else None,
        older=offset + limit if offset + limit < total else None,
    )


def _line(reading: Reading, row: BatchRow, totals: Totals, ms: int, longest: int) -> BatchLine:
    statuses = [story.status for story in reading.store.stories(row.id)]
    return BatchLine(
        batch=row,
        totals=totals,
        ms=ms,
        done=statuses.count(StoryStatus.DONE),
        blocked=statuses.count(StoryStatus.BLOCKED),
        percent=100 * ms / longest,
    )


@dataclass(frozen=True, slots=True)
class StoryLine:
    """One story of a batch; ``cost`` in dollars, None where no agent told one."""

    story: StoryRow
    ms: int
    commands: int
    cost: float | None


@dataclass(frozen=True, slots=True)
class BatchPage:
    """One batch."""

    line: BatchLine
    stories: tuple[StoryLine, ...]
    commands: tuple[CommandLine, ...]
    events: tuple[Line, ...]
    event_count: int


def batch_page(reading: Reading, row: BatchRow) -> BatchPage:
    """Read one batch."""
    totals = reading.store.batch_totals(row.id)
    costs = reading.store.story_costs(row.id)
    events = reading.store.last_events(MOST_EVENTS, batch_id=row.id)
    ms = (row.ended_at or reading.now) - row.started_at
    return BatchPage(
        line=_line(reading, row, totals, ms, ms or 1),
        stories=_stories(reading, row, costs),
        commands=lines_of(reading, reading.commands_of(row.id)),
        events=tuple(line for e in reversed(events) if (line := rail.line_of(e, progress=True))),
        event_count=reading.store.count_events(row.id),
    )


def _stories(reading: Reading, row: BatchRow, costs: Mapping[str, float]) -> tuple[StoryLine, ...]:
    commands = reading.commands_of(row.id)
    lines = []
    for story in reading.store.stories(row.id):
        mine = [command for command in commands if story.story_key in keys_of(command)]
        ms = sum(took(command, reading.now) for command in mine)
        lines.append(StoryLine(story, ms, len(mine), costs.get(story.story_key)))
    return tuple(lines)
