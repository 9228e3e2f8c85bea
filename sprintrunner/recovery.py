"""One life at a time: the project lock, and the tidying after a life that ended without notice."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from . import control, leftover, process, status_file
from .errors import Conflict, SprintRunnerError
from .events import EventType
from .git import Git
from .process import Identity
from .sprint import BatchState, BatchStatus, Command, CommandStatus, StoryStatus
from .store import BatchRow, CommandRow, Store

log = logging.getLogger(__name__)
RUNNER_LOCK = "runner.lock"
AGENT_LOCK = "agent.lock"
#: How long the next life waits for the trees of the last one to be gone, in seconds.
_STRAY_PATIENCE = 30.0
#: How long after its last sign of life, noted every few seconds, a server may have lived, in ms.
SIGN_MS = 20_000


@dataclass
class Locks:
    """The project, held by this process; ``agent_fd`` is inherited by every tree."""

    runner_fd: int
    agent_fd: int
    path: Path

    def name_owner(self, where: str) -> None:
        """Write who holds the project, for the one who finds it held."""
        with suppress(OSError):  # a full disk: the lock holds all the same
            os.ftruncate(self.runner_fd, 0)
            os.pwrite(self.runner_fd, json.dumps({"pid": os.getpid(), "where": where}).encode(), 0)

    def release(self) -> None:
        """Give the project back."""
        os.close(self.runner_fd)
        os.close(self.agent_fd)


def owner(state_dir: Path) -> str:
    """Who holds the project, in words; empty when nobody wrote it down."""
    try:
        found = json.loads((state_dir / RUNNER_LOCK).read_text())
        return f"{found['where']} (process {found['pid']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def take(state_dir: Path, where: str) -> Locks:
    """Take the project for this process; Conflict names the owner when it is held (R2)."""
    path = state_dir / RUNNER_LOCK
    if control.answers(state_dir):
        # A lock file that was deleted locks nobody out, but its holder still answers on its socket.
        raise _held(state_dir)
    runner = _open(path)
    try:
        fcntl.flock(runner, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(runner)
        raise _held(state_dir) from None
    locks = Locks(runner, _open(state_dir / AGENT_LOCK), path)
    locks.name_owner(where)
    return locks


def refuse_if_held(state_dir: Path) -> None:
    """Raise Conflict naming the owner when another process holds the project; takes nothing."""
    fd = _open(state_dir / RUNNER_LOCK)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise _held(state_dir) from None
    finally:
        os.close(fd)


def _held(state_dir: Path) -> Conflict:
    return Conflict(f"This project is already held by {owner(state_dir) or 'another process'}.")


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def end_strays(store: Store, state_dir: Path, grace: float) -> int:
    """End every tree that a former life left, by verified identity, before anything else; return how many.

    A pid is never enough: pid, start ticks, boot id and the run marker must agree.
    """
    ended = 0
    for row in store.running_commands():
        if row.boot_id and row.boot_id != process.boot_id():
            continue  # the machine was restarted: that pid is somebody else's now
        if row.pid and row.start_ticks and row.boot_id and row.run_id:
            identity = Identity(row.pid, row.start_ticks, row.boot_id, row.run_id)
            if process.is_alive(identity):
                process.end_tree(identity, grace)
                ended += 1
        if row.run_id and process.find_marked(row.run_id):
            process.end_marked(row.run_id, grace)
            ended += 1
    _wait_for_agent_lock(state_dir, grace)
    return ended


def _wait_for_agent_lock(state_dir: Path, grace: float) -> None:
    """Descendants of a former life hold agent.lock even without our marker: wait for them, then end them."""
    fd = _open(state_dir / AGENT_LOCK)
    deadline = time.monotonic() + _STRAY_PATIENCE
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError:
                process.end_holders(state_dir / AGENT_LOCK, grace)
            if time.monotonic() > deadline:
                raise Conflict("A process of an earlier run does not end; find it with: fuser agent.lock")
            time.sleep(0.05)
    finally:
        os.close(fd)


def hold_agents(locks: Locks) -> None:
    """Hold agent.lock through the descriptor that every tree inherits."""
    fcntl.flock(locks.agent_fd, fcntl.LOCK_SH | fcntl.LOCK_NB)


def take_back_done(store: Store, path: Path, git: Git) -> None:
    """Where a kill came between a line that says done and its commit, the line says review again.

    Whoever continues the batch writes it anew; whoever begins another one must not find it done.
    """
    for row in store.running_commands():
        if row.command != Command.COMMIT:
            continue
        for key in row.story_keys.split(","):
            # A line that says something else was changed by somebody else, and is theirs.
            with suppress(SprintRunnerError):
                if row.batch_id and not git.find_commit(row.batch_id, key, row.started_at):
                    review = str(StoryStatus.REVIEW)
                    done = str(StoryStatus.DONE)
                    status_file.write(path, key, review, root=git.root, expected=done)


def close_records(store: Store, state_dir: Path, left: Mapping[str, str] | None) -> BatchRow | None:
    """Mark what nobody owns any more ``interrupted``; return the batch that was cut off, as it was, if any.

    A command whose agent had ended by itself keeps its row open: whoever resumes the batch adopts its
    verdict. ``left`` is what the work tree holds of ours, recorded with the batch.
    """
    live = store.live_batch()
    now = store.now()
    reason = f"the server stopped without notice at {clock(last_sign(store, live) if live else now)}"
    with store.transaction() as tx:
        for row in store.running_commands():
            if live is None or row.batch_id != live.id or not adoptable(state_dir, row):
                leftover.close(tx, row, CommandStatus.INTERRUPTED, reason, now)
        for task in store.open_background_tasks():
            tx.update_background_task(task.id, status="interrupted", completed_at=now)
        if live is not None:
            tx.update_batch(
                live.id,
                status=BatchStatus.INTERRUPTED,
                state=BatchState.ENDED,
                ended_at=now,
                reason=reason,
                **({"left_paths": dict(left)} if left is not None else {}),
            )
            tx.append(EventType.BATCH_END, _end_payload(live, reason), batch_id=live.id)
    return live


def _end_payload(live: BatchRow, reason: str) -> dict[str, object]:
    return {
        "batch_id": live.id,
        "cycles_completed": live.cycles_completed,
        "status": str(BatchStatus.INTERRUPTED),
        "reason": reason,
    }


def adoptable(state_dir: Path, row: CommandRow) -> bool:
    """Whether a command's own agent ended by itself and its exit was written (R6)."""
    return not row.background and leftover.ended_by_itself(state_dir, row.id) is not None


