"""What needs a person: one item a thing, with the sentence why and the ways on."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import StatusFileError
from ...sprint import BatchState, BatchStatus, Command, CommandStatus, Entry, StoryStatus
from ...store import BatchRow, CommandRow, StoryRow
from . import words
from .drift import Drift, drifts, foreign_paths
from .handled import Handled, handled
from .reading import Reading, keys_of

#: Rows that stand open; the rest folds, and what is beyond the fold is only counted.
MOST_OPEN, MOST_FOLDED = 5, 5


@dataclass(frozen=True, slots=True)
class Item:
    """One row of the strip. ``key`` is set where it is about a story; ``phase`` is what Retry repeats.

    ``value`` is what a repair writes. ``calls``: it needs a person; the others only say what holds a start.
    """

    id: str
    hue: str
    glyph: str
    name: str
    where: str
    why: str
    key: str = ""
    phase: str = ""
    actions: tuple[str, ...] = ()
    value: str = ""
    calls: bool = True

    @property
    def blocked(self) -> bool:
        """Whether it is a blocked story."""
        return self.glyph == "octagon"


@dataclass(frozen=True, slots=True)
class Strip:
    """The strip: items that need a person, notes that need nothing, and what was handled without one."""

    items: tuple[Item, ...]
    folded: tuple[Item, ...]
    beyond: int
    notes: tuple[Item, ...]
    handled: tuple[Handled, ...]


def strip(reading: Reading) -> Strip:
    """Read the strip."""
    found = (*attention(reading), *_dirty_tree(reading))
    most = MOST_OPEN + MOST_FOLDED
    return Strip(
        found[:MOST_OPEN], found[MOST_OPEN:most], max(0, len(found) - most), _notes(reading), handled(reading)
    )


def attention(reading: Reading) -> tuple[Item, ...]:
    """All that needs a person, worst first."""
    return reading.once(_attention)


def _attention(reading: Reading) -> tuple[Item, ...]:
    blocked: list[Item] = []
    for entry in reading.entries:
        # What is only counted is not looked up: each may lie in a batch of its own.
        if item := _blocked(reading, entry, len(blocked) < MOST_OPEN + MOST_FOLDED):
            blocked.append(item)
    drifted = [_drift(drift) for drift in drifts(reading)]
    return (*_database(reading), *blocked, *_interrupted(reading), *_status_file(reading), *drifted)


def _database(reading: Reading) -> tuple[Item, ...]:
    """The page can tell what no event can: that nothing is recorded now."""
    store = reading.store
    said = [("takes no records", store.trouble), ("was repaired", store.notice)]
    return tuple(
        Item(words.slot("database", where), "attention", "warn", "Database", where, why)
        for where, why in said
        if why
    )


def _blocked(reading: Reading, entry: Entry, shown: bool) -> Item | None:
    if reading.status_of(entry) is not StoryStatus.BLOCKED:
        return None
    record = reading.records.get(entry.key)
    recorded = record if record and record.status == StoryStatus.BLOCKED else None
    if recorded and recorded.acknowledged:
        return None
    last = _last_command(reading, recorded) if recorded and shown else None
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


def _drift(drift: Drift) -> Item:
    return Item(
        id=words.slot("drift", drift.key),
        hue="attention",
        glyph="warn",
        name=drift.key,
        where="status differs",
        why=drift.said,
        key=drift.key,
        actions={"story": ("repair",), "done": ("set-done",)}.get(drift.repair, ()),
        value=drift.value,
    )


def _dirty_tree(reading: Reading) -> tuple[Item, ...]:
    """What the next start would refuse, said before somebody presses the button."""
    if reading.live or not (found := foreign_paths(reading)):
        return ()
    project = reading.project
    status = project.status_path
    name = status.relative_to(project.root).as_posix() if status.is_relative_to(project.root) else ""
    if name in found:
        why = f"{name} has changes that are not committed. Commit or undo them; until then no batch starts."
    elif reading.layers.values.dirty_tree == "refuse":
        listed = ", ".join(found[:3]) + (" …" if len(found) > 3 else "")
        why = f"{listed}. Commit or stash them, or set dirty_tree to allow; until then no batch starts."
    else:
        return ()
    many = words.plural(len(found), "changed file")
    return (Item("need-tree", "attention", "warn", "Working tree", many, why, calls=False),)


def _notes(reading: Reading) -> tuple[Item, ...]:
    batch = reading.batch
    if not (batch and reading.live and batch.state == BatchState.WAITING):
        return ()
    return (_asleep(reading, batch),)


def _asleep(reading: Reading, batch: BatchRow) -> Item:
    at = f" at {words.hour(batch.resumes_at)}" if batch.resumes_at else ""
    cut = [command for command in reading.batch_commands if command.status == CommandStatus.LIMITED]
    what = f"{_named(cut[-1])} was cut off and starts again" if cut else "What was cut off starts again"
    why = f"{what}{at}. The sleep survives a restart of this server."
    where = "The limit is not a failure and no attempt was counted."
    return Item("note-asleep", "asleep", "moon", "Nothing to do.", where, why, actions=("wake",))


def _named(command: CommandRow) -> str:
    of = f" of {command.story_keys.replace(',', ', ')}" if command.story_keys else ""
    return f"{command.command} {command.attempt}{of}"
