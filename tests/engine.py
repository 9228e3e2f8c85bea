"""The engine for tests: a sample project, the rehearsal agent on PATH, a real Runtime in this process."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sprintrunner import rehearsal, status_file
from sprintrunner.events import Event
from sprintrunner.rehearsal import sample
from sprintrunner.runtime import Runtime
from sprintrunner.store import BatchRow, CommandRow, StoryRow

FIRST, SECOND, THIRD = "1-1-watering-diary", "1-2-thirst-schedule", "1-3-todays-round"
FOURTH, FIFTH = "2-1-save-and-load", "2-2-note-for-the-neighbour"
ALL = (FIRST, SECOND, THIRD, FOURTH, FIFTH)
ARTEFACTS = Path("_bmad-output/implementation-artifacts")
STATUS = ARTEFACTS / "sprint-status.yaml"
CONTEXT = Path("_bmad-output/planning-artifacts/project-context.md")
PATIENCE = 60.0

STORY = """# Story {key}

Status: ready-for-dev

## Story

As a gardener, I want {key}.

## Acceptance Criteria

1. It works.

## Tasks / Subtasks

- [ ] Task 1: build it

## Dev Agent Record

### File List

### Review Findings
"""


def until(condition: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """The first true answer; fails when none came in time."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if answer := condition():
            return answer
        time.sleep(0.01)
    raise AssertionError("it never happened")


def git(root: Path, *words: str, check: bool = True) -> str:
    done = subprocess.run(["git", *words], cwd=root, check=check, capture_output=True, text=True)
    return done.stdout.rstrip("\n")


def make_project(
    folder: Path,
    *,
    statuses: Mapping[str, str] | None = None,
    toml: str = 'verify = ["true"]\n',
    context: bool = True,
) -> Path:
    """The sample, committed, with some stories further on; those past ``backlog`` have a story file."""
    root = sample.create(folder)
    (root / "sprintrunner.toml").write_text(toml)
    if context:
        (root / CONTEXT).write_text("# Project Context\n\nPython, standard library only.\n")
    for key, status in (statuses or {}).items():
        set_status(root, key, status)
        if status in ("ready-for-dev", "in-progress", "review"):
            (root / ARTEFACTS / f"{key}.md").write_text(STORY.format(key=key))
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "Prepare the test")
    return root


def set_status(root: Path, key: str, status: str) -> None:
    """Change one line as a person with an editor does."""
    path = root / STATUS
    pattern = rf"^(  {re.escape(key)}:) \S+"
    text, count = re.subn(pattern, rf"\1 {status}", path.read_text(), flags=re.MULTILINE)
    assert count == 1, key
    path.write_text(text)


