"""A command that ended while nobody watched: its verdict was written, so it is judged and never run again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import agents, leftover, prompts
from ..sprint import CommandStatus
from ..store import CommandRow
from .house import Batch
from .orders import Order
from .records import Ended, transcript_name


def adopt(batch: Batch, order: Order) -> Ended | None:
    """The open row of this very command left by a former life, with its result read again; else None."""
    row = next((row for row in batch.house.store.running_commands() if _same(batch, order, row)), None)
    found = leftover.ended_by_itself(batch.house.state_dir, row.id) if row else None
    if row is None or found is None:
        return None
    schema: Mapping[str, Any] | None = prompts.SCHEMAS.get(str(order.command))
    stream = agents.by_name(row.agent or "claude").stream(schema)
    for line in _lines(batch.house.state_dir / "transcripts" / transcript_name(row.id)):
        stream.feed(line)
    result = stream.result(found.code, found.signal, found.stderr_tail, schema is not None, False, False)
    good = result.outcome is agents.Outcome.SUCCESS
    if not good and found.ended_by != "itself":
        why = "cut off by the end of the server"  # that is why it left: not failed
        with batch.house.store.transaction() as tx:
            leftover.close(tx, row, CommandStatus.INTERRUPTED, why, batch.house.store.now())
        return None
    limited = result.outcome is agents.Outcome.USAGE_LIMIT
    failed = CommandStatus.LIMITED if limited else CommandStatus.FAILED
    status = CommandStatus.SUCCEEDED if good else failed
    return Ended(row.id, row.attempt, order, result, found, status, result.reason, adopted=True)


def _same(batch: Batch, order: Order, row: CommandRow) -> bool:
    named = row.batch_id == batch.id and row.command == order.command and row.story_keys == order.keys
    return named and row.background == order.background and row.id not in batch.trees


def _lines(path: Path) -> list[bytes]:
    """The lines of a transcript; it is capped on disk, so it fits."""
    try:
        return path.read_bytes().splitlines()
    except OSError:
        return []
