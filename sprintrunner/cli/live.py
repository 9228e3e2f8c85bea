"""The live picture of a batch on a terminal: header, stories, running commands (rich)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..sprint import BatchState, CommandStatus, StoryStatus
from ..terminal import dollars, duration, printable
from .lines import clock

if TYPE_CHECKING:
    from ..store import BatchRow, CommandRow, Store, StoryRow, Totals

_STYLES = {
    StoryStatus.DONE: "green",
    StoryStatus.BLOCKED: "bold red",
    StoryStatus.IN_PROGRESS: "cyan",
    StoryStatus.REVIEW: "magenta",
    StoryStatus.READY_FOR_DEV: "blue",
}
#: Lines kept free for the header, the running commands and the shell's own prompt.
_RESERVED_LINES = 12


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that one picture shows, read from the store at one moment (``now`` in ms)."""

    batch: BatchRow
    stories: Sequence[StoryRow]
    running: Sequence[CommandRow]
    totals: Totals
    now: int


def read(store: Store, batch_id: int) -> Snapshot | None:
    """Return the state of a batch now, or None where the store does not know it."""
    batch = store.batch(batch_id)
    if batch is None:
        return None
    running = [row for row in store.running_commands() if row.batch_id == batch_id]
    return Snapshot(
        batch, store.stories(batch_id), running, store.batch_totals(batch_id), int(time.time() * 1000)
    )


def render(snapshot: Snapshot, console: Console) -> RenderableType:
    """Return the picture; it fits the height of the console as long as that has 20 lines or more."""
    room = max(3, console.height - _RESERVED_LINES - len(snapshot.running))
    parts: list[RenderableType] = [Text(""), _header(snapshot), _bar(snapshot.batch)]
    if snapshot.stories:
        parts.append(_stories(_fitting(snapshot.stories, room)))
    parts.append(_commands(snapshot) if snapshot.running else Text(_idle(snapshot.batch), style="dim"))
    return Group(*parts)


def _header(snapshot: Snapshot) -> Text:
    batch, totals = snapshot.batch, snapshot.totals
    elapsed = duration((snapshot.now - batch.started_at) / 1000)
    text = Text(f"Batch {batch.id}", style="bold")
    text.append(f"  {batch.state}  ", style=_state_style(batch))
    text.append(f"cycles {_cycles(batch)}  ·  {elapsed}  ·  {dollars(totals.cost_usd)}")
    return text


def _state_style(batch: BatchRow) -> str:
    return "yellow" if batch.state in (BatchState.WAITING, BatchState.STOPPING) else "cyan"


def _cycles(batch: BatchRow) -> str:
    if batch.max_cycles is None:
        return f"{batch.cycles_completed} (unlimited)"
    return f"{batch.cycles_completed}/{batch.max_cycles}"


def _bar(batch: BatchRow) -> Table:
    if batch.max_cycles is None:
        bar = ProgressBar(total=None, width=40, pulse=True, animation_time=time.monotonic())
    else:
        bar = ProgressBar(total=batch.max_cycles, completed=batch.cycles_completed, width=40)
    # A bar does not end its line by itself; a grid does.
    line = Table.grid()
    line.add_row(bar)
    return line


def _fitting(stories: Sequence[StoryRow], room: int) -> Sequence[StoryRow]:
    """The newest stories that fit; those that are settled give way first."""
    if len(stories) <= room:
        return stories
    settled = (StoryStatus.DONE, StoryStatus.BLOCKED)
    by_weight = sorted(stories, key=lambda row: (row.status in settled, -row.id))
    return sorted(by_weight[:room], key=lambda row: row.id)


def _stories(rows: Sequence[StoryRow]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("story", "status", ""):
        table.add_column(heading, no_wrap=True, overflow="ellipsis")
    for row in rows:
        status = Text(str(row.status), style=_STYLES.get(StoryStatus(row.status), ""))
        table.add_row(Text(printable(row.story_key, 60)), status, Text(_note(row), style="dim"))
    return table


def _note(row: StoryRow) -> str:
    if row.status == StoryStatus.BLOCKED:
        return printable(row.reason or "", 120)
    return (row.commit_sha or "")[:10]


def _commands(snapshot: Snapshot) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("running", no_wrap=True)
    table.add_column("time", no_wrap=True, justify="right")
    table.add_column("last action", no_wrap=True, overflow="ellipsis")
    for row in snapshot.running:
        table.add_row(Text(_command(row)), Text(_age(row, snapshot.now)), Text(_action(row), style="dim"))
    return table


def _command(row: CommandRow) -> str:
    attempt = f" #{row.attempt}" if row.attempt > 1 else ""
    return f"{printable(row.command, 40)}{attempt}  {printable(row.story_keys or '', 60)}"


def _age(row: CommandRow, now: int) -> str:
    started = row.started_at or now
    return duration((now - started) / 1000) if row.status == CommandStatus.RUNNING else ""


def _action(row: CommandRow) -> str:
    return printable(row.last_action or row.current_task or "starting", 120)


def _idle(batch: BatchRow) -> str:
    if batch.state == BatchState.WAITING and batch.resumes_at:
        return f"asleep until {clock(batch.resumes_at)}: {printable(batch.reason or 'usage limit', 120)}"
    return "between commands"
