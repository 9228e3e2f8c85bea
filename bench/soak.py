"""Soak: batches at high speed under kill -9, vanishing stream clients, changing settings: does anything grow?

    python bench/soak.py --minutes 60

The kills come in the first part; then one server lives to the end, since what leaks slowly shows in a long
life only. Prints a table over time and, at the end, whether memory, descriptors, threads, the write-ahead
log and the number of orphans stayed flat. Exit status 0 when they did.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

sys.path.insert(0, str(Path(__file__).with_name("faults")))

import plans
import processes
from checks import Failed
from client import HOST
from harness import PATIENCE, World

MEGABYTE = 1_000_000
#: Stories of one batch; when it is done a new plan is committed and the next begins.
STORIES = 40
#: A server younger than this is still filling its caches: its numbers are shown and not judged. Seconds.
SETTLED = 8.0
_STREAMS = ("/events", "/api/events/stream")
#: Between two looks for orphans; a tree that is being ended has no longer to live. Seconds.
ORPHAN_LOOKS = 5.0
_PAGES = ("/", "/batches", "/activity", "/timeline", "/trends", "/settings", "/search?q=part", "/api/events")
_SETTINGS = {"default_max_cycles": (1, 9), "heartbeat_seconds": (1, 15), "max_dev_attempts": (1, 5)}


@dataclass(frozen=True)
class Sample:
    """What was measured at one moment; ``seconds`` since the start, sizes in bytes."""

    seconds: float
    age: float
    rss: int
    fds: int
    threads: int
    wal: int
    orphans: int


class Soak:
    """One run; everything but the main loop happens in threads that end with it."""

    def __init__(self, world: World, asked: argparse.Namespace) -> None:
        self.world = world
        self.asked = asked
        self.dice = random.Random(asked.seed)
        self.over = threading.Event()
        self.began = self.served = time.monotonic()
        self.kills = self.rounds = self.visits = self.changes = self.pages = 0
        self.samples: list[Sample] = []
        self._strays: set[int] = set()
        self.stayed = 0

    def run(self) -> None:
        """Work until the time is over."""
        self._serve()
        hands = [threading.Thread(target=self._visit, daemon=True) for _ in range(self.asked.clients)]
        hands += [
            threading.Thread(target=hand, daemon=True) for hand in (self._change_settings, self._browse)
        ]
        for hand in hands:
            hand.start()
        try:
            self._main()
        finally:
            self.over.set()
            for hand in hands:
                hand.join(30)

    def _main(self) -> None:
        end = self.began + self.asked.minutes * 60
        calm = end - self.asked.minutes * 60 * self.asked.calm
        next_kill, next_look, next_search = self._next_kill(), time.monotonic(), self.began
        print(HEAD, flush=True)
        while (now := time.monotonic()) < end:
            self._keep_busy()
            if now >= next_look:
                self._look()
                next_look = now + self.asked.every
            if now >= next_search:
                self._search_orphans()
                next_search = now + ORPHAN_LOOKS
            if next_kill <= now < calm:
                self._kill()
                next_kill = self._next_kill()
            time.sleep(0.1)
        self._look()

    def _next_kill(self) -> float:
        return time.monotonic() + self.dice.uniform(0.3, 1.7) * self.asked.kill_every

    # the server

    def _serve(self) -> None:
        self.world.serve()
        self.served = time.monotonic()

    def _kill(self) -> None:
        """kill -9 of the server alone or of its whole group, then a new one."""
        server = self.world.server
        assert server is not None
        worker = self.world.worker
        if self.dice.random() < 0.5:
            os.kill(worker.pid, signal.SIGKILL)
        self.world.kill_group()
        processes.gone_within(lambda: [worker] if processes.lives(worker) else [], 10)
        self.kills += 1
        self._serve()

    def _keep_busy(self) -> None:
        """Start, resume, or plan anew: there is always a batch at work."""
        with suppress(OSError, HTTPException, ValueError, KeyError):
            if self.world.get("/api/orchestrator/status")["status"] != "idle":
                return
            rows = self.world.rows("SELECT status FROM batches ORDER BY id DESC LIMIT 1")
            if rows and rows[0]["status"] == "interrupted":
                self.world.request("POST", "/api/orchestrator/resume", {})
                return
            self._plan()
            self.world.request("POST", "/api/orchestrator/start", {"batch_size": "all"})

    def _plan(self) -> None:
        """New stories in the place of those that are done."""
        if not self.rounds or all(status in ("done", "blocked") for status in self._statuses()):
            self.rounds += 1
            lines = ["development_status:", f"  epic-{self.rounds}: in-progress"]
            lines += [f"  {self.rounds}-{number}-part-{number}: backlog" for number in range(1, STORIES + 1)]
            (self.world.root / plans.STATUS_FILE).write_text("\n".join([*lines, ""]))
            plans.git(self.world.root, "add", "-A")
            plans.git(self.world.root, "commit", "-q", "-m", f"Plan round {self.rounds}")

    def _statuses(self) -> list[str]:
        return [str(one["status"]) for one in self.world.get("/api/sprint-status")["stories"]]

    # hands that come and go

    def _visit(self) -> None:
        """A stream client that reads for a while, or does not, and vanishes."""
        dice = random.Random(self.dice.random())
        while not self.over.wait(dice.uniform(0, 0.5)):
            with suppress(OSError), socket.create_connection((HOST, self.world.port), timeout=5) as client:
                head = f"GET {dice.choice(_STREAMS)} HTTP/1.1\r\nHost: {HOST}:{self.world.port}\r\n\r\n"
                client.sendall(head.encode())
                self.visits += 1
                until = time.monotonic() + dice.uniform(0.2, 8)
                client.settimeout(1)
                while time.monotonic() < until and not self.over.is_set():
                    if dice.random() < 0.2:
                        time.sleep(0.5)  # one that is slow to read
                    with suppress(TimeoutError):
                        if not client.recv(65536):
                            break

    def _change_settings(self) -> None:
        dice = random.Random(self.dice.random())
        while not self.over.wait(2):
            name = dice.choice(sorted(_SETTINGS))
            with suppress(OSError, HTTPException):
                if dice.random() < 0.3:
                    self.world.request("DELETE", f"/api/settings/{name}")
                else:
                    self.world.request("PUT", "/api/settings", {name: dice.randint(*_SETTINGS[name])})
                self.changes += 1

    def _browse(self) -> None:
        """A person who reads pages, those of commands among them: caches fill, and must not grow."""
        dice = random.Random(self.dice.random())
        while not self.over.wait(dice.uniform(0, 0.5)):
            with suppress(OSError, HTTPException, IndexError, Failed):
                newest = self.world.rows("SELECT max(id) AS n FROM commands")[0]["n"] or 1
                command = f"/commands/{dice.randint(1, newest)}"
                self.world.request("GET", dice.choice([*_PAGES, command, f"{command}/transcript"]))
                self.pages += 1

    # measures

    def _look(self) -> None:
        with suppress(OSError, IndexError, Failed):
            worker = self.world.worker.pid
            log = self.world.database.with_name(self.world.database.name + "-wal")
            now = time.monotonic()
            sample = Sample(
                now - self.began,
                now - self.served,
                processes.rss(worker),
                len(os.listdir(f"/proc/{worker}/fd")),
                len(os.listdir(f"/proc/{worker}/task")),
                log.stat().st_size if log.exists() else 0,
                self.stayed,
            )
            self.stayed = 0
            self.samples.append(sample)
            print(self._line(sample), flush=True)

    def _search_orphans(self) -> None:
        """Processes that no living server answers for, at two looks in a row: others may be ending."""
        assert self.world.server is not None
        owned, found = {self.world.server.pid}, self.world.processes()
        while more := {one.pid for one in found if one.parent in owned} - owned:
            owned |= more
        strays = {one.pid for one in found} - owned
        self.stayed = max(self.stayed, len(strays & self._strays))
        self._strays = strays

    def _line(self, sample: Sample) -> str:
        done = self.world.rows("SELECT count(*) AS n FROM stories WHERE status = 'done'")[0]["n"]
        size = self.world.database.stat().st_size
        return (
            f"{sample.seconds:7.0f} {self.kills:5} {done:7} {self.visits:7} {self.pages:5} {self.changes:8} "
            f"{sample.rss / MEGABYTE:7.1f} {sample.fds:5} {sample.threads:7} "
            f"{sample.wal / MEGABYTE:7.2f} {size / MEGABYTE:6.2f} {sample.orphans:7}"
        )


HEAD = "seconds kills stories clients pages settings  RSS MB   fds threads  WAL MB  DB MB orphans"


@dataclass(frozen=True)
class Measure:
    """What must be flat: the last third may exceed the first by a share and by an amount."""

    name: str
    value: Callable[[Sample], float]
    share: float
    amount: float
    unit: str = ""

    def judge(self, samples: Sequence[Sample]) -> tuple[bool, str]:
        """Whether it stayed flat, and the sentence that says so."""
        third = max(1, len(samples) // 3)
        first = statistics.median(self.value(one) for one in samples[:third])
        last = statistics.median(self.value(one) for one in samples[-third:])
        flat = last <= first * self.share + self.amount
        return (
            flat,
            f"{'PASS' if flat else 'FAIL'} {self.name}: {first:.1f} at first, {last:.1f} at last{self.unit}",
        )


MEASURES = (
    Measure("RSS", lambda s: s.rss / MEGABYTE, 1.15, 10, " MB"),
    Measure("fds", lambda s: s.fds, 1.0, 12),
    Measure("threads", lambda s: s.threads, 1.0, 4),
    Measure("WAL", lambda s: s.wal / MEGABYTE, 1.2, 4, " MB"),
    Measure("orphans", lambda s: s.orphans, 0, 0),
)


def longest_life(samples: Sequence[Sample]) -> list[Sample]:
    """The samples of the server that lived longest."""
    lives: list[list[Sample]] = [[]]
    for one in samples:
        if lives[-1] and one.age < lives[-1][-1].age:
            lives.append([])
        lives[-1].append(one)
    return max(lives, key=lambda life: life[-1].age - life[0].age if life else 0)


def judge(samples: Sequence[Sample]) -> tuple[bool, list[str]]:
    """Whether everything stayed flat, over all lives and within the longest, with one line a measure."""
    settled = [one for one in samples if one.age >= SETTLED] or list(samples)
    told = [measure.judge(settled) for measure in MEASURES]
    life = longest_life(settled)
    lasted = life[-1].age - life[0].age
    within = [measure.judge(life) for measure in MEASURES[:4]]
    told += [(flat, f"{line} (one life of {lasted:.0f} s)") for flat, line in within]
    stray = sum(one.orphans for one in samples)
    lines = [line for _, line in told]
    lines.append(f"{'PASS' if not stray else 'FAIL'} orphans at any look: {stray}")
    return all(flat for flat, _ in told) and not stray, lines


def main(words: Sequence[str]) -> int:
    """Run and judge; 0 when flat, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python bench/soak.py", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--kill-every", type=float, default=60, metavar="SECONDS", help="on average")
    parser.add_argument("--calm", type=float, default=0.5, metavar="SHARE", help="of the time without kills")
    parser.add_argument(
        "--every", type=float, default=0, metavar="SECONDS", help="between two lines of the table"
    )
    parser.add_argument("--speed", type=float, default=0.02, help="of the rehearsal agent; 0 is instant")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args(words)
    asked.every = asked.every or max(1.0, asked.minutes * 60 / 40)
    try:
        with World(speed=asked.speed) as world:
            soak = Soak(world, asked)
            soak.run()
            flat, lines = judge(soak.samples)
            world.kill_group()
            left = processes.gone_within(world.processes, PATIENCE / 4)
            world.sound()
    except Failed as why:
        print(f"FAIL {why}")
        return 1
    lines.append(f"{'PASS' if not left else 'FAIL'} processes after the last kill: {len(left)}")
    print("\n".join(lines))
    return int(not flat or bool(left))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
