"""The rows of the tables as values: one frozen dataclass a table, its fields named like the columns."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import sqlalchemy as sa

from ..events import Event, EventType
from ..sprint import BatchState, BatchStatus, CommandStatus, Severity, StoryStatus
from . import schema
from .schema import FindingStatus, TechSpec


@dataclass(frozen=True, slots=True)
class BatchRow:
    """One batch. Times in ms, UTC; ``max_cycles`` None = unlimited; ``left_paths`` maps path to sha256."""

    id: int
    started_at: int
    ended_at: int | None
    max_cycles: int | None
    cycles_completed: int
    status: BatchStatus
    state: BatchState
    reason: str | None
    requested: list[str] | None
    resumes_at: int | None
    limit_kind: str | None
    agent: str | None
    base_head: str | None
    branch: str | None
    dirty_paths: Any
    left_paths: Any
    resume_count: int
    stop_after_story: bool
    heartbeat_at: int | None


@dataclass(frozen=True, slots=True)
class StoryRow:
    """What one batch knows of one story. Times in ms, UTC."""

    id: int
    batch_id: int
    story_key: str
    epic_id: str
    status: StoryStatus
    started_at: int | None
    ended_at: int | None
    title: str | None
    cycle: int | None
    tech_spec: TechSpec | None
    created_by_us: bool
    entry_phase: str | None
    snapshot: str | None
    blocked_ref: str | None
    commit_sha: str | None
    reason: str | None
    acknowledged: bool
    attempts_reset_at: int | None
    retry_phase: str | None
    evidence: Any


@dataclass(frozen=True, slots=True)
class CommandRow:
    """One execution of an agent. Times in ms, UTC; cost and tokens None = unknown, never "nothing"."""

    id: int
    batch_id: int
    story_id: int | None
    story_keys: str
    command: str
    task_id: str
    started_at: int
    ended_at: int | None
    status: CommandStatus
    output_summary: str | None
    cycle: int | None
    attempt: int
    counted: bool
    background: bool
    agent: str | None
    model: str | None
    session_id: str | None
    pid: int | None
    start_ticks: int | None
    boot_id: str | None
    run_id: str | None
    exit_code: int | None
    exit_signal: int | None
    ended_by: str | None
    reason: str | None
    outcome: str | None
    cost_usd: float | None
    tokens_in: int | None
    tokens_out: int | None
    tokens_cache_read: int | None
    tokens_cache_write: int | None
    agent_ms: int | None
    verdict: Any
    evidence: Any
    transcript: str | None
    stderr_tail: str | None
    last_action: str | None
    last_action_at: int | None
    current_task: str | None


@dataclass(frozen=True, slots=True)
class FindingRow:
    """One finding in a story's ledger; ``seen`` counts the valid reviews that named it."""

    id: int
    story_id: int
    identity: str
    severity: Severity
    title: str
    file: str | None
    line: int | None
    status: FindingStatus
    seen: int
    created_at: int
    updated_at: int


@dataclass(frozen=True, slots=True)
class RoundRow:
    """What one review said of one finding."""

    finding_id: int
    command_id: int
    status: FindingStatus


@dataclass(frozen=True, slots=True)
class TaskRow:
    """One background task of a batch. Times in ms, UTC."""

    id: int
    batch_id: int
    story_key: str | None
    task_type: str
    spawned_at: int
    completed_at: int | None
    status: CommandStatus
    command_id: int | None


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over commands; ``cost_usd`` is None where no agent told one, ``seconds`` is wall time, ≥ 0."""

    cost_usd: float | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cache: int = 0
    commands: int = 0
    stories: int = 0
    seconds: float = 0.0


Decoder = Callable[[Any], Any]
Row = TypeVar("Row")

_ENUMS: Mapping[tuple[str, str], Decoder] = {
    ("batches", "status"): BatchStatus,
    ("batches", "state"): BatchState,
    ("stories", "status"): StoryStatus,
    ("stories", "tech_spec"): TechSpec,
    ("commands", "status"): CommandStatus,
    ("findings", "severity"): Severity,
    ("findings", "status"): FindingStatus,
    ("finding_rounds", "status"): FindingStatus,
    ("background_tasks", "status"): CommandStatus,
}
_KINDS: Mapping[str, Decoder] = {"flag": bool, "json": json.loads}


def _decoders(table: sa.Table) -> list[tuple[int, Decoder]]:
    found = []
    for place, column in enumerate(table.columns):
        decoder = _ENUMS.get((table.name, column.name)) or _KINDS.get(column.info["kind"])
        if decoder is not None:
            found.append((place, decoder))
    return found


def _maker(table: sa.Table, form: type[Row]) -> Callable[[sa.Row[Any]], Row]:
    """Make the function that turns a row of ``table``, all columns in order, into ``form``."""
    names = [field.name for field in fields(form)]  # type: ignore[arg-type]
    if names != [column.name for column in table.columns]:
        raise AssertionError(f"{form.__name__} and the table {table.name} differ")
    decoders = _decoders(table)

    def make(row: sa.Row[Any]) -> Row:
        values = list(row)
        for place, decode in decoders:
            if values[place] is not None:
                values[place] = decode(values[place])
        return form(*values)

    return make


batch_row = _maker(schema.batches, BatchRow)
story_row = _maker(schema.stories, StoryRow)
command_row = _maker(schema.commands, CommandRow)
finding_row = _maker(schema.findings, FindingRow)
round_row = _maker(schema.finding_rounds, RoundRow)
task_row = _maker(schema.background_tasks, TaskRow)


def event_of(row: sa.Row[Any]) -> Event:
    """Make the event of a row ``id, event_type, timestamp, payload``."""
    number, kind, timestamp, payload = tuple(row)
    return Event(number, EventType(kind), timestamp, json.loads(payload))
