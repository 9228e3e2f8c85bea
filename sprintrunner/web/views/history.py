"""One batch: its stories, commands and newest events."""

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
    """What a batch came to. ``ms`` how long it took."""

    batch: BatchRow
    totals: Totals
    ms: int
    done: int
    blocked: int

    @property
    def tokens(self) -> int:
        """All tokens, those from the cache included."""
        return self.totals.tokens_in + self.totals.tokens_out + self.totals.tokens_cache


def _line(reading: Reading, row: BatchRow, totals: Totals, ms: int) -> BatchLine:
    statuses = [story.status for story in reading.store.stories(row.id)]
    return BatchLine(
        batch=row,
        totals=totals,
        ms=ms,
        done=statuses.count(StoryStatus.DONE),
        blocked=statuses.count(StoryStatus.BLOCKED),
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
        line=_line(reading, row, totals, ms),
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
