"""A running demonstration, for the tests that look at one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

PROGRAM = [sys.executable, "-P", "-m", "sprintrunner", "demo"]
PATIENCE = 90


def awaited(condition: Callable[[], Any], patience: float = PATIENCE) -> Any:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if answer := condition():
            return answer
        time.sleep(0.05)
    raise AssertionError("it never happened")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Demo:
    """A running demonstration."""

    def __init__(self, folder: Path, speed: str) -> None:
        self.port = free_port()
        self.temporary = folder
        # An empty HOME, because a fresh machine has nothing there.
        env = dict(os.environ) | {"TMPDIR": str(folder), "HOME": str(folder / "home")}
        self.process = subprocess.Popen(
            [*PROGRAM, "--port", str(self.port), "--speed", speed],
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def get(self, path: str) -> Any:
        """The answer to a request, decoded where it is JSON; None while nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                body = answer.read()
        except OSError:
            return None
        return json.loads(body) if path.startswith("/api/") else body.decode()

    def first_line(self) -> str:
        """What it says first."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def batch(self) -> Any:
        """The newest batch as the API shows it, once there is one."""
        listed = self.get("/api/batches")
        return listed["batches"][0] if listed and listed["batches"] else None

    def project(self) -> Path:
        """The root of the sample project."""
        return next(self.temporary.glob("sprintrunner-demo-*/sample"))

    def processes(self) -> list[psutil.Process]:
        """Everything that works in the demonstration's folder, other than the command itself."""
        return [process for process in psutil.process_iter() if self._is_here(process)]

    def has_agent(self) -> bool:
        """Whether a rehearsal agent works there at this moment."""
        return any("agent.py" in " ".join(_words(process)) for process in self.processes())

    def _is_here(self, process: psutil.Process) -> bool:
        try:
            return process.pid != self.process.pid and process.cwd().startswith(
                f"{self.temporary}/sprintrunner-"
            )
        except psutil.Error:
            return False

    def end(self, number: int = signal.SIGINT) -> str:
        """Send a signal to the whole group, as Ctrl-C does, and return what it said until its end."""
        os.killpg(self.process.pid, number)
        output, _ = self.process.communicate(timeout=PATIENCE)
        return output


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
