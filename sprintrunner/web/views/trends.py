"""Trends: how long commands take and what they cost, review rounds a story, stories done over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...sprint import CommandStatus, StatusClass
from ...store.reads_history import BatchFilter, CommandTime
from ...workflow import STORY_COMMANDS
from . import words
from .night import Tick
from .reading import Reading

#: Newest batches that the page looks at.
BATCHES = 100
#: The width and height in which the line of done stories is drawn; it is stretched to its place.
WIDE, HIGH = 1000, 300
_MOST_TICKS = 6
#: A story with as many reviews is out of the ordinary.
_MANY_REVIEWS = 5
_DAY = 86_400_000
#: Batches whose pace tells how much is left.
_PACE = 10


@dataclass(frozen=True, slots=True)
class CommandTrend:
    """One kind of command: median and 90th percentile in ms, both as percent of the longest."""

    name: str
    median: int
    high: int
    median_x: float
    high_x: float
    cost: float | None
    count: int
    failed: int


@dataclass(frozen=True, slots=True)
class Round:
    """How many stories had ``number`` reviews; ``width`` in percent of the most frequent."""

    number: int
    count: int
    width: float
    many: bool


@dataclass(frozen=True, slots=True)
class BurnUp:
    """Stories done over time. ``line`` are the points of a path in WIDE × HIGH; ticks in percent."""

    line: str
    area: str
    ticks: tuple[Tick, ...]
    levels: tuple[Tick, ...]
    days: tuple[tuple[str, int, int], ...]
    done: int
    total: int
    pace: str


@dataclass(frozen=True, slots=True)
class TrendsPage:
    """The page; ``basis`` says what it was made from."""

    commands: tuple[CommandTrend, ...]
    rounds: tuple[Round, ...]
    burn: BurnUp | None
    basis: str


def trends_page(reading: Reading) -> TrendsPage:
    """Read the page."""
    latest = reading.store.latest_batch()
    first = max(1, latest.id - BATCHES + 1) if latest else 1
    times = reading.store.command_times(first)
    count = min(BATCHES, reading.store.count_batches())
    return TrendsPage(
        commands=_commands(times),
        rounds=_rounds(reading.store.review_rounds(BatchFilter(), first)),
        burn=_burn(reading),
        basis=f"the newest {words.plural(count, 'batch', 'batches')}, {len(times):,} commands",
    )


def _commands(times: Sequence[CommandTime]) -> tuple[CommandTrend, ...]:
    by_name: dict[str, list[CommandTime]] = {}
    for one in times:
        by_name.setdefault(one.command, []).append(one)
    order = [*map(str, STORY_COMMANDS), *sorted(set(by_name) - set(map(str, STORY_COMMANDS)))]
    made = [_trend(name, by_name[name]) for name in order if name in by_name]
    longest = max((one.high for one in made), default=0) or 1
    return tuple(_placed(one, longest) for one in made)


def _trend(name: str, times: Sequence[CommandTime]) -> CommandTrend:
    good = [one for one in times if one.status == CommandStatus.SUCCEEDED] or list(times)
    lengths = sorted(one.ms for one in good)
    costs = [one.cost_usd for one in good if one.cost_usd is not None]
    return CommandTrend(
        name=name,
        median=lengths[len(lengths) // 2],
        high=lengths[min(len(lengths) - 1, len(lengths) * 9 // 10)],
        median_x=0.0,
        high_x=0.0,
        cost=sum(costs) / len(costs) if costs else None,
        count=len(times),
        failed=sum(one.status in (CommandStatus.FAILED, CommandStatus.TIMED_OUT) for one in times),
    )


def _placed(one: CommandTrend, longest: int) -> CommandTrend:
    middle, high = round(100 * one.median / longest, 2), round(100 * one.high / longest, 2)
    return CommandTrend(one.name, one.median, one.high, middle, high, one.cost, one.count, one.failed)


def _rounds(found: Mapping[int, int]) -> tuple[Round, ...]:
    most = max(found.values(), default=1)
    numbers = range(1, max(found, default=0) + 1)
    return tuple(
        Round(n, found.get(n, 0), round(100 * found.get(n, 0) / most, 1), n >= _MANY_REVIEWS) for n in numbers
    )


def _burn(reading: Reading) -> BurnUp | None:
    known = {entry.key for entry in reading.entries}
    moments = [at for key, at in reading.store.done_moments() if key in known]
    if not moments:
        return None
    counted = [e for e in reading.entries if e.status_class in (StatusClass.OPEN, StatusClass.DONE)]
    before = sum(e.status_class is StatusClass.DONE for e in counted) - len(moments)
    begun = max(0, before)
    total = max(len(counted), begun + len(moments))
    first, last = moments[0], max(reading.now, moments[-1] + 1)
    first -= max(60_000, (last - first) // 40)
    points = _steps(moments, first, last, begun, total)
    return BurnUp(
        line=" ".join(points),
        area=" ".join((f"0,{HIGH}", *points, f"{WIDE},{HIGH}")),
        ticks=_ticks(first, last),
        levels=tuple(Tick(round(100 - 100 * n / total, 1), str(n)) for n in sorted({0, total // 2, total})),
        days=_days(moments, begun),
        done=begun + len(moments),
        total=total,
        pace=_pace(reading, total - begun - len(moments)),
    )


def _steps(moments: Sequence[int], first: int, last: int, begun: int, total: int) -> list[str]:
    def point(at: int, done: int) -> str:
        return f"{WIDE * (at - first) / (last - first):.1f},{HIGH - HIGH * done / total:.1f}"

    points = [point(first, begun)]
    for number, at in enumerate(moments, begun + 1):
        points += [point(at, number - 1), point(at, number)]
    return [*points, point(last, begun + len(moments))]


def _ticks(first: int, last: int) -> tuple[Tick, ...]:
    span = last - first
    form = (
        words.second
        if span < 10 * 60_000
        else words.hour
        if span < 2 * _DAY
        else lambda ms: words.day(ms).rpartition(" ")[0]
    )
    step = span // _MOST_TICKS
    moments = range(first + step // 2, last, step) if step else ()
    return tuple(Tick(round(100 * (at - first) / span, 1), form(at)) for at in moments)


def _days(moments: Sequence[int], begun: int) -> tuple[tuple[str, int, int], ...]:
    """For each day with a finished story its name, how many, and how many in all by then; the newest 30."""
    counts: dict[str, int] = {}
    for at in moments:
        name = words.day(at).rpartition(" ")[0]
        counts[name] = counts.get(name, 0) + 1
    rows, done = [], begun
    for name, count in counts.items():
        done += count
        rows.append((name, count, done))
    return tuple(rows[-30:][::-1])


def _pace(reading: Reading, left: int) -> str:
    """How many batches the open stories need at the pace of the newest ones; empty where nothing tells."""
    rows = [row for row in reading.store.batches(_PACE) if row.ended_at]
    if left <= 0 or len(rows) < 3:
        return ""
    ids = [row.id for row in rows]
    counts = reading.store.story_counts(min(ids), max(ids))
    done = sorted(counts.get(number, {}).get("done", 0) for number in ids)
    slow, quick = done[len(done) // 4], done[-1 - len(done) // 4]
    if not slow or not quick:
        return ""
    least, most = -(-left // quick), -(-left // slow)
    between = str(least) if least == most else f"{least} – {most}"
    more = f"{between} more {'batch' if most == 1 else 'batches'}"
    return f"{left} open, {more} at the pace of the last {len(rows)}"
