"""Indexes for the history: batches by outcome, sums over commands, events by type, story and trouble."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

NOT_PROGRESS = sa.text("event_type <> 'command:progress'")
BAD = sa.text(
    "(status IN ('failed', 'timed_out', 'interrupted', 'blocked')"
    " OR event_type IN ('error', 'batch:warning'))"
)
SUMMED = ["batch_id", "command", "status", "cost_usd", "started_at", "ended_at", "story_keys"]


def upgrade() -> None:
    """Make the indexes; on a large history this takes a second or two."""
    op.create_index("batches_by_status", "batches", ["status"])
    op.create_index("batches_by_agent", "batches", ["agent"])
    op.create_index("stories_by_status", "stories", ["status", "batch_id", "ended_at", "story_key"])
    op.create_index("commands_summed", "commands", SUMMED)
    op.create_index("events_of_story", "events", ["story_key"])
    op.create_index(
        "events_by_type", "events", ["event_type"], sqlite_where=NOT_PROGRESS, postgresql_where=NOT_PROGRESS
    )
    op.create_index("events_bad", "events", ["id"], sqlite_where=BAD, postgresql_where=BAD)
