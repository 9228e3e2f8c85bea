"""Talking agents under the product's own supervision, recorded as the orchestrator records them."""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sprintrunner.agents import by_name
from sprintrunner.git import Git
from sprintrunner.orchestrator.house import Batch, House, Story
from sprintrunner.orchestrator.orders import Order
from sprintrunner.orchestrator.records import Records
from sprintrunner.orchestrator.trees import AgentTree, Tree
from sprintrunner.process import Limits, Spec
from sprintrunner.services import Services
from sprintrunner.sprint import Command, StoryStatus

TALKER = Path(__file__).with_name("talker.py")
_LIMITS = Limits(wall=600, idle=600, after_result=5, grace=1)


def supervise(services: Services, count: int, seconds: int) -> None:
    """Run ``count`` agents for so many seconds, each through shim, transcript, watcher, loop and store."""
    asyncio.run(_supervise(services, count, seconds))


async def _supervise(services: Services, count: int, seconds: int) -> None:
    state = services.state_dir
    for name in ("transcripts", "runs"):
        (state / name).mkdir(exist_ok=True)
    house = House(services.project, state, services.store, Git(services.project.root), {})
    row = services.store.live_batch()
    assert row is not None
    batch = Batch(house, row, ThreadPoolExecutor(4))
    running = services.store.running_commands()[:count]
    await asyncio.gather(*(_run(batch, command, seconds) for command in running))


async def _run(batch: Batch, row: Any, seconds: int) -> None:
    records, key = Records(batch), row.story_keys
    story = Story(row.story_id, key, "1", key, StoryStatus.IN_PROGRESS, Command.DEV_STORY, 0)
    order = Order(Command.DEV_STORY, [story])

    def emit(tree: Tree) -> None:
        seen = tree.activity
        records.progress(row.id, order, seen.message, model=seen.model, session=seen.session_id)

    joint = AgentTree(batch, row.id, by_name("claude").stream(None), emit, schema=False)
    supervised = joint.supervise(_spec(batch, row, seconds), _LIMITS, lambda _: None, lambda _: True)
    await batch.off(supervised.spawn)
    supervised.go()
    await joint.tree.ended


def _spec(batch: Batch, row: Any, seconds: int) -> Spec:
    state, name = batch.house.state_dir, f"{row.id}-{time.monotonic_ns()}"
    return Spec(
        argv=[sys.executable, "-I", "-S", str(TALKER), str(seconds), str(row.id)],
        cwd=batch.house.project.root,
        env={"PATH": "/usr/bin:/bin"},
        run_id=secrets.token_urlsafe(8),
        stdin_path=None,
        out_path=state / "transcripts" / f"{name}.jsonl",
        err_path=state / "runs" / f"{name}.stderr",
        exit_path=state / "runs" / f"{name}.exit",
    )
