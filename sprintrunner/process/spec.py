"""What a supervised run is given and what comes back: plain values."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Bytes of stderr kept with a command.
STDERR_TAIL = 64 << 10


@dataclass(frozen=True)
class Spec:
    """One run. ``env`` is the agent's whole environment; the marker of ``run_id`` is added to it.

    ``stdin_path`` None means ``/dev/null``. ``out_cap`` and ``err_cap`` are bytes on disk. ``lock_fd`` is
    inherited by the shim, the agent and all that come from it. ``cwd`` must exist.
    """

    argv: Sequence[str]
    cwd: Path
    env: Mapping[str, str]
    run_id: str
    stdin_path: Path | None
    out_path: Path
    err_path: Path
    exit_path: Path
    lock_fd: int | None = None
    out_cap: int = 64 << 20
    err_cap: int = 4 << 20


@dataclass(frozen=True)
class Limits:
    """Seconds on the monotonic clock from the go byte, the last output, the result, the request to end."""

    wall: float | None
    idle: float | None
    after_result: float | None
    grace: float


@dataclass(frozen=True)
class Identity:
    """One process across restarts: ``start_ticks`` is field 22 of its stat, which no clock change moves."""

    pid: int
    start_ticks: int
    boot_id: str
    run_id: str


@dataclass(frozen=True)
class Exit:
    """How a run ended.

    ``code`` is set when the agent ended by itself, even after it was asked to; ``signal`` when one killed it;
    neither when that is unknown or it never ran. ``ended_by``: itself, stop, wall, idle, after_result or any
    reason given to ``stop``; lifeline (the server died); shim_lost; not_started. ``survivors`` counts who
    outlived even SIGKILL. Times in ms since the epoch, ``seconds`` monotonic. ``error`` says why the agent
    could not start, or what went wrong in its supervision.
    """

    code: int | None
    signal: int | None
    ended_by: str
    stderr_tail: str = ""
    survivors: int = 0
    truncated: bool = False
    started_at: int = 0
    ended_at: int = 0
    seconds: float = 0.0
    error: str | None = None


def tail_of(path: Path, size: int = STDERR_TAIL) -> str:
    """Return the last ``size`` bytes of a file as text; empty when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - size))
            return file.read(size).decode("utf-8", "replace")
    except OSError:
        return ""


def parse_exit(data: bytes) -> Exit | None:
    """Return the verdict that a shim wrote; None when it is not whole."""
    try:
        values: dict[str, Any] = json.loads(data)
        err_path = Path(values.pop("err_path"))
        return Exit(**values, stderr_tail=tail_of(err_path))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def read_exit(exit_path: Path) -> Exit | None:
    """Return the verdict left on disk, for adoption after a crash; None when there is none."""
    try:
        return parse_exit(exit_path.read_bytes())
    except OSError:
        return None
