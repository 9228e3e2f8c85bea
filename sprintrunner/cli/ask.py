"""``stop``, ``status``, ``report``, ``doctor``: questions to a running project, or to what it left behind."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import NotFound
from ..sprint import BatchStatus
from ..terminal import count, duration, printable

if TYPE_CHECKING:
    from ..store import BatchRow, CommandRow, Store

#: How long an answer may take, in seconds; the orchestrator promises less.
_PATIENCE = 10.0


def stop(root: Path, after_story: bool) -> int:
    """Ask the running batch to stop; raises NotFound or Conflict when there is none."""
    from .. import control

    try:
        control.request(_state_dir(root), "stop", {"after_story": after_story}, _PATIENCE)
    except NotFound:
        raise NotFound("Nothing is running in this project; there is nothing to stop.") from None
    print("Stopping after the current story." if after_story else "Stopping.")
    return 0


def status(root: Path, as_json: bool) -> int:
    """Print what is running now."""
    answer = _status_now(root)
    if as_json:
        print(json.dumps(answer))
        return 0
    print(_status_words(answer))
    with _store(root) as store:
        for line in _running(store) if answer["status"] != "idle" and store else ():
            print(line)
    return 0


def report(root: Path, batch_id: int | None, as_json: bool) -> int:
    """Print the report of a batch; raises NotFound where there is none."""
    from .. import report as reporting

    with _store(root) as store:
        if store is None:
            raise NotFound("No batch has run in this project yet.")
        found = reporting.build(store, batch_id)
    print(json.dumps(found.as_json()) if as_json else "\n".join(reporting.lines(found)))
    return 0


def doctor(start: Path, as_json: bool) -> int:
    """Print every check; 0 when none fails, 1 otherwise."""
    from .. import doctor as checking

    checks = checking.examine(start, os.environ)
    good = checking.is_healthy(checks)
    if as_json:
        print(json.dumps({"ok": good, "checks": [check.as_json() for check in checks]}))
    else:
        print("\n".join(checking.lines(checks)))
    return 0 if good else 1


def _state_dir(root: Path) -> Path:
    from .. import project

    return project.state_dir(root)


def _status_now(root: Path) -> dict[str, Any]:
    """The answer of ``/api/orchestrator/status``, made here when nobody is there to give it."""
    from .. import control

    try:
        return control.request(_state_dir(root), "status", {}, _PATIENCE)
    except NotFound:
        return {
            "status": "idle",
            "batch_id": None,
            "cycles_completed": 0,
            "max_cycles": None,
            "current_stories": [],
        }


@contextmanager
def _store(root: Path) -> Iterator[Store | None]:
    """The project's store, or None where nothing was ever recorded: a question creates no database."""
    from ..store import DATABASE, Store

    path = _state_dir(root) / DATABASE
    if not path.exists():
        yield None
        return
    store = Store.open(path)
    try:
        yield store
    finally:
        store.close()


def _status_words(answer: Mapping[str, Any]) -> str:
    if answer["status"] == "idle":
        return "Nothing is running."
    of = "unlimited" if answer["max_cycles"] is None else answer["max_cycles"]
    stories = ", ".join(printable(key, 80) for key in answer["current_stories"]) or "no story at this moment"
    cycles = f"{answer['cycles_completed']} of {of} cycles"
    return f"Batch {answer['batch_id']} is {answer['status']}: {cycles}; {stories}."


def _running(store: Store) -> Iterator[str]:
    now = int(time.time() * 1000)
    batch = store.live_batch()
    if batch is not None:
        yield _since(batch, now)
    for row in store.running_commands():
        yield _command(row, now)


def _since(batch: BatchRow, now: int) -> str:
    stopping = ", stops after the current story" if batch.stop_after_story else ""
    alive = "" if batch.status == BatchStatus.RUNNING else f" ({batch.status})"
    return f"  since {duration((now - batch.started_at) / 1000)}{alive}{stopping}"


def _command(row: CommandRow, now: int) -> str:
    age = duration((now - (row.started_at or now)) / 1000)
    attempt = f", {count(row.attempt, 'attempt')}" if row.attempt > 1 else ""
    doing = printable(row.last_action or row.current_task or "starting", 120)
    return f"  {printable(row.story_keys or '', 80)}  {printable(row.command, 40)}{attempt}, {age}: {doing}"