def close_adoptable(store: Store) -> None:
    """When nobody resumes the batch after all: no row stays live without an owner (R7)."""
    rows = store.running_commands()
    if rows:
        why = "the server stopped before its verdict was recorded"
        with store.transaction() as tx:
            for row in rows:
                leftover.close(tx, row, CommandStatus.INTERRUPTED, why, store.now())


def last_sign(store: Store, live: BatchRow) -> int:
    """The last moment (ms) at which the former life is known to have worked."""
    events = store.last_events(1, live.id)
    return max(live.heartbeat_at or 0, events[-1].timestamp if events else live.started_at)


def all_ended_by(store: Store, state_dir: Path, live: BatchRow, grace: float) -> int | None:
    """The moment (ms) from which on nothing of the former life changed a file; None when nobody can tell."""
    latest = last_sign(store, live) + SIGN_MS + int(grace * 1000)
    for row in store.running_commands():
        if row.pid and row.boot_id == process.boot_id():
            left = process.read_exit(state_dir / "runs" / str(row.id) / "exit.json")
            if left is None:
                return None  # its shim was killed as well: the agent may have worked on
            latest = max(latest, left.ended_at)
    return latest


def clock(when: int) -> str:
    """A moment (ms) as a local HH:MM."""
    return time.strftime("%H:%M", time.localtime(when / 1000))
