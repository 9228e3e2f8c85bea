"""The description of ``/api`` as OpenAPI 3.1; ``docs/openapi.json`` is what this makes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .. import __version__
from ..events import EventType
from ..settings import FIELDS, Settings
from ..sprint import BatchStatus, Command, StoryStatus
from .actions import MAX_CYCLES, MIN_CYCLES
from .api import DEFAULT_EVENTS, MAX_BATCHES, MAX_EVENTS
from .frames import MAX_ID

Schema = dict[str, Any]

_ANY: Schema = {"type": "object"}
_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_ID: Schema = {"type": "integer", "minimum": 1, "maximum": MAX_ID}
_CURSOR: Schema = {"type": "integer", "minimum": 0, "maximum": MAX_ID}
_ERROR = "#/components/schemas/Error"
#: What any request may be answered besides its own statuses: by the gate, the door, or a broken disk.
_ALWAYS = {
    400: "not understood; the sentence says why",
    401: "a token is in force and was not sent",
    403: "the request comes from another site",
    413: "the body is too large",
    415: "the body is neither a form nor JSON",
    421: "this host name is not served",
    503: "the database or the orchestrator does not answer",
}


def _record(required: Mapping[str, Schema], **optional: Schema) -> Schema:
    return {"type": "object", "properties": {**required, **optional}, "required": list(required)}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _list(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


def _one_of(values: Any) -> Schema:
    return {"type": "string", "enum": [str(value) for value in values]}


def _status(word: str) -> Schema:
    return _record({"status": {"const": word}})


_EVENT = _record({"id": _ID, "type": _one_of(EventType), "timestamp": _COUNT, "payload": _ANY})
_BATCH = _record(
    {
        "id": _ID,
        "status": _one_of(BatchStatus),
        "started_at": _COUNT,
        "ended_at": _or_null(_COUNT),
        "max_cycles": _or_null(_COUNT),
        "cycles_completed": _COUNT,
        "duration_seconds": {"type": "number", "minimum": 0},
    },
    story_count=_COUNT,
    cost_usd=_or_null({"type": "number"}),
)
_NOW = _record(
    {
        "status": _one_of(("idle", "starting", "running", "waiting", "stopping")),
        "batch_id": _or_null(_ID),
        "cycles_completed": _COUNT,
        "max_cycles": _or_null(_COUNT),
        "current_stories": _list(_TEXT),
    },
    resumes_at=_COUNT,
)
_ENTRY = _record(
    {
        "key": _TEXT,
        "epic": _or_null(_TEXT),
        "status": _or_null(_one_of(StoryStatus)),
        "raw_status": _TEXT,
        "class": _one_of(("open", "done", "held", "dropped", "unknown")),
        "title": _or_null(_TEXT),
    }
)
_FILE = _record(
    {
        "path": _TEXT,
        "writable": {"type": "boolean"},
        "stories": _list(_ENTRY),
        "epics": _list(_TEXT),
        "warnings": _list(_TEXT),
    }
)
_SIZE: Schema = {
    "anyOf": [{"const": "all"}, {"type": "integer", "minimum": MIN_CYCLES, "maximum": MAX_CYCLES}],
}


def settings_schema() -> Schema:
    """The settings that may be seen and changed over HTTP; a change names some of them."""
    whole = Settings.model_json_schema()
    shown = {info.name: whole["properties"][info.name] for info in FIELDS if info.editable_over_http}
    kept = (
        "type",
        "anyOf",
        "enum",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "pattern",
        "maxLength",
        "title",
    )
    return {
        "type": "object",
        "properties": {
            name: {key: value for key, value in schema.items() if key in kept}
            | {"description": schema.get("description", ""), "default": schema.get("default")}
            for name, schema in shown.items()
        },
        "additionalProperties": False,
    }


def _query(name: str, schema: Schema, default: int | None = None) -> Schema:
    told = schema if default is None else {**schema, "default": default}
    return {"name": name, "in": "query", "schema": told}


def _segment(name: str, schema: Schema) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _answer(what: str, schema: Schema) -> Schema:
    return {"description": what, "content": {"application/json": {"schema": schema}}}


def _operation(name: str, what: str, answers: Mapping[int, Schema], **more: Any) -> Schema:
    """One operation; ``refusals`` are further statuses with their words, ``body`` a schema of JSON."""
    told = {str(code): _answer("as asked", schema) for code, schema in answers.items()}
    told |= {str(code): {"$ref": f"#/components/responses/{code}"} for code in _ALWAYS}
    told |= {str(code): _answer(why, {"$ref": _ERROR}) for code, why in more.get("refusals", {}).items()}
    made: Schema = {"operationId": name, "summary": what, "responses": told}
    if more.get("parameters"):
        made["parameters"] = more["parameters"]
    if "body" in more:
        made["requestBody"] = {
            "required": more.get("body_required", False),
            "content": {"application/json": {"schema": more["body"]}},
        }
    return made


def _reading() -> Schema:
    """What only reads."""
    limits = [
        _query("limit", {"type": "integer", "minimum": 1, "maximum": MAX_BATCHES}),
        _query("offset", _CURSOR),
    ]
    events = [
        _query("after", _CURSOR, 0),
        _query("limit", {"type": "integer", "minimum": 1, "maximum": MAX_EVENTS}, DEFAULT_EVENTS),
        _query("batch_id", _ID),
    ]
    page = _record({"events": _list(_EVENT), "last_id": _CURSOR})
    listed = _record({"batches": _list(_BATCH), "total": _COUNT})
    whole = _record({"batch": _BATCH, "stories": _list(_ANY), "stats": _ANY})
    one = [_segment("batch_id", _ID)]
    return {
        "/api/events": {"get": _operation("events", "Events after a cursor", {200: page}, parameters=events)},
        "/api/events/stream": {"get": _stream()},
        "/api/orchestrator/status": {"get": _operation("status", "What is running now", {200: _NOW})},
        "/api/batches": {
            "get": _operation("batches", "History, newest first", {200: listed}, parameters=limits)
        },
        "/api/batches/{batch_id}": {
            "get": _operation(
                "batch", "One batch", {200: whole}, parameters=one, refusals={404: "there is no such batch"}
            )
        },
        "/api/sprint-status": {
            "get": _operation(
                "sprint_status",
                "The status file as it was understood",
                {200: _FILE},
                refusals={404: "there is no status file", 409: "it cannot be read"},
            )
        },
    }


def _stream() -> Schema:
    cursor = {"name": "Last-Event-ID", "in": "header", "schema": _TEXT}
    made = _operation("stream", "Events as they happen", {}, parameters=[_query("after", _TEXT), cursor])
    form = {"text/event-stream": {"schema": _TEXT}}
    made["responses"]["200"] = {
        "description": "init or the events after the cursor, then what follows",
        "content": form,
    }
    return made


def _acting() -> Schema:
    """What changes something."""
    busy = {409: "not now; the sentence says why"}
    start = _record({}, batch_size=_SIZE, stories={**_list(_TEXT), "minItems": 1})
    started = _record({"status": {"const": "started"}, "batch_id": _ID}, batch_size=_SIZE)
    flag = _record({}, after_story={"type": "boolean"})
    phase = _record({}, phase=_one_of(Command))
    batch = "/api/orchestrator"
    paths = {
        f"{batch}/start": _operation("start", "Start a batch", {202: started}, body=start, refusals=busy),
        f"{batch}/stop": _operation("stop", "Stop it", {202: _status("stopping")}, body=flag, refusals=busy),
        f"{batch}/resume": _operation(
            "resume", "Continue the interrupted one", {202: started}, refusals=busy
        ),
        **_about_stories(busy, phase),
    }
    return {path: {"post": operation} for path, operation in paths.items()}


def _about_stories(busy: Mapping[int, str], phase: Schema) -> dict[str, Schema]:
    key, number = [_segment("key", {**_TEXT, "minLength": 1})], [_segment("command_id", _ID)]
    refusals = {404: "there is no such thing", **busy}
    told = _record({"status": _TEXT})
    story = "/api/stories/{key}"
    return {
        f"{story}/retry": _operation(
            "retry", "Go on at a phase", {202: told}, parameters=key, body=phase, refusals=refusals
        ),
        f"{story}/done": _operation(
            "done", "A person says it is done", {200: told}, parameters=key, refusals=refusals
        ),
        f"{story}/skip": _operation("skip", "Seen", {200: told}, parameters=key, refusals=refusals),
        "/api/commands/{command_id}/stop": _operation(
            "stop_command", "End one command", {202: told}, parameters=number, refusals=refusals
        ),
    }


def _settings() -> Schema:
    schema = settings_schema()
    key = [_segment("key", _TEXT)]
    tag = [{"name": "If-Match", "in": "header", "schema": _TEXT}]
    stale = {412: "they were changed since that ETag"}
    forgotten = _record({"status": {"const": "forgotten"}})
    put = _operation(
        "change_settings",
        "Change some settings, all or none",
        {200: schema},
        parameters=tag,
        body=schema,
        body_required=True,
        refusals=stale,
    )
    return {
        "/api/settings": {"get": _operation("settings", "The settings", {200: schema}), "put": put},
        "/api/settings/{key}": {
            "delete": _operation("forget", "Forget a saved value", {200: schema}, parameters=key)
        },
        "/api/settings/{key}/forget": {
            "post": _operation("forget_by_form", "The same for a form", {200: forgotten}, parameters=key)
        },
    }


def describe() -> Schema:
    """The whole description."""
    texts: Schema = {"type": "object", "additionalProperties": _TEXT}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Sprint Runner",
            "version": __version__,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "http://127.0.0.1:8080"}],
        "security": [{}, {"token": []}],
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Error": _record({"error": _TEXT}, fields=texts)},
            "responses": {str(code): _answer(why, {"$ref": _ERROR}) for code, why in _ALWAYS.items()},
        },
        "paths": {**_reading(), **_acting(), **_settings()},
    }


def as_text() -> str:
    """The description as the file holds it."""
    return json.dumps(describe(), indent=1, ensure_ascii=False) + "\n"
