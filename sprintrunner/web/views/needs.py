"""What needs a person: one item a thing, with the sentence why and the ways on."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import StatusFileError
from ...sprint import BatchState, BatchStatus, Command, Entry, StoryStatus
from ...store import BatchRow, CommandRow, StoryRow
from . import words
from .reading import Reading, keys_of

#: Rows that stand open; the rest folds.
MOST_OPEN = 5


@dataclass(frozen=True, slots=True)
class Item:
    """One row of the strip. ``key`` is set where it is about a story; ``phase`` is what Retry repeats."""

    id: str
    hue: str
    glyph: str
    name: str
    where: str
    why: str
    key: str = ""
    phase: str = ""
    actions: tuple[str, ...] = ()

    @property
    def blocked(self) -> bool:
        """Whether it is a blocked story."""
        return self.glyph == "octagon"


@dataclass(frozen=True, slots=True)
class Strip:
    """The strip: items that need a person, and notes that need nothing but are good to know."""

    items: tuple[Item, ...]
    folded: tuple[Item, ...]
    notes: tuple[Item, ...]
    idle: bool


def strip(reading: Reading) -> Strip:
    """Read the strip."""
    found = attention(reading)
    return Strip(found[:MOST_OPEN], found[MOST_OPEN:], _notes(reading), reading.batch is None)


def attention(reading: Reading) -> tuple[Item, ...]:
    """All that needs a person, worst first."""
    blocked = [item for entry in reading.entries if (item := _blocked(reading, entry))]
    return (*blocked, *_interrupted(reading), *_status_file(reading))


def _blocked(reading: Reading, entry: Entry) -> Item | None:
    if reading.status_of(entry) is not StoryStatus.BLOCKED:
        return None
    record = reading.records.get(entry.key)
    recorded = record if record and record.status == StoryStatus.BLOCKED else None
    if recorded and recorded.acknowledged:
        return None
    last = _last_command(reading, recorded) if recorded else None
    why = (recorded.reason if recorded else "") or "The status file says blocked and no batch recorded why."
    return Item(
        id=words.slot("need", entry.key),
        hue="blocked",
        glyph="octagon",
        name=entry.key,
        where=f"blocked in {last.command} {last.attempt}" if last else "blocked",
        why=why,
        key=entry.key,
        phase=_phase(recorded, last),
        actions=("retry", "done", "skip"),
    )


def _last_command(reading: Reading, record: StoryRow) -> CommandRow | None:
    mine = [c for c in reading.commands_of(record.batch_id) if record.story_key in keys_of(c)]
    return next((c for c in reversed(mine) if not c.background), None)


def _phase(record: StoryRow | None, last: CommandRow | None) -> str:
    if record and record.retry_phase:
        return record.retry_phase
    return last.command if last else str(Command.DEV_STORY)


def _interrupted(reading: Reading) -> tuple[Item, ...]:
    batch = reading.batch
    if batch is None or batch.status != BatchStatus.INTERRUPTED:
        return ()
    why = batch.reason or f"It was in cycle {batch.cycles_completed + 1}; nothing of it runs any more."
    name = f"Batch {batch.id} was interrupted"
    return (Item(f"need-batch-{batch.id}", "attention", "bolt", name, "", why, actions=("resume",)),)


def _status_file(reading: Reading) -> tuple[Item, ...]:
    sprint = reading.sprint
    if isinstance(sprint, StatusFileError):
        return (_file_item("cannot be read", sprint.sentence),)
    if sprint.refusal:
        return (_file_item("cannot be edited", sprint.refusal),)
    return ()


def _file_item(where: str, why: str) -> Item:
    return Item("need-status-file", "attention", "warn", "Status file", where, why)


def _notes(reading: Reading) -> tuple[Item, ...]:
    batch = reading.batch
    if not (batch and reading.live and batch.state == BatchState.WAITING):
        return ()
    return (_asleep(batch),)


def _asleep(batch: BatchRow) -> Item:
    at = f" at {words.hour(batch.resumes_at)}" if batch.resumes_at else ""
    why = f"What was cut off starts again{at}. The sleep survives a restart of this server."
    where = "The limit is not a failure and no attempt was counted"
    return Item("note-asleep", "asleep", "moon", "Nothing to do.", where, why)
