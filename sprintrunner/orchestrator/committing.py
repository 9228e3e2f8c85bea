"""Step 6 of the workflow: the commit of a cycle's done stories, in an order that survives a kill."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from ..agents import AgentResult, Outcome
from ..errors import GitError
from ..process import Exit
from ..sprint import Command, CommandStatus, StoryStatus
from .blocking import companions
from .board import Board
from .house import Batch, Story, StoryOver
from .orders import Order
from .ownership import detached_ref, hashes, nested_repositories
from .records import Ended
from .runner import Runner


def message_for(batch_id: int, stories: Sequence[Story]) -> str:
    """The commit message with its trailers, by which a commit of ours is found again."""
    keys = [_plain(story.key) for story in stories]
    trailers = [f"Sprint-Batch: {batch_id}", *(f"Sprint-Story: {key}" for key in keys)]
    return (
        f"feat({_plain(stories[0].epic)}): implement stories {', '.join(keys)}\n\n"
        + "\n".join(trailers)
        + "\n"
    )


def _plain(text: str) -> str:
    return " ".join(text.split())


class Committing:
    """Commits what the done stories of a cycle changed, and nothing that was dirty before."""

    def __init__(self, batch: Batch, board: Board, runner: Runner) -> None:
        self.batch = batch
        self.board = board
        self.runner = runner

    async def commit(self, stories: Sequence[Story], cycle: int, old: Mapping[str, str]) -> None:
        """Commit and mark done, or block. ``old``: what was dirty before this cycle and ours, with hashes."""
        if not stories:
            return
        await self.batch.settle()
        how = self.batch.layers().values.commit
        if how == "off":
            await self._mark_done(stories, None, "commit is off")
            return
        found = await self.batch.off(self._cut_off, stories)
        if found:
            await self._mark_done(stories, found, "found after an interruption")
            return
        ended = await (self._by_agent(stories, cycle) if how == "agent" else self._open(stories, cycle))
        if ended is not None:
            await self._carry(ended, stories, old)

    def _cut_off(self, stories: Sequence[Story]) -> str | None:
        """The commit of these stories that was made but not recorded: its row was begun and not done."""
        begun = [
            row.started_at
            for row in self.batch.house.store.commands_of_story(stories[0].key)
            if row.command == Command.COMMIT
            and row.batch_id == self.batch.id
            and row.started_at >= stories[0].since
            and row.status != CommandStatus.SUCCEEDED
        ]
        if not begun:
            return None
        git, since = self.batch.house.git, min(begun)
        found = [git.find_commit(self.batch.id, _plain(story.key), since) for story in stories]
        return found[0] if all(found) else None

    async def _open(self, stories: Sequence[Story], cycle: int) -> Ended:
        """The row of a builtin commit: no process, we do it ourselves."""
        order = Order(Command.COMMIT, stories, cycle=cycle)
        command_id, attempt = self.runner.open_own(order)
        now = self.batch.house.store.now()
        exit_ = Exit(0, None, "itself", "", 0, False, now, now, 0.0, None)
        result = AgentResult(outcome=Outcome.SUCCESS, reason="")
        return Ended(command_id, attempt, order, result, exit_, CommandStatus.SUCCEEDED, "")

    async def _by_agent(self, stories: Sequence[Story], cycle: int) -> Ended | None:
        try:
            ended = await self.runner.run(Order(Command.COMMIT, stories, cycle=cycle))
        except StoryOver as over:
            await self._block(stories, over.sentence)
            return None
        if ended.succeeded:
            return ended
        self.runner.close(ended, ended.status, ended.reason)
        await self._block(stories, f"the commit agent failed: {ended.reason}")
        return None

    async def _carry(self, ended: Ended, stories: Sequence[Story], old: Mapping[str, str]) -> None:
        """Lines say done, then commit, then reachable, then the records say done."""
        started = self.batch.house.store.now()
        await self._say(stories, StoryStatus.DONE)
        try:
            branch = await self.batch.off(self.batch.house.git.branch)
            if branch != self.batch.base_branch:
                raise GitError(
                    f"the branch is {branch or 'detached'} now, "
                    f"the batch began on {self.batch.base_branch or 'a detached HEAD'}"
                )
            async with self.batch.undisturbed():
                await self._stop_instead(stories)
                sha = await self.batch.off(self._commit, stories, old)
            if not await self.batch.off(self.batch.house.git.reachable, sha):
                raise GitError(f"commit {sha[:9]} is not reachable from HEAD")
        except GitError as error:
            await self._stop_instead(stories)
            await self._failed(ended, stories, error.sentence)
            return
        except Exception:
            # Whatever it was: no line may say done of what no commit holds.
            await self._say(stories, StoryStatus.REVIEW)
            raise
        took = self.batch.house.store.now() - started
        self._close(
            ended, CommandStatus.SUCCEEDED, f"committed {sha[:9]}", took, {"commit": sha, "reachable": True}
        )
        await self._mark_done(stories, sha, "")

    async def _stop_instead(self, stories: Sequence[Story]) -> None:
        """A stop that was asked meanwhile commits nothing (R8): the lines go back, then Stopped is raised."""
        if self.batch.stop_event.is_set():
            await self._say(stories, StoryStatus.REVIEW)
            self.batch.check()

    async def _say(self, stories: Sequence[Story], status: StoryStatus) -> None:
        """Set the lines of the stories, in the status file and in their own files where they have one."""
        for story in stories:
            await self.board.write_back(story.key, status)
            await self.board.set_story_line(story, status)

    async def _failed(self, ended: Ended, stories: Sequence[Story], why: str) -> None:
        await self._say(stories, StoryStatus.REVIEW)
        self._close(ended, CommandStatus.FAILED, why, 0, {})
        await self._block(stories, f"The commit failed: {why}")

    async def _block(self, stories: Sequence[Story], reason: str) -> None:
        for story in stories:
            # The changes stay in the tree: they are reviewed work that only lacks its commit. Taken out,
            # the work of both would be kept with the first, and a retry of the second commit nothing.
            await self.board.set_status(story, StoryStatus.BLOCKED, reason=reason, acknowledged=0)

    def _close(
        self, ended: Ended, status: CommandStatus, reason: str, took: int, evidence: dict[str, Any]
    ) -> None:
        if ended.exit.seconds == 0.0:
            stamp = ended.exit
            timed = Exit(
                0, None, "itself", "", 0, False, stamp.started_at, stamp.started_at + took, took / 1000, None
            )
            ended = Ended(ended.command_id, ended.attempt, ended.order, ended.result, timed, status, reason)
        self.runner.close(ended, status, reason, evidence=evidence)

    def _commit(self, stories: Sequence[Story], old: Mapping[str, str]) -> str:
        git, project = self.batch.house.git, self.batch.house.project
        message = message_for(self.batch.id, stories)
        now = hashes(project.root, old)
        keep_out = set(self.batch.dirty_before) | {path for path in old if old[path] == now[path]}
        done = {story.key for story in stories}
        for key in self.batch.stories:
            if key not in done:
                keep_out |= companions(project, key)
        dirty = git.dirty()
        nested = set(nested_repositories(dirty)) - keep_out
        if nested:
            named = ", ".join(sorted(nested)[:5])
            self.batch.warn(f"Left out of the commit, a git repository of its own: {named}")
        paths = [path for path in dirty if path not in keep_out | nested]
        if said := git.clear_stale_lock(needed=True):
            self.batch.warn(said)
        # The agent committed by itself, or nothing was left: the trailers still get their commit.
        since = min(story.since for story in stories)
        sha = (
            (git.commit(message, paths, self.batch.house.lock_fd) if paths else None)
            or git.find_commit(self.batch.id, _plain(stories[0].key), since)
            or git.commit_empty(message)
        )
        if self.batch.base_branch is None:
            # On no branch: the next checkout would leave it to git's garbage collection.
            git.run("update-ref", detached_ref(self.batch.id), sha)
        return sha

    async def _mark_done(self, stories: Sequence[Story], sha: str | None, note: str) -> None:
        for story in stories:
            if sha is None:  # else its line was set before the commit, and is part of it
                await self.board.set_story_line(story, StoryStatus.DONE)
            story.evidence |= {"commit": sha, "commit_note": note}
            story.commit_sha = sha
            await self.board.set_status(
                story, StoryStatus.DONE, commit_sha=sha, evidence=story.evidence, retry_phase=None
            )
        if self.batch.layers().values.archive:
            await self.batch.off(self._archive, stories)

    def _archive(self, stories: Sequence[Story]) -> None:
        project = self.batch.house.project
        target = project.implementation / "archived-artifacts"
        for path in (project.root / name for story in stories for name in companions(project, story.key)):
            if path.is_file():
                target.mkdir(exist_ok=True)
                shutil.move(path, target / path.name)
