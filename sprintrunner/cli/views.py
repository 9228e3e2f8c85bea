"""The three ways ``run`` shows a batch: a live picture, plain lines, JSON lines."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TextIO

from ..events import Event
from ..terminal import printable
from . import lines

if TYPE_CHECKING:
    from rich.live import Live

    from ..store import Store


def let_go_of_output() -> None:
    """Send what is still to be written to nowhere: its reader has gone.

    The interpreter flushes standard output once more at its end, and turns a failure there into status 120.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


class View(AbstractContextManager["View"], Protocol):
    """Where a run is shown; a context manager, so that the terminal is given back in order."""

    def event(self, event: Event) -> None:
        """Show one recorded event."""

    def note(self, text: str) -> None:
        """Say something that is no event."""

    def tick(self, store: Store, batch_id: int) -> None:
        """Bring what moves by itself up to date; called at least every quarter of a second."""

    def summary(self, text: Sequence[str]) -> None:
        """Show the report after the end."""


class _Lines:
    """What the line-by-line views share."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        return None

    def tick(self, store: Store, batch_id: int) -> None:
        """Nothing moves between two lines."""

    def _say(self, line: str) -> None:
        # Flushed, because the reader of a pipe wants to see an event when it happens.
        print(line, file=self._out, flush=True)


class PlainView(_Lines):
    """One line of text an event that matters: for logs and pipes."""

    def event(self, event: Event) -> None:
        """Print the line of an event, if it has one."""
        if line := lines.of_event(event):
            self._say(line)

    def note(self, text: str) -> None:
        """Print a remark."""
        self._say(printable(text))

    def summary(self, text: Sequence[str]) -> None:
        """Print the report."""
        self._say("\n".join(["", *text]))


class JsonView(_Lines):
    """One JSON event a line, in the form of the API, and nothing else."""

    def event(self, event: Event) -> None:
        """Print the event."""
        self._say(json.dumps(event.as_json()))

    def note(self, text: str) -> None:
        """Remarks go to the other stream: this one holds events only."""
        print(printable(text), file=sys.stderr, flush=True)

    def summary(self, text: Sequence[str]) -> None:
        """A program asks for the report by ``report --json``."""


class SilentView(_Lines):
    """What is left of a view when its reader has gone."""

    def event(self, event: Event) -> None:
        """Nobody reads."""

    def note(self, text: str) -> None:
        """Nobody reads."""

    def summary(self, text: Sequence[str]) -> None:
        """Nobody reads."""


class LiveView:
    """The picture of the batch at the foot of the terminal; events that matter scroll by above it."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(highlight=False, markup=False, emoji=False)
        self._live: Live | None = None

    def __enter__(self) -> Self:
        from rich.live import Live

        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def event(self, event: Event) -> None:
        """Let the line of an event scroll by."""
        if line := lines.of_event(event):
            self._console.print(line, soft_wrap=True)

    def note(self, text: str) -> None:
        """Let a remark scroll by."""
        self._console.print(printable(text), soft_wrap=True)

    def tick(self, store: Store, batch_id: int) -> None:
        """Draw the picture anew."""
        from . import live

        snapshot = live.read(store, batch_id)
        if snapshot is not None and self._live is not None:
            self._live.update(live.render(snapshot, self._console), refresh=True)

    def summary(self, text: Sequence[str]) -> None:
        """Put the report where the picture was."""
        if self._live is not None:
            self._live.stop()
        self._console.print("\n".join(["", *text]), soft_wrap=True)


def choose(as_json: bool) -> View:
    """Return the view that fits where standard output goes."""
    if as_json:
        return JsonView(sys.stdout)
    if sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        return LiveView()
    return PlainView(sys.stdout)
