"""The night line: the whole batch on one time axis, its cycles as blocks, in percent of the width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...sprint import StoryStatus
from ...store import BatchRow, CommandRow
from . import words
from .forecast import Forecast, forecast
from .handled import batch_gaps
from .reading import Reading, keys_of

_STEPS_MINUTES = (1, 2, 5, 10, 15, 30, 60, 120, 240, 480)
#: Most marks on the axis.
_MOST_TICKS = 9
#: A label needs about this share of the line for each of its characters, in percent.
_PERCENT_A_CHARACTER = 0.75


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch of the line from ``x``, ``width`` wide, both in percent; ``hue`` = its worst outcome.

    ``kind``: cycle, asleep, down, planned, or end (the range in which the batch ends).
    """

    kind: str
    x: float
    width: float
    hue: str
    label: str
    title: str
    href: str = ""


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
    ends: str
    said: str


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
    end, ahead, axis = batch.ended_at or reading.now, reading.once(forecast), axis_of(reading, batch)
    cycles = _cycles(reading, axis, end)
    ends = words.ends(ahead.low, ahead.high) if ahead else ""
    return Night(
        blocks=cycles + _gaps(reading, axis) + (_planned(axis, ahead) if ahead else ()),
        ticks=_ticks(axis, reading.now if reading.live else None, 82 if ahead else 97),
        blocked=_blocked(reading, axis),
        at=Tick(axis.x(reading.now), words.hour(reading.now)) if reading.live else None,
        begin=words.hour(batch.started_at),
        ends=ends,
        said=_said(reading, len(cycles), ends),
    )


def axis_of(reading: Reading, batch: BatchRow) -> Axis:
    """The axis from the start of the batch to its end, to its expected end while it runs."""
    length = max(60_000, (batch.ended_at or reading.now) - batch.started_at)
    # While it runs some room is left at the right, so that the line does not look finished.
    last = batch.started_at + int(length * (1.12 if reading.live else 1.0))
    ahead = reading.once(forecast)
    return Axis(batch.started_at, max(last, ahead.high if ahead else 0, batch.resumes_at or 0))


def _said(reading: Reading, cycles: int, ends: str) -> str:
    began = words.hour(reading.batch.started_at) if reading.batch else ""
    now = f", now {words.hour(reading.now)}" if reading.live else ""
    return f"{words.plural(cycles, 'cycle')} since {began}{now}{f', ends {ends}' if ends else ''}"


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
    title = f"Cycle {cycle}, {names}, {words.hour(first)} to {words.hour(last)}"
    href = f"/timeline?batch={reading.batch.id if reading.batch else ''}&from={first}&to={last}"
    label = _fitting(names, width)
    return Block("cycle", x, round(width, 2), _hue(reading, keys, cycle), label, title, href)


def _fitting(label: str, width: float) -> str:
    return label if len(label) * _PERCENT_A_CHARACTER < width else ""


def _hue(reading: Reading, keys: Sequence[str], cycle: int) -> str:
    batch = reading.batch
    statuses = {row.status for row in reading.batch_stories if row.story_key in keys}
    if StoryStatus.BLOCKED in statuses:
        return "blocked"
    if reading.live and batch and cycle > batch.cycles_completed:
        return "running"
    return "done" if statuses <= {StoryStatus.DONE} else "neutral"


def _gaps(reading: Reading, axis: Axis) -> tuple[Block, ...]:
    found = []
    for gap in reading.once(batch_gaps):
        last = (
            reading.batch.resumes_at if gap.open and reading.batch and reading.batch.resumes_at else gap.last
        )
        x = min(axis.x(gap.first), 99.7)
        width = min(100 - x, max(0.3, axis.x(last) - x))
        asleep = gap.kind == "asleep"
        label = "" if gap.open or not asleep else _fitting("asleep", width)
        title = f"{'Asleep' if asleep else 'Down'}, {words.hour(gap.first)} to {words.hour(last)}"
        found.append(Block(gap.kind, x, round(width, 2), "asleep" if asleep else "attention", label, title))
    return tuple(found)


def _planned(axis: Axis, ahead: Forecast) -> tuple[Block, ...]:
    """What is still to come, and the range in which the batch ends, over it."""
    found = []
    for planned in ahead.planned:
        x, width = axis.x(planned.first), axis.x(planned.last) - axis.x(planned.first)
        many = len(planned.keys) > 2
        names = f"{len(planned.keys)} more" if many else " · ".join(map(words.short_key, planned.keys))
        what = f"Planned: {names}" if names else "Rest of this cycle"
        title = f"{what}, {words.hour(planned.first)} to {words.hour(planned.last)}"
        found.append(Block("planned", x, round(width, 2), "neutral", _fitting(names, width), title))
    x = axis.x(ahead.low)
    ends = words.ends(ahead.low, ahead.high)
    found.append(Block("end", x, round(100 - x, 2), "neutral", "", f"Ends {ends}"))
    return tuple(found)


def _ticks(axis: Axis, now: int | None, most: int) -> tuple[Tick, ...]:
    minutes = (axis.last - axis.first) / 60_000
    step = next((s for s in _STEPS_MINUTES if minutes / s <= _MOST_TICKS), 960) * 60_000
    first = -(-axis.first // step) * step
    moments = range(first, axis.last, step)
    at = axis.x(now) if now else -100.0
    # The start and now have labels of their own; a tick too near to one of them would run into it.
    free = [moment for moment in moments if 5 < (x := axis.x(moment)) < most and abs(x - at) > 5]
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
