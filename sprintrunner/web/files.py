"""The few named files of the project that are served, and the health check."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from flask import Blueprint, Response
from werkzeug.exceptions import Forbidden, NotFound

from .. import project as projects
from ..errors import ProjectError, StoreError
from ..events import Event, EventType
from ..store import Store
from ..tasklog import TaskReport, csv_line
from .context import services

bp = Blueprint("files", __name__)

_TYPES = {".yaml": "text/yaml", ".csv": "text/csv", ".md": "text/markdown"}
#: Largest file served, in bytes.
MAX_FILE = 4 << 20
_ROWS = 1000
#: What a task event says of its task; a progress event says it itself, or is none.
_TASK_EVENTS = {
    EventType.COMMAND_START: "start",
    EventType.COMMAND_END: "end",
    EventType.COMMAND_PROGRESS: "",
}


@bp.get("/healthz")
def healthz() -> Response:
    """``ok`` while the orchestrator lives and the database answers; tells nothing else."""
    try:
        services().store.check()
        well = services().alive()
    except StoreError:
        well = False
    return Response("ok\n" if well else "unavailable\n", 200 if well else 503, mimetype="text/plain")


@bp.get("/sprint-status.yaml")
def sprint_status() -> Response:
    """The status file as it stands."""
    return _file(services().project.status_path)


@bp.get("/sprint-runner.csv")
def task_log() -> Response:
    """The log of tasks: the project's file where there is one, else made from the event log."""
    try:
        return _data_file("sprint-runner.csv")
    except NotFound:
        return Response(_lines(services().store), mimetype="text/csv")


@bp.get("/orchestrator.csv", defaults={"name": "orchestrator.csv"})
@bp.get("/orchestrator.md", defaults={"name": "orchestrator.md"})
@bp.get("/orchestrator-sample.md", defaults={"name": "orchestrator-sample.md"})
def named(name: str) -> Response:
    """A file of the first system, where the project still has it."""
    return _data_file(name)


@bp.get("/<name>.<any(yaml, csv, md, json, db):_end>")
def other(name: str, _end: str) -> Response:
    """No other file of these kinds, whether there is one or not."""
    raise Forbidden("only the named data files are served")


def _data_file(name: str) -> Response:
    """The first of the places where such a file has been kept."""
    project = services().project
    for folder in dict.fromkeys((project.status_path.parent, project.implementation, project.root)):
        if (folder / name).is_file():
            return _file(folder / name)
    raise NotFound(f"the project has no {name}")


def _file(path: Path) -> Response:
    try:
        text = projects.read_inside(services().project.root, path, MAX_FILE)
    except (ProjectError, OSError):
        # A link out of the project, a folder, a device: for the outside there is no such file.
        raise NotFound("there is no such file") from None
    return Response(text.encode("utf-8", "replace"), mimetype=_TYPES[path.suffix])


def _lines(store: Store) -> Iterator[str]:
    """The log, read in short queries: none stays open while the client takes its time."""
    cursor = 0
    while rows := store.events_after(cursor, _ROWS):
        yield "".join(f"{line}\n" for line in map(_line, rows) if line)
        cursor = rows[-1].id


def _line(event: Event) -> str:
    """The line of a task that started or ended, else nothing."""
    payload = event.payload
    told = _TASK_EVENTS.get(event.type)
    status = told or payload.get("status")
    if told is None or status not in ("start", "end"):
        return ""
    key = str(payload["story_key"])
    report = TaskReport(
        epic_id=str(payload.get("epic_id") or key.partition("-")[0]),
        story_id=key,
        command=str(payload["command"]),
        task_id=str(payload["task_id"]),
        status=status,
        message=str(payload.get("message") or payload.get("reason") or ""),
    )
    return csv_line(event.timestamp // 1000, report)
