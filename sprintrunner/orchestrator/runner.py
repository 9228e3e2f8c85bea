"""Runs one command: row and event first, then the go byte; what ended is judged and recorded by the flows."""

from __future__ import annotations

import contextlib
import random
import secrets
import shutil
from pathlib import Path
from typing import Any

from .. import agents, limits
from ..agents import AgentResult, Outcome
from ..errors import SprintRunnerError, StoreUnavailable
from ..process import Supervised
from ..sprint import CommandStatus
from .adopting import adopt
from .house import Batch, BatchFailed, LimitReached, Stopped, StoryOver
from .orders import Order, Papers, write_papers
from .planning import UNANSWERED, Plan, call_for, limits_for, make_plan, spec_for
from .records import Ended, Records
from .sleeping import sleep_for_limit, wait_while_limited
from .spending import check_budgets
from .trees import AgentTree, Tree
from .watching import keep_patch, tree_moves

_ENDED_BY: dict[str, tuple[CommandStatus, str]] = {
    "wall": (CommandStatus.TIMED_OUT, "it ran longer than command_timeout_minutes allows"),
    "idle": (CommandStatus.TIMED_OUT, "idle: no output and no CPU time for silence_timeout_minutes"),
    "shim_lost": (CommandStatus.INTERRUPTED, "its supervisor process was killed"),
    "lifeline": (CommandStatus.INTERRUPTED, "the server ended"),
    "not_started": (CommandStatus.FAILED, "the agent could not be started"),
    "store": (CommandStatus.INTERRUPTED, "the database took no more records"),
}


