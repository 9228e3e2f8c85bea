"""One batch over time: a row for each kind of command, a bar for each command, in percent of the window."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ...sprint import Command, CommandStatus
from ...store import BatchRow, CommandRow
from ...store.reads_history import EventFilter
from ...workflow import STORY_COMMANDS
from . import looks, night, words
from .commands import CommandLine, lines_of
from .gaps import gaps
from .looks import Look
from .night import Axis, Night, Tick
from .reading import Reading, keys_of, took

#: Shortest and longest window, in ms.
SHORTEST, LONGEST = 30_000, 1_000 * 24 * 3_600_000
_STEPS_SECONDS = (5, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400)
_MOST_TICKS = 14
#: A label needs about this share of the track for each of its characters, in percent.
_PERCENT_A_CHARACTER = 0.62
_VERIFY = "verify"
_KINDS = (
    str(Command.GENERATE_PROJECT_CONTEXT),
    *map(str, (c for c in STORY_COMMANDS if c is not Command.CODE_REVIEW and c is not Command.COMMIT)),
    _VERIFY,
    str(Command.CODE_REVIEW),
    str(Command.COMMIT),
)
_MOST_VERIFY_EVENTS = 500
#: A shorter gap after a limit or an interruption is no sleep, in ms.
_GAP = 2_000


@dataclass(frozen=True, slots=True)
class Bar:
    """One command, or one verify run of it. ``x`` and ``width`` in percent, ``lane`` counts from 0.

    ``label`` stands ``inside`` or right of the bar; ``left``: its card opens to the left.
    """

    line: CommandLine
    name: str
    look: Look
    x: float
    width: float
    label: str
    inside: bool
    left: bool
    lane: int = 0
    ms: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """The bars of one kind of command; ``up``: their cards open upwards."""

    name: str
    bars: tuple[Bar, ...]
    lanes: int
    up: bool


@dataclass(frozen=True, slots=True)
class Band:
    """A stretch in which nothing ran: ``asleep`` or ``attention`` (the server was away)."""

    x: float
    width: float
    hue: str
    label: str


@dataclass(frozen=True, slots=True)
class Choice:
    """A window one can go to."""

    name: str
    href: str
    current: bool = False


@dataclass(frozen=True, slots=True)
class TimelinePage:
    """The page. ``frame`` is where the window lies in the overview: x and width in percent."""

    batch: BatchRow
    status: str
    night: Night | None
    frame: tuple[float, float]
    first: int
    last: int
    rows: tuple[Row, ...]
    ticks: tuple[Tick, ...]
    bands: tuple[Band, ...]
    cycles: tuple[Tick, ...]
    at: float | None
    choices: tuple[Choice, ...]
    moves: tuple[Choice, ...]
    shown: tuple[CommandLine, ...]
    most_at_once: int
    told: str
    older: int | None
    newer: int | None
    now: int


def timeline_page(reading: Reading, batch: BatchRow, first: int | None, last: int | None) -> TimelinePage:
    """Read the page of one batch; ``first`` and ``last`` (ms) bound the window, the whole batch without."""
    own = Reading(reading.services)
    own.batch = batch
    commands = own.commands_of(batch.id)
    axis = _window(own, batch, first, last)
    inside = [one for one in commands if _touches(one, axis, own.now)]
    whole = night.axis_of(own, batch)
    return TimelinePage(
        batch=batch,
        status=str(batch.state if own.live else batch.status),
        night=night.night(own),
        frame=_frame(whole, axis),
        first=axis.first,
        last=axis.last,
        rows=rows_of(own, batch, inside, axis),
        ticks=ticks_of(axis),
        bands=bands_of(own, commands, axis),
        cycles=_cycles(commands, axis),
        at=axis.x(own.now) if own.live and axis.first <= own.now <= axis.last else None,
        choices=_choices(batch, commands, axis, whole, own.now),
        moves=_moves(batch, axis, whole),
        shown=lines_of(own, inside),
        most_at_once=_most_at_once(inside, own.now),
        told=_told(reading, batch),
        older=batch.id - 1 if reading.store.batch(batch.id - 1) else None,
        newer=batch.id + 1 if reading.store.batch(batch.id + 1) else None,
        now=own.now,
    )


def _told(reading: Reading, batch: BatchRow) -> str:
    counts = reading.store.story_counts(batch.id, batch.id).get(batch.id, {})
    total, done, blocked = sum(counts.values()), counts.get("done", 0), counts.get("blocked", 0)
    cost = reading.store.batch_totals(batch.id).cost_usd
    parts = [f"{done} of {words.plural(total, 'story', 'stories')} done"]
    parts += [f"{blocked} blocked"] if blocked else []
    parts += [words.money(cost)] if cost is not None else []
    return ", ".join(parts)


def _window(reading: Reading, batch: BatchRow, first: int | None, last: int | None) -> Axis:
    end = (batch.ended_at or reading.now) + 1_000
    begin = batch.started_at if first is None else first
    until = end if last is None else last
    if until - begin < SHORTEST:
        until = begin + SHORTEST
    return Axis(begin, min(until, begin + LONGEST))


def _touches(command: CommandRow, axis: Axis, now: int) -> bool:
    return command.started_at <= axis.last and (command.ended_at or now) >= axis.first


def _frame(whole: Axis, axis: Axis) -> tuple[float, float]:
    x = whole.x(axis.first)
    return x, round(max(0.4, whole.x(axis.last) - x), 2)


def rows_of(reading: Reading, batch: BatchRow, commands: Sequence[CommandRow], axis: Axis) -> tuple[Row, ...]:
    """A row for each kind of command, in the order of the workflow, with the bars of these commands."""
    by_name: dict[str, list[Bar]] = {name: [] for name in _KINDS}
    lines = lines_of(reading, commands)
    for command, line in zip(commands, lines, strict=True):
        bar = _bar(line, command.command, line.since, line.since + line.ms, axis, _label(command))
        by_name.setdefault(command.command, []).append(bar)
    by_name[_VERIFY] = _verify_bars(reading, batch, commands, lines, axis)
    half = len(by_name) // 2
    return tuple(_row(name, bars, place >= half) for place, (name, bars) in enumerate(by_name.items()))


def _label(command: CommandRow) -> str:
    keys = ", ".join(map(words.short_key, keys_of(command)))
    return f"{keys} · {command.attempt}" if command.attempt > 1 and keys else keys or str(command.attempt)


def _bar(line: CommandLine, name: str, began: int, ended: int, axis: Axis, label: str) -> Bar:
    x = axis.x(began)
    width = round(max(0.15, axis.x(ended) - x), 2)
    inside = len(label) * _PERCENT_A_CHARACTER + 0.8 < width
    look = looks.of("command", line.status)
    return Bar(line, name, look, x, width, label, inside, x > 60, ms=ended - began)


def _row(name: str, bars: Sequence[Bar], up: bool) -> Row:
    """Bars that overlap go into lanes; a label that would run into its neighbour goes."""
    free: list[float] = []
    placed = []
    for bar in sorted(bars, key=lambda one: one.x):
        lane = next((i for i, end in enumerate(free) if end <= bar.x + 0.01), len(free))
        free[lane : lane + 1] = [bar.x + bar.width]
        placed.append(replace(bar, lane=lane))
    return Row(name, tuple(_labelled(placed)), max(1, len(free)), up)


def _labelled(bars: Sequence[Bar]) -> Iterable[Bar]:
    for place, bar in enumerate(bars):
        after = next((other.x for other in bars[place + 1 :] if other.lane == bar.lane), 101.0)
        needs = len(bar.label) * _PERCENT_A_CHARACTER + 0.8
        fits = bar.inside or bar.x + bar.width + needs < after
        short = bar.label.rpartition("· ")[2]
        if not fits and short != bar.label and bar.x + bar.width + 1.2 < after:
            yield replace(bar, label=short)
        else:
            yield bar if fits else replace(bar, label="")


def _verify_bars(
    reading: Reading,
    batch: BatchRow,
    commands: Sequence[CommandRow],
    lines: Sequence[CommandLine],
    axis: Axis,
) -> list[Bar]:
    """Our own verify commands: from the event that announces one to the end of its command, or the next."""
    wanted = EventFilter(batch.id, "command:progress", task=_VERIFY)
    events = reading.store.events_where(wanted, None, _MOST_VERIFY_EVENTS)[::-1]
    bars = []
    for command, line in zip(commands, lines, strict=True):
        end = command.ended_at or reading.now
        mine = [
            event
            for event in events
            if event.payload.get("command") == command.command
            and event.payload.get("story_key") == command.story_keys
            and command.started_at <= event.timestamp <= end
        ]
        moments = [*(event.timestamp for event in mine), end]
        for event, until in zip(mine, moments[1:], strict=True):
            name = str(event.payload["message"])
            bars.append(_bar(line, name, event.timestamp, until, axis, ""))
    return bars


def ticks_of(axis: Axis) -> tuple[Tick, ...]:
    """The marks of an axis, at round moments."""
    seconds = (axis.last - axis.first) / 1000
    step = next((s for s in _STEPS_SECONDS if seconds / s <= _MOST_TICKS), 7 * 86400) * 1000
    form = words.second if step < 60_000 else words.hour if step < 86_400_000 else words.day
    first = -(-axis.first // step) * step
    return tuple(Tick(axis.x(moment), form(moment)) for moment in range(first, axis.last, step))


def bands_of(reading: Reading, commands: Sequence[CommandRow], axis: Axis) -> tuple[Band, ...]:
    """What the log tells of sleeps and lost servers, else what the gaps between the commands tell."""
    told = gaps(reading, reading.batch) if reading.batch else ()
    if told:
        seen = [gap for gap in told if gap.first < axis.last and gap.last > axis.first and gap.ms >= _GAP]
        return tuple(_band(_KIND_OF[gap.kind], gap.first, gap.last, axis) for gap in seen)
    return _between(reading, commands, axis)


def _between(reading: Reading, commands: Sequence[CommandRow], axis: Axis) -> tuple[Band, ...]:
    """Gaps after a usage limit or an interruption until the next command began."""
    bands = []
    ordered = sorted(commands, key=lambda one: one.started_at)
    for place, command in enumerate(ordered):
        kind = _WAITS.get(reading.outcome(command))
        if kind is None or command.ended_at is None:
            continue
        after = next((other.started_at for other in ordered[place + 1 :]), 0)
        until = after or (reading.now if reading.live else 0)
        busy = any(
            o is not command and o.started_at < until and (o.ended_at or until) > command.ended_at
            for o in ordered
        )
        if (
            until - command.ended_at >= _GAP
            and not busy
            and axis.first < until
            and command.ended_at < axis.last
        ):
            bands.append(_band(kind, command.ended_at, until, axis))
    return tuple(bands)


_KIND_OF = {"asleep": ("asleep", "asleep"), "down": ("attention", "server away")}
_WAITS = {
    CommandStatus.LIMITED: ("asleep", "asleep"),
    CommandStatus.INTERRUPTED: ("attention", "server away"),
}


def _band(kind: tuple[str, str], began: int, ended: int, axis: Axis) -> Band:
    hue, word = kind
    x = axis.x(began)
    width = round(max(0.2, axis.x(ended) - x), 2)
    label = f"{word} {words.hour(began)} – {words.hour(ended)}"
    return Band(x, width, hue, label if len(label) * _PERCENT_A_CHARACTER < width else "")


def _starts(commands: Iterable[CommandRow]) -> dict[int, tuple[int, int]]:
    """When each cycle began and ended (the end of its last command so far)."""
    found: dict[int, tuple[int, int]] = {}
    for command in commands:
        if command.cycle is not None:
            end = command.ended_at or command.started_at
            first, last = found.get(command.cycle, (command.started_at, end))
            found[command.cycle] = (min(first, command.started_at), max(last, end))
    return found


def _cycles(commands: Iterable[CommandRow], axis: Axis) -> tuple[Tick, ...]:
    begun = ((cycle, first) for cycle, (first, _) in sorted(_starts(commands).items()))
    return tuple(Tick(axis.x(at), f"cycle {cycle}") for cycle, at in begun if axis.first <= at < axis.last)


def address(batch: BatchRow, first: int, last: int) -> str:
    """The page with another window."""
    return f"/timeline?batch={batch.id}&from={first}&to={last}"


def _choices(
    batch: BatchRow, commands: Sequence[CommandRow], axis: Axis, whole: Axis, now: int
) -> tuple[Choice, ...]:
    middle, length = (axis.first + axis.last) // 2, axis.last - axis.first
    cycles = sorted(_starts(commands).items())
    near = min(cycles, key=lambda one: abs(sum(one[1]) // 2 - middle), default=None)
    spans = [("1 h", 3_600_000), ("15 min", 900_000)]
    everything = length >= (batch.ended_at or now) - batch.started_at
    choices = [Choice("Whole batch", f"/timeline?batch={batch.id}", everything)]
    if near:
        first, last = near[1]
        edge = max(1_000, (last - first) // 40)
        begin, end = first - edge, last + edge
        choices.append(
            Choice(f"Cycle {near[0]}", address(batch, begin, end), (begin, end) == (axis.first, axis.last))
        )
    for name, span in spans:
        if span < whole.last - whole.first:
            begin = max(whole.first, min(middle - span // 2, whole.last - span))
            choices.append(Choice(name, address(batch, begin, begin + span), length == span))
    return tuple(choices)


def _moves(batch: BatchRow, axis: Axis, whole: Axis) -> tuple[Choice, ...]:
    """Earlier, later, nearer, farther; one that leads nowhere has no address."""
    length = axis.last - axis.first
    step, middle = length * 3 // 4, (axis.first + axis.last) // 2
    near, far = max(SHORTEST, length // 2), length * 2
    earlier, later = axis.first > whole.first, axis.last < whole.last
    wide = length < whole.last - whole.first
    return (
        Choice("Earlier", address(batch, axis.first - step, axis.last - step) if earlier else ""),
        Choice("Later", address(batch, axis.first + step, axis.last + step) if later else ""),
        Choice(
            "Zoom in", address(batch, middle - near // 2, middle + near // 2) if length > SHORTEST else ""
        ),
        Choice("Zoom out", address(batch, middle - far // 2, middle + far // 2) if wide else ""),
    )


def _most_at_once(commands: Iterable[CommandRow], now: int) -> int:
    edges = sorted(
        edge
        for one in commands
        for edge in ((one.started_at, 1), (one.started_at + max(1, took(one, now)), -1))
    )
    most = running = 0
    for _, change in edges:
        running += change
        most = max(most, running)
    return most
