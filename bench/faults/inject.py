"""Runs ``sprintrunner`` with faults that a check switches on: a function named in a file raises, once.

The file (variable BENCH_INJECT) holds ``module:Class.method`` or ``module:function`` and is emptied when the
fault has been raised; the functions that may be named are the arguments up to ``--``.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Injected(RuntimeError):
    """The fault."""


def arm(point: str) -> None:
    """Wrap one function so that it raises when the file names it; AttributeError for an unknown one."""
    module_name, _, qualified = point.partition(":")
    owner: Any = importlib.import_module(module_name)
    *outer, name = qualified.split(".")
    for part in outer:
        owner = getattr(owner, part)
    setattr(owner, name, _faulty(point, getattr(owner, name)))


def _faulty(point: str, real: Callable[..., Any]) -> Callable[..., Any]:
    file = Path(os.environ["BENCH_INJECT"])

    @functools.wraps(real)
    def call(*args: Any, **kwargs: Any) -> Any:
        if file.exists() and file.read_text() == point:
            file.write_text("")
            raise Injected(f"injected at {point}")
        return real(*args, **kwargs)

    return call


if __name__ == "__main__":
    points, words = sys.argv[1 : sys.argv.index("--")], sys.argv[sys.argv.index("--") + 1 :]
    for one in points:
        arm(one)
    sys.argv = ["sprintrunner", *words]
    from sprintrunner.cli import main

    sys.exit(main())
