"""One line of plain text for each event that matters to a reader of the terminal (pure)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from ..events import Event, EventType
from ..terminal import count, printable

_Payload = Mapping[str, Any]


def of_event(event: Event) -> str | None:
    """Return the line of an event with its local time, or None for one that is only noise in a log."""
    words = _WORDS.get(event.type)
    said = words(event.payload) if words else ""
    return f"{clock(event.timestamp)}  {said}" if said else None


def clock(timestamp: int) -> str:
    """Return the local time of day of a moment in ms since the epoch."""
    return datetime.fromtimestamp(timestamp / 1000).strftime("%H:%M:%S")


def keys(value: object) -> str:
    """Return story keys as people list them; a list or the comma-joined text of an event."""
    parts = (
        value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
    )
    return ", ".join(printable(part, 80) for part in parts)


def _id(payload: _Payload, name: str) -> str:
    return printable(payload[name], 20)


def _cycles(number: object) -> str:
    return count(number, "cycle") if isinstance(number, int) else "unknown cycles"


def _batch_start(payload: _Payload) -> str:
    cycles = payload["max_cycles"]
    size = "until nothing is left to do" if cycles is None else f"for {_cycles(cycles)}"
    return f"batch {_id(payload, 'batch_id')} starts, {size}"


def _batch_end(payload: _Payload) -> str:
    status = printable(payload["status"], 40).replace("_", " ")
    why = f" ({printable(payload['reason'], 300)})" if payload.get("reason") else ""
    cycles = _cycles(payload["cycles_completed"])
    return f"batch {_id(payload, 'batch_id')} ended: {status} after {cycles}{why}"


def _warning(payload: _Payload) -> str:
    return f"warning: {printable(payload['warning'], 400)}"


def _cycle_start(payload: _Payload) -> str:
    return f"cycle {_id(payload, 'cycle_number')}: {keys(payload['story_keys'])}"


def _cycle_end(payload: _Payload) -> str:
    done = payload["completed_stories"]
    return f"cycle {_id(payload, 'cycle_number')} ended, done: {keys(done) if done else 'none'}"


def _command(payload: _Payload) -> str:
    attempt = payload.get("attempt")
    again = f" (attempt {attempt})" if isinstance(attempt, int) and attempt > 1 else ""
    # The project context serves no story.
    whose = f"{keys(payload['story_key'])}  " if payload["story_key"] else ""
    return f"{whose}{printable(payload['command'], 60)}{again}"


def _command_start(payload: _Payload) -> str:
    # Named tasks start and end inside a command; in a log the commands themselves are enough.
    return f"{_command(payload)} starts" if _is_whole(payload) else ""


def _command_end(payload: _Payload) -> str:
    if not _is_whole(payload):
        return ""
    why = f": {printable(payload['reason'], 300)}" if payload.get("reason") else ""
    return f"{_command(payload)} {printable(payload['status'], 40)}{why}"


def _is_whole(payload: _Payload) -> bool:
    return bool(payload["task_id"] == payload["command"])


def _story_status(payload: _Payload) -> str:
    change = f"{printable(payload['old_status'], 40)} → {printable(payload['new_status'], 40)}"
    why = f": {printable(payload['reason'], 300)}" if payload.get("reason") else ""
    return f"{keys(payload['story_key'])}  {change}{why}"


def _context(payload: _Payload) -> str:
    return f"project context: {printable(payload['status'], 80)}"


def _error(payload: _Payload) -> str:
    return f"error: {printable(payload['message'], 400)}"


_WORDS: Mapping[EventType, Callable[[_Payload], str]] = {
    EventType.BATCH_START: _batch_start,
    EventType.BATCH_END: _batch_end,
    EventType.BATCH_WARNING: _warning,
    EventType.CYCLE_START: _cycle_start,
    EventType.CYCLE_END: _cycle_end,
    EventType.COMMAND_START: _command_start,
    EventType.COMMAND_END: _command_end,
    EventType.STORY_STATUS: _story_status,
    EventType.CONTEXT_CREATE: _context,
    EventType.CONTEXT_REFRESH: _context,
    EventType.CONTEXT_COMPLETE: _context,
    EventType.ERROR: _error,
}
