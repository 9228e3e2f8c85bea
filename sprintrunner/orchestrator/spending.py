"""What a batch, a day and a story have cost, held against the budgets before each command."""

from __future__ import annotations

import time
from itertools import takewhile

from .. import budget
from ..sprint import CommandStatus
from .house import Batch, LimitReached, Story, StoryOver
from .orders import Order

#: Failed commands in a row that told no cost, after which a budget in dollars is a guess.
_MOST_UNTOLD = 3


def check_budgets(batch: Batch, order: Order) -> float | None:
    """Raise LimitReached or StoryOver when a budget is used up; else what the CLI itself may spend at most.

    A budget is soft: it never ends a running command, it only keeps the next one from starting. The
    number handed to the CLI is the backstop.
    """
    values, store = batch.layers().values, batch.house.store
    if not budget.is_set(values):
        return None
    totals = store.batch_totals(batch.id)
    tokens = totals.tokens_in + totals.tokens_out + totals.tokens_cache
    day = store.cost_since(_midnight())
    spent = budget.Spent(totals.cost_usd, day, tokens)
    over = budget.over(values, spent)
    if over:
        raise LimitReached(over)
    if budget.needs_cost(values) and (untold := _untold(batch)) >= _MOST_UNTOLD:
        raise LimitReached(
            f"{untold} commands in a row ended without telling their cost, so the budget in dollars cannot "
            "be held; see why they failed, then start again."
        )
    left = budget.left(values, spent)
    if len(order.stories) == 1:
        used = _story_cost(batch, order.stories[0])
        reason = budget.over_for_story(values, used)
        if reason:
            raise StoryOver(order.stories[0].key, reason)
        if values.budget_usd_per_story is not None:
            room = values.budget_usd_per_story - (used or 0.0)
            left = room if left is None else min(left, room)
    return left


def _untold(batch: Batch) -> int:
    """How many of the newest agents failed without a word on their cost: what they spent, nobody knows."""
    over = (CommandStatus.FAILED, CommandStatus.TIMED_OUT)
    rows = batch.house.store.commands(batch.id)
    ended = [row for row in rows if row.pid and row.status != CommandStatus.RUNNING]
    newest = sorted(ended, key=lambda row: row.id, reverse=True)
    return len(list(takewhile(lambda row: row.cost_usd is None and row.status in over, newest)))


def _story_cost(batch: Batch, story: Story) -> float | None:
    """Dollars of one story since it began or was retried; a command for two counts half for each."""
    costs = [
        row.cost_usd / max(1, len(row.story_keys.split(",")))
        for row in batch.house.store.commands_of_story(story.key)
        if row.cost_usd is not None and row.started_at >= story.since and row.batch_id == batch.id
    ]
    return sum(costs) if costs else None


def _midnight() -> int:
    """The last local midnight in ms: a day's budget is a person's day."""
    now = time.localtime()
    return int(time.mktime((now.tm_year, now.tm_mon, now.tm_mday, 0, 0, 0, 0, 0, -1)) * 1000)
