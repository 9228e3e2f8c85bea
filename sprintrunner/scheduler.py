"""Which stories come next, where each enters, and when a batch ends: values in, values out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from .sprint import BatchStatus, Command, Entry, EntryKind, StatusClass, StoryStatus, natural_key
from .workflow import ENTRY

#: Setting ``order`` = ``status``: what is furthest along comes first (workflow section 1).
_STATUS_ORDER = (
    StoryStatus.IN_PROGRESS,
    StoryStatus.REVIEW,
    StoryStatus.READY_FOR_DEV,
    StoryStatus.BACKLOG,
)


@dataclass(frozen=True, slots=True)
class Pick:
    """One story of a cycle and the command it enters at."""

    entry: Entry
    phase: Command


def candidates(
    entries: Iterable[Entry], *, order: str, taken: Collection[str], only: Collection[str] | None
) -> list[Entry]:
    """Stories that may be started, in order. ``taken``: keys that this batch or a block has settled."""
    found = [
        entry
        for entry in entries
        if entry.kind is EntryKind.STORY
        and entry.startable
        and entry.status_class is StatusClass.OPEN
        and entry.status in ENTRY
        and entry.key not in taken
        and (only is None or entry.key in only)
    ]
    if order == "status":
        found.sort(key=lambda e: (_STATUS_ORDER.index(StoryStatus(e.status or "")), natural_key(e.key)))
    return found


def choose(found: Sequence[Entry], *, pair: bool) -> tuple[Entry, ...]:
    """The first candidate and, when pairing, the next one of the same epic."""
    if not found:
        return ()
    first = found[0]
    mates = [entry for entry in found[1:] if entry.epic == first.epic and first.epic is not None]
    return (first, mates[0]) if pair and mates else (first,)


def entry_phase(
    status: StoryStatus, *, has_file: bool, tech_spec: str | None, created_by_us: bool, has_tech_spec: bool
) -> Command:
    """Where a story enters, by its own status (workflow section 1).

    A ready-for-dev or in-progress story without a file is created first; one in review is reviewed
    against the epic's text even without a file.
    """
    phase = ENTRY[status]
    if phase is Command.DEV_STORY and not has_file:
        return Command.CREATE_STORY
    waits_for_spec = created_by_us and tech_spec == "REQUIRED" and not has_tech_spec
    if status is StoryStatus.READY_FOR_DEV and waits_for_spec:
        return Command.CREATE_TECH_SPEC
    return phase


def after_cycle(
    *, stop_asked: bool, limit: bool, completed: int, max_cycles: int | None
) -> BatchStatus | None:
    """How the batch ends after a cycle, or None to go on; ``max_cycles`` None is unlimited."""
    if stop_asked:
        return BatchStatus.STOPPED
    if limit:
        return BatchStatus.LIMIT
    if max_cycles is not None and completed >= max_cycles:
        return BatchStatus.COMPLETED
    return None
