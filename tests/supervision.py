"""Helpers of the process tests: small agents as scripts, and one run of them under real supervision."""

from __future__ import annotations

import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from sprintrunner.process import Exit, Identity, Limits, Spec, Supervised, find_marked

PYTHON = [sys.executable, "-I", "-S", "-c"]


def until(condition: Callable[[], object], seconds: float = 10.0) -> bool:
    """Wait for a condition; False when it did not come true in time."""
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            return False
        time.sleep(0.005)
    return True


def exists(pid: int) -> bool:
    """Whether a process lives (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


class Run:
    """One supervised agent in its folder; collects what the callbacks get."""

    def __init__(self, folder: Path, argv: Sequence[str], *, limits: dict | None = None, **spec) -> None:
        self.folder = folder
        self.run_id = spec.pop("run_id", uuid.uuid4().hex)
        self.lines: list[bytes] = []
        self.warnings: list[str] = []
        self.exits: list[Exit] = []
        self.ended = threading.Event()
        self.on_lines: Callable[[Sequence[bytes]], None] = self.lines.extend
        self.exit_path = folder / f"exit.{self.run_id}"
        self.out_path = folder / f"out.{self.run_id}"
        self.err_path = folder / f"err.{self.run_id}"
        values = {"cwd": folder, "env": dict(os.environ), "stdin_path": None, **spec}
        self.spec = Spec(
            argv=argv,
            run_id=self.run_id,
            out_path=self.out_path,
            err_path=self.err_path,
            exit_path=self.exit_path,
            **values,
        )
        bounds = {"wall": 60.0, "idle": None, "after_result": None, "grace": 1.0, **(limits or {})}
        self.supervised = Supervised(
            self.spec,
            Limits(**bounds),
            on_lines=lambda lines: self.on_lines(lines),
            on_exit=self._exit,
            on_warning=self.warnings.append,
        )

    def _exit(self, verdict: Exit) -> None:
        self.exits.append(verdict)
        self.ended.set()

    def start(self) -> Identity:
        identity = self.supervised.spawn()
        self.supervised.go()
        return identity

    def wait(self, seconds: float = 20.0) -> Exit:
        assert self.ended.wait(seconds), "the run did not end"
        assert self.supervised.join(5)
        assert len(self.exits) == 1
        return self.exits[0]

    def run(self, seconds: float = 20.0) -> Exit:
        self.start()
        return self.wait(seconds)

    def said(self, line: bytes, seconds: float = 10.0) -> None:
        """Wait until the agent has printed this line."""
        assert until(lambda: line in self.lines, seconds), self.lines[-5:]

    def left(self) -> list[int]:
        return find_marked(self.run_id)
