"""The registry of checks: each id of faults.md is one function that passes, fails or is skipped."""

from __future__ import annotations

import importlib
import re
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

#: Checks of each group in faults.md; a group's total never depends on what is written or skipped here.
TOTALS = {"A": 30, "B": 28, "C": 44, "D": 22, "E": 16, "F": 34, "G": 22, "H": 18, "I": 12}

#: A check; returns a note or nothing.
Run = Callable[[], str | None]

_ID = re.compile(r"([A-I])([1-9]\d?)")


class Failed(AssertionError):
    """What was promised did not happen; the message says what did."""


class Skipped(Exception):
    """The check cannot run on this machine; the message says why."""


@dataclass
class Options:
    """How large the long checks are."""

    kills: int = 12
    stories: int = 20


@dataclass(frozen=True)
class Check:
    """One row of faults.md."""

    id: str
    what: str
    run: Run


@dataclass(frozen=True)
class Result:
    """How a check ended; ``status`` is passed, failed or skipped."""

    id: str
    what: str
    status: str
    reason: str
    seconds: float


options = Options()
REGISTRY: dict[str, Check] = {}


def check(id: str, what: str) -> Callable[[Run], Run]:
    """Register a function as the check ``id``; it raises Failed or Skipped, or returns and has passed.

    What it returns is a note to be printed: a number that was measured, say.
    """
    found = _ID.fullmatch(id)
    if not found or int(found[2]) > TOTALS[found[1]] or id in REGISTRY:
        raise ValueError(f"{id} is no free id of faults.md")

    def register(run: Run) -> Run:
        REGISTRY[id] = Check(id, what, run)
        return run

    return register


def expect(condition: object, message: str) -> None:
    """Raise Failed with the message unless the condition holds."""
    if not condition:
        raise Failed(message)


def discover() -> None:
    """Import every ``group_*.py`` beside this file."""
    for path in sorted(Path(__file__).parent.glob("group_*.py")):
        importlib.import_module(path.stem)


def order_of(id: str) -> tuple[str, int]:
    """The place of an id in faults.md."""
    return id[0], int(id[1:])


def chosen(wanted: Iterable[str]) -> list[str]:
    """The ids that groups and ids stand for, in the order of faults.md; all without any.

    Raises ValueError for what is neither.
    """
    every = [f"{group}{number}" for group, total in TOTALS.items() for number in range(1, total + 1)]
    names = [name.upper() for name in wanted]
    for name in names:
        if name not in TOTALS and name not in every:
            raise ValueError(f"{name} is neither a group nor an id of faults.md")
    return [id for id in every if not names or id in names or id[0] in names]


def perform(id: str) -> Result:
    """Run one check; what is not written yet has failed."""
    known = REGISTRY.get(id)
    if known is None:
        return Result(id, "", "failed", "not written", 0.0)
    began = time.monotonic()
    status, reason = "passed", ""
    try:
        reason = known.run() or ""
    except Skipped as why:
        status, reason = "skipped", str(why)
    except Failed as why:
        status, reason = "failed", str(why)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        status, reason = "failed", f"{type(error).__name__}: {error} ({where})"
    return Result(id, known.what, status, reason, time.monotonic() - began)
