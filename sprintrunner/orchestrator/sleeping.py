"""A usage limit puts the batch to sleep until it resets; nothing starts meanwhile, no attempt is counted."""

from __future__ import annotations

import asyncio

from .. import limits
from ..sprint import BatchState
from .house import Batch, LimitReached
from .records import Ended

_STEP_SECONDS = 30.0


async def wait_while_limited(batch: Batch) -> None:
    """None starts while a usage limit lasts."""
    async with batch.sleeping:
        batch.check()


async def sleep_for_limit(batch: Batch, ended: Ended) -> None:
    """Sleep until the usage limit resets; counts no attempt. Raises LimitReached beyond the maximum."""
    values = batch.layers().values
    async with batch.sleeping:
        others = [tree for tree in batch.trees if tree != ended.command_id]
        while others and any(tree in batch.trees for tree in others):
            await asyncio.sleep(0.2)  # running commands end by themselves first
        if ended.exit.ended_at <= batch.woke_at:
            return  # two commands met the same limit; the other one has slept for both
        now = batch.house.store.now()
        wake = limits.wake_at(
            now=now,
            resets_at=ended.result.resets_at,
            margin_seconds=values.limit_margin_seconds,
            default_minutes=values.limit_default_wait_minutes,
            sleeps_before=batch.sleeps,
        )
        if limits.too_long(
            now=now, wake=wake, slept_ms=batch.slept_ms, max_hours=values.max_limit_wait_hours
        ):
            raise LimitReached(f"{ended.reason} Waiting for it would exceed max_limit_wait_hours.")
        await _sleep(batch, wake, ended.reason, ended.result.limit_kind)


async def finish_sleep(batch: Batch) -> None:
    """Go on with a sleep that the end of the server cut short."""
    async with batch.sleeping:
        await _sleep(batch, batch.sleep_until or 0, "Asleep again: the usage limit has not reset yet.", None)


async def _sleep(batch: Batch, wake: int, reason: str, kind: str | None) -> None:
    store, began = batch.house.store, batch.house.store.now()
    columns = {"resumes_at": wake} | ({"limit_kind": kind} if kind else {})
    batch.set_state(BatchState.WAITING, reason, **columns)
    batch.wake_event.clear()
    # In steps: the wake-up is a moment of the wall clock, which a suspended laptop or a set clock moves.
    while not batch.wake_event.is_set() and (left := (wake - store.now()) / 1000) > 0:
        await batch.pause(min(left, _STEP_SECONDS))
    batch.wake_event.clear()
    batch.woke_at = store.now()
    batch.sleeps += 1
    batch.slept_ms += max(0, batch.woke_at - began)
    after = BatchState.STOPPING if batch.stop_asked else BatchState.RUNNING
    batch.set_state(after, "Woke up, the usage limit has reset.", resumes_at=None, limit_kind=None)
