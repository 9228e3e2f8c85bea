"""The tables of the database: columns, their kinds, and the rules the database itself enforces."""

from __future__ import annotations

import time
from collections.abc import Iterable
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from ..events import NEVER_STORED, EventType
from ..sprint import BatchState, BatchStatus, CommandStatus, Severity, StoryStatus

#: The migration that makes the tables below.
HEAD = "0002"

#: Most bytes the JSON of one event may have; the rest of an agent's output is in its transcript.
PAYLOAD_LIMIT = 64 * 1024

# SQLite only makes an INTEGER key the row id; other databases need the wider type for milliseconds.
_INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

metadata = sa.MetaData()


class FindingStatus(StrEnum):
    """Of a finding in the ledger."""

    OPEN = "open"
    FIXED = "fixed"


class TechSpec(StrEnum):
    """What create-story decided about a tech spec."""

    REQUIRED = "REQUIRED"
    SKIP = "SKIP"


STORED_EVENT_TYPES = tuple(kind for kind in EventType if kind not in NEVER_STORED)


def now() -> int:
    """Milliseconds since the epoch, UTC."""
    return time.time_ns() // 1_000_000


def _key() -> sa.Column[int]:
    return sa.Column("id", _INTEGER, primary_key=True, info={"kind": "int"})


def _int(name: str, **options: Any) -> sa.Column[int]:
    return sa.Column(name, _INTEGER, info={"kind": "int"}, **options)


def _link(name: str, target: str, **options: Any) -> sa.Column[int]:
    return sa.Column(name, _INTEGER, sa.ForeignKey(f"{target}.id"), info={"kind": "int"}, **options)


def _flag(name: str, default: bool = False) -> sa.Column[int]:
    fallback = sa.text(str(int(default)))
    return sa.Column(name, _INTEGER, nullable=False, server_default=fallback, info={"kind": "flag"})


def _real(name: str) -> sa.Column[float]:
    return sa.Column(name, sa.REAL(), info={"kind": "real"})


def _text(name: str, **options: Any) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), info={"kind": "text"}, **options)


def _json(name: str, **options: Any) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), info={"kind": "json"}, **options)


def _choice(name: str, values: Iterable[StrEnum], **options: Any) -> sa.Column[str]:
    info = {"kind": "choice", "values": tuple(values)}
    return sa.Column(name, sa.Text(), info=info, **options)


def _table(name: str, *parts: Any, **options: Any) -> sa.Table:
    return sa.Table(name, metadata, *parts, sqlite_strict=True, **options)


batches = _table(
    "batches",
    _key(),
    _int("started_at", nullable=False, default=now),
    _int("ended_at"),
    _int("max_cycles"),
    _int("cycles_completed", nullable=False, server_default=sa.text("0")),
    _choice("status", BatchStatus, nullable=False, server_default=str(BatchStatus.RUNNING)),
    _choice("state", BatchState, nullable=False, server_default=str(BatchState.STARTING)),
    _text("reason"),
    _json("requested"),
    _int("resumes_at"),
    _text("limit_kind"),
    _text("agent"),
    _text("base_head"),
    _text("branch"),
    _json("dirty_paths"),
    _json("left_paths"),
    _int("resume_count", nullable=False, server_default=sa.text("0")),
    _flag("stop_after_story"),
    _int("heartbeat_at"),
)
# All rows of this index hold the same value, so there can be only one of them.
sa.Index(
    "one_running_batch",
    batches.c.status,
    unique=True,
    sqlite_where=sa.text("status = 'running'"),
    postgresql_where=sa.text("status = 'running'"),
)

# Counted and filtered by on the page of all batches.
sa.Index("batches_by_status", batches.c.status)
sa.Index("batches_by_agent", batches.c.agent)

stories = _table(
    "stories",
    _key(),
    _link("batch_id", "batches", nullable=False),
    _text("story_key", nullable=False),
    _text("epic_id", nullable=False, server_default=""),
    _choice("status", StoryStatus, nullable=False),
    _int("started_at", default=now),
    _int("ended_at"),
    _text("title"),
    _int("cycle"),
    _choice("tech_spec", TechSpec),
    _flag("created_by_us"),
    _text("entry_phase"),
    _text("snapshot"),
    _text("blocked_ref"),
    _text("commit_sha"),
    _text("reason"),
    _flag("acknowledged"),
    _int("attempts_reset_at"),
    _text("retry_phase"),
    _json("evidence"),
    sa.UniqueConstraint("batch_id", "story_key", name="story_once_a_batch"),
    sa.Index("stories_by_key", "story_key"),
    sa.Index("stories_by_status", "status", "batch_id", "ended_at", "story_key"),
)

