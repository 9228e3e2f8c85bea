"""Commands as table rows, and the page of one command."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ...sprint import CommandStatus
from ...store import CommandRow
from .reading import Reading, keys_of, took


@dataclass(frozen=True, slots=True)
class CommandLine:
    """One command in a table. ``ms`` how long, ``cost`` in dollars or None, ``why`` one sentence."""

    id: int
    command: str
    attempt: int
    keys: tuple[str, ...]
    status: str
    since: int
    ms: int
    cost: float | None
    tokens: int | None
    agent: str
    why: str
    counted: bool
    running: bool
    transcript: bool


@dataclass(frozen=True, slots=True)
class CommandPage:
    """One command: its line, the numbers beside it, and what it said at its end."""

    line: CommandLine
    batch_id: int
    cycle: int | None
    background: bool
    facts: tuple[tuple[str, str], ...]
    verdict: str
    stderr: str
    others: tuple[CommandLine, ...]
    now: int


def lines_of(reading: Reading, commands: Iterable[CommandRow]) -> tuple[CommandLine, ...]:
    """Commands as table rows, in their order."""
    return tuple(_line(reading, command) for command in commands)


def _line(reading: Reading, row: CommandRow) -> CommandLine:
    status = reading.outcome(row)
    running = status == CommandStatus.RUNNING
    return CommandLine(
        id=row.id,
        command=row.command,
        attempt=row.attempt,
        keys=keys_of(row),
        status=str(status),
        since=row.started_at,
        ms=took(row, reading.now),
        cost=row.cost_usd,
        tokens=_tokens(row),
        agent=" · ".join(part for part in (row.agent, row.model) if part),
        why=(row.last_action if running else row.reason or row.output_summary) or "",
        counted=row.counted,
        running=running,
        transcript=bool(row.transcript),
    )


def _tokens(row: CommandRow) -> int | None:
    counts = (row.tokens_in, row.tokens_out, row.tokens_cache_read, row.tokens_cache_write)
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def command_page(reading: Reading, row: CommandRow) -> CommandPage:
    """Read the page of one command."""
    keys = set(keys_of(row))
    others = [other for other in reading.commands_of(row.batch_id) if keys & set(keys_of(other)) or not keys]
    return CommandPage(
        line=_line(reading, row),
        batch_id=row.batch_id,
        cycle=row.cycle,
        background=row.background,
        facts=_facts(row),
        verdict=_pretty(row.verdict),
        stderr=row.stderr_tail or "",
        others=lines_of(reading, others),
        now=reading.now,
    )


def _facts(row: CommandRow) -> tuple[tuple[str, str], ...]:
    """What is known of the process; what is not known is left out rather than shown as nothing."""
    ended = {"itself": "by itself", "wall": "time limit", "idle": "silence limit"}
    facts: Mapping[str, Any] = {
        "Exit code": row.exit_code,
        "Signal": row.exit_signal,
        "Ended": ended.get(row.ended_by or "", (row.ended_by or "").replace("_", " ")) or None,
        "Outcome": row.outcome,
        "Session": row.session_id,
        "Process": row.pid,
        "Tokens in": row.tokens_in,
        "Tokens out": row.tokens_out,
        "Read from cache": row.tokens_cache_read,
        "Written to cache": row.tokens_cache_write,
    }
    return tuple((name, str(value)) for name, value in facts.items() if value is not None)


def _pretty(verdict: Any) -> str:
    return "" if verdict is None else json.dumps(verdict, indent=2, ensure_ascii=False)
