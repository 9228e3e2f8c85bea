"""The rehearsal agent: a stand-alone program that speaks Claude Code's stream-json, started by file path."""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path


def main() -> int:
    """Run one command of the agent; the return value is the exit status."""
    # A bare package made of this folder: nothing of Sprint Runner itself is imported, sys.path stays
    # as it is, and the siblings still find each other (also under -I, which leaves the script's folder out).
    folder = types.ModuleType("rehearsal_agent")
    folder.__path__ = [str(Path(__file__).resolve().parent)]
    sys.modules["rehearsal_agent"] = folder
    player = importlib.import_module("rehearsal_agent.player")
    return int(player.play(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
