"""Worlds whose program or agent was changed for a check: lower thresholds, a program before the agent."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import World
from processes import Process


class Adjusted(World):
    """A world whose program runs with some names set: ``module:NAME=value``; see adjust.py."""

    def __init__(
        self, fault: str = "", *, names: Sequence[str] = (), before: Sequence[str] = (), **more: Any
    ) -> None:
        super().__init__(fault, **more)
        self.names, self.before = list(names), list(before)
        self.env["BENCH_FULL"] = str(self.full)

    @property
    def full(self) -> Path:
        """While this file is there the database may not grow."""
        return self.folder / "full"

    def command(self, *words: str) -> list[str]:
        program = str(Path(__file__).with_name("adjust.py"))
        project = ["--project", str(self.root)]
        return [*self.before, sys.executable, "-P", program, *self.names, "--", *project, *words]

    def _is_server(self, one: Process) -> bool:
        return any(word.endswith("/adjust.py") for word in one.words)


def wrap_agent(world: World, script: str) -> None:
    """Put a shell script before the fake agent; its text is what runs before the agent takes its place."""
    real = world.bin / "claude-real"
    (world.bin / "claude").rename(real)
    outer = world.bin / "claude"
    outer.write_text(f'#!/bin/sh\n{script}\nexec "{real}" "$@"\n')
    outer.chmod(0o755)
