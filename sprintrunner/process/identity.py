"""Finds, recognises and ends processes by identity, never by name."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Collection
from functools import cache
from pathlib import Path

from .. import shim
from .spec import Identity

#: Seconds a shim may take beyond its grace to kill, sweep and drain; then it is ended itself.
SHIM_MARGIN = shim.SWEEP + shim.DRAIN + 1.0
_TICKS = os.sysconf("SC_CLK_TCK")
# Indexes into stat_of(): field n of proc(5) is n - 3.
_STATE, _PARENT, _SESSION, _CPU, _START = 0, 1, 3, slice(11, 15), 19


@cache
def boot_id() -> str:
    """Return what names this boot of the machine; empty where the kernel does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def start_ticks(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None when it does not exist."""
    fields = shim.stat_of(pid)
    return int(fields[_START]) if fields else None


def is_alive(identity: Identity) -> bool:
    """Return whether exactly this process lives; not a later one with its pid, not a zombie."""
    fields = shim.stat_of(identity.pid)
    same = bool(fields) and int(fields[_START]) == identity.start_ticks and identity.boot_id == boot_id()
    return same and fields[_STATE] not in (b"Z", b"X")


def find_marked(run_id: str) -> list[int]:
    """Return the pids of a run by the marker in their environment, this process left out."""
    return [pid for pid in shim.marked(run_id) if pid != os.getpid()]


def find_session(leader: int) -> list[int]:
    """Return the living processes of a session. Only safe right after its leader died: pids come again."""
    return [pid for pid in shim.all_pids() if _lives_in(leader, shim.stat_of(pid))]


def find_holders(path: Path) -> list[int]:
    """Return who else holds the flock on this file, inherited; who merely opened it does not count.

    Finds agents that shed their environment and their family. Raises OSError when there is no such file.
    """
    wanted = path.stat()
    pids = [pid for pid in shim.all_pids() if pid != os.getpid()]
    return [pid for pid in pids if _holds(pid, wanted)]


def find_orphans(lock_fd: int) -> list[int]:
    """Return the holders of this lock that do not descend from here: what a lost shim left behind."""
    holders = find_holders(Path(f"/proc/self/fd/{lock_fd}"))
    return [pid for pid in holders if not _may_descend(pid)]


def cpu_seconds(root: int) -> float:
    """Return the CPU time of a process tree so far, its reaped children included."""
    stats = (shim.stat_of(pid) for pid in (root, *shim.descendants(root)))
    return sum(int(ticks) for fields in stats for ticks in fields[_CPU]) / _TICKS


def end_marked(run_id: str, grace: float) -> int:
    """End every process of a run: TERM and CONT, ``grace`` seconds, KILL. Return how many are left."""
    return end_all(lambda: find_marked(run_id), grace)


def end_holders(path: Path, grace: float) -> int:
    """End every other process that holds the flock on this file. Return how many are left."""
    return end_all(lambda: find_holders(path), grace)


def end_tree(identity: Identity, grace: float) -> int:
    """End a run of a former life: its shim, which ends its tree, then all that is marked.

    Return how many are left. After a restart of the machine nothing is touched: no pid means what it meant.
    """
    if identity.boot_id != boot_id():
        return 0
    if is_alive(identity):
        _end_shim(identity, grace)
    return end_marked(identity.run_id, grace)


def end_all(find: Callable[[], Collection[int]], grace: float) -> int:
    """Ask, wait at most ``grace`` seconds, kill for at most two. Return how many are left."""
    asked: set[int] = set()
    limit = time.monotonic() + grace
    while (left := find()) and time.monotonic() < limit:
        new = set(left) - asked
        shim.send(new, signal.SIGTERM)
        shim.send(new, signal.SIGCONT)
        asked |= new
        time.sleep(shim.ROUND)
    limit = time.monotonic() + shim.SWEEP
    while (left := find()) and time.monotonic() < limit:
        shim.send(left, signal.SIGKILL)
        time.sleep(shim.ROUND)
    return len(left)


def _end_shim(identity: Identity, grace: float) -> None:
    # A pidfd names the process for good, so the pid cannot be used again between the look and the signal.
    try:
        handle = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return
    try:
        if is_alive(identity):
            signal.pidfd_send_signal(handle, signal.SIGTERM)
            signal.pidfd_send_signal(handle, signal.SIGCONT)
        if not _ends_within(handle, grace + SHIM_MARGIN):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            _ends_within(handle, shim.SWEEP)
    except ProcessLookupError:
        return
    finally:
        os.close(handle)


def _ends_within(handle: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _lives_in(leader: int, fields: list[bytes]) -> bool:
    return bool(fields) and int(fields[_SESSION]) == leader and fields[_STATE] not in (b"Z", b"X")


def _holds(pid: int, wanted: os.stat_result) -> bool:
    try:
        with os.scandir(f"/proc/{pid}/fd") as entries:
            found = [entry.name for entry in entries if _is_file(entry, wanted)]
    except OSError:
        return False
    # Locks are listed where the open file holds them, whoever opened it once.
    return any(b"lock:" in shim.read_proc(pid, f"fdinfo/{name}") for name in found)


def _may_descend(pid: int) -> bool:
    while pid > 1:
        fields = shim.stat_of(pid)
        # An ancestor that died under our eyes: the next round sees whom the kernel gave the child to.
        if pid == os.getpid() or not fields:
            return True
        pid = int(fields[_PARENT])
    return False


def _is_file(entry: os.DirEntry[str], wanted: os.stat_result) -> bool:
    try:
        return os.path.samestat(entry.stat(), wanted)
    except OSError:
        return False
