"""A project, the real CLI and a scripted model, sealed off from the machine and from the network."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from sprintrunner.rehearsal import sample
from sprintrunner.store import CommandRow, Store

from .mock_api import MockApi
from .model import CONTEXT, MODULE, STORY, TEST

KEY = "1-2-thirst-schedule"
#: Longest wait for a whole run, in seconds.
PATIENCE = 60
_PROGRAM = [sys.executable, "-P", "-m", "sprintrunner"]
_DOCUMENTS = "_bmad-output"
#: All that is taken from the environment of whoever runs the tests.
_INHERITED = ("PATH", "LANG", "TMPDIR", "PYTHONPATH", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_NOSYSTEM")


@dataclass
class Run:
    """What a run of Sprint Runner said."""

    status: int
    events: list[dict[str, Any]]
    stderr: str

    def payloads(self, kind: str) -> list[dict[str, Any]]:
        """The payloads of the events of one type."""
        return [event["payload"] for event in self.events if event["type"] == kind]


@dataclass
class Bench:
    """One project, and everything that was started on it."""

    root: Path
    folder: Path
    api: MockApi
    env: dict[str, str]
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, **settings: str | int | float) -> subprocess.Popen[str]:
        """Start `sprintrunner run --story …`; ``settings`` by name, other variables in capitals."""
        process = subprocess.Popen(
            [*_PROGRAM, "run", "--story", KEY, "--json"],
            cwd=self.root,
            env=self.env | _as_environment(settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def finish(self, process: subprocess.Popen[str]) -> Run:
        """Wait for the end of a run."""
        output, stderr = process.communicate(timeout=PATIENCE)
        return Run(process.returncode, [json.loads(line) for line in output.splitlines()], stderr)

    def run(self, **settings: str | int | float) -> Run:
        """A run from start to end."""
        return self.finish(self.start(**settings))

    def commands(self) -> list[CommandRow]:
        """The recorded commands, in order."""
        store = Store.open(self.folder / "state" / "sprint-runner.db")
        try:
            return sorted(
                (row for batch in store.batches(limit=20, offset=0) for row in store.commands(batch.id)),
                key=lambda row: row.id,
            )
        finally:
            store.close()

    def lines(self, command_id: int) -> list[dict[str, Any]]:
        """The transcript of a command."""
        text = (self.folder / "state" / "transcripts" / f"{command_id}.jsonl").read_text("utf-8")
        return [json.loads(line) for line in text.splitlines()]

    def init(self, command_id: int) -> dict[str, Any]:
        """What the CLI said about itself."""
        return next(line for line in self.lines(command_id) if line.get("subtype") == "init")

    def story_status(self) -> str:
        """The value on the story's line of the status file."""
        text = (self.root / _DOCUMENTS / "implementation-artifacts" / "sprint-status.yaml").read_text("utf-8")
        line = next(line for line in text.splitlines() if line.strip().startswith(f"{KEY}:"))
        return line.partition(":")[2].partition("#")[0].strip()

    def processes(self) -> list[psutil.Process]:
        """Everything alive that a command of this project started, however far it has wandered."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            environment = process.environ()
            alive = process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False
        return alive and environment.get("SPRINTRUNNER_STATE_DIR") == str(self.folder / "state")

    def git(self, *words: str) -> str:
        """What git says in the project."""
        ended = subprocess.run(
            ["git", *words], cwd=self.root, env=self.env, check=True, capture_output=True, text=True
        )
        return ended.stdout.strip()

    def enter(self, status: str) -> None:
        """Put the story at a status, with everything that stands by then, and commit that."""
        documents = self.root / _DOCUMENTS
        files = {
            documents / "planning-artifacts" / "project-context.md": CONTEXT,
            documents / "implementation-artifacts" / f"{KEY}.md": STORY,
        }
        if status == "review":
            files |= {
                self.root / "windowsill" / "thirst.py": MODULE,
                self.root / "tests" / "test_thirst.py": TEST,
            }
        for path, text in files.items():
            path.write_text(text, "utf-8")
        path = documents / "implementation-artifacts" / "sprint-status.yaml"
        text = path.read_text("utf-8")
        path.write_text(text.replace(f"{KEY}: backlog", f"{KEY}: {status}"), "utf-8")
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "Prepare the story")

    def clean_up(self) -> None:
        """End what is still there."""
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.communicate()
        for left in self.processes():
            left.send_signal(signal.SIGKILL)


def make(folder: Path, api: MockApi, program: Path) -> Bench:
    """A fresh project in ``folder``; the CLI knows no address but the scripted model's."""
    programs = folder / "bin"
    programs.mkdir()
    (programs / "claude").symlink_to(program)
    (folder / "home").mkdir()
    env = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    env |= {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder / "home"),
        "TERM": "dumb",
        "CLAUDE_CONFIG_DIR": str(folder / "claude"),
        "ANTHROPIC_BASE_URL": api.url,
        "CLAUDE_CODE_OAUTH_TOKEN": "a-token-for-tests",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_TELEMETRY": "1",
        # Whatever wants to go elsewhere ends in the trap.
        "HTTP_PROXY": api.proxy,
        "HTTPS_PROXY": api.proxy,
        "NO_PROXY": "127.0.0.1",
        "SPRINTRUNNER_STATE_DIR": str(folder / "state"),
        **_as_environment({"stop_grace_seconds": 1, "limit_margin_seconds": 0, "retry_backoff_seconds": 0.2}),
    }
    return Bench(sample.create(folder / "a project"), folder, api, env)


def _as_environment(settings: Mapping[str, str | int | float]) -> dict[str, str]:
    return {
        name if name.isupper() else f"SPRINTRUNNER_{name.upper()}": str(value)
        for name, value in settings.items()
    }


def awaited(condition: Callable[[], Any]) -> Any:
    """The first true answer of the condition; fails when none comes in time."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("it never happened")
