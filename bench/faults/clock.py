"""A wall clock that can be moved while the server, its shims and its agents run; the monotonic one stays."""

from __future__ import annotations

import shutil
import struct
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path

from checks import Skipped
from harness import World


@cache
def _library() -> bytes:
    """The library that moves the clock, compiled; raises Skipped where there is no compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise Skipped("no C compiler here to make a clock that can be moved")
    source = Path(__file__).with_name("clock.c")
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "clock.so"
        words = [compiler, "-shared", "-fPIC", "-O1", "-o", str(made), str(source), "-ldl", "-lm"]
        done = subprocess.run(words, capture_output=True, check=False)
        if done.returncode:
            raise Skipped(f"the clock library does not compile: {done.stderr.decode()[:200]}")
        return made.read_bytes()


class Clock:
    """The wall clock of one world; to be made before its server starts."""

    def __init__(self, world: World) -> None:
        library = world.folder / "clock.so"
        library.write_bytes(_library())
        self._file = world.folder / "clock"
        self.offset = 0.0
        self.set(0.0)
        world.env |= {"LD_PRELOAD": str(library), "BENCH_CLOCK": str(self._file)}

    def set(self, offset: float) -> None:
        """Put the clock so many seconds off the real one; all processes see it at once."""
        self.offset = offset
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("d", offset))

    def now(self) -> float:
        """What the clock shows, in seconds since the epoch."""
        return time.time() + self.offset
