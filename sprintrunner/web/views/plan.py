"""The stories of the batch in their order, those still to come included, and why none could start."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import StatusFileError
from ...scheduler import candidates, choose
from ...sprint import BatchState, Entry, StoryStatus
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
    return (*known, *(Segment(e.key, "open") for e in upcoming(reading)))


def _of_status(status: StoryStatus | None, live: bool) -> str:
    if status in (StoryStatus.DONE, StoryStatus.BLOCKED):
        return str(status)
    return "running" if live else "open"


def startable(reading: Reading) -> list[Entry]:
    """The stories a new batch may take, in its order."""
    return _open(reading, ())


def _open(reading: Reading, taken: tuple[str, ...]) -> list[Entry]:
    only = reading.batch.requested if reading.batch and reading.live else None
    order = reading.layers.values.order
    found = candidates(reading.entries, order=order, taken=taken, only=only)
    return [entry for entry in found if reading.status_of(entry) is not StoryStatus.BLOCKED]


def upcoming(reading: Reading) -> list[Entry]:
    """The stories the remaining cycles would take if nothing changed."""
    return [entry for group in reading.once(cycles_to_come) for entry in group]


def cycles_to_come(reading: Reading) -> list[list[Entry]]:
    """The remaining cycles with the stories each would take if nothing changed."""
    batch = reading.batch
    if batch is None or not reading.live or batch.stop_after_story or batch.state == BatchState.STOPPING:
        return []
    found = _open(reading, tuple(row.story_key for row in reading.batch_stories))
    begun = len({row.cycle for row in reading.batch_stories if row.cycle is not None})
    most = len(found) if batch.max_cycles is None else batch.max_cycles - max(begun, batch.cycles_completed)
    groups: list[list[Entry]] = []
    while found and len(groups) < most:
        chosen = choose(found, pair=reading.layers.values.pair_stories)
        groups.append(list(chosen))
        keys = {entry.key for entry in chosen}
        found = [entry for entry in found if entry.key not in keys]
    return groups
