"""One supervised tree seen from the orchestrator: its exit as a future, its activity as messages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..agents import AgentResult, Retrying, SessionStarted, Stream, ToolStarted, describe
from ..process import Exit, Limits, Spec, Supervised
from .house import Batch

#: ``command:progress`` at most this often for one command; the newest message wins (contract section 5).
PROGRESS_SECONDS = 0.1


@dataclass
class Activity:
    """What the watcher thread saw last; written there, read in the orchestrator's thread."""

    message: str = ""
    session_id: str | None = None
    model: str | None = None
    #: True while a message to the orchestrator is under way: a flood costs one, not thousands.
    posted: bool = False


@dataclass
class Tree:
    """A running tree. ``ended`` resolves once with its exit, after every line was seen."""

    command_id: int
    ended: asyncio.Future[Exit]
    activity: Activity = field(default_factory=Activity)
    emitted_at: float = 0.0
    result: AgentResult | None = None


class AgentTree:
    """Connects a stream parser, a supervised process and the orchestrator's loop."""

    def __init__(
        self, batch: Batch, command_id: int, stream: Stream, emit: Callable[[Tree], None], *, schema: bool
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._batch = batch
        self._stream = stream
        self._emit = emit
        self._schema = schema
        self.tree = Tree(command_id, self._loop.create_future())
        self.supervised: Supervised | None = None

    def supervise(
        self, spec: Spec, limits: Limits, warn: Callable[[str], None], moves: Callable[[float], bool]
    ) -> Supervised:
        """Make the supervised process; nothing runs yet."""
        self.supervised = Supervised(
            spec,
            limits,
            on_lines=self._lines,
            on_exit=self._exit,
            on_warning=lambda text: self._post(lambda: warn(text)),
            moves=moves,
        )
        return self.supervised

    def _post(self, call: Callable[[], None]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call)

    def _lines(self, lines: Sequence[bytes]) -> None:
        activity = self.tree.activity
        news = False
        for line in lines:
            for event in self._stream.feed(line):
                if isinstance(event, ToolStarted):
                    activity.message = describe(event, self._batch.house.project.root)
                    news = True
                elif isinstance(event, SessionStarted):
                    activity.session_id, activity.model = event.session_id, event.model
                elif isinstance(event, Retrying) and event.hopeless and self.supervised:
                    # A refused key is retried for minutes by the CLI and can never succeed.
                    self.supervised.stop("hopeless")
        if self._stream.saw_result and self.supervised:
            self.supervised.saw_result()
        if news and not activity.posted:
            activity.posted = True
            self._post(self._progress)

    def _progress(self) -> None:
        wait = self.tree.emitted_at + PROGRESS_SECONDS - time.monotonic()
        if wait > 0:
            self._loop.call_later(wait, self._progress)
            return
        # Cleared before reading: what comes now posts anew, so the newest message is never lost.
        self.tree.activity.posted = False
        self.tree.emitted_at = time.monotonic()
        if not self.tree.ended.done():
            self._emit(self.tree)

    def _exit(self, ended: Exit) -> None:
        # A success whose process had to be ended after its result counts as exit status 0 (R10, A20).
        try:
            self.tree.result = self._stream.result(
                ended.code,
                ended.signal,
                ended.stderr_tail,
                self._schema,
                ended.ended_by in ("stop", "lifeline"),
                ended.ended_by == "after_result",
            )
        finally:  # a run that cannot be judged has ended all the same: the flow waits for that alone
            self._post(lambda: self._resolve(ended))

    def _resolve(self, ended: Exit) -> None:
        if not self.tree.ended.done():
            self.tree.ended.set_result(ended)


async def run_plain(batch: Batch, command_id: int, spec: Spec, limits: Limits) -> Exit:
    """Run one command that is not an agent (``verify``) under the shim, ended by Stop like any tree."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[Exit] = loop.create_future()

    def resolve(value: Exit) -> None:
        if not ended.done():
            ended.set_result(value)

    def told(value: Exit) -> None:
        loop.call_soon_threadsafe(resolve, value)

    tree = Supervised(
        spec,
        limits,
        on_lines=lambda _lines: None,
        on_exit=told,
        on_warning=lambda _text: None,
    )
    await batch.off(tree.spawn)
    batch.trees[command_id] = tree
    try:
        if batch.stop_event.is_set():
            tree.abandon()
        else:
            tree.go()
        return await ended
    finally:
        batch.trees.pop(command_id, None)
