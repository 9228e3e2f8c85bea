"""What was spent so far against the budgets: go on, or stop and why (pure)."""

from __future__ import annotations

from dataclasses import dataclass

from .settings import Settings


@dataclass(frozen=True, slots=True)
class Spent:
    """Dollars (None = no agent told) and tokens so far."""

    batch_usd: float | None
    day_usd: float | None
    batch_tokens: int


def over(values: Settings, spent: Spent) -> str:
    """The sentence of the first budget that is used up, empty while all have room."""
    checks = (
        (values.budget_usd_per_batch, spent.batch_usd, "budget of ${:g} per batch reached"),
        (values.budget_usd_per_day, spent.day_usd, "budget of ${:g} per day reached"),
        (values.budget_tokens_per_batch, spent.batch_tokens, "budget of {:,} tokens per batch reached"),
    )
    for limit, used, words in checks:
        if limit is not None and used is not None and used >= limit:
            return words.format(limit)
    return ""


def left(values: Settings, spent: Spent) -> float | None:
    """Dollars until the nearest budget is used up, None without a dollar budget."""
    rooms = [
        limit - (used or 0.0)
        for limit, used in (
            (values.budget_usd_per_batch, spent.batch_usd),
            (values.budget_usd_per_day, spent.day_usd),
        )
        if limit is not None
    ]
    return min(rooms, default=None)


def is_set(values: Settings) -> bool:
    """Whether there is any budget to hold the spending against."""
    return needs_cost(values) or values.budget_tokens_per_batch is not None


def over_for_story(values: Settings, used: float | None) -> str:
    """The sentence when one story has used up its own budget, else empty."""
    limit = values.budget_usd_per_story
    return (
        f"budget of ${limit:g} per story reached"
        if limit is not None and used is not None and used >= limit
        else ""
    )


def needs_cost(values: Settings) -> bool:
    """Whether a dollar budget is set: an agent that cannot tell its cost must not run under one."""
    return any((values.budget_usd_per_batch, values.budget_usd_per_day, values.budget_usd_per_story))
