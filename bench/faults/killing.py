"""The kill series of B1-B5: random kill -9 of the server while many stories are worked off."""

from __future__ import annotations

import itertools
import random
import shlex
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import client
import plans
import processes
from checks import Failed
from harness import G, World

from sprintrunner import rehearsal

#: Longest life between two kills, in seconds.
LONGEST_LIFE = 3.0
#: Working seconds a story takes where nothing is known of this machine yet.
STORY_SECONDS = 3.0
#: Of the rehearsal agent: slow enough that the work does not run out while servers come back.
SPEED = 0.25
#: Seconds that one story may take at most, restarts included, before the series is given up.
STORY_PATIENCE = 20.0
_TOGETHER = {"create-story", "create-story-discovery"}
_BACKGROUND = {"story-review", "tech-spec-review", "generate-project-context"}


@dataclass
class Series:
    """What a series showed. The four counts of B1-B4, and who outlived a kill (B5)."""

    kills: int = 0
    clicks: int = 0
    starts: int = 0
    together: int = 0
    published: int = 0
    lost: list[str] = field(default_factory=list)
    overlapping: list[str] = field(default_factory=list)
    unrecorded: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    survivors: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        seen = f"{self.starts} starts, {self.together} pairs together, {self.published} events"
        return f"{self.kills} kills, {self.clicks} clicks, {seen}"


@cache
def series(kills: int, stories: int, group: bool) -> Series:
    """Run a series once; ``group`` kills the server's whole process group each time."""
    keys = [f"{1 + n // 10}-{1 + n % 10}-grow-plant-{n + 1}" for n in range(stories)]
    with World(stories=[(key, "backlog") for key in keys], speed=SPEED) as world:
        _install_witness(world)
        return _Driver(world, keys, kills, group).run()


def _install_witness(world: World) -> None:
    agent = Path(rehearsal.__file__).parent / "agent.py"
    words = [sys.executable, "-I", "-S", str(Path(__file__).with_name("witness.py")), str(agent)]
    launcher = world.bin / "claude"
    launcher.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    launcher.chmod(0o755)


