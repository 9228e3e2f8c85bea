"""The demonstration, as `make demo` runs it: served at once, done to the end, gone without a trace."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

PROGRAM = [sys.executable, "-P", "-m", "sprintrunner", "demo"]
PATIENCE = 90


def _awaited(condition: Callable[[], Any], patience: float = PATIENCE) -> Any:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if answer := condition():
            return answer
        time.sleep(0.05)
    raise AssertionError("it never happened")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answer(port: int, path: str) -> Any:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            body = answer.read()
    except OSError:
        return None
    return json.loads(body) if path.startswith("/api/") else body.decode()


class Demo:
    """A running demonstration."""

    def __init__(self, folder: Path, speed: str) -> None:
        self.port = _free_port()
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

    def first_line(self) -> str:
        """What it says first."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def batch(self) -> Any:
        """The newest batch as the API shows it, once there is one."""
        listed = _answer(self.port, "/api/batches")
        return listed["batches"][0] if listed and listed["batches"] else None

    def project(self) -> Path:
        """The root of the sample project."""
        return next(self.temporary.glob("sprintrunner-demo-*/sample"))

    def processes(self) -> list[psutil.Process]:
        """Everything that works in the demonstration's folder, other than the command itself."""
        return [process for process in psutil.process_iter() if self._is_here(process)]

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


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Callable[[str], Demo]]:
    started: list[Demo] = []

    def start(speed: str) -> Demo:
        started.append(Demo(tmp_path, speed))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.communicate()


def _git(root: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=root, check=True, capture_output=True, text=True).stdout


def test_a_whole_sprint_is_done_and_ctrl_c_leaves_nothing(demo: Callable[[str], Demo]) -> None:
    running = demo("0")
    assert f"http://127.0.0.1:{running.port}" in running.first_line()
    batch = _awaited(lambda: (found := running.batch()) and found["ended_at"] and found)
    assert batch["status"] == "all_done"
    assert "<html" in _answer(running.port, "/")

    root = running.project()
    listed = _answer(running.port, "/api/sprint-status")
    assert [story["status"] for story in listed["stories"] if "retro" not in story["key"]] == ["done"] * 5
    told = _git(root, "log", "--format=%B", "--grep=Sprint-Batch:")
    assert len(re.findall(r"^Sprint-Story: ", told, re.MULTILINE)) >= 5 or told.count("Sprint-Story:") == 5
    subprocess.run([sys.executable, "-m", "unittest", "-q"], cwd=root, check=True, capture_output=True)
    changed = _git(
        root, "diff", "--unified=0", _git(root, "rev-list", "--max-parents=0", "HEAD").strip(), "HEAD"
    )
    _assert_only_statuses_changed(changed)

    assert "nothing is left running" in running.end()
    assert running.process.returncode == 0
    assert running.processes() == []
    assert not list(running.temporary.glob("sprintrunner-demo-*"))


def _assert_only_statuses_changed(diff: str) -> None:
    """In the status file, the old and the new side are the same keys in the same order."""
    part = next(part for part in diff.split("diff --git ") if "sprint-status.yaml" in part.splitlines()[0])
    lines = [line for line in part.splitlines() if re.match(r"[-+](?![-+])", line)]
    old = [line[1:].split(":")[0] for line in lines if line[0] == "-"]
    new = [line[1:].split(":")[0] for line in lines if line[0] == "+"]
    assert old == new and "  1-1-watering-diary" in old


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_the_middle_of_a_command_leaves_nothing(
    demo: Callable[[str], Demo], number: signal.Signals
) -> None:
    running = demo("20")
    _awaited(lambda: any("agent.py" in " ".join(process.cmdline()) for process in running.processes()))
    running.end(number)
    assert running.process.returncode == 0
    assert running.processes() == []
    assert not list(running.temporary.glob("sprintrunner-demo-*"))


def test_kill_9_leaves_no_process_either(demo: Callable[[str], Demo]) -> None:
    running = demo("20")
    _awaited(lambda: any("agent.py" in " ".join(process.cmdline()) for process in running.processes()))
    running.process.kill()
    running.process.communicate()
    _awaited(lambda: running.processes() == [])


def test_a_taken_port_is_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        env = dict(os.environ) | {"TMPDIR": str(tmp_path)}
        ended = subprocess.run([*PROGRAM, "--port", port], env=env, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert port in ended.stderr and len(ended.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())
