"""Steps 2 and 3 of the workflow: create, discovery, tech spec, and the reviews of these documents."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .. import project
from ..sprint import Command, CommandStatus, StoryStatus
from ..store import CommandRow
from ..verdict import InvalidVerdict, read_critical, read_tech_spec_decisions
from ..workflow import PHASES, reaches
from .background import review_in_background
from .blocking import Blocking
from .board import Board
from .house import Batch, Story, StoryOver
from .orders import Order, artefact, read_document, story_path
from .planning import UNANSWERED
from .records import Ended
from .runner import Runner

_CUT_OFF = (CommandStatus.INTERRUPTED, CommandStatus.LIMITED, CommandStatus.TIMED_OUT)


class Documents:
    """Writes and reviews the documents of a cycle's stories."""

    def __init__(self, batch: Batch, board: Board, runner: Runner, blocking: Blocking) -> None:
        self.batch = batch
        self.board = board
        self.runner = runner
        self.blocking = blocking

    async def create(self, stories: Sequence[Story], cycle: int) -> None:
        """create-story and discovery side by side, then the review of what was written."""
        outcomes = await asyncio.gather(
            self._create_stories(stories, cycle), self._discover(stories, cycle), return_exceptions=True
        )
        for outcome in outcomes:
            if isinstance(outcome, StoryOver):
                await self.blocking.give_up(stories, outcome)
            elif isinstance(outcome, BaseException):
                raise outcome
        alive = [story for story in stories if not story.settled]
        await self._review(Command.STORY_REVIEW, alive, cycle, "story")

    async def _create_stories(self, stories: Sequence[Story], cycle: int) -> None:
        pending = [story for story in stories if self._meets(Command.CREATE_STORY, story)]
        pending = [story for story in pending if not self.runner_has(Command.CREATE_STORY, story)]
        failure = self._failure_before(Command.CREATE_STORY, pending)
        tries = PHASES[Command.CREATE_STORY].tries or 1
        while pending and self.tries(Command.CREATE_STORY, pending[0]) < tries:
            order = Order(Command.CREATE_STORY, pending, failure=failure, max_attempts=tries, cycle=cycle)
            ended = await self.runner.run(order)
            await self.board.reconcile()
            faults = await self.batch.off(self._story_faults, pending, ended)
            failure = "; ".join(faults.values()) if ended.succeeded else ended.reason
            good = [story for story in pending if story.key not in faults] if ended.succeeded else []
            self._close(ended, failure, good)
            for story in good:
                await self._created(story, ended)
            pending = [story for story in pending if story not in good]
        for story in pending:
            await self.blocking.block(
                story, f"create-story failed {tries} times: {failure or 'no story file'}"
            )

    def _close(self, ended: Ended, failure: str, good: Sequence[Story]) -> None:
        done = ended.succeeded and not failure
        status = (
            CommandStatus.SUCCEEDED if done else ended.status if not ended.succeeded else CommandStatus.FAILED
        )
        written = {"written": [story.key for story in good], "agent": str(ended.result.outcome)}
        self.runner.close(
            ended, status, failure or ended.reason, verdict=ended.result.structured, evidence=written
        )

    async def _created(self, story: Story, ended: Ended) -> None:
        decision = read_tech_spec_decisions(ended.result.structured, [story.key]).get(story.key)
        if not self.batch.pipeline.runs(Command.CREATE_TECH_SPEC):
            decision = "SKIP"
        if decision is None:
            self.batch.warn(f"create-story made no tech spec decision for {story.key}; taken as REQUIRED.")
        story.tech_spec, story.created_by_us = decision or "REQUIRED", True
        await self.board.set_status(
            story, StoryStatus.READY_FOR_DEV, tech_spec=story.tech_spec, created_by_us=1
        )

    def _story_faults(self, stories: Sequence[Story], ended: Ended) -> dict[str, str]:
        """Per key what its file lacks: written by this command, a criterion, a task box."""
        faults: dict[str, str] = {}
        for story in stories:
            path = story_path(self.batch, story.key)
            outline = project.story_outline(read_document(self.batch, path))
            if not self._written_by(ended, story, path):
                faults[story.key] = f"{path.name} was not written"
            elif not outline.criteria:
                faults[story.key] = f"{path.name} has no acceptance criterion"
            elif not outline.tasks:
                faults[story.key] = f"{path.name} has no task box"
        return faults

    async def _discover(self, stories: Sequence[Story], cycle: int) -> None:
        command = Command.CREATE_STORY_DISCOVERY
        missing = [s for s in stories if self._meets(command, s) and not self.runner_has(command, s)]
        await self._written(command, missing, cycle, "discovery")

    async def tech_spec(self, story: Story, cycle: int) -> None:
        """The tech spec where one is REQUIRED, and its review."""
        wanted = story.tech_spec == "REQUIRED" and story.created_by_us
        if not wanted or not self.batch.pipeline.runs(Command.CREATE_TECH_SPEC):
            return
        if reaches(story.phase, Command.CREATE_TECH_SPEC) and not self.runner_has(
            Command.CREATE_TECH_SPEC, story
        ):
            failure = await self._written(Command.CREATE_TECH_SPEC, [story], cycle, "tech-spec")
            if failure:
                tries = PHASES[Command.CREATE_TECH_SPEC].tries
                await self.blocking.block(story, f"create-tech-spec failed {tries} times: {failure}")
                return
        if reaches(story.phase, Command.TECH_SPEC_REVIEW):
            await self._review(Command.TECH_SPEC_REVIEW, [story], cycle, "tech-spec")

    async def _written(self, command: Command, stories: Sequence[Story], cycle: int, kind: str) -> str:
        """Run a command until it has written a document per story; return why not, after its last try."""
        pending, tries = list(stories), PHASES[command].tries or 1
        failure = self._failure_before(command, pending)
        while pending and self.tries(command, pending[0]) < tries:
            order = Order(command, pending, failure=failure, max_attempts=tries, cycle=cycle)
            ended = await self.runner.run(order)
            if command is not Command.CREATE_STORY_DISCOVERY:
                await self.board.reconcile()
            good = [s for s in pending if self._written_by(ended, s, artefact(self.batch, s.key, kind))]
            good = good if ended.succeeded else []
            lacking = [s for s in pending if s not in good]
            failure = ""
            if lacking:
                names = ", ".join(artefact(self.batch, s.key, kind).name for s in lacking)
                failure = f"{names} was not written" if ended.succeeded else ended.reason
            self._close(ended, failure, good)
            pending = lacking
        if pending and not PHASES[command].fatal:
            self.batch.warn(f"{command} failed {tries} times, going on without: {failure}")
        return failure if pending else ""

    async def _review(self, command: Command, stories: Sequence[Story], cycle: int, kind: str) -> None:
        """The first review is waited for; critical issues cause up to two more in the background."""
        left = [s for s in stories if self._meets(command, s) and not self.runner_has(command, s)]
        if not left:
            return
        tries, failure = PHASES[command].tries or 1, self._failure_before(command, left)
        while self.tries(command, left[0]) < tries:
            order = Order(command, left, failure=failure, max_attempts=3, cycle=cycle)
            ended = await self.runner.run(order)
            await self.board.reconcile()
            critical, failure = judge_review(ended)
            close_review(self.runner, ended, failure)
            if not failure:
                if critical:
                    self._spawn_background(command, left, cycle, kind)
                return
        self.batch.warn(f"{command} failed {tries} times, going on without: {failure}")

    def _spawn_background(self, command: Command, stories: Sequence[Story], cycle: int, kind: str) -> None:
        job = review_in_background(self.batch, self.board, self.runner, command, stories, cycle, kind)
        task = asyncio.get_running_loop().create_task(job)
        self.batch.background.add(task)
        task.add_done_callback(self.batch.background.discard)

    def _meets(self, command: Command, story: Story) -> bool:
        """Whether the pipeline has the command, and the story still has it before it."""
        return self.batch.pipeline.runs(command) and reaches(story.phase, command)

    def _written_by(self, ended: Ended, story: Story, path: Path) -> bool:
        """Whether the file was written since the command began, attempts that were cut off included.

        By time, not by content: an attempt that goes on after a crash may find its own work done.
        """
        ran = self.rows(ended.order.command, story)
        rows = [r for r in ran if r.status in _CUT_OFF or (r.outcome == UNANSWERED and not r.counted)]
        own = self.batch.house.store.command(ended.command_id)
        began = min([r.started_at for r in rows] + [own.started_at if own else ended.exit.started_at])
        try:
            found = path.stat()
        except OSError:
            return False
        return found.st_size > 0 and found.st_mtime_ns // 1_000_000 >= began

    def rows(self, command: Command, story: Story) -> list[CommandRow]:
        """The runs of a command in this batch since the story began or was retried, oldest first."""
        rows = self.batch.house.store.commands_of_story(story.key)
        return [
            r
            for r in rows
            if r.batch_id == self.batch.id and r.command == command and r.started_at >= story.since
        ]

    def runner_has(self, command: Command, story: Story) -> bool:
        """Whether this batch recorded a success of the command for the story: it never runs again (R6)."""
        rows = self.rows(command, story)
        return any(r.status == CommandStatus.SUCCEEDED for r in rows) or any(
            story.key in (r.evidence or {}).get("written", ()) for r in rows
        )

    def _failure_before(self, command: Command, stories: Sequence[Story]) -> str:
        """Why the last attempt failed, where a restart came after it; the last try may be used up by then."""
        ended = [r for r in self.rows(command, stories[0]) if r.counted and r.ended_at] if stories else []
        return (ended[-1].reason or "no reason was recorded") if ended else ""

    def tries(self, command: Command, story: Story) -> int:
        """Counted attempts of a command since the story began or was retried."""
        rows = self.rows(command, story)
        return sum(
            1 for r in rows if r.counted and r.status not in (CommandStatus.RUNNING, CommandStatus.SUCCEEDED)
        )


def judge_review(ended: Ended) -> tuple[bool, str]:
    """Whether a document review found critical issues, and why it is not a review (empty when it is)."""
    if not ended.succeeded:
        return False, ended.reason
    try:
        return read_critical(ended.result.structured), ""
    except InvalidVerdict as error:
        return False, f"not a review: {error}"


def close_review(
    runner: Runner, ended: Ended, failure: str, also: Callable[[Any], None] | None = None
) -> None:
    """Record the end of a document review."""
    failed = ended.status if not ended.succeeded else CommandStatus.FAILED
    status = failed if failure else CommandStatus.SUCCEEDED
    runner.close(ended, status, failure or ended.reason, verdict=ended.result.structured, also=also)
