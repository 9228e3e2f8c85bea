"""The slots of the dashboard: for each its partial and the view it shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import board, grid, needs, night, now, rail, verdict
from .reading import Reading


@dataclass(frozen=True, slots=True)
class Slot:
    """A place on the page. ``name`` is its element id and, with dashes, its partial's file name."""

    name: str
    variable: str
    read: Callable[[Reading], Any]

    @property
    def partial(self) -> str:
        """The template of its content."""
        return f"partials/{self.name.replace('-', '_')}.html"


#: In the order of the page. ``pill`` stands on all other pages: the state, and a way home.
SLOTS = (
    Slot("pill", "bar", verdict.bar),
    Slot("verdict", "bar", verdict.bar),
    Slot("last-event", "last", verdict.last_event),
    Slot("night", "night", night.night),
    Slot("needs", "strip", needs.strip),
    Slot("now", "now", now.now),
    Slot("grid", "grid", grid.grid),
    Slot("happened", "happened", rail.happened),
    Slot("commits", "commits", rail.commits),
)

BY_NAME = {slot.name: slot for slot in SLOTS}


def values(reading: Reading, wanted: grid.Wanted = grid.ALL) -> dict[str, Any]:
    """All that the dashboard page shows, by the variable each partial reads."""
    bar = reading.once(verdict.bar)
    made = {
        slot.variable: slot.read(reading) for slot in SLOTS if slot.variable not in ("bar", "last", "grid")
    }
    shown = board.board(reading, wanted) if wanted.board else None
    made["first_run"] = reading.batch is None
    return {"bar": bar, "grid": grid.grid(reading, wanted), "board": shown, **made}
