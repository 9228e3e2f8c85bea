"""The demonstration, as `make demo` runs it: served at once, done to the end, gone without a trace."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from demonstration import PROGRAM, Demo, awaited


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
    batch = awaited(lambda: (found := running.batch()) and found["ended_at"] and found)
    assert batch["status"] == "all_done"
    assert "<html" in running.get("/")

    root = running.project()
    listed = running.get("/api/sprint-status")
    assert [story["status"] for story in listed["stories"] if "retro" not in story["key"]] == ["done"] * 5
    told = _git(root, "log", "--format=%B", "--grep=Sprint-Batch:")
    assert len(re.findall(r"^Sprint-Story: ", told, re.MULTILINE)) == 5
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
    part = next(
        part for part in diff.split("diff --git ") if "/sprint-status.yaml" in part.partition("\n")[0]
    )
    lines = [line for line in part.splitlines() if re.match(r"[-+](?![-+])", line)]
    old = [line[1:].split(":")[0] for line in lines if line[0] == "-"]
    new = [line[1:].split(":")[0] for line in lines if line[0] == "+"]
    assert old == new and "  1-1-watering-diary" in old


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_the_middle_of_a_command_leaves_nothing(
    demo: Callable[[str], Demo], number: signal.Signals
) -> None:
    running = demo("20")
    awaited(running.has_agent)
    running.end(number)
    assert running.process.returncode == 0
    assert running.processes() == []
    assert not list(running.temporary.glob("sprintrunner-demo-*"))


def test_kill_9_leaves_no_process_either(demo: Callable[[str], Demo]) -> None:
    running = demo("20")
    awaited(running.has_agent)
    running.process.kill()
    running.process.communicate()
    awaited(lambda: running.processes() == [])


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
