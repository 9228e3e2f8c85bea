"""The commands of one story over time, on the rows and bars of the timeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...store import BatchRow, CommandRow
from .night import Axis, Tick
from .reading import Reading
from .timeline import Band, Row, bands_of, rows_of, ticks_of

#: The window is a little wider than what it shows, so that the last label has room.
_ROOM = 1.06


@dataclass(frozen=True, slots=True)
class Waterfall:
    """Rows with bars between ``first`` and ``last`` (ms)."""

    first: int
    last: int
    rows: tuple[Row, ...]
    ticks: tuple[Tick, ...]
    bands: tuple[Band, ...]
    batch_id: int


def waterfall(reading: Reading, batch: BatchRow | None, commands: Sequence[CommandRow]) -> Waterfall | None:
    """Read the waterfall of the commands that belong to this batch; None where there are none."""
    mine = [command for command in commands if batch and command.batch_id == batch.id]
    if batch is None or not mine:
        return None
    first = min(command.started_at for command in mine)
    last = max(command.ended_at or reading.now for command in mine)
    axis = Axis(first, first + max(30_000, int((last - first) * _ROOM)))
    rows = tuple(row for row in rows_of(reading, batch, mine, axis) if row.bars)
    bands = bands_of(reading, reading.commands_of(batch.id), axis)
    return Waterfall(first, last, rows, ticks_of(axis), bands, batch.id)
