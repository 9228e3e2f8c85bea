"""``run``: one batch in the terminal, without a web server."""

from __future__ import annotations

import logging
import os
import queue
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from .. import report, status_file
from ..errors import Conflict, SprintRunnerError, StoreUnavailable
from ..redact import CleanFormatter, secret_values
from ..runtime import Runtime
from ..store import BatchRow
from . import outcome
from .views import SilentView, View, choose, let_go_of_output

#: The picture's clock moves at least this often, in seconds.
_TICK = 0.25
#: The log is turned over at this size; one older file is kept.
_LOG_BYTES = 2 * 1024 * 1024
Size = int | Literal["all", "default"]
_Wish = Literal["look", "stop"]
_Inbox = queue.SimpleQueue[_Wish]


def run(root: Path, size: Size, keys: Sequence[str], agent: str | None, as_json: bool) -> int:
    """Carry out one batch of ``size`` cycles and return the exit status.

    Raises the Refused family for what a person can put right: a held project, an unknown story, a dirty tree.
    """
    inbox: _Inbox = queue.SimpleQueue()
    with _signals(inbox):
        runtime = Runtime.open(root, {"agent": agent} if agent else {})
        _log_to(runtime.state_dir / "run.log")
        try:
            return _Run(runtime, inbox, choose(as_json)).carry_out(size, keys)
        finally:
            runtime.stop("run has ended")


def _log_to(path: Path) -> None:
    """Send the log to a file: on the terminal it would tear the picture, in a pipe it would be no event."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    handler = RotatingFileHandler(
        path, maxBytes=_LOG_BYTES, backupCount=1, encoding="utf-8", errors="replace"
    )
    handler.setFormatter(CleanFormatter(secret_values(os.environ)))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


@contextmanager
def _signals(inbox: _Inbox) -> Iterator[None]:
    """Turn Ctrl-C, SIGTERM and a lost terminal into wishes to stop."""

    def ask(number: int, frame: FrameType | None) -> None:
        # A SimpleQueue may be filled from a signal handler; a lock or an Event may not.
        inbox.put("stop")

    # nohup sets SIGHUP to be ignored, and means it.
    wanted = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        wanted.append(signal.SIGHUP)
    before = {number: signal.signal(number, ask) for number in wanted}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Run:
    """One batch from its start to its report."""

    def __init__(self, runtime: Runtime, inbox: _Inbox, view: View) -> None:
        self._runtime = runtime
        self._inbox = inbox
        self._view = view
        self._stopping = False
        self._cursor = 0
        self._trouble = ""

    def carry_out(self, size: Size, keys: Sequence[str]) -> int:
        """Start the batch, follow it to its end, and return the exit status."""
        store = self._runtime.store
        store.listen(lambda: self._inbox.put("look"))
        self._cursor = store.last_event_id()
        self._runtime.start()
        batch_id = self._begin(self._cycles(size), keys)
        with self._view:
            batch = self._follow(batch_id)
            self._guarded(self._view.summary, report.lines(report.build(store, batch_id)))
        return outcome.exit_status(batch.status, self._statuses(batch_id, keys).items(), keys)

    def _cycles(self, size: Size) -> int | None:
        """The number of cycles to ask for; None is as many as it takes."""
        if size == "default":
            return self._runtime.layers().values.default_max_cycles
        return None if size == "all" else size

    def _begin(self, size: int | None, keys: Sequence[str]) -> int:
        """Start the batch and return its id, or the id of one that a crash cut off: it goes on by itself."""
        cut_off = self._runtime.store.live_batch()
        if cut_off is not None:
            self._view.note(f"Batch {cut_off.id} was cut off and goes on first; run again for a new one.")
            return cut_off.id
        answer = self._runtime.submit("start", {"batch_size": size, "stories": list(keys) or None})
        return int(answer["batch_id"])

    def _follow(self, batch_id: int) -> BatchRow:
        while True:
            # In this order: what is ended while nobody is busy with it stays so.
            busy = self._runtime.busy()
            batch = self._look(batch_id)
            if batch is not None and batch.ended_at is not None and not busy:
                return batch
            if not self._runtime.alive():
                raise SprintRunnerError("The orchestrator has ended; run.log in the state folder says why.")
            self._wait()

    def _look(self, batch_id: int) -> BatchRow | None:
        """Show what is new; None, said once, while the database cannot be read."""
        store = self._runtime.store
        try:
            # The end of a batch and its event are one transaction: read in this order, no event is missed.
            batch = store.batch(batch_id)
            self._deliver()
            self._guarded(self._view.tick, store, batch_id)
            trouble = store.trouble
        except StoreUnavailable as error:
            batch, trouble = None, error.sentence
        if trouble and trouble != self._trouble:
            self._guarded(self._view.note, trouble)
        self._trouble = trouble
        return batch

    def _deliver(self) -> None:
        while events := self._runtime.store.events_after(self._cursor):
            for event in events:
                self._guarded(self._view.event, event)
            self._cursor = events[-1].id

    def _guarded(self, show: Any, *arguments: Any) -> None:
        """Show something; when the reader has gone, stop as if asked to: nobody watches the money now."""
        try:
            show(*arguments)
        except BrokenPipeError:
            let_go_of_output()
            self._view = SilentView(sys.stderr)
            self._stop()

    def _wait(self) -> None:
        try:
            wish = self._inbox.get(timeout=_TICK)
            while wish != "stop":
                wish = self._inbox.get_nowait()
        except queue.Empty:
            return
        self._stop()

    def _stop(self) -> None:
        if self._stopping:
            self._guarded(self._view.note, "Already stopping; the agents get a moment to end.")
            return
        self._stopping = True
        self._guarded(self._view.note, "Stopping: the agents are being ended, nothing is committed.")
        try:
            self._runtime.submit("stop", {"after_story": False})
        except Conflict:
            # It ended by itself between the wish and the request.
            return

    def _statuses(self, batch_id: int, keys: Sequence[str]) -> Mapping[str, str]:
        """Every story of the batch with its status, and those asked for by name as the file has them."""
        taken = {row.story_key: str(row.status) for row in self._runtime.store.stories(batch_id)}
        missing = [key for key in keys if key not in taken]
        if not missing:
            return taken
        project = self._runtime.project
        found = status_file.read(project.status_path, project.root)
        entries = {key: found.entry(key) for key in missing}
        return taken | {key: str(entry.status) for key, entry in entries.items() if entry is not None}
