"""What a program measured, as tables and goals, printed and kept as JSON."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from . import machine
from .figures import number


@dataclass
class Table:
    """One table; the first column names the row."""

    title: str
    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)

    def add(self, *cells: object) -> None:
        """Append a row; floats get three significant digits."""
        self.rows.append([number(cell) if isinstance(cell, float) else str(cell) for cell in cells])

    def markdown(self) -> str:
        """The table with its title."""
        lines = [f"**{self.title}**", "", _line(self.columns), _line(["---"] * len(self.columns))]
        return "\n".join([*lines, *map(_line, self.rows)])


@dataclass
class Goal:
    """One promise of ours, what was seen, and whether it was kept."""

    what: str
    wanted: str
    seen: str
    met: bool


@dataclass
class Report:
    """Everything one program has to say."""

    name: str
    tables: list[Table] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    #: What the README shows: what was measured, ours, the rivals.
    headlines: list[list[str]] = field(default_factory=list)
    seconds: float = 0.0
    load: str = ""

    def table(self, title: str, *columns: str) -> Table:
        """A new table at the end."""
        self.tables.append(Table(title, list(columns)))
        return self.tables[-1]

    def headline(self, what: str, ours: str, rivals: str = "") -> None:
        """A line of the README's table."""
        self.headlines.append([what, ours, rivals])

    def at_most(self, what: str, seen: float | None, most: float, unit: str) -> None:
        """Keep a goal: ``seen`` must not be above ``most``. Nothing measured is nothing promised."""
        if seen is not None and seen == seen:
            self.goals.append(Goal(what, f"≤ {number(most)} {unit}", f"{number(seen)} {unit}", seen <= most))

    def at_least(self, what: str, seen: float | None, least: float, unit: str) -> None:
        """Keep a goal: ``seen`` must not be below ``least``."""
        if seen is not None and seen == seen:
            self.goals.append(
                Goal(what, f"≥ {number(least)} {unit}", f"{number(seen)} {unit}", seen >= least)
            )

    def markdown(self) -> str:
        """The whole report as a section."""
        parts = [f"## {self.name}", *(table.markdown() for table in self.tables)]
        if self.goals:
            parts.append(self._goals())
        parts += [f"* {note}" for note in self.notes]
        parts.append(f"Took {self.seconds:.0f} s; load of the machine {self.load}.")
        return "\n\n".join(parts) + "\n"

    def _goals(self) -> str:
        table = Table("goals", ["goal", "wanted", "seen", "met"])
        for goal in self.goals:
            table.add(goal.what, goal.wanted, goal.seen, "yes" if goal.met else "**no**")
        return table.markdown()


def load(path: Path) -> Report:
    """A report from its JSON."""
    found = json.loads(path.read_text("utf-8"))
    tables = [Table(**table) for table in found.pop("tables")]
    goals = [Goal(**goal) for goal in found.pop("goals")]
    return Report(tables=tables, goals=goals, **found)


def main(name: str, measure: Callable[[Report, bool], None], words: Sequence[str] | None = None) -> int:
    """The command line of every program: ``--quick`` for a short look, ``--json FILE`` to keep the result."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a tiny run: it shows that it works, not how fast"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there, too")
    asked = parser.parse_args(words)
    machine.raise_descriptor_limit()
    report, began = Report(name), time.monotonic()
    before = machine.load_average()
    measure(report, asked.quick)
    report.seconds = time.monotonic() - began
    report.load = f"{before:.1f} before, {machine.load_average():.1f} after"
    print(report.markdown(), flush=True)
    if asked.json:
        asked.json.write_text(json.dumps(asdict(report), ensure_ascii=False, indent=1), "utf-8")
    return 0


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
