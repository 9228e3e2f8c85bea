"""Runs the verify commands for a story: ours, in the tree as it is, shown as the task ``verify``."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from .. import agents, verify
from ..verify import Verified
from .house import Batch
from .orders import Order, environment
from .runner import Runner
from .trees import run_plain


@dataclass(frozen=True)
class Verdict:
    """The verify runs of one moment. Without commands nothing is verified, and that is said."""

    runs: tuple[Verified, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return all(run.ok for run in self.runs)

    @property
    def failed(self) -> Verified | None:
        """The first run that was not green."""
        return next((run for run in self.runs if not run.ok), None)

    @property
    def stopped(self) -> bool:
        """Whether a person ended it: neither red nor green."""
        return self.failed is not None and self.failed.stopped

    @property
    def sentence(self) -> str:
        """Why it is red, in one line; empty when green."""
        bad = self.failed
        if bad and bad.stopped:
            return f"verify was stopped on request: {bad.command}"
        return f"verify failed: {bad.command}: {bad.last_line or bad.reason}" if bad else ""

    @property
    def report(self) -> str:
        """What the next attempt is told: the command and the end of its output."""
        bad = self.failed
        return f"`{bad.command}` failed ({bad.reason}). Its last output:\n{bad.tail}" if bad else ""

    def as_json(self) -> Any:
        """The form stored as evidence."""
        return [run.as_json() for run in self.runs] or "not verified"


async def run_verify(batch: Batch, runner: Runner, command_id: int, order: Order, attempt: int) -> Verdict:
    """Run the verify commands one after the other until one fails. Raises Stopped when a stop is asked."""
    await batch.settle()
    values = batch.layers().values
    commands: Sequence[str] = values.verify
    runs: list[Verified] = []
    row = batch.house.store.command(command_id)
    # The mark of its command: should we die meanwhile, the next life finds what is left of it.
    run_id = row.run_id if row and row.run_id else secrets.token_urlsafe(24)
    adapter = agents.by_name(values.agent)
    env = environment(
        batch, order, command_id=command_id, attempt=attempt, run_id=run_id, adapter=adapter, values=values
    )
    folder = batch.house.state_dir / "runs" / str(command_id)
    for number, command in enumerate(commands, 1):
        runner.records.progress(command_id, order, f"verify: {command}", task="verify")
        spec = verify.spec_for(
            command,
            root=batch.house.project.root,
            env=env,
            run_id=run_id,
            folder=folder,
            number=number,
            lock_fd=batch.house.lock_fd,
        )
        limits = verify.limits_for(values.verify_timeout_minutes, values.stop_grace_seconds)
        async with batch.foreground():
            ended = await run_plain(batch, command_id, spec, limits)
        batch.check()
        run = await batch.off(verify.judge, command, spec, ended)
        runs.append(replace(run, tail=runner.records.clean(run.tail)))
        if not run.ok:
            break
    return Verdict(tuple(runs))
