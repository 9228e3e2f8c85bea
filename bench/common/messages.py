"""The message every server fans out: one event of about 315 bytes that carries the moment of its making."""

from __future__ import annotations

import json
import time
from typing import Any


def text(number: int) -> str:
    """What an agent does, with the monotonic time in ns; ``load.py`` reads it again."""
    return (
        f"Editing src/greenhouse/shelves/plant_{number % 1000:03}.py at={time.monotonic_ns()} and its tests"
    )


def payload(number: int) -> dict[str, Any]:
    """The payload of the event."""
    return {
        "story_key": "1-1-grow-a-leaf",
        "command": "dev-story",
        "task_id": "dev-story",
        "background": False,
        "epic_id": "1",
        "message": text(number),
    }


def event(number: int) -> str:
    """The whole event as JSON, for servers that have no event log of their own."""
    made = {"id": number, "type": "command:progress", "timestamp": int(time.time() * 1000)}
    return json.dumps({**made, "payload": payload(number)}, separators=(",", ":"))