commands = _table(
    "commands",
    _key(),
    _link("batch_id", "batches", nullable=False),
    _link("story_id", "stories"),
    _text("story_keys", nullable=False, server_default=""),
    _text("command", nullable=False),
    _text("task_id", nullable=False),
    _int("started_at", nullable=False, default=now),
    _int("ended_at"),
    _choice("status", CommandStatus, nullable=False, server_default=str(CommandStatus.RUNNING)),
    _text("output_summary"),
    _int("cycle"),
    _int("attempt", nullable=False, server_default=sa.text("1")),
    _flag("counted", default=True),
    _flag("background"),
    _text("agent"),
    _text("model"),
    _text("session_id"),
    _int("pid"),
    _int("start_ticks"),
    _text("boot_id"),
    _text("run_id"),
    _int("exit_code"),
    _int("exit_signal"),
    _text("ended_by"),
    _text("reason"),
    _text("outcome"),
    _real("cost_usd"),
    _int("tokens_in"),
    _int("tokens_out"),
    _int("tokens_cache_read"),
    _int("tokens_cache_write"),
    _int("agent_ms"),
    _json("verdict"),
    _json("evidence"),
    _text("transcript"),
    _text("stderr_tail"),
    _text("last_action"),
    _int("last_action_at"),
    _text("current_task"),
    sa.UniqueConstraint("batch_id", "story_keys", "command", "attempt", name="attempt_once"),
    sa.Index("commands_of_batch", "batch_id"),
    sa.Index("commands_of_story", "story_id"),
    sa.Index("commands_by_start", "started_at"),
    # Holds all that the sums over the history need: a row of commands itself is a kilobyte.
    sa.Index(
        "commands_summed",
        "batch_id",
        "command",
        "status",
        "cost_usd",
        "started_at",
        "ended_at",
        "story_keys",
    ),
)
sa.Index(
    "commands_running",
    commands.c.id,
    sqlite_where=sa.text("status = 'running'"),
    postgresql_where=sa.text("status = 'running'"),
)

command_stories = _table(
    "command_stories",
    _link("command_id", "commands", primary_key=True),
    _link("story_id", "stories", primary_key=True),
    sa.Index("command_stories_of_story", "story_id", "command_id"),
)

findings = _table(
    "findings",
    _key(),
    _link("story_id", "stories", nullable=False),
    _text("identity", nullable=False),
    _choice("severity", Severity, nullable=False),
    _text("title", nullable=False, server_default=""),
    _text("file"),
    _int("line"),
    _choice("status", FindingStatus, nullable=False, server_default=str(FindingStatus.OPEN)),
    _int("seen", nullable=False, server_default=sa.text("1")),
    _int("created_at", nullable=False, default=now),
    _int("updated_at", nullable=False, default=now),
    sa.UniqueConstraint("story_id", "identity", name="finding_once_a_story"),
)

finding_rounds = _table(
    "finding_rounds",
    _link("finding_id", "findings", primary_key=True),
    _link("command_id", "commands", primary_key=True),
    _choice("status", FindingStatus, nullable=False),
    sa.Index("finding_rounds_of_command", "command_id"),
)

events = _table(
    "events",
    _key(),
    _link("batch_id", "batches"),
    _link("story_id", "stories"),
    _link("command_id", "commands"),
    _int("timestamp", nullable=False),
    _choice("event_type", STORED_EVENT_TYPES, nullable=False),
    _text("epic_id"),
    _text("story_key"),
    _text("command"),
    _text("task_id"),
    _text("status"),
    _text("message"),
    _json("payload", nullable=False, server_default="{}"),
    sa.Index("events_of_batch", "batch_id"),
    sa.Index("events_of_command", "command_id"),
    sa.Index("events_of_story", "story_key"),
    sqlite_autoincrement=True,
)
# Nine of ten events are progress: leaving it out keeps what every append must touch small.
EVENTS_WITHOUT_PROGRESS = "event_type <> 'command:progress'"
sa.Index(
    "events_by_type",
    events.c.event_type,
    sqlite_where=sa.text(EVENTS_WITHOUT_PROGRESS),
    postgresql_where=sa.text(EVENTS_WITHOUT_PROGRESS),
)
#: What a person looks for after a bad night.
EVENTS_BAD = (
    "(status IN ('failed', 'timed_out', 'interrupted', 'blocked')"
    " OR event_type IN ('error', 'batch:warning'))"
)
sa.Index("events_bad", events.c.id, sqlite_where=sa.text(EVENTS_BAD), postgresql_where=sa.text(EVENTS_BAD))

background_tasks = _table(
    "background_tasks",
    _key(),
    _link("batch_id", "batches", nullable=False),
    _text("story_key"),
    _text("task_type", nullable=False),
    _int("spawned_at", nullable=False, default=now),
    _int("completed_at"),
    _choice("status", CommandStatus, nullable=False, server_default=str(CommandStatus.RUNNING)),
    _link("command_id", "commands"),
    sa.Index("background_tasks_of_batch", "batch_id"),
)


def _check(column: sa.Column[Any]) -> sa.CheckConstraint | None:
    """The rule the database keeps for a column of this kind."""
    name = f"{column.table.name}_{column.name}_valid"
    kind = column.info["kind"]
    if kind == "choice":
        listed = ", ".join(f"'{value}'" for value in column.info["values"])
        return sa.CheckConstraint(f"{column.name} IN ({listed})", name=name)
    if kind == "flag":
        return sa.CheckConstraint(f"{column.name} IN (0, 1)", name=name)
    # JSON is made by us: SQLite 3.40 refuses json_valid() in a schema it was told not to trust.
    return None


def _add_checks() -> None:
    for table in metadata.tables.values():
        for column in table.columns:
            check = _check(column)
            if check is not None:
                table.append_constraint(check)
    size = f"length(CAST(payload AS BLOB)) <= {PAYLOAD_LIMIT}"
    events.append_constraint(sa.CheckConstraint(size, name="events_payload_small").ddl_if(dialect="sqlite"))


_add_checks()
