"""The records of commands: opened before anything runs, closed with what came out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..agents import AgentResult
from ..events import EventType
from ..process import Exit
from ..sprint import CommandStatus
from ..store import Tx
from .house import Batch
from .orders import Order

_SUMMARY_CHARS = 2000


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
    #: Read again after a crash: it ended before this process began.
    adopted: bool = False

    @property
    def succeeded(self) -> bool:
        """Whether the agent's own part is a success; evidence and verify come on top."""
        return self.status is CommandStatus.SUCCEEDED


class Records:
    """Writes what a command was asked, does, and did: each time row and event in one transaction."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.store = batch.house.store
        self.clean, self.clean_json = batch.house.clean, batch.house.clean_json

    def next_attempt(self, order: Order) -> int:
        """Numbers go on over all batches: every spawn is a new one."""
        key = order.stories[0].key if order.stories else None
        rows = self.store.commands_of_story(key) if key else self.store.commands(self.batch.id)
        return 1 + max((row.attempt for row in rows if row.command == order.command), default=0)

    def open(
        self, order: Order, *, agent: str, model: str | None, attempt: int, run_id: str, session: str | None
    ) -> int:
        """Commit the row and ``command:start``; only then may anything run. Returns the id."""
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
                agent=agent,
                model=model,
                session_id=session,
                run_id=run_id,
            )
            tx.update_command(command_id, transcript=transcript_name(command_id))
            tx.append(
                EventType.COMMAND_START,
                {**_named(order), "attempt": attempt, "agent": agent, "model": model},
                batch_id=self.batch.id,
                story_id=_story_id(order),
                command_id=command_id,
            )
        return command_id

    def close_unstarted(self, order: Order, command_id: int, attempt: int, why: str) -> None:
        """Record a command that never got to run."""
        why = self.clean(why)
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

    def close(
        self,
        ended: Ended,
        status: CommandStatus,
        reason: str,
        *,
        counted: bool = True,
        verdict: Any = None,
        evidence: dict[str, Any] | None = None,
        also: Callable[[Tx], None] | None = None,
    ) -> None:
        """Record the end of a command: row and ``command:end`` in one transaction.

        ``also(tx)`` adds what must be recorded with it (ledger, story).
        """
        order, words = ended.order, self.clean(reason)[:_SUMMARY_CHARS]
        with self.store.transaction() as tx:
            tx.update_command(
                ended.command_id,
                status=status,
                ended_at=self.store.now(),
                reason=words,
                counted=int(counted),
                verdict=self.clean_json(verdict),
                evidence=self._evidence(ended, evidence),
                **self._left(ended),
                **self._spent(ended.result),
            )
            self._note_progress(tx, counted)
            if also is not None:
                also(tx)
            said = {"status": str(status), "reason": words, "attempt": ended.attempt}
            tx.append(
                EventType.COMMAND_END,
                {**_named(order), **said, "duration_ms": int(ended.exit.seconds * 1000)},
                batch_id=self.batch.id,
                story_id=_story_id(order),
                command_id=ended.command_id,
            )

    def _evidence(self, ended: Ended, given: dict[str, Any] | None) -> Any:
        """The evidence, with the number of output lines that were no events when there were any."""
        odd = ended.result.counted_raw
        found = {**(given or {}), **({"raw_lines": odd} if odd else {})}
        return self.clean_json(found) or None

    def _note_progress(self, tx: Tx, counted: bool) -> None:
        """A new verdict: the resumes before it were not in vain."""
        if counted and self.batch.resume_count:
            tx.update_batch(self.batch.id, resume_count=0)
            self.batch.resume_count = 0

    def _left(self, ended: Ended) -> dict[str, Any]:
        """What a run left behind, secrets taken out: the raw output stays in its file alone."""
        result, left = ended.result, ended.exit
        return {
            "output_summary": self.clean(_summary(result))[:_SUMMARY_CHARS],
            "outcome": result.failure or str(result.outcome),
            "exit_code": left.code,
            "exit_signal": left.signal,
            "ended_by": left.ended_by,
            "stderr_tail": self.clean(left.stderr_tail),
            "agent_ms": int(left.seconds * 1000),
        }

    def _spent(self, result: AgentResult) -> dict[str, Any]:
        """Session, model, tokens and cost of this run alone: a resumed session reports its total so far."""
        spent: dict[str, Any] = {}
        if result.session_id:
            spent["session_id"] = result.session_id
        if result.model:
            spent["model"] = result.model
        before = self._before(result)
        if result.tokens:
            spent |= {
                "tokens_in": max(result.tokens.input - before[1], 0),
                "tokens_out": max(result.tokens.output - before[2], 0),
                "tokens_cache_read": max(result.tokens.cache_read - before[3], 0),
                "tokens_cache_write": max(result.tokens.cache_write - before[4], 0),
            }
        if result.cost_usd is not None:
            spent["cost_usd"] = max(result.cost_usd - before[0], 0.0)
        return spent

    def _before(self, result: AgentResult) -> tuple[float, int, int, int, int]:
        """Cost and tokens already recorded for this agent session: its totals go on over a resume."""
        if not result.cumulative or not result.session_id:
            return (0.0, 0, 0, 0, 0)
        rows = [r for r in self.store.commands(self.batch.id) if r.session_id == result.session_id]
        return (
            sum(r.cost_usd or 0.0 for r in rows),
            sum(r.tokens_in or 0 for r in rows),
            sum(r.tokens_out or 0 for r in rows),
            sum(r.tokens_cache_read or 0 for r in rows),
            sum(r.tokens_cache_write or 0 for r in rows),
        )

    def progress(
        self,
        command_id: int,
        order: Order,
        message: str,
        *,
        task: str | None = None,
        model: str | None = None,
        session: str | None = None,
    ) -> None:
        """Record ``command:progress`` and what the command's card shows."""
        text = self.clean(message)
        shown: dict[str, Any] = {"last_action": text, "last_action_at": self.store.now()}
        shown |= {"current_task": task} if task else {}
        shown |= {"model": model} if model else {}
        shown |= {"session_id": session} if session else {}
        with self.store.transaction() as tx:
            tx.update_command(command_id, **shown)
            tx.append(
                EventType.COMMAND_PROGRESS,
                {**_named(order), "task_id": task or str(order.command), "message": text},
                batch_id=self.batch.id,
                story_id=_story_id(order),
                command_id=command_id,
            )


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


def _summary(result: AgentResult) -> str:
    """What the agent says of its work: the summary of its verdict, else its last text."""
    told = result.structured.get("summary") if isinstance(result.structured, Mapping) else None
    return told if isinstance(told, str) and told.strip() else result.text


def transcript_name(command_id: int) -> str:
    """The name of the file that holds a command's raw output."""
    return f"{command_id}.jsonl"
