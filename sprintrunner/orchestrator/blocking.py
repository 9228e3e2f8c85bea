"""When a story blocks: its work is kept under a ref and leaves the tree; a retry puts it back."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from ..errors import Conflict, GitError
from ..git import Git
from ..project import Project, artefact
from ..sprint import StoryStatus
from ..store import StoryRow
from .board import Board
from .house import Batch, Story, StoryOver

_COMPANIONS = ("story", "discovery", "tech-spec")


def ref_name(batch_id: int, key: str) -> str:
    """Where a blocked story's work is kept; the key itself where git allows it in a ref."""
    plain = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", key)
    name = key if plain else "story-" + hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()[:16]
    return f"refs/sprintrunner/{batch_id}/{name}"


def is_artefact(project: Project, path: str) -> bool:
    """Whether a path (relative to the root) lies in the artefact folders or is the status file."""
    whole = project.root / path
    folders = (project.planning, project.implementation)
    return whole == project.status_path or any(whole.is_relative_to(folder) for folder in folders)


def companions(project: Project, key: str) -> set[str]:
    """The paths of a story's own documents, relative to the root."""
    paths = (artefact(project, key, kind) for kind in _COMPANIONS)
    return {path.relative_to(project.root).as_posix() for path in paths if path.is_relative_to(project.root)}


class Blocking:
    """Takes a story out of the way without losing anything of it."""

    def __init__(self, batch: Batch, board: Board) -> None:
        self.batch = batch
        self.board = board

    async def give_up(self, stories: Sequence[Story], over: StoryOver) -> None:
        """Block the one of these stories that cannot go on."""
        for story in stories:
            if story.key == over.key:
                await self.block(story, over.sentence)

    async def block(self, story: Story, reason: str) -> None:
        """Block the story with one sentence a person can act on."""
        ref = None
        if story.snapshot:
            await self.batch.settle()
            try:
                async with self.batch.undisturbed():
                    ref = await self.batch.off(self._keep, story, story.snapshot)
            except GitError as error:
                self.batch.warn(f"The work of {story.key} stays in the tree: {error.sentence}")
        await self.board.set_status(
            story, StoryStatus.BLOCKED, reason=reason, blocked_ref=ref, acknowledged=0
        )

    def _keep(self, story: Story, snapshot: str) -> str | None:
        house = self.batch.house
        now = house.git.snapshot()
        if self.batch.pipeline.wants_clean_tree:
            # What its agent committed stays: taking it back would leave a tree that nobody can work on.
            snapshot = house.git.head_tree()
        unsettled = self._unsettled()
        changed = [
            path
            for path in house.git.changed(snapshot, now)
            if path in unsettled
            and not is_artefact(house.project, path)
            and path not in self.batch.dirty_before
        ]
        if not changed:
            return None
        ref = ref_name(self.batch.id, story.key)
        house.git.keep(ref, snapshot, now, f"work on {story.key}, blocked in batch {self.batch.id}")
        house.git.put_back(snapshot, changed)
        return ref

    def _unsettled(self) -> set[str]:
        """Paths that differ from HEAD, or were committed within this cycle (by the agent itself).

        The rest of what changed since an old snapshot was committed for others and must stay.
        """
        git, row = self.batch.house.git, self.batch.house.store.batch(self.batch.id)
        base = row.base_head if row else None
        since = git.changed(base, git.head_tree()) if base else []
        return {*git.dirty(), *since}


def is_kept(git: Git, row: StoryRow) -> bool:
    """Whether the repository still holds the work of a blocked story."""
    found = git.run("rev-parse", "--verify", "-q", f"{row.blocked_ref}~1^{{tree}}", check=False)
    return found.returncode == 0


def restore(git: Git, project: Project, row: StoryRow) -> None:
    """Put a blocked story's work back into the tree; Conflict with one sentence when it no longer fits."""
    if not row.blocked_ref:
        return
    base = git.text("rev-parse", f"{row.blocked_ref}~1^{{tree}}")
    work = git.text("rev-parse", f"{row.blocked_ref}^{{tree}}")
    paths = [path for path in git.changed(base, work) if not is_artefact(project, path)]
    try:
        git.apply(git.patch(base, work, paths))
    except GitError as error:
        raise Conflict(
            f"The kept work of {row.story_key} ({row.blocked_ref}) no longer fits the tree: {error.sentence}"
        ) from error
