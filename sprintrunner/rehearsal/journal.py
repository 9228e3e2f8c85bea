"""The log of runs (REHEARSAL_LOG) that a test reads to see which agents really ran, and when."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any


def note(event: str, **values: Any) -> None:
    """Append one JSON line in one write; times are monotonic nanoseconds, comparable between processes."""
    path = os.environ.get("REHEARSAL_LOG")
    if not path:
        return
    line = json.dumps({"event": event, "pid": os.getpid(), "ns": time.monotonic_ns(), **values}) + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def note_start(command: str, attempt: int, keys: list[str]) -> None:
    """The first line of a run, with what a check on the arguments needs to know."""
    sizes = sum(len(os.fsencode(word)) + 1 for word in sys.argv)
    run_id = os.environ.get("SPRINTRUNNER_RUN_ID", "")
    note(
        "start",
        command=command,
        attempt=attempt,
        keys=keys,
        run_id=run_id,
        argv_bytes=sizes,
        argv=sys.argv[1:],
    )
