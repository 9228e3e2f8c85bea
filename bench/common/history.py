"""A database with a long history, and a transcript of as many lines as wanted; written by plain SQL, fast."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sprintrunner.store import Store

from .writer import block

BEGIN = 1_750_000_000_000
_BATCH_MS, _COMMAND_MS = 3_600_000, 150_000
_COMMANDS = (
    *("create-story", "create-story-discovery", "story-review", "create-tech-spec", "tech-spec-review"),
    *("dev-story", "code-review", "code-review", "code-review", "dev-story"),
    *("code-review", "code-review", "code-review", "code-review", "story-review"),
    *("dev-story", "code-review", "code-review", "code-review", "commit"),
)
_EVENTS_A_BATCH = 400


def seed(database: Path, keys: Sequence[str], batches: int) -> None:
    """So many ended batches of two stories, 20 commands and 400 events each, over these story keys."""
    Store.open(database).close()
    connection = sqlite3.connect(database)
    connection.execute("PRAGMA synchronous=OFF")
    with connection:
        for table, rows in (
            ("batches", _batches(batches)),
            ("stories", _stories(keys, batches)),
            ("commands", _commands(keys, batches)),
            ("command_stories", _links(batches)),
            ("events", _events(keys, batches)),
        ):
            _insert(connection, table, rows)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def _insert(connection: sqlite3.Connection, table: str, rows: Iterator[dict[str, Any]]) -> None:
    first = next(rows)
    names = ", ".join(first)
    marks = ", ".join(f":{name}" for name in first)
    statement = f"INSERT INTO {table} ({names}) VALUES ({marks})"
    connection.execute(statement, first)
    connection.executemany(statement, rows)


def _batches(count: int) -> Iterator[dict[str, Any]]:
    for number in range(1, count + 1):
        began = BEGIN + number * 2 * _BATCH_MS
        yield {
            "id": number,
            "started_at": began,
            "ended_at": began + _BATCH_MS,
            "max_cycles": 1,
            "cycles_completed": 1,
            "status": "completed" if number % 9 else "failed",
            "state": "ended",
            "agent": "claude",
        }


def _pair(keys: Sequence[str], batch: int) -> tuple[str, str]:
    return keys[(2 * batch) % len(keys)], keys[(2 * batch + 1) % len(keys)]


def _stories(keys: Sequence[str], batches: int) -> Iterator[dict[str, Any]]:
    for batch in range(1, batches + 1):
        for place, key in enumerate(_pair(keys, batch)):
            began = BEGIN + batch * 2 * _BATCH_MS
            # However long the history is, about twenty stories wait for a person.
            blocked = batch % 9 == 0 and batch > batches - 90
            yield {
                "id": 2 * batch - 1 + place,
                "batch_id": batch,
                "story_key": key,
                "epic_id": key.split("-")[0],
                "status": "blocked" if blocked else "done",
                "started_at": began,
                "ended_at": began + _BATCH_MS,
                "title": "Grow one more shelf",
                "reason": "3 reviews in a row gave no verdict." if blocked else None,
            }


def _commands(keys: Sequence[str], batches: int) -> Iterator[dict[str, Any]]:
    for batch in range(1, batches + 1):
        for place, command in enumerate(_COMMANDS):
            began = BEGIN + batch * 2 * _BATCH_MS + place * _COMMAND_MS
            number = (batch - 1) * len(_COMMANDS) + place + 1
            yield {
                "id": number,
                "batch_id": batch,
                "story_id": 2 * batch - 1 + place % 2,
                "story_keys": _pair(keys, batch)[place % 2],
                "command": command,
                "task_id": command,
                "started_at": began,
                "ended_at": began + _COMMAND_MS - 1000,
                "status": "succeeded" if number % 30 else "failed",
                "attempt": place + 1,
                "agent": "claude",
                "model": "claude-sonnet-4-5",
                "exit_code": 0,
                "cost_usd": 0.25,
                "tokens_in": 12_000,
                "tokens_out": 3_000,
                "agent_ms": _COMMAND_MS - 1500,
                "output_summary": "The shelf carries its plants, and the tests say so. " * 6,
                "transcript": f"{number}.jsonl",
            }


def _links(batches: int) -> Iterator[dict[str, Any]]:
    for batch in range(1, batches + 1):
        for place in range(len(_COMMANDS)):
            number = (batch - 1) * len(_COMMANDS) + place + 1
            yield {"command_id": number, "story_id": 2 * batch - 1 + place % 2}


def _events(keys: Sequence[str], batches: int) -> Iterator[dict[str, Any]]:
    for batch in range(1, batches + 1):
        for place in range(_EVENTS_A_BATCH):
            yield _event(keys, batch, place)


def _event(keys: Sequence[str], batch: int, place: int) -> dict[str, Any]:
    share = _EVENTS_A_BATCH // len(_COMMANDS)
    step, inside = divmod(place, share)
    command = (batch - 1) * len(_COMMANDS) + step + 1
    kind = {0: "command:start", share - 1: "command:end"}.get(inside, "command:progress")
    status = None if inside < share - 1 else ("succeeded" if command % 30 else "failed")
    key = _pair(keys, batch)[step % 2]
    told = {"story_key": key, "command": _COMMANDS[step], "task_id": _COMMANDS[step]}
    message = f"Editing src/greenhouse/plant_{place}.py" if kind == "command:progress" else None
    return {
        "batch_id": batch,
        "story_id": 2 * batch - 1 + step % 2,
        "command_id": command,
        "timestamp": BEGIN + batch * 2 * _BATCH_MS + place * (_BATCH_MS // _EVENTS_A_BATCH),
        "event_type": kind,
        "epic_id": key.split("-")[0],
        "story_key": key,
        "command": _COMMANDS[step],
        "task_id": _COMMANDS[step],
        "status": status,
        "message": message,
        "payload": json.dumps({**told, "message": message} if message else {**told, "status": status}),
    }


def transcript(path: Path, lines: int) -> None:
    """A transcript of so many lines below the cap of 64 MiB: a message, then three signs of life."""
    path.parent.mkdir(exist_ok=True)
    portion = (block(170) + b'{"type":"keep_alive"}\n' * 3) * 250
    with path.open("wb") as file:
        for _ in range(lines // 1000):
            file.write(portion)
