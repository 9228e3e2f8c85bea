"""The composition root of a running project: store, locks, orchestrator, control socket."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from . import files, peers, recovery, settings
from . import project as projects
from .control import Control
from .errors import SprintRunnerError
from .events import EventType
from .git import Git
from .housekeeping import Housekeeper
from .indexing import Indexer
from .orchestrator import MAX_RESUMES, House, Orchestrator, changed_by_us, changed_later, has_moved
from .project import Project
from .redact import redact, secret_values
from .settings import Layers
from .sprint import BatchState, BatchStatus
from .store import DATABASE, BatchRow, Store, StoreDamaged, mend

log = logging.getLogger(__name__)
_POLL = 0.05


def _open_store(state_dir: Path) -> Store:
    """Open the database; a damaged one is moved aside first, unless another process works with it."""
    path = state_dir / DATABASE
    try:
        return Store.open(path)
    except StoreDamaged as damage:
        recovery.refuse_if_held(state_dir)
        said = mend(path)
        log.error("%s %s", damage.sentence, said)
        store = Store.open(path)
        store.notice = said or ""
        return store


def _close_to_others(state_dir: Path) -> None:
    """Let only the owner into our folders, also where the state folder itself was made by somebody."""
    for name in ("transcripts", "runs", "batches", "backups"):
        folder = state_dir / name
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            folder.chmod(0o700)
        except OSError as error:
            # A full disk or the like: whoever needs the folder says so in words of its own.
            log.warning("%s: %s", folder, error)


class Runtime:
    """One project, opened; holds it exclusively from ``start`` to ``stop``."""

    def __init__(self, project: Project, state_dir: Path, store: Store, overrides: Mapping[str, Any]) -> None:
        self.project = project
        self.state_dir = state_dir
        self.store = store
        self.overrides = dict(overrides)
        self._locks: recovery.Locks | None = None
        self._house = House(project, state_dir, store, Git(project.root), os.environ, self.overrides)
        self._orchestrator = Orchestrator(self._house)
        self._control = Control(state_dir, self.submit)
        self._housekeeper = Housekeeper(store, state_dir)
        self._indexer = Indexer(store, state_dir, project.root, os.environ)

    @classmethod
    def open(cls, root: Path, overrides: Mapping[str, Any] | None = None) -> Runtime:
        """Open the project at ``root``; nothing starts. Raises the Refused family and StoreRefused."""
        project = projects.load(root)
        state_dir = projects.state_dir(project.root)
        settings.load(project.root, state_dir, os.environ, overrides or {})
        store = _open_store(state_dir)
        # At the door of the database as well: nobody who writes to it has to think of that.
        store.scrub = partial(redact, env_values=secret_values(os.environ))
        return cls(project, state_dir, store, overrides or {})

    def start(self, where: str = "a terminal", resume: bool = False) -> None:
        """Hold the project, put a crashed life in order, start the orchestrator.

        Raises Conflict naming the owner when another process holds the project. ``resume`` also continues
        a batch that was stopped in order.
        """
        self._locks = recovery.take(self.state_dir, where)
        _close_to_others(self.state_dir)
        try:
            values = self.layers().values
            recovery.end_strays(self.store, self.state_dir, values.stop_grace_seconds)
            recovery.hold_agents(self._locks)
            files.sweep_drafts(self.project.status_path.resolve())
            self._house.lock_fd = self._locks.agent_fd
            self._tell_of_mending()
            recovery.take_back_done(self.store, self.project.status_path, self._house.git)
            crashed = recovery.close_records(self.store, self.state_dir, self._left())
            # A restored backup tells of another day: what was live then does not go on by itself.
            policy = "ask" if self.store.notice else values.resume_after_crash
            batch, why = self._to_resume(crashed, policy, resume)
            if batch is None:
                recovery.close_adoptable(self.store)
            self._orchestrator.start(batch, why, sleep_until=crashed.resumes_at if crashed else None)
            self._control.start()
            self._indexer.start()
            self._housekeeper.start()
        except BaseException:
            # What has begun already must not work on without the lock.
            self._control.stop()
            self._orchestrator.stop()
            self._locks.release()
            self._locks = None
            raise

    def _left(self) -> Mapping[str, str] | None:
        """What of ours lies in the tree after a crash; a project whose git fails now is looked at later."""
        live = self.store.live_batch()
        if live is None:
            return None
        try:
            found = changed_by_us(self._house, live.dirty_paths or ())
            grace = self.layers().values.stop_grace_seconds
            ended = recovery.all_ended_by(self.store, self.state_dir, live, grace)
            later = changed_later(self._house, found, ended) if ended is not None else ()
            return {path: made for path, made in found.items() if path not in later}
        except SprintRunnerError:
            log.exception("the work tree could not be compared after the crash")
            return None

    def _to_resume(self, crashed: BatchRow | None, policy: str, asked: bool) -> tuple[BatchRow | None, str]:
        """The batch to continue at once, and the sentence that says so on the page."""
        latest = self.store.latest_batch()
        if latest is None or latest.status != BatchStatus.INTERRUPTED:
            return None, ""
        if asked:
            return latest, "Resumed at the start of the server."
        if crashed is None or crashed.id != latest.id:
            return None, ""
        stopped = recovery.clock(recovery.last_sign(self.store, crashed))
        if policy != "auto":
            return None, ""
        if crashed.state == BatchState.STOPPING:
            self._note(latest, "Not resumed: a stop had been asked before the server stopped.")
            return None, ""
        if latest.resume_count >= MAX_RESUMES:
            self._note(latest, f"Not resumed again: {MAX_RESUMES} times in a row without a new verdict.")
            return None, ""
        moved = has_moved(self._house.git, latest)
        if moved:
            self._note(latest, f"Not resumed: {moved}")
            return None, ""
        return latest, f"Resumed after the server stopped at {stopped}."

    def _note(self, batch: BatchRow, warning: str) -> None:
        with self.store.transaction() as tx:
            tx.update_batch(batch.id, reason=warning)
            tx.append(EventType.BATCH_WARNING, {"batch_id": batch.id, "warning": warning}, batch_id=batch.id)

    def _tell_of_mending(self) -> None:
        """An event too: the log is what is read a week later."""
        if self.store.notice:
            latest = self.store.latest_batch()
            with self.store.transaction() as tx:
                told = {"type": "database", "message": self.store.notice}
                tx.append(EventType.ERROR, told, batch_id=latest.id if latest else None)

    def saw_client(self, what: str, port: int, server_port: int) -> None:
        """A request that changes something came from a local port: counted where an agent sent it."""
        rows = [row for row in self.store.running_commands() if row.run_id]
        if not rows:
            return
        run = peers.run_of_client(port, server_port, [row.run_id or "" for row in rows])
        sender = next((row for row in rows if row.run_id == run), None)
        if sender is not None:
            named = f"{sender.command} of {sender.story_keys}" if sender.story_keys else sender.command
            self.submit("visited", {"what": what, "by": named})

    def submit(self, action: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request into the orchestrator; raises the Refused family."""
        return self._orchestrator.submit(action, arguments)

    def alive(self) -> bool:
        """Whether the orchestrator answers."""
        return self._orchestrator.alive()

    def busy(self) -> bool:
        """Whether a batch is worked on; between an end for the database's sake and its resumption too."""
        return self._orchestrator.busy()

    def layers(self) -> Layers:
        """The settings as they are now."""
        return self._house.layers()

    def wait_batch(self, batch_id: int, timeout: float) -> BatchRow | None:
        """The batch once it has ended, or None when that took longer than ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            row = self.store.batch(batch_id)
            if row is not None and row.ended_at is not None:
                return row
            time.sleep(_POLL)
        return None

    def stop(self, reason: str = "") -> None:
        """Ordered end: trees ended, the batch ``interrupted``, the project given back. Repeatable."""
        if reason:
            log.info("stopping: %s", reason)
        self._control.stop()
        self._orchestrator.stop()
        self._indexer.stop()
        self._housekeeper.stop()
        if self._locks is not None:
            self._locks.release()
            self._locks = None
        self.store.close()
