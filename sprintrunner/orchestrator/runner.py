"""Runs one command: row and event first, then the go byte; what ended is judged and recorded by the flows."""

from __future__ import annotations

import contextlib
import random
import secrets
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import agents, limits
from ..agents import Adapter, Call, Outcome
from ..errors import SprintRunnerError
from ..process import Limits, Spec
from ..settings import Layers
from ..sprint import CommandStatus
from ..store import CommandRow
from .house import Batch, BatchFailed, Stopped
from .orders import Order, Papers, environment, write_papers
from .records import Ended, Records, transcript_name
from .sleeping import sleep_for_limit, wait_while_limited
from .trees import AgentTree, Tree

_SUMMARY_CHARS = 2000
_ENDED_BY: dict[str, tuple[CommandStatus, str]] = {
    "wall": (CommandStatus.TIMED_OUT, "it ran longer than command_timeout_minutes allows"),
    "idle": (CommandStatus.TIMED_OUT, "idle: no output, no CPU time for silence_timeout_minutes"),
    "shim_lost": (CommandStatus.INTERRUPTED, "its supervisor process was killed"),
    "lifeline": (CommandStatus.INTERRUPTED, "the server ended"),
    "not_started": (CommandStatus.FAILED, "the agent could not be started"),
}


@dataclass(frozen=True)
class _Plan:
    """Who runs a command, decided at its start."""

    layers: Layers
    adapter: Adapter
    program: str
    model: str | None
    resume: CommandRow | None


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
        command_id = self.records.open(
            order,
            agent="sprintrunner",
            model=None,
            attempt=attempt,
            run_id=secrets.token_urlsafe(24),
            session=None,
        )
        return command_id, attempt

    async def run(self, order: Order) -> Ended:
        """Run a command to a result that the flow has to judge.

        Waits out usage limits and retries overload on the way, each as a new uncounted attempt.
        Raises Stopped, BatchFailed (log-in, billing, unknown model) and LimitReached.
        """
        retries = 0
        while True:
            ended = await self.attempt(order)
            outcome = ended.result.outcome
            if ended.status is CommandStatus.LIMITED:
                self.close(ended, CommandStatus.LIMITED, ended.reason, counted=False)
                await sleep_for_limit(self.batch, ended)
            elif ended.exit.ended_by == "not_started" or outcome is Outcome.STOP_BATCH:
                self.close(ended, CommandStatus.FAILED, ended.reason, counted=False)
                raise BatchFailed(ended.reason)
            elif outcome is Outcome.RETRY and retries < self.batch.layers().values.max_retries:
                retries += 1
                await self._back_off(ended, retries)
            else:
                return ended

    async def attempt(self, order: Order) -> Ended:
        """Run a command once. Its row is committed before the agent may start (R4)."""
        batch = self.batch
        batch.check()
        await wait_while_limited(batch)
        plan = await batch.off(self._plan, order)
        attempt = self.records.next_attempt(order)
        run_id = secrets.token_urlsafe(24)
        session = plan.resume.session_id if plan.resume and plan.resume.session_id else str(uuid.uuid4())
        command_id = self.records.open(
            order, agent=plan.adapter.name, model=plan.model, attempt=attempt, run_id=run_id, session=session
        )
        try:
            folder = batch.house.state_dir / "runs" / str(command_id)
            papers = await batch.off(
                write_papers,
                batch,
                order,
                folder,
                attempt,
                plan.adapter,
                plan.layers.values,
                bool(plan.resume),
            )
            for text in papers.warnings:
                batch.warn(text, command=str(order.command), story_key=order.keys)
            scope = contextlib.nullcontext() if order.background else batch.foreground()
            async with scope:
                return await self._carry(order, plan, papers, command_id, attempt, run_id, session)
        except (OSError, SprintRunnerError) as error:
            self.records.close_unstarted(order, command_id, attempt, str(error))
            raise BatchFailed(str(error)) from error

    async def _carry(
        self,
        order: Order,
        plan: _Plan,
        papers: Papers,
        command_id: int,
        attempt: int,
        run_id: str,
        session: str,
    ) -> Ended:
        batch = self.batch
        joint = AgentTree(
            batch,
            command_id,
            plan.adapter.stream(papers.schema),
            self._progress,
            schema=papers.schema is not None,
        )
        values = plan.layers.values
        spec = Spec(
            argv=plan.adapter.argv(plan.program, self._call(order, plan, papers, session)),
            cwd=batch.house.project.root,
            env=environment(
                batch,
                order,
                command_id=command_id,
                attempt=attempt,
                run_id=run_id,
                adapter=plan.adapter,
                values=values,
            ),
            run_id=run_id,
            stdin_path=papers.prompt,
            out_path=self.transcript(command_id),
            err_path=papers.prompt.with_name("stderr.txt"),
            exit_path=papers.exit,
            lock_fd=batch.house.lock_fd,
        )
        own = plan.layers.commands.get(str(order.command))
        minutes = own.timeout_minutes if own and own.timeout_minutes else values.command_timeout_minutes
        bounds = Limits(
            wall=minutes * 60,
            idle=values.silence_timeout_minutes * 60,
            after_result=values.after_result_grace_seconds,
            grace=values.stop_grace_seconds,
        )
        supervised = joint.supervise(spec, bounds, lambda text: self._warned(order, text))
        identity = await batch.off(supervised.spawn)
        with self.batch.house.store.transaction() as tx:
            tx.update_command(
                command_id, pid=identity.pid, start_ticks=identity.start_ticks, boot_id=identity.boot_id
            )
        self.names[command_id] = order
        batch.trees[command_id] = supervised
        try:
            if batch.stop_event.is_set():
                # A stop that arrived while we were spawning: the agent must never execute (D4).
                supervised.abandon()
            else:
                supervised.go()
            ended = await joint.tree.ended
        finally:
            batch.trees.pop(command_id, None)
        assert joint.tree.result is not None
        return self._judge(
            Ended(command_id, attempt, order, joint.tree.result, ended, CommandStatus.FAILED, "")
        )

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
            raise Stopped
        return judged

    def _plan(self, order: Order) -> _Plan:
        layers = self.batch.layers()
        own = layers.commands.get(str(order.command))
        name = (own.agent if own and own.agent else None) or layers.values.agent
        adapter = agents.by_name(name)
        program = agents.find_program(adapter, layers.agents.get(name), self.batch.house.env)
        model = own.model if own and own.model else None
        if model is None:
            model = layers.values.cheap_model if order.cheap else layers.values.model
        return _Plan(layers, adapter, program, model, self._resumable(order, adapter))

    def _resumable(self, order: Order, adapter: Adapter) -> CommandRow | None:
        """The attempt before, when it was cut off and its agent session can go on."""
        if not adapter.resumes or not order.stories:
            return None
        same = [
            row
            for row in self.batch.house.store.commands(self.batch.id)
            if row.command == order.command and row.story_keys == order.keys
        ]
        last = max(same, key=lambda row: row.id, default=None)
        cut = (CommandStatus.INTERRUPTED, CommandStatus.LIMITED)
        usable = last and last.status in cut and last.session_id and last.model and last.agent == adapter.name
        return last if usable else None

    def transcript(self, command_id: int) -> Path:
        """The file that holds a command's raw output."""
        return self.batch.house.state_dir / "transcripts" / transcript_name(command_id)

    def _call(self, order: Order, plan: _Plan, papers: Papers, session: str) -> Call:
        own = plan.layers.agents.get(plan.adapter.name)
        return Call(
            command=str(order.command),
            prompt_path=papers.prompt,
            context_path=papers.context,
            schema=papers.schema,
            schema_path=papers.schema_file,
            model=plan.model,
            session_id=session,
            resume=session if plan.resume else None,
            permission_mode=plan.layers.values.permission_mode,
            max_budget_usd=None,
            extra_args=tuple(own.args) if own else (),
        )

    def _progress(self, tree: Tree) -> None:
        order = self.names.get(tree.command_id)
        if order is not None:
            self.records.progress(tree.command_id, order, tree.activity.message, model=tree.activity.model)

    def _warned(self, order: Order, text: str) -> None:
        self.batch.warn(text, command=str(order.command), story_key=order.keys)

    async def _back_off(self, ended: Ended, retry: int) -> None:
        values = self.batch.layers().values
        self.close(ended, CommandStatus.FAILED, ended.reason, counted=False)
        wait = limits.backoff_seconds(base=values.retry_backoff_seconds, retry=retry, jitter=random.random())  # noqa: S311
        self.batch.warn(f"{ended.reason} Trying again in {wait:.0f} s.", command=str(ended.order.command))
        await self.batch.pause(wait)


def _when_stopping(batch: Batch) -> CommandStatus:
    return CommandStatus.INTERRUPTED if batch.stop_asked == "shutdown" else CommandStatus.STOPPED
