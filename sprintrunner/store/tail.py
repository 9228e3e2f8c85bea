"""The newest events that this process committed: who follows the log closely needs no query."""

from __future__ import annotations

from collections.abc import Sequence

from ..events import Event

#: Events kept. Followers are some behind at most; whoever is further behind reads the table.
_MOST = 64


class Tail:
    """An unbroken run of ids; one thread adds at a time, any may read."""

    def __init__(self) -> None:
        self._events: tuple[Event, ...] = ()

    def add(self, committed: Sequence[Event]) -> None:
        """Take in the events of one transaction, after its commit and before the next one begins."""
        if committed:
            kept = self._events
            if kept and kept[-1].id + 1 != committed[0].id:
                kept = ()  # another process wrote in between
            self._events = (*kept, *committed)[-_MOST:]

    def after(self, cursor: int, limit: int) -> list[Event]:
        """The events right after ``cursor``; none where this does not hold the very next one."""
        held = self._events
        if not held or not held[0].id <= cursor + 1 <= held[-1].id:
            return []
        first = cursor + 1 - held[0].id
        return list(held[first : first + limit])
