"""What one rendering reads: the status file, the newest batch and its rows, once, so that all slots agree."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ... import status_file
from ...errors import GitError, StatusFileError
from ...events import Event
from ...git import Commit, Git
from ...project import epic_titles, story_lines
from ...sprint import CommandStatus, Entry, StoryStatus
from ...status_file import SprintStatus
from ...store import BatchRow, CommandRow, StoryRow, Totals

if TYPE_CHECKING:
    from ...services import Services
    from ...settings import Layers

T = TypeVar("T")

#: The newest events that are looked through for the rail; progress is left out of it.
_EVENTS_LOOKED_AT = 600


@lru_cache(maxsize=4)
def _parsed(path: Path, root: Path, _mtime: int, _size: int, _inode: int) -> SprintStatus:
    return status_file.read(path, root)


def _status(path: Path, root: Path) -> SprintStatus:
    """The parsed status file; parsed again only when the file's identity changed."""
    try:
        stat = path.stat()
    except OSError:
        return status_file.read(path, root)
    return _parsed(path, root, stat.st_mtime_ns, stat.st_size, stat.st_ino)


#: By root: when they were read, the titles of the epics, the branch, the changed paths, the status lines.
_slow: dict[Path, Slow] = {}


@dataclass(frozen=True, slots=True)
class Slow:
    """What is read from many files or by starting git: anew after 5 s, not for each event of a stream.

    ``batch`` was live at that time; at its end the tree is another, and no later event would bring the news.
    ``dirty`` are changed paths, ``lines`` the status lines of story files and when these changed (ms).
    """

    at: int
    batch: int | None
    titles: Mapping[str, str]
    branch: str
    dirty: tuple[str, ...]
    lines: Mapping[str, tuple[str, int]]


def _slowly(reading: Reading) -> Slow:
    project, now = reading.project, reading.now
    batch = reading.batch.id if reading.live and reading.batch else None
    held = _slow.get(project.root)
    if held is None or held.batch != batch or not held.at <= now < held.at + 5000:
        held = _slow[project.root] = _read_slowly(reading, batch)
    return held


def _read_slowly(reading: Reading, batch: int | None) -> Slow:
    project = reading.project
    keys = [entry.key for entry in reading.entries]
    titles, lines = epic_titles(project), story_lines(project, keys)
    return Slow(reading.now, batch, titles, _branch(project.root), _dirty(project.root), lines)


def forget_slow(root: Path) -> None:
    """Read it anew next time: a page of ours has just changed a file."""
    _slow.pop(root, None)


def _dirty(root: Path) -> tuple[str, ...]:
    try:
        return tuple(Git(root).dirty())
    except GitError:
        return ()


def _branch(root: Path) -> str:
    try:
        return Git(root).branch() or ""
    except GitError:
        return ""


@lru_cache(maxsize=512)
def _commit(root: Path, sha: str) -> Commit | None:
    found = Git(root).commits([sha])
    return found[0] if found else None


