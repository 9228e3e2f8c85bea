"""The lock of git's index after a kill: whether anybody can be at work behind it, and its removal."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

#: A younger lock may belong to a git that has just begun and cannot be seen yet, in seconds.
STALE_AFTER = 5.0
_PROC = Path("/proc")


def git_processes(*folders: Path) -> list[int]:
    """The living git processes that work in one of the folders, or hide where they work."""
    return [pid for pid in _named_git() if _may_work_in(pid, folders)]


def _named_git() -> Iterator[int]:
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            name = (entry / "comm").read_text("utf-8", "replace").strip()
            state = (entry / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0]
        except (OSError, IndexError):
            continue
        if (name == "git" or name.startswith("git-")) and state not in ("Z", "X"):
            yield int(entry.name)


def _may_work_in(pid: int, folders: tuple[Path, ...]) -> bool:
    try:
        here = (_PROC / str(pid) / "cwd").readlink()
        told = (_PROC / str(pid) / "cmdline").read_bytes() + (_PROC / str(pid) / "environ").read_bytes()
    except FileNotFoundError:
        return False  # it has ended meanwhile
    except OSError:
        return True
    # GIT_DIR and --git-dir lead to a repository from anywhere.
    return any(here.is_relative_to(folder) or os.fsencode(folder) in told for folder in folders)


def clear(lock: Path, *folders: Path, patience: float = 10.0) -> str:
    """Remove a lock that nobody holds any more; the sentence says what was found, empty without a lock.

    It stays while it is younger than five seconds or a git process may be at work in ``folders``; for such
    the call waits up to ``patience`` seconds.
    """
    limit = time.monotonic() + patience
    while said := _look(lock, folders):
        if not lock.exists() or time.monotonic() > limit:
            return said
        time.sleep(0.2)
    return ""


def _look(lock: Path, folders: tuple[Path, ...]) -> str:
    try:
        age = time.time() - lock.stat().st_mtime
    except OSError:
        return ""
    alive = git_processes(*folders)
    if alive:
        return f"git is at work here (process {alive[0]}) and holds {lock}."
    if age < STALE_AFTER:
        return f"{lock} was made {max(age, 0):.0f} s ago; it is left alone for now."
    lock.unlink(missing_ok=True)
    return f"{lock} was left by a git that was killed; no git process is alive, so it was removed."
