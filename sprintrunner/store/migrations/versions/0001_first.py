"""The first schema: batches, stories, commands, findings, events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# SQLite only makes an INTEGER key the row id; other databases need the wider type for milliseconds.
INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Parts = tuple[sa.schema.SchemaItem, ...]
RUNNING = sa.text("status = 'running'")

BATCHES: Parts = (
    sa.Column("id", INTEGER, primary_key=True),
    sa.Column("started_at", INTEGER, nullable=False),
    sa.Column("ended_at", INTEGER),
    sa.Column("max_cycles", INTEGER),
    sa.Column("cycles_completed", INTEGER, nullable=False, server_default=sa.text("0")),
    sa.Column("status", sa.Text(), nullable=False, server_default="running"),
    sa.Column("state", sa.Text(), nullable=False, server_default="starting"),
    sa.Column("reason", sa.Text()),
    sa.Column("requested", sa.Text()),
    sa.Column("resumes_at", INTEGER),
    sa.Column("limit_kind", sa.Text()),
    sa.Column("agent", sa.Text()),
    sa.Column("base_head", sa.Text()),
    sa.Column("branch", sa.Text()),
    sa.Column("dirty_paths", sa.Text()),
    sa.Column("left_paths", sa.Text()),
    sa.Column("resume_count", INTEGER, nullable=False, server_default=sa.text("0")),
    sa.Column("stop_after_story", INTEGER, nullable=False, server_default=sa.text("0")),
    sa.Column("heartbeat_at", INTEGER),
    sa.CheckConstraint(
        "status IN ('running', 'completed', 'all_done', 'stopped', 'failed', 'interrupted', 'limit')",
        name="batches_status_valid",
    ),
    sa.CheckConstraint(
        "state IN ('starting', 'running', 'waiting', 'stopping', 'ended')", name="batches_state_valid"
    ),
    sa.CheckConstraint("stop_after_story IN (0, 1)", name="batches_stop_after_story_valid"),
)

STORIES: Parts = (
    sa.Column("id", INTEGER, primary_key=True),
    sa.Column("batch_id", INTEGER, sa.ForeignKey("batches.id"), nullable=False),
    sa.Column("story_key", sa.Text(), nullable=False),
    sa.Column("epic_id", sa.Text(), nullable=False, server_default=""),
    sa.Column("status", sa.Text(), nullable=False),
    sa.Column("started_at", INTEGER),
    sa.Column("ended_at", INTEGER),
    sa.Column("title", sa.Text()),
    sa.Column("cycle", INTEGER),
    sa.Column("tech_spec", sa.Text()),
    sa.Column("created_by_us", INTEGER, nullable=False, server_default=sa.text("0")),
    sa.Column("entry_phase", sa.Text()),
    sa.Column("snapshot", sa.Text()),
    sa.Column("blocked_ref", sa.Text()),
    sa.Column("commit_sha", sa.Text()),
    sa.Column("reason", sa.Text()),
    sa.Column("acknowledged", INTEGER, nullable=False, server_default=sa.text("0")),
    sa.Column("attempts_reset_at", INTEGER),
    sa.Column("retry_phase", sa.Text()),
    sa.Column("evidence", sa.Text()),
    sa.UniqueConstraint("batch_id", "story_key", name="story_once_a_batch"),
    sa.CheckConstraint(
        "status IN ('backlog', 'ready-for-dev', 'in-progress', 'review', 'done', 'blocked', 'optional')",
        name="stories_status_valid",
    ),
    sa.CheckConstraint("tech_spec IN ('REQUIRED', 'SKIP')", name="stories_tech_spec_valid"),
    sa.CheckConstraint("created_by_us IN (0, 1)", name="stories_created_by_us_valid"),
    sa.CheckConstraint("acknowledged IN (0, 1)", name="stories_acknowledged_valid"),
)

COMMANDS: Parts = (
    sa.Column("id", INTEGER, primary_key=True),
    sa.Column("batch_id", INTEGER, sa.ForeignKey("batches.id"), nullable=False),
    sa.Column("story_id", INTEGER, sa.ForeignKey("stories.id")),
    sa.Column("story_keys", sa.Text(), nullable=False, server_default=""),
    sa.Column("command", sa.Text(), nullable=False),
    sa.Column("task_id", sa.Text(), nullable=False),
    sa.Column("started_at", INTEGER, nullable=False),
    sa.Column("ended_at", INTEGER),
    sa.Column("status", sa.Text(), nullable=False, server_default="running"),
    sa.Column("output_summary", sa.Text()),
    sa.Column("cycle", INTEGER),
    sa.Column("attempt", INTEGER, nullable=False, server_default=sa.text("1")),
    sa.Column("counted", INTEGER, nullable=False, server_default=sa.text("1")),
    sa.Column("background", INTEGER, nullable=False, server_default=sa.text("0")),
    sa.Column("agent", sa.Text()),
    sa.Column("model", sa.Text()),
    sa.Column("session_id", sa.Text()),
    sa.Column("pid", INTEGER),
    sa.Column("start_ticks", INTEGER),
    sa.Column("boot_id", sa.Text()),
    sa.Column("run_id", sa.Text()),
    sa.Column("exit_code", INTEGER),
    sa.Column("exit_signal", INTEGER),
    sa.Column("ended_by", sa.Text()),
    sa.Column("reason", sa.Text()),
    sa.Column("outcome", sa.Text()),
    sa.Column("cost_usd", sa.REAL()),
    sa.Column("tokens_in", INTEGER),
    sa.Column("tokens_out", INTEGER),
    sa.Column("tokens_cache_read", INTEGER),
    sa.Column("tokens_cache_write", INTEGER),
    sa.Column("agent_ms", INTEGER),
    sa.Column("verdict", sa.Text()),
    sa.Column("evidence", sa.Text()),
    sa.Column("transcript", sa.Text()),
    sa.Column("stderr_tail", sa.Text()),
    sa.Column("last_action", sa.Text()),
    sa.Column("last_action_at", INTEGER),
    sa.Column("current_task", sa.Text()),
    sa.UniqueConstraint("batch_id", "story_keys", "command", "attempt", name="attempt_once"),
    sa.CheckConstraint(
        "status IN ('running', 'succeeded', 'failed', 'stopped', 'timed_out', 'interrupted', 'limited')",
        name="commands_status_valid",
    ),
    sa.CheckConstraint("counted IN (0, 1)", name="commands_counted_valid"),
    sa.CheckConstraint("background IN (0, 1)", name="commands_background_valid"),
)

COMMAND_STORIES: Parts = (
    sa.Column("command_id", INTEGER, sa.ForeignKey("commands.id"), primary_key=True),
    sa.Column("story_id", INTEGER, sa.ForeignKey("stories.id"), primary_key=True),
)

FINDINGS: Parts = (
    sa.Column("id", INTEGER, primary_key=True),
    sa.Column("story_id", INTEGER, sa.ForeignKey("stories.id"), nullable=False),
    sa.Column("identity", sa.Text(), nullable=False),
    sa.Column("severity", sa.Text(), nullable=False),
    sa.Column("title", sa.Text(), nullable=False, server_default=""),
    sa.Column("file", sa.Text()),
    sa.Column("line", INTEGER),
    sa.Column("status", sa.Text(), nullable=False, server_default="open"),
    sa.Column("seen", INTEGER, nullable=False, server_default=sa.text("1")),
    sa.Column("created_at", INTEGER, nullable=False),
    sa.Column("updated_at", INTEGER, nullable=False),
    sa.UniqueConstraint("story_id", "identity", name="finding_once_a_story"),
    sa.CheckConstraint(
        "severity IN ('CRITICAL', 'HIGH', 'MEDIUM', 'LOW', 'NONE')", name="findings_severity_valid"
    ),
    sa.CheckConstraint("status IN ('open', 'fixed')", name="findings_status_valid"),
)

FINDING_ROUNDS: Parts = (
    sa.Column("finding_id", INTEGER, sa.ForeignKey("findings.id"), primary_key=True),
    sa.Column("command_id", INTEGER, sa.ForeignKey("commands.id"), primary_key=True),
    sa.Column("status", sa.Text(), nullable=False),
    sa.CheckConstraint("status IN ('open', 'fixed')", name="finding_rounds_status_valid"),
)

EVENTS: Parts = (
    sa.Column("id", INTEGER, primary_key=True),
    sa.Column("batch_id", INTEGER, sa.ForeignKey("batches.id")),
    sa.Column("story_id", INTEGER, sa.ForeignKey("stories.id")),
    sa.Column("command_id", INTEGER, sa.ForeignKey("commands.id")),
    sa.Column("timestamp", INTEGER, nullable=False),
    sa.Column("event_type", sa.Text(), nullable=False),
    sa.Column("epic_id", sa.Text()),
    sa.Column("story_key", sa.Text()),
    sa.Column("command", sa.Text()),
    sa.Column("task_id", sa.Text()),
    sa.Column("status", sa.Text()),
    sa.Column("message", sa.Text()),
    sa.Column("payload", sa.Text(), nullable=False, server_default="{}"),
    sa.CheckConstraint(
        "event_type IN ('batch:start', 'batch:end', 'batch:warning', 'cycle:start', 'cycle:end', "
        "'command:start', 'command:progress', 'command:end', 'story:status', 'context:create', "
        "'context:refresh', 'context:complete', 'error')",
        name="events_event_type_valid",
    ),
    sa.CheckConstraint("length(CAST(payload AS BLOB)) <= 65536", name="events_payload_small").ddl_if(
        dialect="sqlite"
    ),
)

BACKGROUND_TASKS: Parts = (
    sa.Column("id", INTEGER, primary_key=True),
    sa.Column("batch_id", INTEGER, sa.ForeignKey("batches.id"), nullable=False),
    sa.Column("story_key", sa.Text()),
    sa.Column("task_type", sa.Text(), nullable=False),
    sa.Column("spawned_at", INTEGER, nullable=False),
    sa.Column("completed_at", INTEGER),
    sa.Column("status", sa.Text(), nullable=False, server_default="running"),
    sa.Column("command_id", INTEGER, sa.ForeignKey("commands.id")),
    sa.CheckConstraint(
        "status IN ('running', 'succeeded', 'failed', 'stopped', 'timed_out', 'interrupted', 'limited')",
        name="background_tasks_status_valid",
    ),
)


def _make_tables() -> None:
    # Parents come before children.
    op.create_table("batches", *BATCHES, sqlite_strict=True)
    op.create_table("stories", *STORIES, sqlite_strict=True)
    op.create_table("commands", *COMMANDS, sqlite_strict=True)
    op.create_table("command_stories", *COMMAND_STORIES, sqlite_strict=True)
    op.create_table("findings", *FINDINGS, sqlite_strict=True)
    op.create_table("finding_rounds", *FINDING_ROUNDS, sqlite_strict=True)
    op.create_table("events", *EVENTS, sqlite_strict=True, sqlite_autoincrement=True)
    op.create_table("background_tasks", *BACKGROUND_TASKS, sqlite_strict=True)


def _make_indexes() -> None:
    op.create_index(
        "one_running_batch",
        "batches",
        ["status"],
        unique=True,
        sqlite_where=RUNNING,
        postgresql_where=RUNNING,
    )
    op.create_index("stories_by_key", "stories", ["story_key"])
    op.create_index("commands_by_start", "commands", ["started_at"])
    op.create_index("commands_of_batch", "commands", ["batch_id"])
    op.create_index("commands_of_story", "commands", ["story_id"])
    op.create_index("commands_running", "commands", ["id"], sqlite_where=RUNNING, postgresql_where=RUNNING)
    op.create_index("command_stories_of_story", "command_stories", ["story_id", "command_id"])
    op.create_index("finding_rounds_of_command", "finding_rounds", ["command_id"])
    op.create_index("events_of_batch", "events", ["batch_id"])
    op.create_index("events_of_command", "events", ["command_id"])
    op.create_index("background_tasks_of_batch", "background_tasks", ["batch_id"])


def upgrade() -> None:
    """Make all tables and indexes."""
    _make_tables()
    _make_indexes()