class Reading:
    """Lazy: a fragment that needs two things reads two things, and never the same thing twice."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.project = services.project
        self.store = services.store
        self.now = services.store.now()
        self._once: dict[Callable[[Reading], Any], Any] = {}

    def once(self, read: Callable[[Reading], T]) -> T:
        """What ``read`` finds; two slots that need it read it once."""
        if read not in self._once:
            self._once[read] = read(self)
        return cast(T, self._once[read])

    @cached_property
    def layers(self) -> Layers:
        return self.services.layers()

    @cached_property
    def sprint(self) -> SprintStatus | StatusFileError:
        """The status file, or the error whose sentence the page shows in its place."""
        try:
            return _status(self.project.status_path, self.project.root)
        except StatusFileError as error:
            return error

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        return self.sprint.stories if isinstance(self.sprint, SprintStatus) else ()

    @cached_property
    def epic_titles(self) -> Mapping[str, str]:
        """Title of each epic the planning files name."""
        return _slowly(self).titles

    @cached_property
    def branch(self) -> str:
        """The branch that is checked out, empty where git does not say."""
        return _slowly(self).branch

    @property
    def dirty(self) -> tuple[str, ...]:
        """The paths that differ from the last commit."""
        return _slowly(self).dirty

    @property
    def lines(self) -> Mapping[str, tuple[str, int]]:
        """By key what the status line of a story's file says, and when the file was changed (ms)."""
        return _slowly(self).lines

    @cached_property
    def batch(self) -> BatchRow | None:
        return self.store.live_batch() or self.store.latest_batch()

    @cached_property
    def live(self) -> bool:
        return self.batch is not None and self.batch.status == "running"

    @cached_property
    def batch_stories(self) -> list[StoryRow]:
        return self.store.stories(self.batch.id) if self.batch else []

    @cached_property
    def batch_commands(self) -> list[CommandRow]:
        return self.commands_of(self.batch.id) if self.batch else []

    @cached_property
    def totals(self) -> Totals | None:
        return self.store.batch_totals(self.batch.id) if self.batch else None

    @cached_property
    def records(self) -> Mapping[str, StoryRow]:
        """The newest record of each story over all batches."""
        return self.store.latest_records()

    @cached_property
    def running(self) -> list[CommandRow]:
        return self.store.running_commands() if self.live else []

    @cached_property
    def last_event(self) -> Event | None:
        found = self.store.last_events(1)
        return found[-1] if found else None

    @cached_property
    def events(self) -> list[Event]:
        """The newest events, oldest first."""
        return self.store.last_events(_EVENTS_LOOKED_AT, batch_id=self.batch.id) if self.batch else []

    @cached_property
    def _commands(self) -> dict[int, list[CommandRow]]:
        return {}

    def commands_of(self, batch_id: int) -> list[CommandRow]:
        """All commands of a batch, read once."""
        if batch_id not in self._commands:
            self._commands[batch_id] = self.store.commands(batch_id)
        return self._commands[batch_id]

    def status_of(self, entry: Entry) -> StoryStatus | None:
        """The status that counts: the file's, except that a recorded block holds where the file lacks it."""
        record = self.records.get(entry.key)
        if record and record.status == StoryStatus.BLOCKED and entry.status not in _SETTLED:
            return StoryStatus.BLOCKED
        return entry.status

    def outcome(self, command: CommandRow) -> CommandStatus:
        """Where a command stands; what no live batch holds does not run, whatever its row still says."""
        if command.status != CommandStatus.RUNNING:
            return command.status
        held = self.live and self.batch is not None and command.batch_id == self.batch.id
        return CommandStatus.RUNNING if held else CommandStatus.INTERRUPTED

    def commits(self, shas: Iterable[str]) -> list[Commit]:
        """The commits git knows of these; unknown ones are left out."""
        try:
            return [commit for sha in shas if (commit := _commit(self.project.root, sha))]
        except GitError:
            return []

    def ahead(self) -> int | None:
        """Commits that are not on the branch's remote, None where there is no remote."""
        try:
            return Git(self.project.root).ahead()
        except GitError:
            return None


_SETTLED = frozenset({StoryStatus.DONE, StoryStatus.BLOCKED})


@dataclass(frozen=True, slots=True)
class Share:
    """A command's part in one story: its cost is split evenly between the stories it served."""

    command: CommandRow
    stories: int

    @property
    def cost(self) -> float | None:
        return None if self.command.cost_usd is None else self.command.cost_usd / self.stories


def keys_of(command: CommandRow) -> tuple[str, ...]:
    """The story keys a command served."""
    return tuple(key for key in (command.story_keys or "").split(",") if key)


def by_story(commands: Iterable[CommandRow]) -> dict[str, list[Share]]:
    """The commands of each story, in their order."""
    found: dict[str, list[Share]] = {}
    for command in commands:
        keys = keys_of(command)
        for key in keys:
            found.setdefault(key, []).append(Share(command, len(keys)))
    return found


def took(command: CommandRow, now: int) -> int:
    """How long a command has run or ran, in ms."""
    return max(0, (command.ended_at or now) - (command.started_at or now))
