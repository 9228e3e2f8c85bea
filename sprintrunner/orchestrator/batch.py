"""One batch from its start to its end: steps 0, 1 and 7 of the workflow, and the order of a cycle."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Sequence

from .. import agents, leftover, pipelines, project, scheduler, verify
from ..errors import SprintRunnerError, StoreError, StoreUnavailable
from ..events import EventType
from ..sprint import BatchState, BatchStatus, Command, CommandStatus, StoryStatus
from ..workflow import PHASES, STORY_COMMANDS
from .background import close_task, open_task
from .blocking import Blocking, is_artefact
from .board import Board
from .committing import Committing
from .developing import Developing
from .documents import Documents
from .house import Batch, BatchFailed, LimitReached, Stopped, Story, StoryOver
from .orders import Order, environment
from .ownership import changed_by_us, hashes
from .retrying import Retrying
from .runner import Runner
from .sleeping import finish_sleep
from .trees import run_plain

log = logging.getLogger(__name__)
_BEFORE_TECH_SPEC = STORY_COMMANDS[:3]
#: A database that does not take the end of a batch is asked again this often, in seconds.
_STORE_RETRY = 1.0


class BatchRun:
    """Carries one batch; its only public method never raises."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.store = batch.house.store
        self.board = Board(batch)
        self.runner = Runner(batch)
        self.blocking = Blocking(batch, self.board)
        self.retrying = Retrying(batch, self.board)
        self.documents = Documents(batch, self.board, self.runner, self.blocking)
        self.developing = Developing(batch, self.board, self.runner, self.blocking, self.documents)
        self.committing = Committing(batch, self.board, self.runner)

    async def run(self, resumed: bool) -> None:
        """Work until the batch ends, then record how."""
        status, reason = BatchStatus.FAILED, ""
        try:
            status, reason = await self._work(resumed)
        except Stopped:
            shutdown = self.batch.stop_asked == "shutdown"
            status = BatchStatus.INTERRUPTED if shutdown else BatchStatus.STOPPED
            reason = "the server was stopped" if shutdown else "stopped on request"
        except LimitReached as error:
            status, reason = BatchStatus.LIMIT, error.sentence
        except StoreUnavailable as error:
            self.batch.distrust(error)
            status, reason = BatchStatus.INTERRUPTED, error.sentence
        except SprintRunnerError as error:
            reason = error.sentence
            log.error("batch %s failed: %s", self.batch.id, reason)
        except Exception as error:
            reason = f"unexpected error: {type(error).__name__}: {error}"
            log.exception("batch %s failed", self.batch.id)
        await self._end(status, reason)

    async def _work(self, resumed: bool) -> tuple[BatchStatus, str]:
        batch = self.batch
        batch.check()
        if batch.asked_first is not None:
            batch.retries.add(*batch.asked_first)
        await batch.off(batch.freeze, not resumed)
        if said := await batch.off(batch.house.git.clear_stale_lock):
            batch.warn(said)
        batch.pipeline = await batch.off(
            pipelines.choose, batch.house.project, batch.layers().values.pipeline
        )
        if batch.sleep_until is not None:
            await finish_sleep(batch)
        if not resumed:
            await self._precheck()
        await self._project_context()
        await batch.off(self.board.freeze_context)
        batch.check()
        if batch.stop_asked is None:
            batch.set_state(BatchState.RUNNING)
        return await self._cycles()

    async def _precheck(self) -> None:
        """What already fails before anything was done is said, not blamed on a story later."""
        batch, values = self.batch, self.batch.layers().values
        if not values.verify:
            batch.warn("No verify command is set: stories will be done without being verified.")
        if advice := await batch.off(batch.pipeline.advice):
            batch.warn(advice)
        order, run_id = Order(Command.DEV_STORY, ()), secrets.token_urlsafe(24)
        env = environment(
            batch,
            order,
            command_id=0,
            attempt=0,
            run_id=run_id,
            adapter=agents.by_name(values.agent),
            values=values,
        )
        for number, command in enumerate(values.verify, 1):
            spec = verify.spec_for(
                command,
                root=batch.house.project.root,
                env=env,
                run_id=run_id,
                folder=batch.folder / "precheck",
                number=number,
                lock_fd=batch.house.lock_fd,
            )
            ended = await run_plain(
                batch, 0, spec, verify.limits_for(values.verify_timeout_minutes, values.stop_grace_seconds)
            )
            batch.check()
            done = await batch.off(verify.judge, command, spec, ended)
            if not done.ok:
                batch.warn(f"{command} fails already before the batch: {done.last_line}")

    async def _project_context(self) -> None:
        """Missing: make it and wait. Old: renew it beside the work. Fresh: nothing (workflow 0.3)."""
        path = project.context_file(self.batch.house.project)
        if not path.is_file():
            self._context_event(EventType.CONTEXT_CREATE, "start")
            told = "failed"
            try:
                told = "complete" if await self._make_context() else told
            finally:  # a stop or a limit too: what began has its end in the log
                self._context_event(EventType.CONTEXT_CREATE, told)
            return
        hours = self.batch.layers().values.project_context_max_age_hours
        if (self.store.now() / 1000 - path.stat().st_mtime) / 3600 > hours:
            task = asyncio.get_running_loop().create_task(self._refresh_context())
            self.batch.background.add(task)
            task.add_done_callback(self.batch.background.discard)

    def _context_event(self, kind: EventType, status: str) -> None:
        with self.store.transaction() as tx:
            task = str(Command.GENERATE_PROJECT_CONTEXT)
            tx.append(kind, {"status": status, "task_id": task}, batch_id=self.batch.id)

    async def _make_context(self, background: bool = False) -> bool:
        command = Command.GENERATE_PROJECT_CONTEXT
        tries, failure = PHASES[command].tries or 1, ""
        path = project.context_file(self.batch.house.project)
        for _ in range(tries):
            ended = await self.runner.run(
                Order(command, (), failure=failure, max_attempts=tries, background=background)
            )
            failure = (
                ended.reason
                if not ended.succeeded
                else ""
                if path.is_file()
                else f"{path.name} was not written"
            )
            failed = ended.status if not ended.succeeded else CommandStatus.FAILED
            self.runner.close(ended, failed if failure else CommandStatus.SUCCEEDED, failure or ended.reason)
            if not failure:
                return True
        self.batch.warn(f"{command} failed {tries} times, going on without: {failure}")
        return False

    async def _refresh_context(self) -> None:
        """Renew the project context beside the work; never raises what the batch could not survive."""
        try:
            task = open_task(self.batch, Command.GENERATE_PROJECT_CONTEXT, ())
            self._context_event(EventType.CONTEXT_REFRESH, "start")
            status = await self._renewed()
            close_task(self.batch, task, status)
            told = "complete" if status == "succeeded" else "failed"
            self._context_event(EventType.CONTEXT_COMPLETE, told)
        except StoreUnavailable as error:
            self.batch.distrust(error)

    async def _renewed(self) -> str:
        """How the renewal ended, in the word that the record keeps."""
        try:
            return "succeeded" if await self._make_context(background=True) else "failed"
        except Stopped:
            return "interrupted" if self.batch.stop_asked == "shutdown" else "stopped"
        except StoreUnavailable:
            raise
        except SprintRunnerError as error:
            self.batch.warn(f"The project context was not renewed: {error.sentence}")
            return "failed"

    async def _cycles(self) -> tuple[BatchStatus, str]:
        batch = self.batch
        while True:
            batch.check()
            stories, asked = await self.board.cut_off_picks(), False
            if not stories:
                await self.retrying.take(batch.retries)
                # Asked here: a retry that cannot go on, or a crash after the last cycle, brings no other.
                if not batch.retries and self._enough():
                    return BatchStatus.COMPLETED, ""
                stories, asked = await self.board.next_picks()
            if not stories:
                numbers = await self._numbers()
                if batch.retries:
                    continue  # asked for in the moment in which we looked
                return BatchStatus.ALL_DONE, numbers
            await self._cycle(stories, counted=not asked)
            if batch.stop_asked is not None:
                return BatchStatus.STOPPED, "stopped after the story"

    def _enough(self) -> bool:
        done, most = self.batch.completed, self.batch.max_cycles
        return bool(scheduler.after_cycle(stop_asked=False, limit=False, completed=done, max_cycles=most))

    async def _numbers(self) -> str:
        entries = (await self.board.read()).stories
        done = sum(1 for entry in entries if entry.status is StoryStatus.DONE)
        rows = self.store.stories(self.batch.id)
        blocked = {r.story_key for r in rows if r.status == StoryStatus.BLOCKED}
        blocked |= {entry.key for entry in entries if entry.status is StoryStatus.BLOCKED}
        held = sum(1 for e in entries if e.status_class == "held" and e.key not in blocked)
        return f"{done} of {len(entries)} stories done, {len(blocked)} blocked, {held} on hold"

    async def _cycle(self, stories: Sequence[Story], *, counted: bool) -> None:
        """Steps 2 to 6 for one or two stories of one epic."""
        number = self._open_cycle(stories)
        old = await self._old_paths(stories)
        for story in stories:
            await self.board.lift_epic(story)
        # A person may have called one done since it was chosen.
        creators = [story for story in stories if story.phase in _BEFORE_TECH_SPEC and not story.settled]
        if creators:
            with self.batch.at_work_on(creators):
                await self._within_budget(creators, self.documents.create(creators, number))
        for story in stories:
            if not story.settled:
                with self.batch.at_work_on([story]):
                    await self._within_budget([story], self.documents.tech_spec(story, number))
        finished, trouble = await self._develop(stories, number)
        with self.batch.at_work_on(finished):
            await self.committing.commit(finished, number, old)
        await self._close_cycle(stories, number, counted)
        if trouble is not None:
            raise trouble

    async def _develop(
        self, stories: Sequence[Story], number: int
    ) -> tuple[list[Story], SprintRunnerError | None]:
        """Depth first: each to its end before the next begins; return those that may be committed.

        Also what ends the batch in the second one, a limit say: the first is committed before it does.
        """
        finished: list[Story] = []
        for story in stories:
            if not story.settled:
                with self.batch.at_work_on([story, *finished]):
                    try:
                        if await self._within_budget([story], self._carried(story, number)):
                            finished.append(story)
                    except (LimitReached, BatchFailed) as trouble:
                        return finished, trouble
            if self.batch.stop_asked:
                break
        return finished, None

    async def _carried(self, story: Story, number: int) -> bool:
        passed = await self.developing.develop(story, number)
        story.must_go_on()
        return passed

    async def _within_budget(self, stories: Sequence[Story], work: Awaitable[bool | None]) -> bool:
        """Do the work; a story that has used up its own budget blocks, the others go on."""
        try:
            return bool(await work)
        except StoryOver as over:
            await self.blocking.give_up(stories, over)
            return False

    def _open_cycle(self, stories: Sequence[Story]) -> int:
        rows = {row.id: row for row in self.store.stories(self.batch.id)}
        begun = [c for story in stories if (c := rows[story.row_id].cycle) is not None]
        number = begun[0] if begun else 1 + max((row.cycle or 0 for row in rows.values()), default=0)
        with self.store.transaction() as tx:
            for story in stories:
                tx.update_story(story.row_id, cycle=number)
            tx.append(
                EventType.CYCLE_START,
                {"cycle_number": number, "story_keys": [story.key for story in stories]},
                batch_id=self.batch.id,
            )
        return number

    async def _old_paths(self, stories: Sequence[Story]) -> dict[str, str]:
        """Ours, dirty before this cycle, with hashes: work of other stories, unless these had begun it."""
        begun = [s for s in stories if s.status in (StoryStatus.IN_PROGRESS, StoryStatus.REVIEW)]
        if any(s.snapshot is None for s in begun):
            return {}
        return await self.batch.off(self._others_work, [s.snapshot for s in stories if s.snapshot])

    def _others_work(self, snapshots: Sequence[str]) -> dict[str, str]:
        """What is dirty and has not changed since any of the snapshots, with hashes."""
        house = self.batch.house
        now = house.git.snapshot() if snapshots else ""
        own = {path for before in snapshots for path in house.git.changed(before, now)}
        dirty = (path for path in house.git.dirty() if path not in own)
        return hashes(house.project.root, (p for p in dirty if not is_artefact(house.project, p)))

    async def _close_cycle(self, stories: Sequence[Story], number: int, counted: bool) -> None:
        settled = all(s.status in (StoryStatus.DONE, StoryStatus.BLOCKED) for s in stories)
        if settled and counted:
            self.batch.completed += 1
        done = [story.key for story in stories if story.status is StoryStatus.DONE]
        head = await self.batch.off(self.batch.house.git.head)
        with self.store.transaction() as tx:
            tx.update_batch(self.batch.id, cycles_completed=self.batch.completed, base_head=head)
            tx.append(
                EventType.CYCLE_END,
                {"cycle_number": number, "completed_stories": done},
                batch_id=self.batch.id,
            )

    async def _end(self, status: BatchStatus, reason: str) -> None:
        """End what runs, then record the end; a full disk is waited out, the record is not given up."""
        batch = self.batch
        batch.stop_event.set()
        if batch.stop_asked is None:
            batch.stop_asked = "ending"
        while batch.trees or batch.background:
            for tree in list(batch.trees.values()):
                tree.stop("stop")
            waits = [*batch.background, asyncio.ensure_future(asyncio.sleep(0.05))]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        left = await self._left()
        while True:
            try:
                said = await batch.off(self.store.put_back)
                record_end(batch, status, reason, left)
                if said:
                    batch.warn(said)
                return
            except (StoreError, OSError) as error:
                log.error("the end of batch %s cannot be recorded yet: %s", batch.id, error)
                if batch.stop_asked == "shutdown":
                    return  # the next start marks it interrupted
                await asyncio.sleep(_STORE_RETRY)
                if batch.stop_asked == "now" and status is BatchStatus.INTERRUPTED:
                    status, reason = BatchStatus.STOPPED, "stopped on request"

    async def _left(self) -> dict[str, str] | None:
        """What the batch leaves in the tree; None where nobody can tell, which must not keep it live."""
        try:
            return await self.batch.off(changed_by_us, self.batch.house, self.batch.dirty_before)
        except Exception:
            log.exception("what batch %s leaves in the tree is not known", self.batch.id)
            return None


