"""Server-sent events as bytes: frames, heartbeat, and the cursor a client sends back (pure)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..events import Event

#: A comment; keeps proxies and clients from taking silence for death.
HEARTBEAT = b":\n\n"
#: Milliseconds a client waits before it comes back; sent once, first.
RETRY = b"retry: 1000\n"
#: The largest id SQLite can give.
MAX_ID = 2**63 - 1

# CR, LF and CRLF all end a line of a stream; any of them inside content would forge a field.
_LINE_END = re.compile(r"\r\n|\r|\n")
_CURSOR = re.compile(r"[0-9]{1,19}")


def frame(content: str, event_id: int) -> bytes:
    """One unnamed message: its id and one ``data:`` line per line of content."""
    lines = "".join(f"data: {line}\n" for line in _LINE_END.split(content))
    return f"id: {event_id}\n{lines}\n".encode("utf-8", "replace")


def json_frame(message: Mapping[str, Any], event_id: int) -> bytes:
    """One JSON message; ASCII only, so that no character of an agent can end a line."""
    return b"id: %d\ndata: %s\n\n" % (event_id, json.dumps(message, separators=(",", ":")).encode("ascii"))


def event_frame(event: Event) -> bytes:
    """The frame of one event on the JSON stream."""
    return json_frame(event.as_json(), event.id)


def cursors(*values: str | None) -> tuple[int, ...]:
    """The values that could be ids; text, signs, Unicode digits and impossible sizes are absent."""
    return tuple(_ids(values))


def _ids(values: Iterable[str | None]) -> Iterable[int]:
    for value in values:
        if value is not None and _CURSOR.fullmatch(value) and int(value) <= MAX_ID:
            yield int(value)


def usable(candidates: Iterable[int], newest: int) -> int | None:
    """The largest cursor that is not in the future of ``newest``, or None: there is none."""
    return max((cursor for cursor in candidates if cursor <= newest), default=None)
