"""Decides when a run has overstayed one of its limits; no clock and no process of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from .spec import Limits

#: Share of one core above which a silent tree counts as working.
BUSY = 0.05


@dataclass
class Deadlines:
    """The clocks of one run. All times are monotonic seconds; ``cpu`` tells the tree's CPU seconds so far.

    Silence is judged by two looks at the CPU time: one shortly after the last output, one at the limit. So a
    talkative agent costs no look at all, a silent one three in a whole window.
    """

    limits: Limits
    cpu: Callable[[], float]
    warn: Callable[[str], None]
    #: Whether the work left other traces within so many seconds; asked only once silence is over its limit.
    moves: Callable[[float], bool] | None = None
    started: float | None = None
    quiet_since: float = 0.0
    result_at: float | None = None
    _baseline: tuple[float, float] | None = None
    _warned: set[str] = field(default_factory=set)

    def start(self, now: float) -> None:
        """The agent may run from now on."""
        self.started = self.quiet_since = now

    def output(self, now: float) -> None:
        """There was output: silence begins anew."""
        self.quiet_since = now
        self._baseline = None
        self._warned.discard("idle")

    def result(self, now: float) -> None:
        """The final result was seen; the first time counts."""
        if self.result_at is None:
            self.result_at = now

    def due(self) -> float | None:
        """Return when ``check`` is needed next, None for never."""
        if self.started is None:
            return None
        times = [self._wall_due(self.started), self._idle_due()]
        if self.result_at is not None and self.limits.after_result is not None:
            times.append(self.result_at + self.limits.after_result)
        return min((time for time in times if time is not None), default=None)

    def check(self, now: float) -> str | None:
        """Return the limit that is over, None while the run may go on."""
        if self.started is None:
            return None
        limits = self.limits
        if _over(self.result_at, limits.after_result, now):
            return "after_result"
        if _over(self.started, limits.wall, now):
            return "wall"
        if limits.wall is not None and now >= self.started + limits.wall / 2:
            self._warn_once(
                "wall", f"runs for {_words(now - self.started)}; its limit is {_words(limits.wall)}"
            )
        return self._check_idle(now, limits.idle) if limits.idle is not None else None

    def _wall_due(self, started: float) -> float | None:
        wall = self.limits.wall
        if wall is None:
            return None
        return started + (wall if "wall" in self._warned else wall / 2)

    def _idle_due(self) -> float | None:
        idle = self.limits.idle
        if idle is None:
            return None
        if self._baseline is None:
            return self.quiet_since + _settle(idle)
        return self.quiet_since + (idle if "idle" in self._warned else idle / 2)

    def _check_idle(self, now: float, idle: float) -> str | None:
        if self._baseline is None:
            if now >= self.quiet_since + _settle(idle):
                self._baseline = (now, self.cpu())
            return None
        if now < self.quiet_since + (idle if "idle" in self._warned else idle / 2):
            return None
        if self._busy(now):
            self.quiet_since = now
            self._baseline = None
            return None
        if now >= self.quiet_since + idle:
            if self.moves is not None and self.moves(now - self.quiet_since):
                self.quiet_since = now
                self._baseline = None
                return None
            return "idle"
        self._warn_once("idle", f"silent for {_words(now - self.quiet_since)}; its limit is {_words(idle)}")
        return None

    def _busy(self, now: float) -> bool:
        since, before = self._baseline or (now, 0.0)
        return self.cpu() - before >= BUSY * (now - since) > 0

    def _warn_once(self, about: str, sentence: str) -> None:
        if about not in self._warned:
            self._warned.add(about)
            self.warn(sentence)


def _settle(idle: float) -> float:
    """Seconds after output until the baseline: its work is over by then, the window hardly begun."""
    return min(5.0, idle / 8)


def _over(since: float | None, limit: float | None, now: float) -> bool:
    return since is not None and limit is not None and now >= since + limit


def _words(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