class _Driver:
    def __init__(self, world: World, keys: list[str], kills: int, group: bool) -> None:
        self.world = world
        self.keys = keys
        self.left = kills
        self.group = group
        self.seen: list[dict[str, Any]] = []
        self.stream: client.StreamClient | None = None
        self.found = Series()
        self.worked = 0.0

    def run(self) -> Series:
        limit = time.monotonic() + self.left * 10 + len(self.keys) * STORY_PATIENCE
        self.world.serve()
        self._listen()
        self.world.start("all")
        while not self._over():
            if time.monotonic() > limit:
                break
            self._live()
        self._hear_the_end()
        self._count()
        return self.found

    def _over(self) -> bool:
        """Whether the batch has ended for good; one that waits as interrupted is clicked on."""
        row = self.world.batch()
        if row["status"] == "interrupted":
            answer = self.world.request("POST", "/api/orchestrator/resume", {})
            if answer.status == 202:
                self.found.clicks += 1
            elif self.world.batch()["status"] == "interrupted":
                raise Failed(f"an interrupted batch was not resumed: {answer.status} {answer.text[:200]}")
            return False
        return bool(row["status"] != "running")

    def _live(self) -> None:
        """One life: a while of work, then a kill; the last one goes on to the end."""
        if not self.left:
            time.sleep(0.1)
            return
        life = random.uniform(0.0, self._longest_life())
        time.sleep(life)
        self.worked += life
        if self.world.batch()["status"] != "running":
            return
        self.left -= 1
        self.found.kills += 1
        self._kill()
        if random.random() < 0.2 and self.left and self.world.server and self.world.server.poll() is not None:
            # A life that is cut off before it is healthy.
            self.left -= 1
            self.found.kills += 1
            self.world.server = self.world.spawn("serve", "--port", str(self.world.port))
            time.sleep(random.uniform(0.1, 1.0))
            self.world.kill_group()
            self._see_dead()
        self._come_back()

    def _longest_life(self) -> float:
        """So that the work lasts for all the kills, however fast the machine is: twice the even share."""
        done = self.world.rows("SELECT count(*) AS n FROM stories WHERE status IN ('done', 'blocked')")[0][
            "n"
        ]
        pace = self.worked / done if done and self.worked else STORY_SECONDS
        return float(min(LONGEST_LIFE, 2 * pace * (len(self.keys) - done) / self.left))

    def _kill(self) -> None:
        """kill -9 of the worker, of gunicorn's master, or of all of it."""
        world = self.world
        assert world.server is not None
        target = "group" if self.group else random.choice(["worker", "worker", "master", "all"])
        worker = world.worker
        if target == "worker":
            processes.kill(worker)
        elif target == "master":
            # The worker then ends in order; the next life has to wait for it.
            world.server.send_signal(signal.SIGKILL)
            world.server.wait()
            processes.gone_within(lambda: [worker] if processes.lives(worker) else [], G + 5)
        else:
            world.kill_group()
        if target != "worker":
            self._see_dead()
        self._unplug()

    def _see_dead(self) -> None:
        """Nobody of the tree may outlive the grace by more than a second (R5)."""
        left = processes.gone_within(self.world.tree, G + 1.0)
        self.found.survivors += map(str, left)

    def _come_back(self) -> None:
        server = self.world.server
        if server is not None and server.poll() is None:
            self.world.wait(self.world.healthy, 30, "gunicorn's next worker")
        else:
            self.world.serve()
        self._listen()

    def _listen(self) -> None:
        """Follow from the last event on; what was missed is to come first."""
        cursor = self.seen[-1]["id"] if self.seen else 0
        for _ in range(50):
            try:
                self.stream = self.world.stream(cursor)
                return
            except OSError:
                time.sleep(0.1)
        raise Failed("nobody listens after a restart")

    def _unplug(self) -> None:
        if self.stream is not None:
            self.stream.wait(lambda: self.stream and self.stream.ended, 2)
            self.stream.close()
            self.seen += self.stream.events
            self.stream = None

    def _hear_the_end(self) -> None:
        stream = self.stream
        if stream is not None:
            last = self.world.rows("SELECT max(id) AS id FROM events")[0]["id"]
            stream.wait(lambda: stream.cursor is not None and stream.cursor >= last, 10)
        self.world.kill_group()
        self._unplug()

    def _count(self) -> None:
        """Compare what was published and seen with what is recorded, in the file, and in git."""
        found, world = self.found, self.world
        found.published = len(self.seen)
        found.lost += _differences(self.seen, {row["id"]: row["event_type"] for row in world.events()})
        background = {row["id"] for row in world.commands() if row["background"]}
        witnesses = world.runs("witness")
        found.starts = len(witnesses)
        found.together = sum(len(one["others"]) for one in witnesses)
        found.unrecorded += [_name(one) for one in witnesses if one["row"] is None]
        found.overlapping += [
            f"{_name(one)} beside {_name(other)}"
            for one in witnesses
            for other in one["others"]
            if not _may_overlap(one, other, background)
        ]
        status = f"batch {world.batch()['status']}: {world.batch()['reason']}"
        for key in self.keys:
            state, commits = plans.status_of(world.root, key), plans.commits_of(world.root, key)
            if state != "done" or not commits:
                found.unfinished.append(f"{key} {state}, {commits} commits ({status})")


def _differences(seen: Sequence[dict[str, Any]], recorded: Mapping[int, str]) -> list[str]:
    """What was published and is not recorded so, came twice or out of order, or was never published."""
    ids = [event["id"] for event in seen]
    lost = [f"{e['id']} {e['type']} is not recorded" for e in seen if recorded.get(e["id"]) != e["type"]]
    lost += [f"{two} came after {one}" for one, two in itertools.pairwise(ids) if two <= one]
    return lost + [f"{id} was never published" for id in sorted(set(recorded) - set(ids))]


def _name(one: dict[str, Any]) -> str:
    return f"{one['command']} {one['attempt']} of {one['story_keys']}"


def _may_overlap(one: dict[str, Any], other: dict[str, Any], background: set[int]) -> bool:
    """Whether the workflow lets the two run together (its sections 0.3 and 2)."""
    if one["batch_id"] != other["batch_id"] or one["command_id"] == other["command_id"]:
        return False
    if {one["command"], other["command"]} == _TOGETHER and one["story_keys"] == other["story_keys"]:
        return True
    behind = [x for x in (one, other) if int(x["command_id"]) in background and x["command"] in _BACKGROUND]
    return bool(behind) and _name(one) != _name(other)