class Runner:
    """Starts commands of one batch and waits for them."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.records = Records(batch)
        self.names: dict[int, Order] = {}

    def close(self, ended: Ended, status: CommandStatus, reason: str, **more: Any) -> None:
        """Record the end of a command; see ``Records.close``."""
        self.names.pop(ended.command_id, None)
        self.records.close(ended, status, reason, **more)

    def open_own(self, order: Order) -> tuple[int, int]:
        """The row of a command that we carry out ourselves (the builtin commit): its id and attempt."""
        self.batch.check()
        attempt = self.records.next_attempt(order)
        run_id = secrets.token_urlsafe(24)
        command_id = self.records.open(
            order, agent="sprintrunner", model=None, attempt=attempt, run_id=run_id, session=None
        )
        return command_id, attempt

    async def run(self, order: Order) -> Ended:
        """Run a command to a result that the flow has to judge.

        On the way, each as a new uncounted attempt: usage limits are slept out, overload is retried with
        backoff, a run cut off by a watchdog goes on once with the agent's session, a forgotten session
        begins anew. Raises Stopped, BatchFailed (log-in, billing, unknown model), LimitReached, StoryOver.
        """
        # A verdict of a former life is judged like one of this: a usage limit is no failure then either.
        adopted = await self.batch.off(adopt, self.batch, order)
        retries, revived, fresh, asked = 0, False, False, False
        while True:
            ended, adopted = adopted or await self.attempt(order, fresh=fresh), None
            outcome = ended.result.outcome
            if ended.status is CommandStatus.LIMITED:
                self.close(ended, CommandStatus.LIMITED, ended.reason, counted=False)
                await sleep_for_limit(self.batch, ended)
            elif ended.exit.ended_by == "not_started" or outcome is Outcome.STOP_BATCH:
                self.close(ended, CommandStatus.FAILED, ended.reason, counted=False)
                raise BatchFailed(ended.reason)
            elif ended.status is CommandStatus.TIMED_OUT and not revived:
                revived = True
                await self._close_timed_out(ended)
            elif ended.result.failure == UNANSWERED and not asked and self._may_go_on(ended):
                # The work may be whole and only its answer missing: its own session is asked once more.
                asked = True
                self.close(ended, CommandStatus.FAILED, ended.reason, counted=False)
            elif ended.result.failure == "unknown_session" and not fresh:
                fresh = True
                self.close(ended, CommandStatus.FAILED, ended.reason, counted=False)
            elif ended.result.failure == "refused" and len(order.stories) == 1 and not order.background:
                # The model will not do it; to ask again costs money and ends the same.
                self.close(ended, CommandStatus.FAILED, ended.reason)
                raise StoryOver(order.stories[0].key, ended.reason)
            elif outcome is Outcome.RETRY and retries < self.batch.layers().values.max_retries:
                retries += 1
                await self._back_off(ended, retries)
            else:
                # Work got through: the next usage limit is the first of its row again.
                self.batch.sleeps = self.batch.slept_ms = 0
                return ended

    def _may_go_on(self, ended: Ended) -> bool:
        """Whether the agent can be asked again in the session that has just ended."""
        row = self.batch.house.store.command(ended.command_id)
        return row is not None and bool(ended.result.session_id) and agents.by_name(row.agent or "").resumes

    async def attempt(self, order: Order, *, fresh: bool = False) -> Ended:
        """Run a command once. Its row is committed before the agent may start (R4)."""
        batch = self.batch
        batch.check()
        await wait_while_limited(batch)
        if len(order.stories) == 1:  # one of two would take the other along; its own command comes
            order.stories[0].must_go_on()
        budget_usd = check_budgets(batch, order)
        number = self.records.next_attempt(order)
        plan = await batch.off(make_plan, batch, order, number, fresh=fresh)
        command_id = self.records.open(
            order,
            agent=plan.adapter.name,
            model=plan.model,
            attempt=number,
            run_id=plan.run_id,
            session=plan.session if plan.adapter.chooses_session or plan.resume else None,
        )
        try:
            papers = await self._papers(order, plan, command_id)
            async with contextlib.nullcontext() if order.background else batch.foreground():
                return await self._carry(order, plan, papers, command_id, budget_usd)
        except (LimitReached, StoryOver, StoreUnavailable):
            raise
        except (OSError, SprintRunnerError) as error:
            self.records.close_unstarted(order, command_id, number, str(error))
            raise BatchFailed(str(error)) from error

    async def _papers(self, order: Order, plan: Plan, command_id: int) -> Papers:
        batch = self.batch
        folder = batch.house.state_dir / "runs" / str(command_id)
        # Numbers begin anew with a database that was restored: nothing old may pass for this run's result.
        await batch.off(shutil.rmtree, folder, ignore_errors=True)
        self.transcript(command_id).unlink(missing_ok=True)
        resumes = plan.resume is not None
        papers = await batch.off(
            write_papers, batch, order, folder, plan.attempt, plan.adapter, plan.layers.values, resumes
        )
        for text in papers.warnings:
            batch.warn(text, command=str(order.command), story_key=order.keys)
        return papers

    async def _carry(
        self, order: Order, plan: Plan, papers: Papers, command_id: int, budget_usd: float | None
    ) -> Ended:
        batch, asked = self.batch, papers.schema is not None
        joint = AgentTree(batch, command_id, plan.adapter.stream(papers.schema), self._progress, schema=asked)
        call = call_for(batch, order, plan, papers, budget_usd)
        supervised = joint.supervise(
            spec_for(batch, order, plan, papers, command_id, call),
            limits_for(order, plan),
            lambda text: self._warned(order, text),
            tree_moves(batch, command_id),
        )
        identity = await batch.off(supervised.spawn)
        try:
            with batch.house.store.transaction() as tx:
                tx.update_command(
                    command_id, pid=identity.pid, start_ticks=identity.start_ticks, boot_id=identity.boot_id
                )
        except SprintRunnerError:
            supervised.abandon()  # nobody would ever give it the go byte
            raise
        self.names[command_id] = order
        left = await self._watch(supervised, joint.tree, command_id)
        result = joint.tree.result or AgentResult(Outcome.FAILED, "the run was not judged")
        return self._judge(Ended(command_id, plan.attempt, order, result, left, CommandStatus.FAILED, ""))

    async def _watch(self, supervised: Supervised, tree: Tree, command_id: int) -> Any:
        self.batch.trees[command_id] = supervised
        try:
            if self.batch.stop_event.is_set():
                # A stop that arrived while we were spawning: the agent must never execute (D4).
                supervised.abandon()
            else:
                supervised.go()
            return await tree.ended
        finally:
            self.batch.trees.pop(command_id, None)

    def _judge(self, ended: Ended) -> Ended:
        """Give the ended command its provisional status; unknown is failed."""
        batch, result, how = self.batch, ended.result, ended.exit.ended_by
        if batch.stop_asked == "shutdown":
            status, reason = CommandStatus.INTERRUPTED, "the server was stopped"
        elif how == "stop":
            status, reason = CommandStatus.STOPPED, "stopped on request"
        elif how in _ENDED_BY:
            status, reason = _ENDED_BY[how]
            reason = f"{reason}: {ended.exit.error}" if ended.exit.error else reason
        elif result.outcome is Outcome.SUCCESS:
            status, reason = CommandStatus.SUCCEEDED, result.reason
        elif result.outcome is Outcome.USAGE_LIMIT:
            status, reason = CommandStatus.LIMITED, result.reason
        else:
            status, reason = CommandStatus.FAILED, result.reason
        judged = Ended(ended.command_id, ended.attempt, ended.order, result, ended.exit, status, reason)
        if batch.stop_event.is_set():
            # Whatever it reached: nothing is judged, verified or committed after a stop.
            self.close(judged, _when_stopping(batch), reason or "stopped on request", counted=False)
            batch.check()
            raise Stopped
        return judged

    def transcript(self, command_id: int) -> Path:
        """The file that holds a command's raw output."""
        return self.batch.house.state_dir / "transcripts" / f"{command_id}.jsonl"

    def _progress(self, tree: Tree) -> None:
        order = self.names.get(tree.command_id)
        if order is not None:
            seen = tree.activity
            try:
                self.records.progress(
                    tree.command_id, order, seen.message, model=seen.model, session=seen.session_id
                )
            except StoreUnavailable as error:
                self.batch.distrust(error)

    def _warned(self, order: Order, text: str) -> None:
        named = f"{order.command} of {order.keys}" if order.keys else str(order.command)
        try:
            self.batch.warn(f"{named} {text}.", command=str(order.command), story_key=order.keys)
        except StoreUnavailable as error:
            self.batch.distrust(error)

    async def _close_timed_out(self, ended: Ended) -> None:
        """Keep what was done so far; the agent's session goes on once, as a new uncounted attempt."""
        patch = None
        if ended.order.stories and not ended.order.background:
            patch = await self.batch.off(keep_patch, self.batch, ended.order.stories[0], ended.command_id)
        evidence = {"patch": patch} if patch else None
        self.close(ended, CommandStatus.TIMED_OUT, ended.reason, counted=False, evidence=evidence)

    async def _back_off(self, ended: Ended, retry: int) -> None:
        values = self.batch.layers().values
        self.close(ended, CommandStatus.FAILED, ended.reason, counted=False)
        jitter = random.random()  # noqa: S311 - spreads retries, hides nothing
        wait = limits.backoff_seconds(base=values.retry_backoff_seconds, retry=retry, jitter=jitter)
        self.batch.warn(f"{ended.reason} Trying again in {wait:.0f} s.", command=str(ended.order.command))
        await self.batch.pause(wait)


def _when_stopping(batch: Batch) -> CommandStatus:
    person = batch.stop_asked == "now" or (batch.trouble is None and batch.stop_asked != "shutdown")
    return CommandStatus.STOPPED if person else CommandStatus.INTERRUPTED
