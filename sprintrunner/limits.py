"""From a usage limit to the moment to wake up (pure); all times are ms, UTC."""

from __future__ import annotations

#: Each further sleep without a stated end is this much longer, so that a wrong guess costs little first.
_ESCALATION = 2
_MAX_DOUBLINGS = 4


def wake_at(
    *, now: int, resets_at: int | None, margin_seconds: float, default_minutes: float, sleeps_before: int
) -> int:
    """When to try again: the stated reset plus a margin, else a default that doubles with each sleep."""
    margin = int(margin_seconds * 1000)
    if resets_at is not None and resets_at > now:
        return resets_at + margin
    if resets_at is not None:
        # The reset lies behind us already: the margin alone is left to wait.
        return now + max(margin, 1000)
    factor = _ESCALATION ** min(sleeps_before, _MAX_DOUBLINGS)
    return now + int(default_minutes * 60_000 * factor)


def too_long(*, now: int, wake: int, slept_ms: int, max_hours: float) -> bool:
    """Whether sleeping until ``wake`` would exceed the longest allowed limit sleep."""
    return slept_ms + (wake - now) > max_hours * 3_600_000


def backoff_seconds(*, base: float, retry: int, jitter: float) -> float:
    """Seconds before retry number ``retry`` (from 1): doubling, at most 16 times the base; jitter in 0…1."""
    return float(base * min(2 ** (retry - 1), 16) * (0.5 + jitter / 2))