class Engine:
    """One project with its Runtime, and what a test asks of both."""

    def __init__(self, root: Path, home: Path, patch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.home = home
        self.patch = patch
        self.state = home / "state"
        self.log = home / "rehearsal.log"
        self.runtime: Runtime | None = None
        self._env: dict[str, str] = {}
        bin_folder = home / "bin"
        rehearsal.install_launcher(bin_folder)
        self.env(
            PATH=f"{bin_folder}:{os.environ['PATH']}",
            HOME=str(home),
            GIT_CONFIG_GLOBAL=os.devnull,
            GIT_CONFIG_NOSYSTEM="1",
            SPRINTRUNNER_STATE_DIR=str(self.state),
            SPRINTRUNNER_STOP_GRACE_SECONDS="1",
            SPRINTRUNNER_RETRY_BACKOFF_SECONDS="0.1",
            SPRINTRUNNER_LIMIT_MARGIN_SECONDS="0",
            REHEARSAL_SPEED="0",
            REHEARSAL_LOG=str(self.log),
        )

    def env(self, **values: str) -> None:
        self._env |= values
        # All of them: between two tests of one module the suite's own fixture takes these names away.
        for name, value in self._env.items():
            self.patch.setenv(name, value)

    # running

    def open(self, *, resume: bool = False, where: str = "a test") -> Runtime:
        runtime = Runtime.open(self.root)
        try:
            runtime.start(where, resume=resume)
        except BaseException:
            runtime.store.close()
            raise
        self.runtime = runtime
        return runtime

    @property
    def live(self) -> Runtime:
        return self.runtime or self.open()

    def close(self) -> None:
        if self.runtime is not None:
            self.runtime.stop("the test ends")
            self.runtime = None

    def submit(self, action: str, **arguments: Any) -> dict[str, Any]:
        return self.live.submit(action, arguments)

    def start(self, *stories: str, size: int | None = None) -> int:
        """Start a batch and return its id."""
        self.env()
        answer = self.submit("start", batch_size=size, stories=list(stories) or None)
        assert answer["status"] == "started"
        return int(answer["batch_id"])

    def wait(self, batch_id: int, seconds: float = PATIENCE) -> BatchRow:
        row = self.live.wait_batch(batch_id, seconds)
        assert row is not None, f"batch {batch_id} did not end: {self.events(batch_id)[-5:]}"
        return row

    def run(self, *stories: str, size: int | None = None, fault: str = "") -> BatchRow:
        """One batch to its end."""
        self.env(REHEARSAL_FAULT=fault)
        return self.wait(self.start(*stories, size=size))

    # looking

    def events(self, batch_id: int, *types: str) -> list[Event]:
        found = self.live.store.events_after(0, 5000, batch_id)
        return [event for event in found if not types or event.type in types]

    def payloads(self, batch_id: int, *types: str) -> list[Mapping[str, Any]]:
        return [event.payload for event in self.events(batch_id, *types)]

    def warnings(self, batch_id: int) -> str:
        return "\n".join(p["warning"] for p in self.payloads(batch_id, "batch:warning"))

    def commands(self, batch_id: int, command: str | None = None) -> list[CommandRow]:
        rows = self.live.store.commands(batch_id)
        return [row for row in rows if command in (None, row.command)]

    def story(self, key: str) -> StoryRow:
        row = self.live.store.latest_record(key)
        assert row is not None, key
        return row

    def raw_status(self, key: str) -> str:
        entry = status_file.read(self.root / STATUS, self.root).entry(key)
        assert entry is not None
        return entry.raw_status

    def runs(self, event: str = "start") -> list[dict[str, Any]]:
        """What the rehearsal agent noted of itself, oldest first."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in map(json.loads, lines) if line["event"] == event]

    def ran(self, command: str) -> int:
        return sum(1 for run in self.runs() if run["command"] == command)

    def leftovers(self, batch_id: int) -> list[int]:
        """Processes that carry the marker of any command of the batch."""
        from sprintrunner.process import find_marked

        return [pid for row in self.commands(batch_id) if row.run_id for pid in find_marked(row.run_id)]

    def trailers(self, commit: str = "HEAD") -> list[str]:
        return git(self.root, "log", "-1", "--format=%(trailers:only,unfold)", commit).splitlines()

    def dirty(self) -> list[str]:
        return [line[3:] for line in git(self.root, "status", "--porcelain", "-uall").splitlines()]


@contextmanager
def engine_in(home: Path, root: Path | None = None, **project: Any) -> Iterator[Engine]:
    """An engine in its own folders; whatever happens, nothing of it is left running."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [n for n in os.environ if n.startswith(("SPRINTRUNNER_", "REHEARSAL_", "GIT_"))]:
            patch.delenv(name)
        home.mkdir(parents=True, exist_ok=True)
        made = Engine(root or make_project(home / "project", **project), home, patch)
        try:
            yield made
        finally:
            made.close()


def statuses(**given: str) -> dict[str, str]:
    """Statuses of the five stories: ``first="review"``; the rest is put on hold and never starts."""
    names = dict(zip(("first", "second", "third", "fourth", "fifth"), ALL, strict=True))
    return {key: given.get(name, "on-hold") for name, key in names.items()}


def hook(root: Path, text: str, name: str = "pre-commit") -> Path:
    path = root / ".git" / "hooks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def agent_script(home: Path, text: str) -> Path:
    """An agent of a test's own, first on PATH; ``exec claude-rehearsal`` hands on to the rehearsal."""
    launcher = home / "bin" / "claude"
    kept = launcher.with_name("claude-rehearsal")
    if not kept.exists():
        shutil.move(launcher, kept)
    launcher.write_text(f"#!/bin/sh\n{text}\n")
    launcher.chmod(0o755)
    return launcher


def keys_of(commands: Sequence[CommandRow]) -> list[str]:
    return [row.story_keys for row in commands]


#: Makes the engine of one test: ``make(statuses, **project)``; see the fixture.
Make = Callable[..., Engine]
READY = statuses(first="ready-for-dev")
BOTH = statuses(first="ready-for-dev", second="ready-for-dev")
IN_REVIEW = statuses(first="review")
#: In a test's own agent: the rehearsal takes over.
REHEARSE = 'exec claude-rehearsal "$@"'
