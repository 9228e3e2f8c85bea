"""The verdict bar: the one word that answers first, the facts beside it, and what can be done now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...sprint import BatchState, BatchStatus, StoryStatus
from ...store import BatchRow, Totals
from . import marks, plan, words
from .drift import foreign_paths
from .forecast import Forecast, forecast
from .gaps import slept
from .handled import batch_gaps
from .needs import attention
from .plan import Segment
from .reading import Reading

#: Cycles the Start form offers beside the default and all.
_CHOICES = (1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 50)
#: Stories the Start form lists to choose from; the page of each other one starts it as well.
_MOST_LISTED = 24


@dataclass(frozen=True, slots=True)
class State:
    """The word, its look, and the line below it. ``solid``: it calls for a person."""

    slug: str
    word: str
    below: str
    hue: str
    glyph: str
    solid: bool = False


@dataclass(frozen=True, slots=True)
class Cycles:
    """Progress of the batch; ``most`` None is unlimited, where no bar can have an end."""

    done: int
    most: int | None

    @property
    def text(self) -> str:
        """The words beside the bar."""
        if self.most is None:
            return f"{words.plural(self.done, 'cycle')} (unlimited)"
        return f"{self.done}/{self.most} cycles"


@dataclass(frozen=True, slots=True)
class Spent:
    """Spent of what may be spent, in dollars or tokens; ``percent`` is None without a budget."""

    spent: float | None
    budget: float | None

    @property
    def percent(self) -> float | None:
        """Share of the budget, 100 at most."""
        return None if not self.budget else min(100.0, 100.0 * (self.spent or 0.0) / self.budget)

    @property
    def level(self) -> str:
        """``ok``, ``high`` from 80 %, ``over`` from 95 %."""
        percent = self.percent or 0.0
        return "over" if percent >= 95 else "high" if percent >= 80 else "ok"


@dataclass(frozen=True, slots=True)
class Start:
    """The Start form: what it offers, and why it cannot be used where it cannot."""

    choices: tuple[int, ...]
    default: int
    refusal: str
    stories: tuple[str, ...]
    unlisted: int


@dataclass(frozen=True, slots=True)
class LastEvent:
    """The newest event: ``at`` in ms, None before there is one."""

    id: int
    at: int | None
    live: bool


@dataclass(frozen=True, slots=True)
class Bar:
    """All that the verdict bar and the title show. Times in ms, UTC; None = nothing to show."""

    state: State
    needs: int
    title: str
    icon: str
    done: int
    total: int
    blocked: int
    segments: tuple[Segment, ...]
    cycles: Cycles | None
    since: int | None
    took: int | None
    cost: Spent | None
    tokens: Spent | None
    totals: Totals | None
    wakes_at: int | None
    forecast: Forecast | None
    asleep: int
    down: int
    last: LastEvent
    actions: tuple[str, ...]
    start: Start
    now: int


def bar(reading: Reading) -> Bar:
    """Read the verdict bar."""
    needs = len(attention(reading))
    state = _state(reading, needs)
    segments = plan.segments(reading)
    live_batch = reading.batch if reading.live else None
    return Bar(
        state=state,
        needs=needs,
        title=_title(reading, state, needs, segments),
        icon=marks.favicon(state.hue, "blocked" if needs and live_batch else ""),
        done=sum(s.state == "done" for s in segments),
        total=len(segments),
        blocked=sum(s.state == "blocked" for s in segments),
        segments=segments,
        cycles=_cycles(reading.batch),
        since=live_batch.started_at if live_batch else None,
        took=_took(reading.batch),
        cost=_cost(reading),
        tokens=_tokens(reading.totals, reading.layers.values.budget_tokens_per_batch),
        totals=reading.totals,
        wakes_at=live_batch.resumes_at if live_batch and live_batch.state == BatchState.WAITING else None,
        forecast=reading.once(forecast),
        asleep=slept(reading.once(batch_gaps), "asleep"),
        down=slept(reading.once(batch_gaps), "down"),
        last=last_event(reading),
        actions=_actions(reading, state),
        start=_start(reading),
        now=reading.now,
    )


def last_event(reading: Reading) -> LastEvent:
    """Read the one fact that every event changes."""
    event = reading.last_event
    return LastEvent(event.id if event else 0, event.timestamp if event else None, reading.live)


def _cycles(batch: BatchRow | None) -> Cycles | None:
    return Cycles(batch.cycles_completed, batch.max_cycles) if batch else None


def _took(batch: BatchRow | None) -> int | None:
    return batch.ended_at - batch.started_at if batch and batch.ended_at else None


def _tokens(totals: Totals | None, budget: int | None) -> Spent | None:
    return Spent(totals.tokens_in + totals.tokens_out + totals.tokens_cache, budget) if totals else None


def _cost(reading: Reading) -> Spent | None:
    if reading.totals is None:
        return None
    return Spent(reading.totals.cost_usd, reading.layers.values.budget_usd_per_batch)


def _start(reading: Reading) -> Start:
    default = reading.layers.values.default_max_cycles
    keys = [entry.key for entry in plan.startable(reading)] if not reading.live else []
    return Start(
        choices=tuple(sorted({*_CHOICES, default})),
        default=default,
        refusal=plan.refusal(reading),
        stories=tuple(keys[:_MOST_LISTED]),
        unlisted=max(0, len(keys) - _MOST_LISTED),
    )


def _state(reading: Reading, needs: int) -> State:
    batch = reading.batch
    if batch is None:
        return _idle(reading, needs)
    return _live(batch) if reading.live else _ended(reading, batch, needs)


def _live(batch: BatchRow) -> State:
    cycle = batch.cycles_completed + 1
    of = f" of {batch.max_cycles}" if batch.max_cycles else ""
    below = f"Cycle {cycle}{of}, batch {batch.id}"
    if batch.state == BatchState.WAITING:
        until = f" until {words.hour(batch.resumes_at)}" if batch.resumes_at else ""
        return State("waiting", f"Asleep{until}", _limit(batch), "asleep", "moon")
    if batch.state == BatchState.STOPPING and not batch.stop_after_story:
        return State("stopping", "Stopping", f"Ending what runs, batch {batch.id}", "neutral", "stop")
    if batch.stop_after_story:
        return State("stopping-after", "Stopping", f"After the current story. {below}", "neutral", "stop")
    if batch.state == BatchState.STARTING:
        return State("starting", "Starting", f"Batch {batch.id}", "running", "run")
    return State("running", "Running", below, "running", "run")


def _limit(batch: BatchRow) -> str:
    agent = f" of {batch.agent}" if batch.agent else ""
    return f"{(batch.limit_kind or 'usage').replace('_', ' ')} limit{agent}".capitalize()


def _idle(reading: Reading, needs: int) -> State:
    if needs:
        return _needs_you(reading, needs, "No batch yet")
    dirty = "Start waits for a clean working tree" if _tree_refuses(reading) else ""
    below = plan.refusal(reading) or dirty or "Ready to start the first batch"
    return State("idle", "Idle", below, "neutral", "ring-dash")


def _tree_refuses(reading: Reading) -> bool:
    return reading.layers.values.dirty_tree == "refuse" and bool(foreign_paths(reading))


def _needs_you(reading: Reading, needs: int, after: str) -> State:
    items = attention(reading)
    blocked, repairs = (
        sum(item.blocked for item in items),
        sum(item.where == "status differs" for item in items),
    )
    parts = [f"{blocked} blocked"] if blocked else []
    if repairs:
        parts.append(f"{repairs} to repair")
    if needs > blocked + repairs:
        parts.append(f"{needs - blocked - repairs} to look at")
    return State("needs", "Needs you", f"{', '.join(parts)}. {after}", "blocked", "person", solid=True)


def _ended(reading: Reading, batch: BatchRow, needs: int) -> State:
    ended = f"Batch {batch.id} ended {words.hour(batch.ended_at or batch.started_at)}"
    interrupted = batch.status == BatchStatus.INTERRUPTED
    if needs > interrupted:
        return _needs_you(reading, needs, ended)
    if interrupted:
        return State("interrupted", "Interrupted", batch.reason or ended, "attention", "bolt")
    if batch.status in (BatchStatus.STOPPED, BatchStatus.LIMIT):
        return State("stopped", "Stopped", batch.reason or ended, "neutral", "stop")
    if batch.status == BatchStatus.FAILED:
        return State("failed", "Stopped: failed", batch.reason or ended, "blocked", "no")
    return State("done", "Done", _done(reading, batch), "done", "ok")


def _done(reading: Reading, batch: BatchRow) -> str:
    done = sum(story.status == StoryStatus.DONE for story in reading.batch_stories)
    all_of = "All " if batch.status == BatchStatus.ALL_DONE and done > 1 else ""
    took = words.span((batch.ended_at or batch.started_at) - batch.started_at)
    return f"{all_of}{words.plural(done, 'story', 'stories')}, {took}, batch {batch.id}"


def _title(reading: Reading, state: State, needs: int, segments: Sequence[Segment]) -> str:
    name = reading.project.name
    if state.slug == "needs":
        return f"({needs}) Needs you · {name}"
    if state.slug in ("running", "starting", "stopping", "stopping-after"):
        done = sum(s.state == "done" for s in segments)
        return f"{state.word} {done}/{len(segments)} · {name}"
    return f"{state.word.replace(' until', '')} · {name}"


def _actions(reading: Reading, state: State) -> tuple[str, ...]:
    """What the state allows; stopping needs no button, the word is enough."""
    if reading.live:
        return {
            "waiting": ("wake", "stop"),
            "stopping": (),
            "stopping-after": ("stop",),
        }.get(state.slug, ("stop_after", "stop"))
    interrupted = reading.batch is not None and reading.batch.status == BatchStatus.INTERRUPTED
    return ("resume", "start") if interrupted else ("start",)
