"""What every part of the orchestrator works with: the house (for the process) and the live batch."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .. import settings
from ..agents import Capabilities
from ..errors import SprintRunnerError, StoreError, StoreUnavailable
from ..events import EventType
from ..git import Git
from ..pipelines import Pipeline
from ..project import Project
from ..redact import redact, secret_values
from ..sprint import BatchState, Command, StoryStatus
from ..store import BatchRow, Store
from ..verdict import Finding
from . import frozen
from .asked import Asked
from .diskwatch import DiskWatch

if TYPE_CHECKING:
    from ..process import Supervised

log = logging.getLogger(__name__)
T = TypeVar("T")


class Stopped(Exception):
    """A stop was asked; unwinds a flow to the end of its batch."""


class BatchFailed(SprintRunnerError):
    """The batch cannot go on."""


class StoryOver(SprintRunnerError):
    """One story cannot go on (its own budget, a person's word); it blocks, the batch goes on."""

    def __init__(self, key: str, reason: str) -> None:
        self.key = key
        super().__init__(reason)


class LimitReached(SprintRunnerError):
    """A budget or a usage limit ends the batch."""


@dataclass
class House:
    """One project and what is needed to work on it; lives as long as the process."""

    project: Project
    state_dir: Path
    store: Store
    git: Git
    env: Mapping[str, str]
    overrides: Mapping[str, Any] = field(default_factory=dict)
    #: Descriptor of agent.lock, inherited by every tree so that a next life can wait for the last of them.
    lock_fd: int | None = None

    @functools.cached_property
    def secrets(self) -> Sequence[str]:
        """The values of our environment that must not be stored or shown."""
        return secret_values(self.env)

    def clean(self, text: str) -> str:
        """Text without secrets, as it may be stored and shown."""
        return redact(text, self.secrets)

    def clean_json(self, value: Any) -> Any:
        """A decoded JSON value with every text cleaned."""
        if isinstance(value, str):
            return self.clean(value)
        if isinstance(value, Mapping):
            return {self.clean(str(key)): self.clean_json(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.clean_json(item) for item in value]
        return value

    def layers(self) -> settings.Layers:
        """The settings as they are now."""
        return settings.load(self.project.root, self.state_dir, self.env, self.overrides)


@dataclass
class Story:
    """One story of the live batch, as the flows see it; its row is the record."""

    row_id: int
    key: str
    epic: str
    title: str
    status: StoryStatus
    phase: Command
    #: From this moment on (ms) its attempts count; set anew by a person's retry.
    since: int
    tech_spec: str | None = None
    created_by_us: bool = False
    snapshot: str | None = None
    ledger: tuple[Finding, ...] = ()
    evidence: dict[str, Any] = field(default_factory=dict)
    commit_sha: str | None = None
    reason: str = ""
    #: The held, dropped or unknown word that somebody wrote over its status while it was worked on.
    put_aside: str = ""

    @property
    def blocked(self) -> bool:
        """Whether it needs a person."""
        return self.status is StoryStatus.BLOCKED

    @property
    def settled(self) -> bool:
        """Whether nothing is left to do here: a person may have said so while it waited its turn."""
        return self.status in (StoryStatus.DONE, StoryStatus.BLOCKED)

    def must_go_on(self) -> None:
        """Raise StoryOver where somebody put the story aside in the status file meanwhile."""
        if self.put_aside:
            raise StoryOver(
                self.key,
                f"Somebody set it to {self.put_aside} in the status file while it was worked on; "
                "set it back there and retry it.",
            )


@dataclass
class Seen:
    """What was noticed beside the work, so that each thing is said once."""

    disk: DiskWatch
    #: Settings and prompts that somebody changed since the batch began.
    unfrozen: set[str] = field(default_factory=set)
    #: Requests that agents of the batch sent to the dashboard.
    visits: int = 0


def keys_of(stories: Sequence[Story]) -> str:
    """The keys of one command, joined as in every event."""
    return ",".join(story.key for story in stories)


class Batch:
    """The live batch: its row, its stop signal, its trees. Used in the orchestrator's thread only."""

    def __init__(self, house: House, row: BatchRow, pool: ThreadPoolExecutor, *, anew: bool) -> None:
        self.house = house
        self.id = row.id
        self.max_cycles = row.max_cycles
        self.completed = row.cycles_completed
        self.resume_count = row.resume_count
        self.only: frozenset[str] | None = frozenset(row.requested) if row.requested else None
        self.dirty_before: frozenset[str] = frozenset(row.dirty_paths or ())
        self.base_branch = row.branch
        #: ``now``, ``after_story``, ``shutdown`` (the server ends), ``ending`` (it ends by itself) or None.
        self.stop_asked: str | None = None
        #: The database took nothing; the batch ends in order and goes on when it does again.
        self.trouble: StoreUnavailable | None = None
        self.stop_event = asyncio.Event()
        self.wake_event = asyncio.Event()
        self.trees: dict[int, Supervised] = {}
        #: Stories a person asked to retry; the one this batch is for joins them once it can end in order.
        self.retries = Asked(self.folder, anew=anew)
        self.asked_first: tuple[str, str | None] | None = None
        self.stories: dict[str, Story] = {}
        #: Whose instructions carry the stories; chosen when the batch begins to work.
        self.pipeline = Pipeline()
        #: Keys whose flow is under way, between two of their commands too.
        self.working: frozenset[str] = frozenset()
        #: All story keys of the status file as last read: a file belongs to a key only beside all others.
        self.known_keys: tuple[str, ...] = ()
        self.background: set[asyncio.Task[None]] = set()
        self.sleeping: asyncio.Lock = asyncio.Lock()
        self.sleeps = self.slept_ms = self.woke_at = 0
        #: What the installed agent programs say of themselves, by path.
        self.probed: dict[str, Capabilities] = {}
        self.seen = Seen(DiskWatch((house.project.root, house.state_dir)))
        #: A sleep that a crash cut short goes on until this moment (ms).
        self.sleep_until: int | None = None
        #: How many commands work in the project's own tree; a merge of a background copy waits for none.
        self._foreground = 0
        self._calm = asyncio.Event()
        self._calm.set()
        self._merging = asyncio.Lock()
        self._pool = pool

    @property
    def folder(self) -> Path:
        """The batch's own folder in the state folder."""
        return self.house.state_dir / "batches" / str(self.id)

    @property
    def frozen(self) -> Path:
        """Copies of what a batch reads at its start only: sprintrunner.toml, prompt overrides, context."""
        return self.folder / "frozen"

    def freeze(self, again: bool) -> None:
        """Copy the project's own settings and prompts: an agent that edits them changes nothing now.

        ``again``: not where the batch has its copies already (it goes on after a crash, say).
        """
        for name in ("transcripts", "runs"):
            (self.house.state_dir / name).mkdir(exist_ok=True, mode=0o700)
        if self.frozen.is_dir() and not again:
            return
        frozen.freeze(self.house.project.root, self.frozen)

    def say_unfrozen(self) -> None:
        """Name the settings and prompts that somebody changed since the batch began, each time anew."""
        found = frozen.changed(self.house.project.root, self.frozen)
        if set(found) - self.seen.unfrozen:
            listed = ", ".join(found[:5])
            self.warn(f"Changed while the batch runs, not obeyed before the next one: {listed}.")
        self.seen.unfrozen = set(found)

    def layers(self) -> settings.Layers:
        """Settings for the next command: the frozen file, what was saved meanwhile, the environment."""
        return settings.load(self.frozen, self.house.state_dir, self.house.env, self.house.overrides)

    async def off(self, call: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run what may take over 100 ms (git, big files) outside the orchestrator's thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, lambda: call(*args, **kwargs))

    def check(self) -> None:
        """Raise Stopped once a stop was asked that does not wait for the story, or what is wrong."""
        if self.stop_asked in ("now", "shutdown", "ending"):
            raise Stopped
        if self.trouble is not None:
            raise self.trouble

    def distrust(self, error: StoreUnavailable) -> None:
        """Nothing can be recorded now: what runs is ended in order and nothing more begins (R11)."""
        if self.trouble is None:
            self.trouble = error
            self.stop_event.set()
            for tree in list(self.trees.values()):
                tree.stop("store")

    async def pause(self, seconds: float) -> None:
        """Sleep, unless a stop is asked or someone wakes the batch (``resume``)."""
        self.check()
        waits = [asyncio.ensure_future(event.wait()) for event in (self.stop_event, self.wake_event)]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        self.check()

    @contextlib.contextmanager
    def at_work_on(self, stories: Sequence[Story]) -> Iterator[None]:
        """Held while the flow of these stories is under way: nobody else decides about them meanwhile."""
        self.working = frozenset(story.key for story in stories)
        try:
            yield
        finally:
            self.working = frozenset()

    @contextlib.asynccontextmanager
    async def foreground(self) -> AsyncIterator[None]:
        """Held while a command works in the project's tree."""
        async with self._merging:
            self._foreground += 1
            self._calm.clear()
        try:
            yield
        finally:
            self._foreground -= 1
            if not self._foreground:
                self._calm.set()

    @contextlib.asynccontextmanager
    async def undisturbed(self) -> AsyncIterator[None]:
        """Held while the tree is changed by us; no command of ours runs in it meanwhile."""
        while True:
            await self._calm.wait()
            async with self._merging:
                # A command may have begun between the wait and the lock.
                if self._calm.is_set():
                    yield
                    return

    async def settle(self) -> None:
        """Wait for the background reviews; verify and commit never race their merge."""
        while self.background:
            await asyncio.wait(set(self.background))
        self.check()

    def ask_stop(self, how: str) -> None:
        """Note the stop; ``now`` and ``shutdown`` end every tree."""
        if self.stop_asked in ("now", "shutdown", how) or (self.stop_asked, how) == ("ending", "after_story"):
            return  # a person's stop stays one, also when the server ends meanwhile
        self.stop_asked = how
        if how != "after_story":
            # First of all, and whatever the database says to the record of it.
            self.stop_event.set()
            for tree in list(self.trees.values()):
                tree.stop("stop")
            self.house.git.interrupt()
        try:
            self._record_stop(how)
        except StoreError:
            log.exception("the stop of batch %s could not be recorded", self.id)

    def _record_stop(self, how: str) -> None:
        # An event, so that every open page shows it at once.
        words = "Stopping after the current story." if how == "after_story" else "Stopping."
        warning = {"batch_id": self.id, "warning": words, "stopping": True}
        with self.house.store.transaction() as tx:
            tx.update_batch(self.id, state=BatchState.STOPPING, stop_after_story=int(how == "after_story"))
            tx.append(EventType.BATCH_WARNING, warning, batch_id=self.id)

    def warn(self, text: str, **more: Any) -> None:
        """Record a ``batch:warning``."""
        with self.house.store.transaction() as tx:
            tx.append(
                EventType.BATCH_WARNING,
                {"batch_id": self.id, "warning": self.house.clean(text), **more},
                batch_id=self.id,
            )

    def set_state(self, state: BatchState, warning: str = "", **columns: Any) -> None:
        """Write the finer state of the batch, together with the sentence that tells of it."""
        with self.house.store.transaction() as tx:
            tx.update_batch(self.id, state=state, **columns)
            if warning:
                words = self.house.clean(warning)
                told = {"batch_id": self.id, "warning": words, "state": str(state), **columns}
                tx.append(EventType.BATCH_WARNING, told, batch_id=self.id)
