"""The event types, the payload keys each must carry, and the event itself (contract section 5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from .errors import InvalidEvent


class EventType(StrEnum):
    """What can be recorded; the values are outside names."""

    BATCH_START = "batch:start"
    BATCH_END = "batch:end"
    BATCH_WARNING = "batch:warning"
    CYCLE_START = "cycle:start"
    CYCLE_END = "cycle:end"
    COMMAND_START = "command:start"
    COMMAND_PROGRESS = "command:progress"
    COMMAND_END = "command:end"
    STORY_STATUS = "story:status"
    CONTEXT_CREATE = "context:create"
    CONTEXT_REFRESH = "context:refresh"
    CONTEXT_COMPLETE = "context:complete"
    ERROR = "error"
    PONG = "pong"


#: Payload keys that are always there; more may be.
REQUIRED_KEYS: Mapping[EventType, frozenset[str]] = {
    EventType.BATCH_START: frozenset({"batch_id", "max_cycles"}),
    EventType.BATCH_END: frozenset({"batch_id", "cycles_completed", "status"}),
    EventType.BATCH_WARNING: frozenset({"batch_id", "warning"}),
    EventType.CYCLE_START: frozenset({"cycle_number", "story_keys"}),
    EventType.CYCLE_END: frozenset({"cycle_number", "completed_stories"}),
    EventType.COMMAND_START: frozenset({"story_key", "command", "task_id"}),
    EventType.COMMAND_PROGRESS: frozenset({"story_key", "command", "task_id", "message"}),
    EventType.COMMAND_END: frozenset({"story_key", "command", "task_id", "status"}),
    EventType.STORY_STATUS: frozenset({"story_key", "old_status", "new_status"}),
    EventType.CONTEXT_CREATE: frozenset({"status"}),
    EventType.CONTEXT_REFRESH: frozenset({"task_id", "status"}),
    EventType.CONTEXT_COMPLETE: frozenset({"task_id", "status"}),
    EventType.ERROR: frozenset({"type", "message"}),
    EventType.PONG: frozenset(),
}

#: Heartbeats travel on streams only.
NEVER_STORED = frozenset({EventType.PONG})


@dataclass(frozen=True, slots=True)
class Event:
    """One recorded fact. ``id`` is its row and the cursor of every stream; ``timestamp`` is in ms, UTC."""

    id: int
    type: EventType
    timestamp: int
    payload: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """The form of the event on the API and the JSON stream."""
        return {
            "id": self.id,
            "type": str(self.type),
            "timestamp": self.timestamp,
            "payload": dict(self.payload),
        }


def validate(event_type: str, payload: Mapping[str, Any]) -> EventType:
    """Return the type when it may be stored with this payload, else raise InvalidEvent."""
    try:
        kind = EventType(event_type)
    except ValueError:
        raise InvalidEvent(f"unknown event type {event_type!r}") from None
    if kind in NEVER_STORED:
        raise InvalidEvent(f"{kind} is a heartbeat and is never stored")
    missing = REQUIRED_KEYS[kind] - payload.keys()
    if missing:
        raise InvalidEvent(f"{kind} lacks {', '.join(sorted(missing))}")
    return kind
