"""Rows of the store as the JSON of the API (contract section 4)."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

#: What identifies a process or marks a tree stays inside.
_PRIVATE = frozenset({"run_id", "pid", "start_ticks", "boot_id", "left_paths", "transcript"})


def row_json(row: Any) -> dict[str, Any]:
    """The columns of one row that may be seen."""
    fields = (field.name for field in dataclasses.fields(row))
    return {name: _plain(getattr(row, name)) for name in fields if name not in _PRIVATE}


def batch_json(batch: Any) -> dict[str, Any]:
    """One batch with its duration so far, in seconds."""
    return {**row_json(batch), "duration_seconds": seconds(batch.started_at, batch.ended_at)}


def seconds(started_at: int | None, ended_at: int | None) -> float | None:
    """Seconds between two ms times, until now where the end is open; None before the start."""
    if started_at is None:
        return None
    end = int(time.time() * 1000) if ended_at is None else ended_at
    return max(0, end - started_at) / 1000


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return str(value)
