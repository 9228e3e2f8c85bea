"""Takes in the output of one writing agent and prints what it cost as JSON.

``python ingesting.py WAY MODE SCALE CAP``; ways: ``ours`` (shim, transcript, parser), ``pipe`` (a loop over
the child's stdout), ``asyncio`` (``readline`` with its limit of 64 KiB, as v1 read).
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common import processes
from sprintrunner.agents import by_name
from sprintrunner.process import Limits, Spec, Supervised

WRITER = Path(__file__).with_name("writer.py")


class Taken:
    """What arrived."""

    def __init__(self) -> None:
        self.lines = self.bytes = 0
        self.result = ""
        self.failed = ""


def ours(argv: Sequence[str], cap: int) -> Taken:
    """The product's supervision and its parser of Claude's stream."""
    taken, stream = Taken(), by_name("claude").stream(None)

    def take(lines: Sequence[bytes]) -> None:
        for line in lines:
            taken.lines += 1
            taken.bytes += len(line) + 1
            stream.feed(line)

    ended = threading.Event()
    with tempfile.TemporaryDirectory(prefix="sprintrunner-bench-") as name:
        folder = Path(name)
        spec = Spec(
            argv=argv,
            cwd=folder,
            env={"PATH": "/usr/bin:/bin"},
            run_id="bench",
            stdin_path=None,
            out_path=folder / "out",
            err_path=folder / "err",
            exit_path=folder / "exit",
            out_cap=cap,
        )
        limits = Limits(wall=300, idle=300, after_result=10, grace=1)
        run = Supervised(spec, limits, on_lines=take, on_exit=lambda _: ended.set())
        run.spawn()
        run.go()
        ended.wait(300)
    taken.result = stream.result(0).text
    return taken


def pipe(argv: Sequence[str], _cap: int) -> Taken:
    """The plain loop: iterate over the child's stdout and parse each line."""
    taken = Taken()
    with subprocess.Popen(list(argv), stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        for line in child.stdout:
            _plainly(taken, line)
    return taken


def by_asyncio(argv: Sequence[str], _cap: int) -> Taken:
    """As v1 read: ``readline`` of asyncio's own reader."""
    taken = Taken()

    async def read() -> None:
        child = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
        assert child.stdout is not None
        try:
            while line := await child.stdout.readline():
                _plainly(taken, line)
        except ValueError as error:
            taken.failed = str(error)
            child.kill()
        await child.wait()

    asyncio.run(read())
    return taken


def _plainly(taken: Taken, line: bytes) -> None:
    taken.lines += 1
    taken.bytes += len(line)
    value: Any = json.loads(line)
    if value["type"] == "result":
        taken.result = value["result"]


def main(way: str, mode: str, scale: str, cap: str) -> None:
    """Measure one way; the peak counts from here on."""
    argv = [sys.executable, "-I", "-S", str(WRITER), mode, scale]
    before = processes.peak_rss()
    began = time.monotonic()
    taken = {"ours": ours, "pipe": pipe, "asyncio": by_asyncio}[way](argv, int(cap))
    seconds = time.monotonic() - began
    grown = (processes.peak_rss() - before) / 2**20
    print(json.dumps({**vars(taken), "seconds": seconds, "grown": grown}))


if __name__ == "__main__":
    main(*sys.argv[1:])
