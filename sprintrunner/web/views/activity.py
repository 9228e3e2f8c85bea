"""The whole event log: filtered by what the address says, a page at a time, newest first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlencode

from ...errors import StoreError
from ...events import Event, EventType
from ...store.reads_history import EventFilter
from . import rail
from .finding import Marker, index_of
from .looks import Look
from .rail import Line
from .reading import Reading

#: Events on a page.
PAGE = 50
#: Most events a search by words looks at.
_MOST_FOUND = 1_000
_SILENT = Look("neutral", "dot")
_TYPES = tuple(str(kind) for kind in EventType if kind is not EventType.PONG)


@dataclass(frozen=True, slots=True)
class Wish:
    """What the address asks for. ``batch``: a number, ``all``, or empty for the newest."""

    query: str = ""
    story: str = ""
    kind: str = ""
    only: str = ""
    batch: str = ""
    before: int | None = None

    def address(self, **changes: str) -> str:
        """The address of the same page with other filters; paging begins anew."""
        found = {"q": self.query, "story": self.story, "type": self.kind, "only": self.only}
        named = {**found, "batch": self.batch, **changes}
        sent = urlencode({name: value for name, value in named.items() if value}, errors="replace")
        return f"/activity?{sent}" if sent else "/activity"


@dataclass(frozen=True, slots=True)
class Row:
    """One event. ``command`` is its name and attempt, ``command_id`` 0 where it has none."""

    line: Line
    kind: str
    keys: tuple[str, ...]
    command: str
    words: str


@dataclass(frozen=True, slots=True)
class ActivityPage:
    """One page of the log; ``newer`` and ``older`` are addresses, empty where there is nothing that way."""

    wish: Wish
    rows: tuple[Row, ...]
    total: int
    marker: Marker
    types: tuple[str, ...]
    stories: tuple[str, ...]
    batch_id: int | None
    newer: str
    older: str
    trouble: str
    after: int

    @property
    def filtered(self) -> bool:
        """Whether something besides the batch narrows the list."""
        return bool(self.wish.query or self.wish.story or self.wish.kind or self.wish.only)


def activity_page(reading: Reading, wish: Wish) -> ActivityPage:
    """Read one page."""
    batch_id = _batch(reading, wish.batch)
    wanted, trouble = _filter(reading, wish, batch_id)
    found = reading.store.events_where(wanted, wish.before, PAGE + 1)
    shown = found[:PAGE]
    return ActivityPage(
        wish=wish,
        rows=tuple(row_of(event) for event in shown),
        total=reading.store.count_where(wanted),
        marker=Marker(wish.query),
        types=_TYPES,
        stories=_stories(reading, batch_id, wish.story),
        batch_id=batch_id,
        newer=_newer(reading, wish, wanted, shown),
        older=_paged(wish, shown[-1].id) if len(found) > PAGE else "",
        trouble=trouble,
        after=shown[0].id if shown else 0,
    )


def _batch(reading: Reading, asked: str) -> int | None:
    if asked == "all":
        return None
    if asked.isascii() and asked.isdigit() and len(asked) < 18:
        return int(asked)
    return reading.batch.id if reading.batch else None


def _filter(reading: Reading, wish: Wish, batch_id: int | None) -> tuple[EventFilter, str]:
    keys = reading.store.joined_keys(wish.story) if wish.story else ()
    kind = wish.kind if wish.kind in _TYPES else ""
    wanted = EventFilter(batch_id, kind, keys, wish.only == "failures")
    if not Marker(wish.query):
        return wanted, ""
    try:
        hits = index_of(reading).find(wish.query, kinds=("event", "step"), limit=_MOST_FOUND)
    except StoreError as error:
        return replace(wanted, ids=()), error.sentence
    return replace(wanted, ids=tuple(hit.ref for hit in hits.hits)), ""


def _stories(reading: Reading, batch_id: int | None, chosen: str) -> tuple[str, ...]:
    """The stories one can choose from: those of the batch, else those of the sprint."""
    if batch_id is None:
        keys = [entry.key for entry in reading.entries[:500]]
    else:
        keys = [row.story_key for row in reading.store.stories(batch_id)]
    return tuple(dict.fromkeys((*keys, *([chosen] if chosen else []))))


def _paged(wish: Wish, before: int) -> str:
    address = wish.address()
    return f"{address}{'&' if '?' in address else '?'}before={before}"


def _newer(reading: Reading, wish: Wish, wanted: EventFilter, shown: list[Event]) -> str:
    if wish.before is None:
        return ""
    first = shown[0].id if shown else wish.before - 1
    before = reading.store.newer_event(wanted, first, PAGE)
    return _paged(wish, before) if before is not None else wish.address()


def row_of(event: Event) -> Row:
    """One event as a row of the table."""
    payload: Mapping[str, object] = event.payload
    line = rail.line_of(event, progress=True)
    keys = payload.get("story_key") or payload.get("story_keys") or payload.get("completed_stories") or ""
    listed = keys.split(",") if isinstance(keys, str) else keys if isinstance(keys, list) else []
    attempt = payload.get("attempt")
    command = str(payload.get("command") or "")
    return Row(
        line=line or Line(event.id, event.timestamp, _SILENT, ("",)),
        kind=str(event.type),
        keys=tuple(str(key) for key in listed if key),
        command=f"{command} {attempt}" if command and isinstance(attempt, int) else command,
        words=_words(event),
    )


def _words(event: Event) -> str:
    """What it says beside its type, story and command, which have columns of their own."""
    payload = event.payload
    make = _SAID.get(event.type)
    return make(payload) if make else ""


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _ended(payload: Mapping[str, object]) -> str:
    reason = _text(payload.get("reason"))
    return f"{payload['status']}: {reason}" if reason else str(payload["status"])


def _started(payload: Mapping[str, object]) -> str:
    told = ["background"] if payload.get("background") else []
    told += [str(payload[name]) for name in ("agent", "model") if payload.get(name)]
    return ", ".join(told)


def _moved(payload: Mapping[str, object]) -> str:
    moved = f"{payload['old_status']} to {payload['new_status']}"
    reason = _text(payload.get("reason"))
    return f"{moved}: {reason}" if reason else moved


def _done(payload: Mapping[str, object]) -> str:
    done = payload["completed_stories"]
    many = len(done) if isinstance(done, list) else 0
    return f"Cycle {payload['cycle_number']} ended, {many} {'story' if many == 1 else 'stories'} done"


def _begun(payload: Mapping[str, object]) -> str:
    most = payload["max_cycles"]
    return f"Batch {payload['batch_id']}, " + ("all stories" if most is None else f"at most {most} cycles")


_SAID: Mapping[EventType, Callable[[Mapping[str, object]], str]] = {
    EventType.BATCH_START: _begun,
    EventType.BATCH_END: _ended,
    EventType.BATCH_WARNING: lambda payload: _text(payload["warning"]),
    EventType.CYCLE_START: lambda payload: f"Cycle {payload['cycle_number']}",
    EventType.CYCLE_END: _done,
    EventType.COMMAND_START: _started,
    EventType.COMMAND_PROGRESS: lambda payload: _text(payload["message"]),
    EventType.COMMAND_END: _ended,
    EventType.STORY_STATUS: _moved,
    EventType.CONTEXT_CREATE: lambda payload: _text(payload["status"]),
    EventType.CONTEXT_REFRESH: lambda payload: _text(payload["status"]),
    EventType.CONTEXT_COMPLETE: lambda payload: _text(payload["status"]),
    EventType.ERROR: lambda payload: _text(payload["message"]),
}


def newer_than(reading: Reading, wish: Wish, after: int) -> int:
    """How many events above the id ``after`` fit, a thousand at most."""
    wanted, _ = _filter(reading, wish, _batch(reading, wish.batch))
    return reading.store.count_newer(wanted, after, _MOST_FOUND)
