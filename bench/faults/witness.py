"""Stands before the fake agent as ``claude``: notes who else works there and whether its row is committed.

A program of its own (standard library only); its arguments are the agent's program and the agent's arguments.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Note what is seen, then become the agent."""
    run_id = os.environ.get("SPRINTRUNNER_RUN_ID")
    if run_id:
        others = _others(run_id)
        _note({"run_id": run_id, **_self(os.environ), "others": others, "row": _row(run_id)})
        if sum(run_id.encode()) % 2:
            os.environ["REHEARSAL_FAULT"] = "ignore-term"
    program, *arguments = sys.argv[1:]
    os.execv(sys.executable, [sys.executable, "-I", "-S", program, *arguments])


def _self(env: Any) -> dict[str, Any]:
    """Which attempt of which command a process is."""
    names = ("COMMAND_ID", "COMMAND", "ATTEMPT", "STORY_KEYS", "BATCH_ID")
    return {name.lower(): env.get(f"SPRINTRUNNER_{name}", "") for name in names}


def _others(run_id: str) -> list[dict[str, Any]]:
    """The agents that live in this project at this moment and belong to another run."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            words = (folder / "cmdline").read_bytes()
            if b"/agent.py\0" not in words or b"State:\tZ" in (folder / "status").read_bytes():
                continue
            pairs = [part.partition(b"=") for part in (folder / "environ").read_bytes().split(b"\0")]
        except OSError:
            continue
        env = {name.decode(): value.decode("utf-8", "replace") for name, _, value in pairs}
        same = env.get("SPRINTRUNNER_PROJECT") == os.environ.get("SPRINTRUNNER_PROJECT")
        if same and env.get("SPRINTRUNNER_RUN_ID") != run_id:
            found.append({"run_id": env.get("SPRINTRUNNER_RUN_ID", ""), **_self(env)})
    return found


def _row(run_id: str) -> str | None:
    """The status of the committed row of this run; None when there is none."""
    path = Path(os.environ["SPRINTRUNNER_STATE_DIR"]) / "sprint-runner.db"
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
    try:
        found = connection.execute("SELECT status FROM commands WHERE run_id = ?", (run_id,)).fetchone()
    finally:
        connection.close()
    return str(found[0]) if found else None


def _note(values: dict[str, Any]) -> None:
    line = json.dumps({"event": "witness", "ns": time.monotonic_ns(), "pid": os.getpid(), **values}) + "\n"
    descriptor = os.open(os.environ["REHEARSAL_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, line.encode())
    os.close(descriptor)


if __name__ == "__main__":
    main()
