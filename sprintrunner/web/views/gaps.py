"""The times of a batch in which nothing ran: limit sleeps, and times without a server."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ...events import Event, EventType
from ...store import BatchRow
from ...store.reads_history import EventFilter
from .reading import Reading

#: Warnings and ends of one batch that are looked through.
_MOST = 500


@dataclass(frozen=True, slots=True)
class Gap:
    """From ``first`` to ``last`` (ms) nothing ran: ``asleep`` or ``down``. ``open``: it still lasts."""

    kind: str
    first: int
    last: int
    why: str
    open: bool = False

    @property
    def ms(self) -> int:
        """How long, in ms."""
        return max(0, self.last - self.first)


def gaps(reading: Reading, batch: BatchRow) -> tuple[Gap, ...]:
    """Read the gaps of a batch in their order."""
    told: list[Event] = []
    for kind in (EventType.BATCH_WARNING, EventType.BATCH_END):
        told.extend(reading.store.events_where(EventFilter(batch_id=batch.id, kind=str(kind)), None, _MOST))
    end = batch.ended_at or reading.now
    return tuple(_read(sorted(told, key=lambda event: event.id), end, batch.ended_at is None))


def _read(events: Iterable[Event], end: int, live: bool) -> Iterable[Gap]:
    asleep: Event | None = None
    down: Event | None = None
    for event in events:
        state = event.payload.get("state")
        if asleep and (state not in (None, "waiting") or event.type is EventType.BATCH_END):
            yield Gap("asleep", asleep.timestamp, event.timestamp, _why(asleep))
            asleep = None
        if state == "waiting" and asleep is None:
            asleep = event
        if event.type is EventType.BATCH_END:
            down = event if event.payload["status"] == "interrupted" else None
        elif down and event.payload.get("resumed"):
            yield Gap("down", down.timestamp, event.timestamp, _why(down))
            down = None
    if asleep:
        yield Gap("asleep", asleep.timestamp, end, _why(asleep), live)


def _why(event: Event) -> str:
    return str(event.payload.get("reason") or event.payload.get("warning") or "")


def slept(found: Iterable[Gap], kind: str) -> int:
    """How long all gaps of a kind were together, in ms."""
    return sum(gap.ms for gap in found if gap.kind == kind)