def record_end(batch: Batch, status: BatchStatus, reason: str, left: dict[str, str] | None) -> None:
    """Close what is still open in the records and the batch itself, in one transaction."""
    store, reason = batch.house.store, batch.house.clean(reason)
    open_as = CommandStatus.INTERRUPTED if status is BatchStatus.INTERRUPTED else CommandStatus.STOPPED
    with store.transaction() as tx:
        for row in store.commands(batch.id):
            if row.status == CommandStatus.RUNNING:
                leftover.close(tx, row, open_as, reason or "the batch ended", store.now())
        for task in store.background_tasks(batch.id):
            if task.completed_at is None:
                tx.update_background_task(task.id, status=str(open_as), completed_at=store.now())
        ended: dict[str, object] = {"left_paths": left} if left is not None else {}
        tx.update_batch(
            batch.id,
            status=status,
            state=BatchState.ENDED,
            ended_at=store.now(),
            reason=reason or None,
            resumes_at=None,
            **ended,
        )
        for key in batch.retries if status is not BatchStatus.INTERRUPTED else ():
            told = f"{key} was to be retried, but the batch ended first; retry it again."
            tx.append(EventType.BATCH_WARNING, {"batch_id": batch.id, "warning": told}, batch_id=batch.id)
        if status is BatchStatus.FAILED:
            tx.append(EventType.ERROR, {"type": "batch", "message": reason}, batch_id=batch.id)
        tx.append(
            EventType.BATCH_END,
            {
                "batch_id": batch.id,
                "cycles_completed": batch.completed,
                "status": str(status),
                "reason": reason,
                "blocked": sum(row.status == StoryStatus.BLOCKED for row in store.stories(batch.id)),
            },
            batch_id=batch.id,
        )
