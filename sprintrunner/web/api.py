"""What can be read as JSON: events, batches, the status file, settings."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify, request
from werkzeug.exceptions import BadRequest, NotFound
from werkzeug.wrappers import Response as BaseResponse

from .. import project as projects
from .. import settings, status_file
from ..errors import StatusFileError
from ..settings import Layers
from ..sprint import Entry
from ..status_file import SprintStatus
from ..store import BatchRow, CommandRow, StoryRow, Totals
from .context import answer, body, number_argument, row_id, services
from .rows import batch_json, row_json, seconds

bp = Blueprint("api", __name__)

#: Events in one answer.
DEFAULT_EVENTS, MAX_EVENTS = 100, 1000
MAX_BATCHES = 100


@bp.get("/api/events")
def events() -> Response:
    """Events after a cursor, oldest first; ``last_id`` is the cursor of the next request."""
    after = number_argument("after", 0)
    limit = number_argument("limit", DEFAULT_EVENTS, 1, MAX_EVENTS)
    batch_id = number_argument("batch_id", 0, 1) if "batch_id" in request.args else None
    found = services().store.events_after(after, limit, batch_id)
    last_id = found[-1].id if found else after
    return jsonify({"events": [event.as_json() for event in found], "last_id": last_id})


@bp.get("/api/orchestrator/status")
def status() -> Response:
    """What the orchestrator does now."""
    store = services().store
    batch = store.live_batch()
    if batch is None:
        idle = {"status": "idle", "batch_id": None, "cycles_completed": 0, "max_cycles": None}
        return jsonify({**idle, "current_stories": []})
    told: dict[str, Any] = {
        "status": str(batch.state),
        "batch_id": batch.id,
        "cycles_completed": batch.cycles_completed,
        "max_cycles": batch.max_cycles,
        "current_stories": _current_stories(batch.id),
    }
    if batch.resumes_at is not None:
        told["resumes_at"] = batch.resumes_at
    return jsonify(told)


def _current_stories(batch_id: int) -> list[str]:
    """Keys of the stories under way, those of running commands first."""
    store = services().store
    keys = [
        key
        for command in store.running_commands()
        if command.batch_id == batch_id
        for key in command.story_keys.split(",")
    ]
    keys += [story.story_key for story in store.stories(batch_id) if story.started_at and not story.ended_at]
    return list(dict.fromkeys(filter(None, keys)))


@bp.get("/api/batches")
def batches() -> Response:
    """History, newest first."""
    usual = int(services().layers().values.default_batch_list_limit)
    limit = number_argument("limit", usual, 1, MAX_BATCHES)
    offset = number_argument("offset", 0)
    store = services().store
    rows = store.batches(limit, offset)
    totals = store.totals_of([row.id for row in rows])
    listed = [_listed(row, totals.get(row.id) or Totals()) for row in rows]
    return jsonify({"batches": listed, "total": store.count_batches()})


def _listed(row: BatchRow, totals: Totals) -> dict[str, Any]:
    return {**batch_json(row), "story_count": totals.stories, "cost_usd": totals.cost_usd}


@bp.get("/api/batches/<batch_id>")
def batch(batch_id: str) -> Response:
    """One batch with its stories, their commands, and sums."""
    number = row_id(batch_id)
    store = services().store
    row = store.batch(number)
    if row is None:
        raise NotFound("there is no such batch")
    commands = store.commands(number)
    stories = [_story(story, commands) for story in store.stories(number)]
    stats = row_json(store.batch_totals(number))
    return jsonify({"batch": batch_json(row), "stories": stories, "stats": stats})


def _story(story: StoryRow, commands: list[CommandRow]) -> dict[str, Any]:
    """A command that served two stories is listed under both."""
    mine = [_command(one) for one in commands if story.story_key in one.story_keys.split(",")]
    return {**row_json(story), "commands": mine}


def _command(row: CommandRow) -> dict[str, Any]:
    return {**row_json(row), "duration_seconds": seconds(row.started_at, row.ended_at)}


@bp.get("/api/sprint-status")
def sprint_status() -> Response:
    """The status file as it was understood."""
    project = services().project
    read = read_status()
    inside = read.path.is_relative_to(project.root)
    told = {
        "path": read.path.relative_to(project.root).as_posix() if inside else read.path.name,
        "writable": read.writable,
        "stories": [_entry(entry) for entry in read.stories],
        "epics": list(read.epics),
        "warnings": list(read.warnings) if read.refusal is None else [*read.warnings, read.refusal],
    }
    return jsonify(told)


def read_status() -> SprintStatus:
    """Read the project's status file; 404 where it is missing, 409 where it cannot be read."""
    project = services().project
    try:
        return status_file.read(project.status_path, project.root)
    except StatusFileError as error:
        error.http_status = 409 if project.status_path.exists() else 404
        raise


def _entry(entry: Entry) -> dict[str, Any]:
    return {
        "key": entry.key,
        "epic": entry.epic,
        "status": None if entry.status is None else str(entry.status),
        "raw_status": entry.raw_status,
        "class": str(entry.status_class),
        "title": entry.title,
    }


@bp.get("/story-descriptions.json")
def descriptions() -> Response:
    """The first lines of each story that has a file."""
    keys = [entry.key for entry in read_status().stories]
    return jsonify(projects.descriptions(services().project, keys))


@bp.get("/api/settings")
def get_settings() -> Response:
    """All settings that may be seen over HTTP."""
    return _settings(services().layers())


@bp.put("/api/settings")
def put_settings() -> Response:
    """Change some settings: all of them or none."""
    if request.mimetype != "application/json":
        raise BadRequest("send the settings as a JSON object")
    return _settings(services().save_settings(body(nan=True), request.headers.get("If-Match")))


@bp.delete("/api/settings/<key>")
def delete_setting(key: str) -> BaseResponse:
    """Forget the saved value of one setting."""
    return _settings(services().forget_setting(key))


@bp.post("/api/settings/<key>/forget")
def forget_setting(key: str) -> BaseResponse:
    """The same for a plain form, which cannot send DELETE."""
    services().forget_setting(key)
    return answer({"status": "forgotten"}, 200)


def _settings(layers: Layers) -> Response:
    response = jsonify(settings.over_http(layers))
    response.set_etag(layers.etag)
    return response
