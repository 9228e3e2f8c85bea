"""Reviews of a document that run beside the work: on a copy, merged three-way when all is calm."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SprintRunnerError, StoreUnavailable
from ..sprint import Command
from ..workflow import DOCUMENT_REVIEWS
from .board import Board
from .house import Batch, Stopped, Story, keys_of
from .orders import Order, artefact, story_path

if TYPE_CHECKING:
    from .runner import Runner

log = logging.getLogger(__name__)


async def review_in_background(
    batch: Batch,
    board: Board,
    runner: Runner,
    command: Command,
    stories: Sequence[Story],
    cycle: int,
    kind: str,
) -> None:
    """Reviews 2 and 3 with the cheap model, only while there is something left to fix.

    Never raises: what goes wrong here is a warning, the work itself goes on.
    """
    try:
        task_id = open_task(batch, command, stories)
        status = await _reviews(batch, board, runner, command, stories, cycle, kind)
        close_task(batch, task_id, status)
    except StoreUnavailable as error:
        batch.distrust(error)


async def _reviews(
    batch: Batch,
    board: Board,
    runner: Runner,
    command: Command,
    stories: Sequence[Story],
    cycle: int,
    kind: str,
) -> str:
    """How the reviews ended, in the word that the record keeps."""
    status = "succeeded"
    try:
        for number in range(2, DOCUMENT_REVIEWS + 1):
            if not await _one_review(batch, runner, command, stories, cycle, kind, number):
                break
    except Stopped:
        status = "interrupted" if batch.stop_asked == "shutdown" else "stopped"
    except StoreUnavailable:
        raise
    except SprintRunnerError as error:
        status = "failed"
        batch.warn(f"The background {command} ended: {error.sentence}", command=str(command))
    except Exception:
        status = "failed"
        log.exception("background %s of batch %s failed", command, batch.id)
        batch.warn(f"The background {command} failed; the log has the details.", command=str(command))
    return status


def open_task(batch: Batch, command: Command, stories: Sequence[Story]) -> int:
    """Record that work began beside the stories; return the row's id."""
    store = batch.house.store
    with store.transaction() as tx:
        return tx.insert_background_task(
            batch_id=batch.id,
            story_key=keys_of(stories),
            task_type=str(command),
            spawned_at=store.now(),
            status="running",
        )


def close_task(batch: Batch, task_id: int, status: str) -> None:
    """Record how work beside the stories ended."""
    with batch.house.store.transaction() as tx:
        tx.update_background_task(task_id, status=status, completed_at=batch.house.store.now())


async def _one_review(
    batch: Batch,
    runner: Runner,
    command: Command,
    stories: Sequence[Story],
    cycle: int,
    kind: str,
    number: int,
) -> bool:
    """Review copies once; return whether critical issues were found again."""
    from .documents import close_review, judge_review

    folder = batch.folder / "background" / f"{command}-{stories[0].row_id}-{number}"
    originals = {s.key: _original(batch, s.key, kind) for s in stories}
    copies = await batch.off(_copy, folder, originals)
    order = Order(
        command,
        stories,
        cheap=True,
        background=True,
        max_attempts=DOCUMENT_REVIEWS,
        cycle=cycle,
        documents={(key, kind): path for key, path in copies.items()},
    )
    ended = await runner.run(order)
    critical, failure = judge_review(ended)
    close_review(runner, ended, failure)
    if not failure:
        async with batch.undisturbed():
            for key, copy in copies.items():
                await batch.off(_merge, batch, originals[key], folder / "base" / copy.name, copy)
    return critical and not failure


def _original(batch: Batch, key: str, kind: str) -> Path:
    return story_path(batch, key) if kind == "story" else artefact(batch, key, kind)


def _copy(folder: Path, originals: dict[str, Path]) -> dict[str, Path]:
    (folder / "base").mkdir(parents=True, exist_ok=True, mode=0o700)
    copies: dict[str, Path] = {}
    for key, path in originals.items():
        shutil.copyfile(path, folder / "base" / path.name)
        shutil.copyfile(path, folder / path.name)
        copies[key] = folder / path.name
    return copies


def _merge(batch: Batch, current: Path, base: Path, copy: Path) -> None:
    """Take over what the review changed; on conflict the project's text stays."""
    if not current.is_file() or copy.read_bytes() == base.read_bytes():
        return
    done = batch.house.git.run("merge-file", "-p", str(current), str(base), str(copy), check=False)
    if done.returncode == 0:
        current.write_bytes(done.stdout)
    else:
        batch.warn(
            f"{current.name}: a background review's changes conflict with newer ones; the file was kept."
        )
