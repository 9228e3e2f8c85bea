"""The stories of the batch in their order, those still to come included, and why none could start."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import StatusFileError
from ...scheduler import candidates, choose
from ...sprint import Entry, StoryStatus
from ...store import BatchRow
from .reading import Reading

#: More stories than this make one bar with four parts instead of a segment each.
MOST_SEGMENTS = 40


@dataclass(frozen=True, slots=True)
class Segment:
    """One story of the batch: ``done``, ``blocked``, ``running`` or ``open``."""

    key: str
    state: str


def refusal(reading: Reading) -> str:
    """Why Start would be refused, as far as the page can tell; empty when nothing speaks against it."""
    sprint = reading.sprint
    if isinstance(sprint, StatusFileError):
        return "Start waits for a readable status file"
    if not sprint.writable:
        return "Start waits for the status file"
    return "" if _open(reading, ()) else "No story is open"


def segments(reading: Reading) -> tuple[Segment, ...]:
    """One segment a story: of the batch while there is one, else of the whole sprint."""
    batch = reading.batch
    if batch is None:
        return tuple(Segment(e.key, _of_status(reading.status_of(e), live=False)) for e in reading.entries)
    live = reading.live
    known = [Segment(row.story_key, _of_status(row.status, live)) for row in reading.batch_stories]
    return (*known, *(Segment(e.key, "open") for e in (upcoming(reading, batch) if live else ())))


def _of_status(status: StoryStatus | None, live: bool) -> str:
    if status in (StoryStatus.DONE, StoryStatus.BLOCKED):
        return str(status)
    return "running" if live else "open"


def _open(reading: Reading, taken: tuple[str, ...]) -> list[Entry]:
    only = reading.batch.requested if reading.batch and reading.live else None
    order = reading.layers.values.order
    return candidates(reading.entries, order=order, taken=taken, only=only)


def upcoming(reading: Reading, batch: BatchRow) -> list[Entry]:
    """The stories the remaining cycles would take if nothing changed."""
    found = _open(reading, tuple(row.story_key for row in reading.batch_stories))
    if batch.max_cycles is None:
        return found
    begun = len({row.cycle for row in reading.batch_stories if row.cycle is not None})
    taken: list[Entry] = []
    for _ in range(max(0, batch.max_cycles - max(begun, batch.cycles_completed))):
        chosen = choose(found, pair=reading.layers.values.pair_stories)
        taken.extend(chosen)
        found = [entry for entry in found if entry not in chosen]
    return taken
