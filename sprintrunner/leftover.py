"""Commands whose flow is gone: how their agent ended, if it did, and their end in the records."""

from __future__ import annotations

from pathlib import Path

from . import process
from .events import EventType
from .process import Exit
from .sprint import CommandStatus
from .store import CommandRow, Tx


def ended_by_itself(state_dir: Path, command_id: int) -> Exit | None:
    """The exit of a command whose agent ended by itself, even if nobody was there to record it (R6)."""
    found = process.read_exit(state_dir / "runs" / str(command_id) / "exit.json")
    return found if found is not None and found.code is not None else None


def close(tx: Tx, row: CommandRow, status: CommandStatus, reason: str, now: int) -> None:
    """Record the end (ms) of a command that nobody judges any more: row and ``command:end``, uncounted."""
    tx.update_command(row.id, status=status, ended_at=now, reason=reason, counted=0)
    tx.append(
        EventType.COMMAND_END,
        {
            "story_key": row.story_keys,
            "command": row.command,
            "task_id": row.task_id,
            "status": str(status),
            "reason": reason,
            "attempt": row.attempt,
        },
        batch_id=row.batch_id,
        story_id=row.story_id,
        command_id=row.id,
    )
