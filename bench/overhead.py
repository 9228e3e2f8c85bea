"""How little we add to an agent's own time: a whole batch, a bare subprocess loop, and v1's loop."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import projects, report
from common.clients import clean_environment
from common.figures import median, number, percentile, ratio
from common.servers import Folder
from rivals.v1_loop import Loop

from sprintrunner import prompts, rehearsal
from sprintrunner.agents import Call, by_name

COMMANDS = 200
#: A cycle of two stories takes this many commands of the agent.
_PER_CYCLE = 9
#: How many of the commands are done again by the rivals.
_REPLAYED = 40


@dataclass
class Sample:
    """One command of ours: seconds."""

    row: dict[str, Any]
    total: float
    agent: float

    @property
    def own(self) -> float:
        """What passed between its start and its end beside the agent; the project has no own checks."""
        return self.total - self.agent


class Batch:
    """A whole batch by ``sprintrunner run`` over so many stories, and its commands."""

    def __init__(self, folder: Folder, stories: int, status: str = "backlog") -> None:
        self.folder = folder
        projects.plan(folder.root, [(key, status) for key in projects.keys(stories)])
        self.before = folder.path / "before"
        shutil.copytree(folder.root, self.before, symlinks=True)
        self.program = rehearsal.install_launcher(folder.path / "bin")
        self.env = clean_environment(
            PATH=f"{self.program.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            SPRINTRUNNER_STATE_DIR=str(folder.state),
            REHEARSAL_SPEED="0",
            HOME=str(folder.path),
        )

    def run(self) -> float:
        """Carry it out; returns its seconds."""
        words = [sys.executable, "-P", "-m", "sprintrunner", "--project", str(self.folder.root)]
        began = time.monotonic()
        done = subprocess.run(
            [*words, "run", "all", "--json"],
            env=self.env,
            cwd=self.folder.path,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise RuntimeError(f"the batch ended with {done.returncode}: {done.stderr[-500:]}")
        return time.monotonic() - began

    def samples(self) -> list[Sample]:
        """The commands of the agent; our own commit is none."""
        connection = sqlite3.connect(self.folder.state / "sprint-runner.db")
        connection.row_factory = sqlite3.Row
        rows = connection.execute("SELECT * FROM commands WHERE agent = 'claude' ORDER BY id").fetchall()
        connection.close()
        return [_sample(dict(row)) for row in rows]


def _sample(row: dict[str, Any]) -> Sample:
    return Sample(row, (row["ended_at"] - row["started_at"]) / 1000, row["agent_ms"] / 1000)


@dataclass
class Replay:
    """One command as a rival starts it."""

    name: str
    argv: list[str]
    prompt: Path
    env: dict[str, str]


def replays(batch: Batch, samples: Iterable[Sample], root: Path, state: Path) -> list[Replay]:
    """The same prompts, arguments and variables for a fresh copy of the project, new agent sessions."""
    found = []
    for sample in samples:
        row, folder = sample.row, batch.folder.state / "runs" / str(sample.row["id"])
        context = folder / "context.md"
        call = Call(
            command=row["command"],
            prompt_path=folder / "prompt.md",
            context_path=context if context.exists() else None,
            schema=prompts.SCHEMAS.get(row["command"]),
            schema_path=None,
            model=row["model"] if row["model"] in ("haiku",) else None,
            session_id=str(uuid.uuid4()),
            resume=None,
            permission_mode=None,
            max_budget_usd=None,
            extra_args=(),
        )
        env = {
            **batch.env,
            "SPRINTRUNNER_STATE_DIR": str(state),
            "SPRINTRUNNER_COMMAND": row["command"],
            "SPRINTRUNNER_ATTEMPT": str(row["attempt"]),
            "SPRINTRUNNER_STORY_KEYS": row["story_keys"],
            "SPRINTRUNNER_PROJECT": str(root),
        }
        argv = by_name("claude").argv(str(batch.program), call)
        found.append(Replay(row["command"], argv, call.prompt_path, env))
    return found


def bare(root: Path, again: Iterable[Replay]) -> list[float]:
    """``subprocess.run`` one after the other; seconds around the life of each child."""
    own = []
    for one in again:
        began = time.monotonic()
        with one.prompt.open("rb") as stdin:
            child = subprocess.Popen(one.argv, cwd=root, env=one.env, stdin=stdin, stdout=subprocess.PIPE)
        spawned = time.monotonic()
        child.communicate()
        own.append(spawned - began)
        _check(one, child.returncode)
    return own


def v1(root: Path, folder: Path, again: Iterable[Replay]) -> list[float]:
    """v1's loop over the same commands."""
    loop = Loop(root, root / projects.STATUS_FILE, folder / "v1.db")
    for one in again:
        _check(one, loop.run(one.name, one.argv, one.prompt, one.env))
    return loop.own


def _check(one: Replay, status: int) -> None:
    if status != 0:
        raise RuntimeError(f"the agent ended with {status} for {one.name}")


def measure(found: report.Report, quick: bool) -> None:
    """Our batch first, then its commands again by the rivals."""
    with Folder() as folder:
        batch = Batch(folder, 1, "review") if quick else Batch(folder, 2 * -(-COMMANDS // _PER_CYCLE))
        seconds = batch.run()
        samples = batch.samples()
        others = {}
        for name, way in (("bare subprocess loop", "bare"), ("v1's loop", "v1")):
            root, state = folder.path / way, folder.path / f"{way}-state"
            shutil.copytree(batch.before, root, symlinks=True)
            state.mkdir()
            again = replays(batch, samples[: 1 if quick else _REPLAYED], root, state)
            others[name] = bare(root, again) if way == "bare" else v1(root, folder.path, again)
    _tables(found, samples, others, seconds)
    if not quick:
        plain = median(others["bare subprocess loop"])
        added = median([sample.own for sample in samples]) - plain
        found.headline(
            "time beside the agent, median, ms a command",
            number(median([sample.own for sample in samples]) * 1000),
            " · ".join(f"{name} {number(median(times) * 1000)}" for name, times in others.items()),
        )
        found.at_most("added to a bare loop, median", added * 1000, 60.0, "ms")


def _tables(
    found: report.Report, samples: list[Sample], others: dict[str, list[float]], seconds: float
) -> None:
    own = [sample.own * 1000 for sample in samples]
    table = found.table(
        "time beside the agent's own, ms a command", "way", "median", "p99", "commands", "ratio"
    )
    table.add("Sprint Runner", median(own), percentile(own, 0.99), len(own), "1×")
    for name, times in others.items():
        taken = [one * 1000 for one in times]
        table.add(name, median(taken), percentile(taken, 0.99), len(taken), ratio(median(taken), median(own)))
    kinds = found.table("ours by command, ms", "command", "beside the agent, median", "the agent", "n")
    for kind in dict.fromkeys(sample.row["command"] for sample in samples):
        mine = [sample for sample in samples if sample.row["command"] == kind]
        kinds.add(
            kind,
            median([one.own * 1000 for one in mine]),
            median([one.agent * 1000 for one in mine]),
            len(mine),
        )
    agent = sum(sample.agent for sample in samples)
    found.notes.append(
        f"The batch took {seconds:.1f} s, {seconds / len(samples) * 1000:.0f} ms a command; its agents ran "
        f"for {agent:.1f} s, some of it side by side. What ours does beside: prompts and schemas, shim, two "
        "commits to the database, snapshot and comparison of the tree, the status file, the git commit."
    )


if __name__ == "__main__":
    sys.exit(report.main("Overhead", measure))
