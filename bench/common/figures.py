"""Numbers out of samples, and numbers as words."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def percentile(samples: Sequence[float], share: float) -> float:
    """The value below which ``share`` (0…1) of the samples lie; nan without samples."""
    if not samples:
        return float("nan")
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def median(samples: Sequence[float]) -> float:
    """The median; nan without samples."""
    return statistics.median(samples) if samples else float("nan")


def number(value: float | None) -> str:
    """Three significant digits, no exponent; a dash for what was not measured."""
    if value is None or value != value:
        return "–"
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 else f"{value:.1g}"


def pair(first: float, second: float) -> str:
    """Two figures in one cell."""
    return f"{number(first)} / {number(second)}"


def ratio(theirs: float | None, ours: float | None) -> str:
    """How many times ours fits into theirs: above 1 is in our favour."""
    if theirs is None or ours is None or not ours or theirs != theirs or ours != ours:
        return "–"
    return f"{theirs / ours:.2g}×" if theirs / ours < 10 else f"{theirs / ours:,.0f}×"
