"""When a usage limit is over, how long a retry waits, and when a budget is used up."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sprintrunner.budget import Spent, needs_cost, over, over_for_story
from sprintrunner.limits import backoff_seconds, too_long, wake_at
from sprintrunner.settings import Settings

NOW = 1_800_000_000_000


def wake(**given: Any) -> int:
    values = {"resets_at": None, "margin_seconds": 60, "default_minutes": 30, "sleeps_before": 0, **given}
    return wake_at(now=NOW, **values) - NOW


def test_a_stated_reset_is_waited_for_with_a_margin() -> None:
    assert wake(resets_at=NOW + 5_000) == 65_000
    assert wake(resets_at=NOW + 5_000, margin_seconds=0) == 5_000


def test_a_reset_that_lies_behind_us_leaves_the_margin_and_at_least_a_second() -> None:
    assert wake(resets_at=NOW - 5_000) == 60_000
    assert wake(resets_at=NOW - 5_000, margin_seconds=0) == 1_000


def test_without_a_stated_reset_each_sleep_in_a_row_is_longer_up_to_a_bound() -> None:
    minutes = [wake(sleeps_before=n) // 60_000 for n in range(7)]
    assert minutes == [30, 60, 120, 240, 480, 480, 480]


def test_the_longest_sleep_counts_what_was_slept_before() -> None:
    hour = 3_600_000
    assert not too_long(now=NOW, wake=NOW + hour, slept_ms=0, max_hours=1)
    assert too_long(now=NOW, wake=NOW + hour, slept_ms=1, max_hours=1)
    assert too_long(now=NOW, wake=NOW + 1, slept_ms=0, max_hours=0)


def test_backoff_doubles_to_sixteen_times_the_base() -> None:
    waits = [backoff_seconds(base=30, retry=n, jitter=1.0) for n in range(1, 8)]
    assert waits == [30, 60, 120, 240, 480, 480, 480]


@given(st.integers(1, 20), st.floats(0, 1), st.floats(0, 3600))
def test_jitter_takes_at_most_half_of_a_wait(retry: int, jitter: float, base: float) -> None:
    wait = backoff_seconds(base=base, retry=retry, jitter=jitter)
    whole = base * min(2 ** (retry - 1), 16)
    assert whole / 2 <= wait <= whole


# budgets


def spent(batch: float | None = 0.0, day: float | None = 0.0, tokens: int = 0) -> Spent:
    return Spent(batch, day, tokens)


def test_without_a_budget_anything_may_be_spent() -> None:
    assert over(Settings(), spent(10**6, 10**6, 10**12)) == ""
    assert over_for_story(Settings(), 10**6) == ""
    assert not needs_cost(Settings())


@pytest.mark.parametrize(
    ("budget", "used", "words"),
    [
        ({"budget_usd_per_batch": 5}, spent(batch=5.0), "budget of $5 per batch reached"),
        ({"budget_usd_per_day": 2.5}, spent(day=2.51), "budget of $2.5 per day reached"),
        ({"budget_tokens_per_batch": 1000}, spent(tokens=1000), "budget of 1,000 tokens per batch reached"),
    ],
)
def test_a_used_up_budget_is_named(budget: dict[str, Any], used: Spent, words: str) -> None:
    values = Settings(**budget)
    assert over(values, used) == words
    assert over(values, spent()) == ""


def test_a_cost_nobody_told_uses_up_no_dollar_budget() -> None:
    values = Settings(budget_usd_per_batch=1, budget_usd_per_day=1, budget_usd_per_story=1)
    assert over(values, spent(None, None)) == ""
    assert over_for_story(values, None) == ""


def test_a_story_has_a_budget_of_its_own() -> None:
    values = Settings(budget_usd_per_story=1)
    assert over_for_story(values, 0.99) == ""
    assert over_for_story(values, 1.0) == "budget of $1 per story reached"


def test_dollar_budgets_need_an_agent_that_tells_its_cost_and_tokens_do_not() -> None:
    assert needs_cost(Settings(budget_usd_per_day=1))
    assert not needs_cost(Settings(budget_tokens_per_batch=1))
