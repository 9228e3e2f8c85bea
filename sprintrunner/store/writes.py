"""The writes: one transaction, its rows and its events, checked before the database sees them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from .. import events as event_table
from ..errors import InvalidEvent, InvalidStatus, StoreError
from ..events import Event
from ..sprint import story_status
from . import schema
from .failures import translate
from .payload import clean, encode, encode_capped, scrubbed

_LARGEST = 2**63 - 1
#: Columns with words of agents, files and people; all others are ours, or are compared with the outside.
_TOLD = frozenset(
    {
        "reason",
        "title",
        "file",
        "output_summary",
        "verdict",
        "evidence",
        "stderr_tail",
        "last_action",
        "current_task",
    }
)
# What a rollback undoes never reaches the disk, hence the write of a number that is there already.
_PROBE = (
    "SAVEPOINT probe",
    "CREATE TABLE probe (room BLOB)",
    "INSERT INTO probe VALUES (zeroblob(65536))",
    "ROLLBACK TO probe",
    "RELEASE probe",
    "PRAGMA user_version = 0",
)


def _int(column: sa.Column[Any], value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise StoreError(f"{column} must be a whole number, not {value!r}")
    if abs(value) > _LARGEST:
        raise StoreError(f"{column} is too large: {value}")
    return int(value)


def _flag(column: sa.Column[Any], value: Any) -> int:
    if not isinstance(value, int) or value not in (0, 1):
        raise StoreError(f"{column} must be true or false, not {value!r}")
    return int(value)


def _real(column: sa.Column[Any], value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise StoreError(f"{column} must be a number, not {value!r}")
    return float(value)


def _text(column: sa.Column[Any], value: Any) -> str:
    if not isinstance(value, str):
        raise StoreError(f"{column} must be text, not {value!r}")
    return clean(str(value))


def _json(_column: sa.Column[Any], value: Any) -> str:
    return encode(value)


def _choice(column: sa.Column[Any], value: Any) -> str:
    if str(column) == "stories.status":
        return str(story_status(value))
    if not isinstance(value, str) or value not in column.info["values"]:
        known = ", ".join(column.info["values"])
        raise InvalidStatus(f"{value!r} is not possible for {column}; it must be one of {known}")
    return str(value)


_CHECKS = {"int": _int, "flag": _flag, "real": _real, "text": _text, "json": _json, "choice": _choice}


def checked(table: sa.Table, columns: Mapping[str, Any]) -> dict[str, Any]:
    """The values as the database takes them; StoreError or InvalidStatus names the first that is wrong.

    SQLite's STRICT still turns the text '1' into the number 1, so types are checked here.
    """
    values = {}
    for name, value in columns.items():
        column = table.columns.get(name)
        if column is None:
            raise StoreError(f"the table {table.name} has no column {name}")
        wanted = value is not None or (column.info["kind"] == "choice" and not column.nullable)
        values[name] = _CHECKS[column.info["kind"]](column, value) if wanted else None
    return values


def _flat(payload: Mapping[str, Any], *names: str) -> str | None:
    """The first of ``names`` in the payload that holds something, as text for a column."""
    for name in names:
        value = payload.get(name)
        if isinstance(value, list | tuple):
            value = ",".join(str(item) for item in value)
        if value is not None and value != "":
            return clean(str(value))[:2_000]
    return None


def _columns_of(payload: Mapping[str, Any]) -> dict[str, str | None]:
    return {
        "epic_id": _flat(payload, "epic_id"),
        "story_key": _flat(payload, "story_key", "story_keys"),
        "command": _flat(payload, "command"),
        "task_id": _flat(payload, "task_id"),
        "status": _flat(payload, "status", "new_status"),
        "message": _flat(payload, "message", "warning"),
    }


class Tx:
    """One open transaction. Any refusal spoils it as a whole: nothing of it is kept."""

    def __init__(self, connection: sa.Connection, scrub: Callable[[str], str]) -> None:
        self._connection = connection
        self._scrub = scrub
        self.failure: Exception | None = None
        self.appended: list[Event] = []

    def _run(self, statement: sa.Executable, values: Mapping[str, Any] | None = None) -> sa.CursorResult[Any]:
        if self.failure is not None:
            raise StoreError("this transaction already failed; nothing of it is recorded") from self.failure
        try:
            return self._connection.execute(statement, values)
        except exc.SQLAlchemyError as error:
            self.failure = translate(error)
            raise self.failure from error

    def _checked(self, table: sa.Table, columns: Mapping[str, Any]) -> dict[str, Any]:
        told = {name: scrubbed(value, self._scrub) for name, value in columns.items() if name in _TOLD}
        try:
            return checked(table, {**columns, **told})
        except (StoreError, InvalidStatus) as error:
            self.failure = error
            raise

    def _insert(self, table: sa.Table, columns: Mapping[str, Any]) -> int:
        result = self._run(table.insert(), self._checked(table, columns))
        return int(result.inserted_primary_key[0])  # type: ignore[index]

    def _update(self, table: sa.Table, row: int, columns: Mapping[str, Any]) -> None:
        if not columns:
            return
        values = self._checked(table, columns)
        found = self._run(table.update().where(table.c.id == row).values(values)).rowcount
        if found != 1:
            self.failure = StoreError(f"the table {table.name} has no row {row}")
            raise self.failure

    def insert_batch(self, **columns: Any) -> int:
        """Insert and return the id; Conflict while another batch has the status running."""
        return self._insert(schema.batches, columns)

    def update_batch(self, batch_id: int, /, **columns: Any) -> None:
        """Change columns of one batch; StoreError where it does not exist."""
        self._update(schema.batches, batch_id, columns)

    def insert_story(self, **columns: Any) -> int:
        """Insert and return the id; InvalidStatus lists the seven when the status is not one of them."""
        return self._insert(schema.stories, columns)

    def update_story(self, story_id: int, /, **columns: Any) -> None:
        """Change columns of one story's row; InvalidStatus as in ``insert_story``."""
        self._update(schema.stories, story_id, columns)

    def insert_command(self, *, story_ids: Sequence[int] = (), **columns: Any) -> int:
        """Insert and return the id; ``story_ids`` are the stories it serves, ``task_id`` is its name."""
        columns.setdefault("task_id", columns.get("command"))
        number = self._insert(schema.commands, columns)
        for story in story_ids:
            link = {"command_id": number, "story_id": story}
            self._run(schema.command_stories.insert(), self._checked(schema.command_stories, link))
        return number

    def update_command(self, command_id: int, /, **columns: Any) -> None:
        """Change columns of one command; StoreError where it does not exist."""
        self._update(schema.commands, command_id, columns)

    def upsert_finding(self, story_id: int, identity: str, **columns: Any) -> int:
        """Insert the finding or change the one of this identity; return its id."""
        table, identity = schema.findings, self._scrub(identity)
        wanted = (table.c.story_id == story_id) & (table.c.identity == clean(identity))
        found = self._run(sa.select(table.c.id).where(wanted)).scalar()
        if found is None:
            return self._insert(table, {"story_id": story_id, "identity": identity, **columns})
        self._update(table, int(found), {"updated_at": schema.now(), **columns})
        return int(found)

    def add_finding_round(self, finding_id: int, command_id: int, status: str) -> None:
        """Record what one review said of one finding; said twice, the later word counts."""
        table = schema.finding_rounds
        row = {"finding_id": finding_id, "command_id": command_id, "status": status}
        values = self._checked(table, row)
        wanted = (table.c.finding_id == finding_id) & (table.c.command_id == command_id)
        self._run(table.delete().where(wanted))
        self._run(table.insert(), values)

    def insert_background_task(self, **columns: Any) -> int:
        """Insert and return the id."""
        return self._insert(schema.background_tasks, columns)

    def update_background_task(self, task_id: int, /, **columns: Any) -> None:
        """Change columns of one background task; StoreError where it does not exist."""
        self._update(schema.background_tasks, task_id, columns)

    def append(
        self,
        event_type: str,
        payload: Mapping[str, Any],
        *,
        batch_id: int | None = None,
        story_id: int | None = None,
        command_id: int | None = None,
    ) -> int:
        """Record an event and return its id, the cursor; InvalidEvent when the table of types forbids it."""
        kind = self._validated(event_type, payload)
        payload = scrubbed(payload, self._scrub)
        row: dict[str, Any] = {
            "batch_id": payload.get("batch_id") if batch_id is None else batch_id,
            "story_id": story_id,
            "command_id": command_id,
            "timestamp": schema.now(),
            "event_type": str(kind),
            **_columns_of(payload),
        }
        values = self._checked(schema.events, row)
        values["payload"] = encode_capped(payload, event_table.REQUIRED_KEYS[kind])
        result = self._run(schema.events.insert(), values)
        number = int(result.inserted_primary_key[0])  # type: ignore[index]
        # From the text that is stored: a follower must see what a reader of the table would.
        self.appended.append(Event(number, kind, row["timestamp"], json.loads(values["payload"])))
        return number

    def _validated(self, event_type: str, payload: Mapping[str, Any]) -> event_table.EventType:
        try:
            return event_table.validate(event_type, payload)
        except InvalidEvent as error:
            self.failure = error
            raise

    def probe(self) -> None:
        """Take room and give it back, and write what is there already."""
        for statement in _PROBE:
            self._run(sa.text(statement))

    def delete_events(self, ids: Sequence[int]) -> int:
        """Delete these events; return how many there were."""
        return self._run(schema.events.delete().where(schema.events.c.id.in_(list(ids)))).rowcount

    def give_back(self, pages: int) -> None:
        """Cut up to so many free pages off the file."""
        # One at a time: the driver takes a single step of a statement that has no columns.
        for _ in range(pages):
            self._run(sa.text("PRAGMA incremental_vacuum(1)"))
