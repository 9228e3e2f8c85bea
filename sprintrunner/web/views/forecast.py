"""When the batch will end: a range told from the cycles this project has gone through, or nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ...sprint import BatchState, Entry, StoryStatus
from ...store import BatchRow, CommandRow, StoryRow
from . import plan
from .reading import Reading

#: Fewer cycles than this tell nothing, and nothing is shown.
LEAST_CYCLES = 3
#: How far back cycles are looked for.
_BATCHES, _MOST_CYCLES = 8, 40
#: Planned cycles that are drawn each for itself; what comes after them is one block.
MOST_PLANNED = 12

_SETTLED = (StoryStatus.DONE, StoryStatus.BLOCKED)
#: Times of the cycles of ended batches, which never change: by state folder, batch and moment of its end.
_known: dict[tuple[str, int, int], tuple[float, ...]] = {}


@dataclass(frozen=True, slots=True)
class Planned:
    """A cycle to come, or the rest of the running one (no keys): its keys, and from when to when, in ms."""

    keys: tuple[str, ...]
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """The expected end lies between ``low`` and ``high`` (ms); told from so many ``cycles``."""

    low: int
    high: int
    cycles: int
    planned: tuple[Planned, ...]


def forecast(reading: Reading) -> Forecast | None:
    """Read the forecast, None while nothing runs, a stop was asked, or too little is known."""
    batch = reading.batch
    if batch is None or not reading.live or batch.state == BatchState.STOPPING or batch.stop_after_story:
        return None
    paces = _paces(reading, batch)
    if len(paces) < LEAST_CYCLES:
        return None
    return _told(reading, batch, sorted(paces))


def _told(reading: Reading, batch: BatchRow, paces: Sequence[float]) -> Forecast:
    begin = max(reading.now, batch.resumes_at or 0) if batch.state == BatchState.WAITING else reading.now
    groups = reading.once(plan.cycles_to_come)
    stories = sum(map(len, groups))
    now, worked = _current(reading)
    low, middle, high = (_quantile(paces, share) for share in (0.25, 0.5, 0.75))
    # A cycle that has already taken longer than usual still has something before it.
    left = [max(pace * now - worked, pace * now / 10) + pace * stories for pace in (low, high)]
    first = begin + int(max(middle * now - worked, middle * now / 10))
    return Forecast(
        low=begin + int(left[0]),
        high=begin + int(left[1]),
        cycles=len(paces),
        planned=(*([Planned((), begin, first)] if now else []), *_planned(groups, first, middle)),
    )


def _planned(groups: Sequence[Sequence[Entry]], first: int, pace: float) -> tuple[Planned, ...]:
    shown = [tuple(entry.key for entry in group) for group in groups[:MOST_PLANNED]]
    if rest := tuple(entry.key for group in groups[MOST_PLANNED:] for entry in group):
        shown.append(rest)
    found = []
    for keys in shown:
        last = first + int(pace * len(keys))
        found.append(Planned(keys, first, last))
        first = last
    return tuple(found)


def _current(reading: Reading) -> tuple[int, float]:
    """How many stories of the running cycle are not settled, and how long (ms) agents worked in it."""
    unsettled = [row for row in reading.batch_stories if row.status not in _SETTLED and row.cycle is not None]
    if not unsettled:
        return 0, 0.0
    cycle = max(row.cycle or 0 for row in unsettled)
    mine = [command for command in reading.batch_commands if command.cycle == cycle]
    stories = sum(row.cycle == cycle for row in reading.batch_stories)
    return stories, _busy(mine, reading.now)


def _quantile(ordered: Sequence[float], share: float) -> float:
    """A quantile by linear interpolation."""
    at = share * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def _paces(reading: Reading, live: BatchRow) -> list[float]:
    """Time of agents per story (ms) of each finished cycle, newest batches first."""
    found: list[float] = []
    for batch in reading.store.batches(_BATCHES):
        found.extend(_of_batch(reading, batch) if batch.id != live.id else _of_live(reading))
    return found[:_MOST_CYCLES]


def _of_live(reading: Reading) -> tuple[float, ...]:
    return _cycle_paces(reading.batch_stories, reading.batch_commands, reading.now)


def _of_batch(reading: Reading, batch: BatchRow) -> tuple[float, ...]:
    at = (str(reading.services.state_dir), batch.id, batch.ended_at or 0)
    if at not in _known:
        if len(_known) > 8 * _BATCHES:
            _known.clear()
        stories, commands = reading.store.stories(batch.id), reading.store.commands(batch.id)
        _known[at] = _cycle_paces(stories, commands, reading.now)
    return _known[at]


def _cycle_paces(stories: Iterable[StoryRow], commands: Iterable[CommandRow], now: int) -> tuple[float, ...]:
    by_cycle: dict[int, list[StoryRow]] = {}
    for row in stories:
        if row.cycle is not None:
            by_cycle.setdefault(row.cycle, []).append(row)
    worked: dict[int, list[CommandRow]] = {}
    for command in commands:
        if command.cycle is not None:
            worked.setdefault(command.cycle, []).append(command)
    return tuple(
        busy / len(rows)
        for cycle, rows in by_cycle.items()
        if all(row.status in _SETTLED for row in rows) and (busy := _busy(worked.get(cycle, []), now)) > 0
    )


def _busy(commands: Iterable[CommandRow], now: int) -> float:
    """How long at least one of them ran, in ms: sleeps and times without a server do not count."""
    spans = sorted((command.started_at, command.ended_at or now) for command in commands)
    total, reached = 0, 0
    for first, last in spans:
        total += max(0, last - max(first, reached))
        reached = max(reached, last)
    return float(total)
