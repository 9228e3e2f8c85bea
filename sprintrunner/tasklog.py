"""A task reported by an agent: its JSON checked, its line of the CSV log (pure, contract section 6)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import Refused

#: Longest message of a task report, in characters.
MESSAGE_LIMIT = 150
#: Longest report as JSON, in characters; well under the cap of an event's payload.
TEXT_LIMIT = 16_384
_NAME_LIMIT = 200
_REQUIRED = ("epic_id", "story_id", "command", "task_id", "status")
_OPTIONAL = ("message", "metrics", "attempt")
_STATUSES = ("start", "end")
#: A spreadsheet runs a cell that starts with one of these.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


class BadTaskReport(Refused):
    """The task report is not valid."""


@dataclass(frozen=True, slots=True)
class TaskReport:
    """One named task that started or ended inside a command."""

    epic_id: str
    story_id: str
    command: str
    task_id: str
    status: str
    message: str = ""
    attempt: int | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)

    def as_arguments(self) -> dict[str, Any]:
        """The report as plain values, the way it travels over the control socket."""
        return {name: getattr(self, name) for name in (*_REQUIRED, *_OPTIONAL)}


def parse(text: str) -> TaskReport:
    """Return the report in ``text``; raise BadTaskReport with one sentence where it is not one."""
    if len(text) > TEXT_LIMIT:
        raise BadTaskReport(f"The task report is longer than {TEXT_LIMIT:,} characters.")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise BadTaskReport("The task report is not valid JSON.") from None
    return check(value)


def check(value: object) -> TaskReport:
    """Return the report made of the decoded ``value``; fields it does not know are left out.

    Raises BadTaskReport where a field is missing or wrong.
    """
    if not isinstance(value, dict):
        raise BadTaskReport("The task report must be a JSON object.")
    missing = [name for name in _REQUIRED if name not in value]
    if missing:
        raise BadTaskReport(f"The task report lacks {', '.join(missing)}.")
    return TaskReport(
        epic_id=_name("epic_id", value["epic_id"]),
        story_id=_name("story_id", value["story_id"]),
        command=_name("command", value["command"]),
        task_id=_name("task_id", value["task_id"]),
        status=_status(value["status"]),
        message=_message(value.get("message")),
        attempt=_attempt(value.get("attempt")),
        metrics=_metrics(value.get("metrics")),
    )


def _name(name: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise BadTaskReport(f"The field {name} must be a text that is not empty.")
    if len(value) > _NAME_LIMIT:
        raise BadTaskReport(f"The field {name} is longer than {_NAME_LIMIT} characters.")
    return _storable(name, value)


def _storable(name: str, value: str) -> str:
    # SQLite and UTF-8 both refuse a lone surrogate, which JSON can spell.
    if "\0" in value or (not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value)):
        raise BadTaskReport(f"The field {name} holds characters that cannot be stored.")
    return value


def _status(value: object) -> str:
    if value not in _STATUSES:
        raise BadTaskReport('The field status must be "start" or "end".')
    return str(value)


def _message(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadTaskReport("The field message must be a text.")
    if len(value) > MESSAGE_LIMIT:
        raise BadTaskReport(f"The field message is longer than {MESSAGE_LIMIT} characters.")
    return _storable("message", value)


def _attempt(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 1_000_000:
        raise BadTaskReport("The field attempt must be a whole number from 1.")
    return value


def _metrics(value: object) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadTaskReport("The field metrics must be an object.")
    return value


def csv_line(seconds: int, report: TaskReport) -> str:
    """Return the report as one RFC 4180 line without its end.

    The cells are ``timestamp,epicID,storyID,command,task-id,status,"message"``; ``seconds`` are Unix seconds.
    """
    names = (report.epic_id, report.story_id, report.command, report.task_id, report.status)
    cells = [str(seconds), *(_cell(name) for name in names), _quoted(_defused(report.message))]
    return ",".join(cells)


def _cell(text: str) -> str:
    safe = _defused(text)
    return _quoted(safe) if any(mark in safe for mark in ',"\r\n') else safe


def _defused(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
