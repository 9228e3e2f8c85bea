"""Finds the processes of a check from outside, by where they work and by what marks them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Process:
    """A living process; zombies are none."""

    pid: int
    parent: int
    start_ticks: int
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.pid} ({' '.join(self.words)[:80] or '?'})"


def read(pid: int, name: str) -> bytes:
    """``/proc/<pid>/<name>``, empty when it cannot be read."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def look(pid: int) -> Process | None:
    """The process of a pid, None when there is none or only its body."""
    fields = read(pid, "stat").rpartition(b")")[2].split()
    if not fields or fields[0] in (b"Z", b"X"):
        return None
    words = tuple(word.decode("utf-8", "replace") for word in read(pid, "cmdline").split(b"\0") if word)
    return Process(pid, int(fields[1]), int(fields[19]), words)


def everyone() -> list[Process]:
    """All living processes."""
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [found for pid in pids if (found := look(pid))]


def works_in(pid: int, folder: Path) -> bool:
    """Whether a process has its working directory, or an open file, below the folder."""
    try:
        if Path(os.readlink(f"/proc/{pid}/cwd")).is_relative_to(folder):
            return True
        links = [os.readlink(entry.path) for entry in os.scandir(f"/proc/{pid}/fd")]
    except OSError:
        return False
    return any(link.startswith(f"{folder}/") for link in links)


def in_folder(folder: Path) -> list[Process]:
    """All living processes that work in the folder, this one left out."""
    return [one for one in everyone() if one.pid != os.getpid() and works_in(one.pid, folder)]


def with_variable(name: str, value: str) -> list[Process]:
    """All living processes whose first environment holds the variable."""
    needle = f"\0{name}={value}\0".encode()
    return [one for one in everyone() if needle in b"\0" + read(one.pid, "environ") + b"\0"]


def environment(pid: int) -> dict[str, str]:
    """The first environment of a process."""
    pairs = (part.partition(b"=") for part in read(pid, "environ").split(b"\0") if part)
    return {name.decode("utf-8", "replace"): value.decode("utf-8", "replace") for name, _, value in pairs}


def children(pid: int) -> list[Process]:
    """The living children of a process."""
    return [one for one in everyone() if one.parent == pid]


def rss(pid: int) -> int:
    """Resident memory in bytes; 0 when the process is gone."""
    fields = read(pid, "statm").split()
    return int(fields[1]) * _PAGE if fields else 0


def lives(one: Process) -> bool:
    """Whether exactly this process still lives."""
    now = look(one.pid)
    return now is not None and now.start_ticks == one.start_ticks


def kill(one: Process, number: int = signal.SIGKILL) -> None:
    """Signal exactly this process, if it still lives."""
    if lives(one):
        try:
            os.kill(one.pid, number)
        except ProcessLookupError:
            return


def gone_within(find: Callable[[], list[Process]], seconds: float) -> list[Process]:
    """Wait until nobody is found any more; return who still is after so many seconds."""
    limit = time.monotonic() + seconds
    while (left := find()) and time.monotonic() < limit:
        time.sleep(0.02)
    return left
