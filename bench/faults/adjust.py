"""Runs ``sprintrunner`` with what a bench has to lower: a number of a module, or the size of the database.

Arguments up to ``--``: ``module:NAME=value`` sets a name before the program starts. While the file named by
the variable BENCH_FULL exists, the database of this process may not grow.
"""

from __future__ import annotations

import ast
import importlib
import os
import sys
from pathlib import Path
from typing import Any

import sqlalchemy as sa

_UNLIMITED = 1_073_741_823


def adjust(told: str) -> None:
    """Set one name; AttributeError when the module has none of it."""
    place, _, value = told.partition("=")
    module_name, _, name = place.partition(":")
    module = importlib.import_module(module_name)
    getattr(module, name)
    setattr(module, name, ast.literal_eval(value))


def limit_growth(flag: Path) -> None:
    """Before each transaction, hold the database to its present size while the flag is there."""

    @sa.event.listens_for(sa.Engine, "begin")
    def begun(connection: Any) -> None:
        cursor = connection.connection.cursor()
        pages = cursor.execute("PRAGMA page_count").fetchone()[0] if flag.exists() else _UNLIMITED
        cursor.execute(f"PRAGMA max_page_count = {pages}")


if __name__ == "__main__":
    middle = sys.argv.index("--")
    for one in sys.argv[1:middle]:
        adjust(one)
    if os.environ.get("BENCH_FULL"):
        limit_growth(Path(os.environ["BENCH_FULL"]))
    sys.argv = ["sprintrunner", *sys.argv[middle + 1 :]]
    from sprintrunner.cli import main

    sys.exit(main())
