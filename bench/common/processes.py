"""What processes cost: CPU, memory, wake-ups; read from outside, so that measuring disturbs little."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import psutil

_PROC = Path("/proc")
_SWITCHES = re.compile(r"^voluntary_ctxt_switches:\s+(\d+)", re.MULTILINE)
_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB", re.MULTILINE)


def tree(pid: int) -> list[psutil.Process]:
    """The process and all below it that live now."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


@dataclass(frozen=True)
class Cost:
    """A reading: CPU in seconds, memory in bytes, voluntary context switches."""

    cpu: float
    pss: int
    rss: int
    switches: int


def cost(pid: int) -> Cost:
    """What the tree has used so far and holds now."""
    members = tree(pid)
    maps = [one.memory_full_info() for one in members]
    return Cost(
        sum(_cpu_ns(one.pid) for one in members) / 1e9,
        sum(found.pss for found in maps),
        max((found.rss for found in maps), default=0),
        sum(_switches(one.pid) for one in members),
    )


def peak_rss(pid: int | str = "self") -> int:
    """The highest resident size since the start, or since ``forget_peak``, in bytes."""
    found = _PEAK.search((_PROC / str(pid) / "status").read_text())
    return int(found[1]) * 1024 if found else 0


def forget_peak() -> None:
    """Let the peak of this process begin anew at its present size."""
    (_PROC / "self" / "clear_refs").write_text("5")


def _cpu_ns(pid: int) -> int:
    # schedstat counts nanoseconds; the usual CPU times count hundredths of a second.
    return sum(int(path.read_text().split()[0]) for path in _tasks(pid, "schedstat"))


def _switches(pid: int) -> int:
    return sum(int(_SWITCHES.findall(path.read_text())[0]) for path in _tasks(pid, "status"))


def _tasks(pid: int, name: str) -> list[Path]:
    return list((_PROC / str(pid) / "task").glob(f"*/{name}"))
