"""What a watchdog needs to know beside output and CPU, and what is kept before a tree is ended by one."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from ..errors import SprintRunnerError
from .house import Batch, Story

log = logging.getLogger(__name__)


def tree_moves(batch: Batch, command_id: int) -> Callable[[float], bool]:
    """Whether files of the work tree changed within the last so many seconds, when no other agent runs.

    With several agents at work a change proves nothing about one of them.
    """

    def moves(seconds: float) -> bool:
        if set(batch.trees) - {command_id}:
            return False
        now = time.time()
        root = batch.house.project.root
        try:
            # A time in the future was written before the clock was set back, and proves nothing.
            return any(-1.0 < now - _changed_at(root / path) <= seconds for path in batch.house.git.dirty())
        except SprintRunnerError:
            return False

    return moves


def _changed_at(path: Path) -> float:
    try:
        return os.lstat(path).st_mtime
    except OSError:
        return 0.0


def keep_patch(batch: Batch, story: Story, command_id: int) -> str | None:
    """Store what the story changed so far as a patch in the command's folder; return its path."""
    if not story.snapshot:
        return None
    try:
        patch = batch.house.git.patch(story.snapshot, batch.house.git.snapshot())
        if not patch:
            return None
        path = batch.house.state_dir / "runs" / str(command_id) / "work.patch"
        path.write_bytes(patch)
    except (SprintRunnerError, OSError):
        log.exception("no patch of command %s could be kept", command_id)
        return None
    return str(path)
