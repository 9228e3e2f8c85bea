"""The night line: the whole batch on one time axis, its cycles as blocks, in percent of the width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...sprint import BatchState, StoryStatus
from ...store import CommandRow
from . import words
from .reading import Reading, keys_of

_STEPS_MINUTES = (1, 2, 5, 10, 15, 30, 60, 120, 240, 480)
#: Most marks on the axis.
_MOST_TICKS = 9
#: A label needs about this share of the line for each of its characters, in percent.
_PERCENT_A_CHARACTER = 0.75


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch of the line from ``x``, ``width`` wide, both in percent; ``hue`` = its worst outcome."""

    x: float
    width: float
    hue: str
    label: str
    title: str
    hatch: bool = False


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on the axis; a ``minor`` one has no label where the line is short."""

    x: float
    label: str
    minor: bool = False


@dataclass(frozen=True, slots=True)
class Night:
    """The line; ``at`` is the place of now, None once the batch has ended. Empty without a batch."""

    blocks: tuple[Block, ...]
    ticks: tuple[Tick, ...]
    blocked: tuple[Tick, ...]
    at: Tick | None
    begin: str
    batch_id: int


@dataclass(frozen=True, slots=True)
class Axis:
    """Maps a moment (ms) to percent of the width."""

    first: int
    last: int

    def x(self, moment: int) -> float:
        """Percent, kept within the line."""
        return round(min(100.0, max(0.0, 100 * (moment - self.first) / (self.last - self.first))), 2)


def night(reading: Reading) -> Night | None:
    """Read the line, None where no batch was ever run or nothing of it has begun."""
    batch = reading.batch
    if batch is None or not reading.batch_commands:
        return None
    end = batch.ended_at or reading.now
    length = max(60_000, end - batch.started_at)
    # While it runs some room is left at the right, so that the line does not look finished.
    axis = Axis(batch.started_at, batch.started_at + int(length * (1.12 if reading.live else 1.0)))
    return Night(
        blocks=_cycles(reading, axis, end) + _asleep(reading, axis),
        ticks=_ticks(axis, reading.now if reading.live else None),
        blocked=_blocked(reading, axis),
        at=Tick(axis.x(reading.now), words.hour(reading.now)) if reading.live else None,
        begin=words.hour(batch.started_at),
        batch_id=batch.id,
    )


def _cycles(reading: Reading, axis: Axis, end: int) -> tuple[Block, ...]:
    by_cycle: dict[int, list[CommandRow]] = {}
    for command in reading.batch_commands:
        if command.cycle is not None:
            by_cycle.setdefault(command.cycle, []).append(command)
    return tuple(_block(reading, axis, cycle, mine, end) for cycle, mine in sorted(by_cycle.items()))


def _block(reading: Reading, axis: Axis, cycle: int, commands: Sequence[CommandRow], end: int) -> Block:
    first = min(command.started_at for command in commands)
    last = max(command.ended_at or end for command in commands)
    keys = list(dict.fromkeys(key for command in commands for key in keys_of(command)))
    names = " · ".join(map(words.short_key, keys))
    x, width = axis.x(first), max(0.2, axis.x(last) - axis.x(first))
    fits = len(names) * _PERCENT_A_CHARACTER < width
    title = f"Cycle {cycle}, {names}, {words.hour(first)} to {words.hour(last)}"
    return Block(x, round(width, 2), _hue(reading, keys, cycle), names if fits else "", title)


def _hue(reading: Reading, keys: Sequence[str], cycle: int) -> str:
    batch = reading.batch
    statuses = {row.status for row in reading.batch_stories if row.story_key in keys}
    if StoryStatus.BLOCKED in statuses:
        return "blocked"
    if reading.live and batch and cycle > batch.cycles_completed:
        return "running"
    return "done" if statuses <= {StoryStatus.DONE} else "neutral"


def _asleep(reading: Reading, axis: Axis) -> tuple[Block, ...]:
    batch = reading.batch
    if not (batch and reading.live and batch.state == BatchState.WAITING):
        return ()
    ends = [command.ended_at for command in reading.batch_commands if command.ended_at]
    x = axis.x(max(ends, default=batch.started_at))
    return (Block(x, round(axis.x(reading.now) - x, 2), "asleep", "", "asleep", hatch=True),)


def _ticks(axis: Axis, now: int | None) -> tuple[Tick, ...]:
    minutes = (axis.last - axis.first) / 60_000
    step = next((s for s in _STEPS_MINUTES if minutes / s <= _MOST_TICKS), 960) * 60_000
    first = -(-axis.first // step) * step
    moments = range(first, axis.last, step)
    at = axis.x(now) if now else -100.0
    # The start and now have labels of their own; a tick too near to one of them would run into it.
    free = [moment for moment in moments if 5 < (x := axis.x(moment)) < 97 and abs(x - at) > 4]
    return tuple(
        Tick(axis.x(moment), words.hour(moment), bool(place % 3) or not 15 < axis.x(moment) < 75)
        for place, moment in enumerate(free)
    )


def _blocked(reading: Reading, axis: Axis) -> tuple[Tick, ...]:
    return tuple(
        Tick(axis.x(row.ended_at), row.story_key)
        for row in reading.batch_stories
        if row.status == StoryStatus.BLOCKED and row.ended_at
    )
