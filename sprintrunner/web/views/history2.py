"""The page of all batches: bars of duration and outcome, sums over what the filter chose, and the list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from ...sprint import BatchState, BatchStatus, CommandStatus, StoryStatus
from ...store import BatchRow, Totals
from ...store.reads_history import BatchFilter
from . import looks, words
from .looks import Look
from .reading import Reading

#: Bars in the chart, and the height of its plot in px.
BARS, HEIGHT = 48, 132
_HOUR = 3_600_000
_STEPS = (60_000, 300_000, 900_000, 1_800_000, _HOUR, 2 * _HOUR, 4 * _HOUR, 8 * _HOUR, 24 * _HOUR, 72 * _HOUR)
_GRID = 3


@dataclass(frozen=True, slots=True)
class Wish:
    """What the address asks for."""

    outcome: str = ""
    agent: str = ""
    offset: int = 0

    def address(self, **changes: object) -> str:
        """The address with other values; those that say nothing are left out."""
        named: dict[str, object] = {"outcome": self.outcome, "agent": self.agent, "offset": self.offset}
        sent = urlencode({name: value for name, value in {**named, **changes}.items() if value})
        return f"/batches?{sent}" if sent else "/batches"


@dataclass(frozen=True, slots=True)
class Line:
    """One batch. Time in ms; ``why`` one sentence, may be empty."""

    batch: BatchRow
    word: str
    look: Look
    totals: Totals
    ms: int
    done: int
    blocked: int
    stories: int
    why: str

    @property
    def tokens(self) -> int:
        """All tokens, those from the cache included."""
        return self.totals.tokens_in + self.totals.tokens_out + self.totals.tokens_cache


@dataclass(frozen=True, slots=True)
class Column:
    """One bar: ``x`` and ``width`` in percent, heights in px; ``blocked`` is the part that is red."""

    id: int
    x: float
    width: float
    height: float
    blocked: float
    look: Look
    title: str
    label: str
    listed: bool


@dataclass(frozen=True, slots=True)
class Level:
    """A line of the grid: ``y`` in px from the top of the plot."""

    y: float
    label: str


@dataclass(frozen=True, slots=True)
class Tab:
    """A filter: its name, how many batches it leaves, its address."""

    name: str
    count: int
    href: str
    current: bool


@dataclass(frozen=True, slots=True)
class Sum:
    """One of the numbers over the filtered batches."""

    name: str
    value: str
    beside: str
    below: str


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """The page; offsets in addresses, empty where there is nothing that way."""

    wish: Wish
    columns: tuple[Column, ...]
    levels: tuple[Level, ...]
    tabs: tuple[Tab, ...]
    agents: tuple[str, ...]
    sums: tuple[Sum, ...]
    lines: tuple[Line, ...]
    count: int
    total: int
    newer: str
    older: str


def history_page(reading: Reading, wish: Wish) -> HistoryPage:
    """Read one page of the history, newest first."""
    store, limit = reading.store, reading.layers.values.default_batch_list_limit
    wanted = BatchFilter(wish.outcome, wish.agent)
    lines = _lines(reading, store.batches_where(wanted, limit, wish.offset))
    charted = _lines(reading, store.batches_where(wanted, BARS, wish.offset))
    sums = store.batch_sums(wanted)
    listed = {line.batch.id for line in lines}
    columns, levels = _chart(charted[::-1], listed)
    after = wish.offset + limit
    return HistoryPage(
        wish=wish,
        columns=columns,
        levels=levels,
        tabs=_tabs(reading, wish),
        agents=tuple(store.batch_agents()),
        sums=_sums(reading, wanted),
        lines=lines,
        count=sums.count,
        total=store.count_batches(),
        newer=wish.address(offset=max(0, wish.offset - limit)) if wish.offset else "",
        older=wish.address(offset=after) if after < sums.count else "",
    )


def _lines(reading: Reading, rows: Sequence[BatchRow]) -> tuple[Line, ...]:
    ids = [row.id for row in rows]
    totals = reading.store.totals_of(ids)
    counts = reading.store.story_counts(min(ids), max(ids)) if ids else {}
    return tuple(line_of(reading, row, totals.get(row.id, Totals()), counts.get(row.id, {})) for row in rows)


def line_of(reading: Reading, row: BatchRow, totals: Totals, counts: Mapping[str, int]) -> Line:
    """One batch as a row of the list."""
    blocked = counts.get(StoryStatus.BLOCKED, 0)
    # While it runs its state says more than its status.
    word = str(
        row.state if row.status == BatchStatus.RUNNING and row.state != BatchState.ENDED else row.status
    )
    told = [f"{blocked} blocked"] if blocked else []
    told += [row.reason] if row.reason else []
    return Line(
        batch=row,
        word=word,
        look=looks.of("batch", word),
        totals=totals,
        ms=max(0, (row.ended_at or reading.now) - row.started_at),
        done=counts.get(StoryStatus.DONE, 0),
        blocked=blocked,
        stories=sum(counts.values()),
        why=", ".join(told),
    )


def _chart(lines: Sequence[Line], listed: set[int]) -> tuple[tuple[Column, ...], tuple[Level, ...]]:
    longest = max((line.ms for line in lines), default=0) or 1
    step = next(
        (one for one in _STEPS if longest / one <= _GRID + 0.5), -(-longest // (_GRID * _HOUR)) * _HOUR
    )
    top = max(longest, step) * 1.06
    slot = min(8.0, 100 / max(1, len(lines)))
    every = -(-len(lines) // 16)
    columns = tuple(
        _column(line, place * slot, slot, top, place % every == 0 or place == len(lines) - 1, listed)
        for place, line in enumerate(lines)
    )
    marks = range(0, int(top), step)
    return columns, tuple(
        Level(round(HEIGHT - HEIGHT * mark / top, 1), _length(mark, step)) for mark in marks
    )


def _column(line: Line, x: float, slot: float, top: float, labelled: bool, listed: set[int]) -> Column:
    height = max(3.0, HEIGHT * line.ms / top)
    share = line.blocked / line.stories if line.stories else 0.0
    title = f"Batch {line.batch.id}, {line.word}, {words.span(line.ms)}, {line.done} of {line.stories} done"
    return Column(
        id=line.batch.id,
        x=round(x + slot * 0.2, 3),
        width=round(slot * 0.6, 3),
        height=round(height, 1),
        blocked=round(max(4.0, height * share), 1) if share else 0.0,
        look=line.look,
        title=title + (f", {line.blocked} blocked" if line.blocked else ""),
        label=str(line.batch.id) if labelled else "",
        listed=line.batch.id in listed,
    )


def _length(ms: int, step: int) -> str:
    if step % _HOUR == 0:
        return f"{ms // _HOUR} h"
    return f"{ms // 60_000} min"


def _tabs(reading: Reading, wish: Wish) -> tuple[Tab, ...]:
    counts = reading.store.outcomes()
    everything = sum(count for name, count in counts.items() if name != "blocked")
    names = ["", "blocked", *(str(status) for status in BatchStatus)]
    return tuple(
        Tab(
            "All"
            if not name
            else "With blocked"
            if name == "blocked"
            else name.replace("_", " ").capitalize(),
            everything if not name else counts.get(name, 0),
            wish.address(outcome=name, offset=0),
            name == wish.outcome,
        )
        for name in names
        if not name or counts.get(name) or name == wish.outcome
    )


_LOST = (CommandStatus.FAILED, CommandStatus.TIMED_OUT, CommandStatus.INTERRUPTED, CommandStatus.LIMITED)


def _sums(reading: Reading, wanted: BatchFilter) -> tuple[Sum, ...]:
    batches, commands = reading.store.batch_sums(wanted), reading.store.command_sums(wanted)
    done, blocked = batches.stories.get("done", 0), batches.stories.get("blocked", 0)
    cost = sum(one.cost_usd or 0.0 for one in commands)
    lost = [one for one in commands if one.status in _LOST]
    wasted, many = sum(one.cost_usd or 0.0 for one in lost), sum(one.count for one in commands)
    share = f"{100 * wasted / cost:.0f} %" if cost else words.number(sum(one.count for one in lost))
    of = f"of the cost, {sum(one.count for one in lost):,} of {many:,} commands"
    a_batch = f"{done / batches.count:.1f} a batch" if batches.count else ""
    a_story = f"{words.money(cost / done)} a finished story, retries included" if done and cost else ""
    return (
        Sum("Stories done", f"{done:,}", f"{blocked} blocked" if blocked else "", a_batch),
        Sum(
            "Time",
            words.span(batches.ms),
            "",
            f"{words.span(batches.ms // batches.count)} a batch" if batches.count else "",
        ),
        Sum("Cost", words.money(cost) if cost else "–", "", a_story),
        Sum("Failed and repeated", share, "", of),
        _reviews(reading.store.review_rounds(wanted)),
        Sum("Without a person", f"{batches.calm:,} of {batches.count:,}", "", "batches that needed nobody"),
    )


def _reviews(rounds: Mapping[int, int]) -> Sum:
    stories = sum(rounds.values())
    if not stories:
        return Sum("Code reviews a story", "–", "", "")
    mean = sum(number * count for number, count in rounds.items()) / stories
    return Sum("Code reviews a story", f"{mean:.1f}", "", f"median {median(rounds)}, longest {max(rounds)}")


def median(rounds: Mapping[int, int]) -> int:
    """The number in the middle of a histogram."""
    left = sum(rounds.values()) / 2
    for number, count in sorted(rounds.items()):
        left -= count
        if left <= 0:
            return number
    return 0
