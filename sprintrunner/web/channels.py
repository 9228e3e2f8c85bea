"""What each of the two streams says: JSON events one by one, HTML as replacing fragments."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ..events import Event
from . import frames
from .ring import Ring
from .rows import batch_json
from .sender import Client

log = logging.getLogger(__name__)

#: Bytes a client that catches up is given at once; also the largest round written to all.
PORTION = 256 << 10
#: Events behind which the fragment stream sends a snapshot instead of changes.
REACH = 500
#: Events of the active batch in the first message of the JSON stream.
INIT_EVENTS = 50
#: Rows read from the table at once; portions end at multiples of it, so that clients share them.
_ROWS = 64
_CACHED_PORTIONS = 32
#: Share of rendering: after each rendering the channel rests this many times as long, so that a
#: burst of events costs at most a fifth of a core.
_REST = 4.0
_MAX_REST = 0.5  # seconds


class Source(Protocol):
    """The part of the store the streams read."""

    def last_event_id(self) -> int: ...
    def events_after(self, cursor: int, limit: int, /) -> list[Event]: ...
    def last_events(self, limit: int, batch_id: int | None, /) -> list[Event]: ...
    def live_batch(self) -> Any: ...


class Renderer(Protocol):
    """Makes the fragments; called in the hub thread."""

    def snapshot(self) -> str: ...
    def changes(self, events: Sequence[Event]) -> str: ...


class JsonChannel:
    """Frames of single events: from the ring where it reaches, else from the table."""

    def __init__(self, source: Source, start: int) -> None:
        self._source = source
        self._ring = Ring(start)
        self._newest = start
        self._portions: OrderedDict[int, tuple[bytes, int]] = OrderedDict()
        self._init: tuple[int, bytes] | None = None

    def publish(self, events: Sequence[Event]) -> bytes:
        """Take in the newest events; returns their frames joined."""
        made = [frames.event_frame(event) for event in events]
        for event, data in zip(events, made, strict=True):
            self._ring.add(event.id, data)
        self._newest = events[-1].id
        self._init = None
        return b"".join(made)

    def feed(self, client: Client) -> None:
        """Give a client that catches up its next portion; it is live once it has everything."""
        if client.cursor is None:
            client.cursor = frames.usable(client.candidates, self._newest)
        if client.cursor is None:
            client.cursor = self._newest
            client.write(self._init_frame())
        elif client.cursor < self._newest:
            data, client.cursor = self._portion(client.cursor)
            if data:
                client.write(data)
        client.live = client.cursor >= self._newest

    def _portion(self, cursor: int) -> tuple[bytes, int]:
        held = self._ring.after(cursor, PORTION)
        if held is not None:
            return b"".join(held[0]), held[1]
        if cursor not in self._portions:
            self._portions[cursor] = self._from_table(cursor)
            if len(self._portions) > _CACHED_PORTIONS:
                self._portions.popitem(last=False)
        return self._portions[cursor]

    def _from_table(self, cursor: int) -> tuple[bytes, int]:
        """Rows after ``cursor``, never beyond the newest id this hub has published."""
        rows = self._source.events_after(cursor, _ROWS - cursor % _ROWS)
        parts: list[bytes] = []
        size = 0
        for event in rows:
            if event.id > self._newest or size >= PORTION:
                break
            parts.append(frames.event_frame(event))
            size += len(parts[-1])
            cursor = event.id
        # Nothing left below the floor (rows were deleted): go on where the ring begins.
        return b"".join(parts), cursor if parts else self._ring.floor

    def _init_frame(self) -> bytes:
        if self._init is None or self._init[0] != self._newest:
            self._init = (self._newest, frames.json_frame(self._init_message(), self._newest))
        return self._init[1]

    def _init_message(self) -> dict[str, Any]:
        batch = self._source.live_batch()
        # Twice the number: rows committed since the hub's own read are left to the stream.
        rows = self._source.last_events(2 * INIT_EVENTS, batch.id) if batch else []
        known = [event.as_json() for event in rows if event.id <= self._newest]
        payload = {"batch": batch_json(batch) if batch else None, "events": known[-INIT_EVENTS:]}
        return {"id": self._newest, "type": "init", "timestamp": int(time.time() * 1000), "payload": payload}


class HtmlChannel:
    """Fragments that replace: rendered once for all clients, and seldom enough to leave the CPU to others."""

    def __init__(
        self,
        source: Source,
        renderer: Renderer,
        start: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._renderer = renderer
        self._clock = clock
        self._newest = start
        self._pending: list[Event] = []
        self._all_due = False
        self._snapshot: tuple[int, float, bytes] | None = None
        #: Monotonic time before which nothing is rendered.
        self.rests_until = 0.0

    @property
    def has_news(self) -> bool:
        """Whether live clients wait for a rendering."""
        return self._all_due or bool(self._pending)

    def note(self, events: Sequence[Event], followed: bool) -> None:
        """Remember events for the next rendering; without a client that follows there is none."""
        self._newest = events[-1].id
        if not followed:
            self._pending, self._all_due = [], False
        elif self._all_due or len(self._pending) + len(events) > REACH:
            self._pending, self._all_due = [], True
        else:
            self._pending.extend(events)

    def refresh(self) -> None:
        """Everything is due: something changed that no event tells of."""
        self._pending, self._all_due, self._snapshot = [], True, None

    def render_news(self) -> bytes:
        """The message for all live clients, maybe empty; after a failure everything is sent next time."""
        pending, everything = self._pending, self._all_due
        self._pending, self._all_due = [], True
        data = self._snapshot_frame() if everything else self._changes_frame(pending)
        self._all_due = False
        return data

    def feed(self, clients: Sequence[Client]) -> list[tuple[Client, bytes]]:
        """Messages that bring these clients up to date: one rendering for all that can use changes.

        Changes since the oldest of the cursors hold those since any later one, and they replace.
        """
        cursors = {client: self._cursor(client) for client in clients}
        oldest = min((cursor for cursor in cursors.values() if cursor is not None), default=self._newest)
        changes = self._changes_frame(self._events_since(oldest)) if oldest < self._newest else b""
        snapshot = self._snapshot_frame() if None in cursors.values() else b""
        answers = []
        # Only after both renderings: a failure leaves every client waiting for the next try.
        for client, cursor in cursors.items():
            client.cursor, client.live = self._newest, True
            behind = changes if cursor is not None and cursor < self._newest else b""
            answers.append((client, snapshot if cursor is None else behind))
        return answers

    def _cursor(self, client: Client) -> int | None:
        cursor = client.cursor
        if cursor is None:
            cursor = frames.usable(client.candidates, self._newest)
        return None if cursor is None or self._newest - cursor > REACH else cursor

    def _events_since(self, cursor: int) -> list[Event]:
        rows = self._source.events_after(cursor, REACH)
        return [event for event in rows if event.id <= self._newest]

    def _snapshot_frame(self) -> bytes:
        held = self._snapshot
        if held is None or held[0] != self._newest or self._clock() - held[1] > 1.0:
            held = (self._newest, self._clock(), self._timed(self._renderer.snapshot))
            self._snapshot = held
        return held[2]

    def _changes_frame(self, events: Sequence[Event]) -> bytes:
        return self._timed(lambda: self._renderer.changes(events)) if events else b""

    def _timed(self, render: Callable[[], str]) -> bytes:
        began = self._clock()
        try:
            html = render()
        finally:
            now = self._clock()
            self.rests_until = now + min(_MAX_REST, _REST * (now - began))
        return frames.frame(html, self._newest) if html.strip() else b""
