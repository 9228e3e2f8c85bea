"""The command loop of the first Sprint Runner, made anew: readline, a connection an event, YAML dumped.

Its own time is what passes around the life of the child: before the spawn has returned and after the exit.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

_SCHEMA = """
CREATE TABLE IF NOT EXISTS commands (id INTEGER PRIMARY KEY, command TEXT, status TEXT, summary TEXT);
CREATE TABLE IF NOT EXISTS events (id INTEGER PRIMARY KEY, timestamp INTEGER, event_type TEXT, message TEXT);
"""


class Loop:
    """Runs one command after the other and remembers what each took beside its child, in seconds."""

    def __init__(self, root: Path, status_file: Path, database: Path) -> None:
        self.root, self.status_file, self.database = root, status_file, database
        self.own: list[float] = []
        connection = sqlite3.connect(database)
        connection.executescript(_SCHEMA)
        connection.close()

    def run(self, name: str, argv: Sequence[str], prompt: Path, env: Mapping[str, str]) -> int:
        """One command; the return value is the exit status."""
        return asyncio.run(self._run(name, argv, prompt, env))

    async def _run(self, name: str, argv: Sequence[str], prompt: Path, env: Mapping[str, str]) -> int:
        began = time.monotonic()
        self._set_status("in-progress")
        self._event("command:start", name)
        with prompt.open("rb") as stdin:
            child = await asyncio.create_subprocess_exec(
                *argv, cwd=self.root, env=env, stdin=stdin, stdout=asyncio.subprocess.PIPE, limit=1 << 20
            )
        spawned = time.monotonic()
        output = await self._read(child)
        status = await child.wait()
        ended = time.monotonic()
        done = "done" if "NONE" in output else "in-progress"
        self._event("command:end", f"{name} {done}")
        self._set_status("in-progress")
        self.own.append(time.monotonic() - ended + spawned - began)
        return status

    async def _read(self, child: asyncio.subprocess.Process) -> str:
        parts = []
        assert child.stdout is not None
        while line := await child.stdout.readline():
            value = json.loads(line)
            for block in _blocks(value):
                if block.get("type") == "tool_use":
                    self._event("command:progress", str(block.get("name")))
                parts.append(str(block.get("text", "")))
        return "".join(parts)

    def _event(self, kind: str, message: str) -> None:
        connection = sqlite3.connect(self.database)
        now = int(time.time() * 1000)
        connection.execute(
            "INSERT INTO events (timestamp, event_type, message) VALUES (?, ?, ?)", (now, kind, message)
        )
        connection.commit()
        connection.close()

    def _set_status(self, value: str) -> None:
        found = yaml.safe_load(self.status_file.read_text("utf-8"))
        key = next(iter(found["development_status"]))
        found["development_status"][key] = value
        self.status_file.write_text(yaml.dump(found), "utf-8")


def _blocks(value: Any) -> list[dict[str, Any]]:
    message = value.get("message") if isinstance(value, dict) else None
    content = message.get("content") if isinstance(message, dict) else None
    return [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []
