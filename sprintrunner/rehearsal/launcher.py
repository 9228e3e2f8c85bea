"""Puts the rehearsal agent on a PATH under the name of the real CLI."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path


def install_launcher(folder: Path) -> Path:
    """Write an executable ``claude`` into ``folder`` (made if missing) that runs the agent; returns its path.

    -S leaves site-packages out: the agent needs none, and starts in half the time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    agent = Path(__file__).resolve().parent / "agent.py"
    launcher = folder / "claude"
    fresh = folder / f".claude.{id(launcher):x}"
    fresh.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -I -S {shlex.quote(str(agent))} "$@"\n')
    fresh.chmod(0o755)
    # A running shell may be reading the old one.
    fresh.replace(launcher)
    return launcher
