"""Whether the work tree moved, which keeps a silent agent alive: also when the clock was set meanwhile."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sprintrunner.git import Git
from sprintrunner.orchestrator.watching import tree_moves
from sprintrunner.rehearsal import sample


@pytest.fixture
def batch(tmp_path: Path) -> Any:
    root = sample.create(tmp_path / "project")
    house = SimpleNamespace(project=SimpleNamespace(root=root), git=Git(root))
    return SimpleNamespace(house=house, trees={1: None})


def _written(batch: Any, seconds_ago: float) -> None:
    path = batch.house.project.root / "fresh.txt"
    path.write_text("new")
    at = time.time() - seconds_ago
    os.utime(path, (at, at))


@pytest.mark.parametrize(("ago", "moved"), [(1, True), (100, False), (-3600, False)])
def test_only_what_was_written_within_the_time_is_a_move(batch: Any, ago: float, moved: bool) -> None:
    """Minus an hour: written before the clock was set back by one."""
    _written(batch, ago)
    assert tree_moves(batch, 1)(30.0) is moved


def test_beside_another_agent_a_change_proves_nothing(batch: Any) -> None:
    _written(batch, 1)
    batch.trees[2] = None
    assert tree_moves(batch, 1)(30.0) is False
