"""Runs one command: row and event first, then the go byte; what ended is judged and recorded by the flows."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import agents, limits
from ..agents import Adapter, AgentResult, Call, Outcome
from ..errors import SprintRunnerError
from ..events import EventType
from ..process import Exit, Limits, Spec
from ..redact import redact
from ..settings import Layers
from ..sprint import BatchState, CommandStatus
from ..store import CommandRow
from .house import Batch, BatchFailed, LimitReached, Stopped
from .orders import Order, Papers, environment, write_papers
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
class Ended:
    """A command whose tree has ended and whose row is still open: the flow judges and records it."""

    command_id: int
    attempt: int
    order: Order
    result: AgentResult
    exit: Exit
    status: CommandStatus
    reason: str

    @property
    def succeeded(self) -> bool:
        """Whether the agent's own part is a success; evidence and verify come on top."""
        return self.status is CommandStatus.SUCCEEDED


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
        self.store = batch.house.store
        self.names: dict[int, Order] = {}

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
                await self.sleep_for_limit(ended)
            elif outcome is Outcome.STOP_BATCH:
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
        await self._wait_while_limited()
        plan = await batch.off(self._plan, order)
        attempt = self._next_attempt(order)
        run_id = secrets.token_urlsafe(24)
        session = plan.resume.session_id if plan.resume and plan.resume.session_id else str(uuid.uuid4())
        command_id = self._open(order, plan, attempt, run_id, session)
        try:
            folder = batch.house.state_dir / "runs" / str(command_id)
            papers = await batch.off(
                write_papers, batch, order, folder, attempt, plan.adapter, plan.layers.values, bool(plan.resume)
            )
            for text in papers.warnings:
                batch.warn(text, command=str(order.command), story_key=order.keys)
            scope = contextlib.nullcontext() if order.background else batch.foreground()
            async with scope:
                return await self._carry(order, plan, papers, command_id, attempt, run_id, session)
        except (OSError, SprintRunnerError) as error:
            self._close_unstarted(order, command_id, attempt, str(error))
            raise BatchFailed(str(error)) from error

    async def _carry(
        self, order: Order, plan: _Plan, papers: Papers, command_id: int, attempt: int, run_id: str, session: str
    ) -> Ended:
        batch = self.batch
        joint = AgentTree(batch, command_id, plan.adapter.stream(), self._progress, schema=papers.schema is not None)
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
        with self.store.transaction() as tx:
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
        return self._judge(Ended(command_id, attempt, order, joint.tree.result, ended, CommandStatus.FAILED, ""))

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

    def close(
        self,
        ended: Ended,
        status: CommandStatus,
        reason: str,
        *,
        counted: bool = True,
        verdict: Any = None,
        evidence: dict[str, Any] | None = None,
        also: Any = None,
    ) -> None:
        """Record the end of a command: row and ``command:end`` in one transaction.

        ``also(tx)`` adds what must be recorded with it (ledger, story).
        """
        order, result, left = ended.order, ended.result, ended.exit
        self.names.pop(ended.command_id, None)
        with self.store.transaction() as tx:
            tx.update_command(
                ended.command_id,
                status=status,
                ended_at=self.store.now(),
                reason=redact(reason)[:_SUMMARY_CHARS],
                output_summary=redact(result.text)[:_SUMMARY_CHARS],
                counted=int(counted),
                outcome=result.failure or str(result.outcome),
                exit_code=left.code,
                exit_signal=left.signal,
                ended_by=left.ended_by,
                stderr_tail=redact(left.stderr_tail),
                agent_ms=int(left.seconds * 1000),
                verdict=verdict,
                evidence=evidence,
                **self._spent(result),
            )
            if also is not None:
                also(tx)
            tx.append(
                EventType.COMMAND_END,
                {
                    **_named(order),
                    "status": str(status),
                    "reason": redact(reason)[:_SUMMARY_CHARS],
                    "attempt": ended.attempt,
                    "duration_ms": int(left.seconds * 1000),
                },
                batch_id=self.batch.id,
                story_id=_story_id(order),
                command_id=ended.command_id,
            )

    def _spent(self, result: AgentResult) -> dict[str, Any]:
        """Session, model, tokens and cost of this run alone: a resumed session reports its total so far."""
        spent: dict[str, Any] = {}
        if result.session_id:
            spent["session_id"] = result.session_id
        if result.model:
            spent["model"] = result.model
        if result.tokens:
            spent |= {
                "tokens_in": result.tokens.input,
                "tokens_out": result.tokens.output,
                "tokens_cache_read": result.tokens.cache_read,
                "tokens_cache_write": result.tokens.cache_write,
            }
        if result.cost_usd is not None:
            before = self.batch.session_costs.get(result.session_id or "", 0.0)
            spent["cost_usd"] = max(result.cost_usd - before, 0.0)
            self.batch.session_costs[result.session_id or ""] = result.cost_usd
        return spent

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
            for row in self.store.commands(self.batch.id)
            if row.command == order.command and row.story_keys == order.keys
        ]
        last = max(same, key=lambda row: row.id, default=None)
        cut = (CommandStatus.INTERRUPTED, CommandStatus.LIMITED)
        usable = last and last.status in cut and last.session_id and last.model and last.agent == adapter.name
        return last if usable else None

    def _next_attempt(self, order: Order) -> int:
        """Numbers go on over all batches: every spawn is a new one."""
        key = order.stories[0].key if order.stories else None
        rows = self.store.commands_of_story(key) if key else self.store.commands(self.batch.id)
        return 1 + max((row.attempt for row in rows if row.command == order.command), default=0)

    def _open(self, order: Order, plan: _Plan, attempt: int, run_id: str, session: str) -> int:
        now = self.store.now()
        with self.store.transaction() as tx:
            command_id = tx.insert_command(
                batch_id=self.batch.id,
                story_id=_story_id(order),
                story_ids=[story.row_id for story in order.stories],
                story_keys=order.keys,
                command=str(order.command),
                task_id=str(order.command),
                started_at=now,
                status=CommandStatus.RUNNING,
                cycle=order.cycle,
                attempt=attempt,
                counted=1,
                background=int(order.background),
                agent=plan.adapter.name,
                model=plan.model,
                session_id=session,
                run_id=run_id,
            )
            tx.update_command(command_id, transcript=self.transcript(command_id).name)
            tx.append(
                EventType.COMMAND_START,
                {**_named(order), "attempt": attempt, "agent": plan.adapter.name, "model": plan.model},
                batch_id=self.batch.id,
                story_id=_story_id(order),
                command_id=command_id,
            )
        return command_id

    def _close_unstarted(self, order: Order, command_id: int, attempt: int, why: str) -> None:
        with self.store.transaction() as tx:
            tx.update_command(
                command_id, status=CommandStatus.FAILED, ended_at=self.store.now(), reason=why, counted=0
            )
            tx.append(
                EventType.COMMAND_END,
                {**_named(order), "status": str(CommandStatus.FAILED), "reason": why, "attempt": attempt},
                batch_id=self.batch.id,
                story_id=_story_id(order),
                command_id=command_id,
            )

    def transcript(self, command_id: int) -> Path:
        """The file that holds a command's raw output."""
        return self.batch.house.state_dir / "transcripts" / f"{command_id}.jsonl"

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
            self.progress(tree.command_id, order, tree.activity.message, model=tree.activity.model)

    def progress(
        self, command_id: int, order: Order, message: str, *, task: str | None = None, model: str | None = None
    ) -> None:
        """Record ``command:progress`` and what the command's card shows."""
        text = redact(message)
        shown: dict[str, Any] = {"last_action": text, "last_action_at": self.store.now()}
        shown |= {"current_task": task} if task else {}
        shown |= {"model": model} if model else {}
        with self.store.transaction() as tx:
            tx.update_command(command_id, **shown)
            tx.append(
                EventType.COMMAND_PROGRESS,
                {**_named(order), "task_id": task or str(order.command), "message": text},
                batch_id=self.batch.id,
                story_id=_story_id(order),
                command_id=command_id,
            )

    def _warned(self, order: Order, text: str) -> None:
        self.batch.warn(text, command=str(order.command), story_key=order.keys)

    async def _back_off(self, ended: Ended, retry: int) -> None:
        values = self.batch.layers().values
        self.close(ended, CommandStatus.FAILED, ended.reason, counted=False)
        wait = limits.backoff_seconds(base=values.retry_backoff_seconds, retry=retry, jitter=random.random())  # noqa: S311
        self.batch.warn(f"{ended.reason} Trying again in {wait:.0f} s.", command=str(ended.order.command))
        await self.batch.pause(wait)

    async def _wait_while_limited(self) -> None:
        """None starts while a usage limit lasts."""
        async with self.batch.sleeping:
            self.batch.check()

    async def sleep_for_limit(self, ended: Ended) -> None:
        """Sleep until the usage limit resets; counts no attempt. Raises LimitReached beyond the maximum."""
        batch, values = self.batch, self.batch.layers().values
        async with batch.sleeping:
            others = [tree for tree in batch.trees if tree != ended.command_id]
            while others and any(tree in batch.trees for tree in others):
                await asyncio.sleep(0.2)  # running commands end by themselves first
            if ended.exit.ended_at <= batch.woke_at:
                return  # two commands met the same limit; the other one has slept for both
            now = self.store.now()
            wake = limits.wake_at(
                now=now,
                resets_at=ended.result.resets_at,
                margin_seconds=values.limit_margin_seconds,
                default_minutes=values.limit_default_wait_minutes,
                sleeps_before=batch.sleeps,
            )
            if limits.too_long(now=now, wake=wake, slept_ms=batch.slept_ms, max_hours=values.max_limit_wait_hours):
                raise LimitReached(f"{ended.reason} Waiting for it would exceed max_limit_wait_hours.")
            batch.set_state(BatchState.WAITING, resumes_at=wake, limit_kind=ended.result.limit_kind)
            batch.warn(ended.reason, resumes_at=wake, limit_kind=ended.result.limit_kind)
            batch.wake_event.clear()
            await batch.pause((wake - now) / 1000)
            batch.wake_event.clear()
            batch.woke_at = self.store.now()
            batch.sleeps += 1
            batch.slept_ms += self.store.now() - now
            batch.set_state(BatchState.RUNNING, resumes_at=None, limit_kind=None)
            batch.warn("Woke up, the usage limit has reset.")


def _when_stopping(batch: Batch) -> CommandStatus:
    return CommandStatus.INTERRUPTED if batch.stop_asked == "shutdown" else CommandStatus.STOPPED


def _named(order: Order) -> dict[str, Any]:
    epic = order.stories[0].epic if order.stories else None
    named: dict[str, Any] = {
        "story_key": order.keys,
        "command": str(order.command),
        "task_id": str(order.command),
        "background": order.background,
    }
    return named | ({"epic_id": epic} if epic else {})


def _story_id(order: Order) -> int | None:
    return order.stories[0].row_id if order.stories else None
