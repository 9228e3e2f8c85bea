"""The thread: one event loop that owns all state; everyone else sends requests into it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from .. import agents
from ..agents import Capabilities
from ..errors import Conflict, SprintRunnerError, StoreUnavailable
from ..events import EventType
from ..inhibit import Inhibitor
from ..sprint import BatchState, BatchStatus
from ..store import BatchRow
from .batch import BatchRun
from .house import Batch, House
from .ownership import has_moved, newer_changes
from .requests import Requests

log = logging.getLogger(__name__)
T = TypeVar("T")

#: How long a request may wait for its answer, in seconds; git on a large tree may need some of it.
ANSWER_SECONDS = 30.0
#: Helpers for what may take over 100 ms: git, large files, hashing.
_HELPERS = 4
_BEAT_SECONDS = 5.0
#: Automatic resumes in a row without a new verdict, after which a person has to click.
MAX_RESUMES = 3


class Orchestrator:
    """Carries one batch at a time. Constructing starts nothing."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.batch: Batch | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._requests: Requests | None = None
        self._task: asyncio.Task[None] | None = None
        self._closing: asyncio.Event | None = None
        self._ready = threading.Event()
        self._probed: dict[str, Capabilities] = {}
        self._thread: threading.Thread | None = None

    def start(self, resume: BatchRow | None = None, why: str = "", sleep_until: int | None = None) -> None:
        """Start the thread; ``resume`` continues that batch at once, after ``sleep_until`` (ms) if given."""
        # Made here, not before: a Thread made before gunicorn's fork counts as stopped after it.
        self._pool = ThreadPoolExecutor(_HELPERS, thread_name_prefix="orchestrator-helper")
        self._thread = threading.Thread(target=self._run, name="orchestrator", daemon=True)
        self._thread.start()
        self._ready.wait()
        if resume is not None:
            self._call(self.reopen(resume, why, sleep_until=sleep_until))

    def alive(self) -> bool:
        """Whether the thread can still answer."""
        started = self._thread is not None and self._thread.is_alive()
        return started and self._loop is not None and self._loop.is_running()

    def busy(self) -> bool:
        """Whether a batch is worked on, one that will go on after its database's trouble included."""
        return self._task is not None and not self._task.done()

    def submit(self, action: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request from any thread and wait for its answer; raises the Refused family."""
        if not self.alive() or self._loop is None or self._requests is None:
            raise Conflict("The orchestrator is not running.")
        future = asyncio.run_coroutine_threadsafe(self._requests.answer(action, arguments), self._loop)
        try:
            return future.result(ANSWER_SECONDS)
        except concurrent.futures.TimeoutError:
            raise SprintRunnerError("The orchestrator did not answer in time.") from None

    def stop(self, patience: float = 60.0) -> None:
        """Ordered end: trees are ended, the batch becomes ``interrupted``, the thread ends. Repeatable."""
        if self._thread is None:
            return
        if self._thread.is_alive() and self._loop is not None and self._closing is not None:
            self._loop.call_soon_threadsafe(self._closing.set)
            self._thread.join(patience)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(work, self._loop).result(ANSWER_SECONDS)

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except Exception:
            log.exception("the orchestrator thread ended")
        finally:
            self._ready.set()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._closing = asyncio.Event()
        self._requests = Requests(self)
        self._ready.set()
        beat = asyncio.create_task(self._beat())
        await self._closing.wait()
        beat.cancel()
        await self._requests.close()
        # Anew each time: a batch that waited for the database may just have begun to go on.
        while self._task is not None and not self._task.done():
            if self.batch is not None:
                self.batch.ask_stop("shutdown")
            await asyncio.wait({self._task})

    async def _beat(self) -> None:
        """Note now and then that we live: after a crash the page can say when the server stopped."""
        while True:
            await asyncio.sleep(_BEAT_SECONDS)
            try:
                await self._look()
            except Exception:
                # It has to go on beating through a night, whatever one look met.
                log.exception("the sign of life failed")

    async def _look(self) -> None:
        if self.batch is not None:
            self._note_life(self.batch)
            await self._watch_disk(self.batch)
        elif self.house.store.trouble:
            with contextlib.suppress(SprintRunnerError, OSError):
                await self.off(self.house.store.put_back)
                await self.off(self.house.store.probe)

    async def _watch_disk(self, batch: Batch) -> None:
        with contextlib.suppress(OSError, SprintRunnerError):
            for sentence in await self.off(batch.seen.disk.look):
                batch.warn(sentence)

    def _note_life(self, batch: Batch) -> None:
        try:
            with self.house.store.transaction() as tx:
                tx.probe()  # the sign of life itself needs no room on a full disk
                tx.update_batch(batch.id, heartbeat_at=self.house.store.now())
        except StoreUnavailable as error:
            # An agent that says nothing would run on with nobody able to record it.
            batch.distrust(error)
        except SprintRunnerError:
            log.exception("the sign of life of batch %s was not recorded", batch.id)

    async def off(self, call: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run a call outside this thread and wait for it here."""
        assert self._loop is not None
        return await self._loop.run_in_executor(self._pool, lambda: call(*args, **kwargs))

    def probe(self, program: str) -> Capabilities:
        """What an installed agent says of itself now; the batch that starts keeps to it."""
        self._probed[program] = agents.probe(program, self.house.env)
        return self._probed[program]

    def launch(
        self,
        batch_id: int,
        *,
        resumed: bool = False,
        retry: tuple[str, str | None] | None = None,
        sleep_until: int | None = None,
    ) -> None:
        """Begin to work on a batch whose row is committed."""
        row = self.house.store.batch(batch_id)
        assert row is not None
        assert self._loop is not None
        batch = Batch(self.house, row, self._pool, anew=not resumed)
        batch.sleep_until = sleep_until
        batch.probed = dict(self._probed)
        batch.asked_first = retry
        self.batch = batch
        self._task = self._loop.create_task(self._carry(batch, resumed))

    async def _carry(self, batch: Batch, resumed: bool) -> None:
        awake = Inhibitor(self.house.env)
        try:
            await self.off(awake.start)
            await BatchRun(batch).run(resumed)
        except Exception:
            # BatchRun.run ends every batch itself; what still gets here must not take the thread along.
            log.exception("batch %s ended without a record", batch.id)
        finally:
            self.batch = None
            await self.off(awake.stop)
        if batch.trouble is not None:
            try:
                await self._go_on(batch.id, batch.trouble.sentence)
            except SprintRunnerError as error:
                log.error("batch %s waits for a person: %s", batch.id, error.sentence)

    async def _go_on(self, batch_id: int, trouble: str) -> None:
        """The database takes records again: what it cut off goes on, by the rules of a crash."""
        row = self.house.store.batch(batch_id)
        if row is None or row.status != BatchStatus.INTERRUPTED or (self._closing and self._closing.is_set()):
            return
        if self.house.layers().values.resume_after_crash != "auto" or row.resume_count >= MAX_RESUMES:
            return
        moved = await self.off(has_moved, self.house.git, row)
        if moved:
            with self.house.store.transaction() as tx:
                tx.update_batch(row.id, reason=f"Not resumed: {moved}")
        else:
            await self.reopen(row, f"Resumed, the database takes records again. {trouble}")

    async def reopen(
        self, row: BatchRow, why: str, *, by_person: bool = False, sleep_until: int | None = None
    ) -> None:
        """Make an interrupted batch the live one again, visibly, and go on."""
        store = self.house.store
        newer = await self.off(newer_changes, self.house, row)
        if self.batch is not None or store.live_batch() is not None:
            raise Conflict("A batch is already running for this project.")
        with store.transaction() as tx:
            tx.update_batch(
                row.id,
                status=BatchStatus.RUNNING,
                state=BatchState.RUNNING,
                ended_at=None,
                reason=None,
                stop_after_story=0,
                # A sleep that is not gone on with is over: there is nothing to wake from.
                resumes_at=sleep_until,
                limit_kind=row.limit_kind if sleep_until else None,
                dirty_paths=[*(row.dirty_paths or ()), *newer],
                # Only resumes without a person count against the limit.
                resume_count=0 if by_person else row.resume_count + 1,
            )
            warning = {"batch_id": row.id, "warning": why, "resumed": True}
            tx.append(EventType.BATCH_WARNING, warning, batch_id=row.id)
            if newer:
                text = f"Changed by someone else since then, never committed: {', '.join(newer[:5])}"
                tx.append(EventType.BATCH_WARNING, {"batch_id": row.id, "warning": text}, batch_id=row.id)
        self.launch(row.id, resumed=True, sleep_until=sleep_until)
