"""Requests that change something; each goes into the orchestrator's inbox and comes back answered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Blueprint
from werkzeug.exceptions import BadRequest
from werkzeug.wrappers import Response

from ..sprint import Command
from .context import answer, body, row_id, services, whole_number

bp = Blueprint("actions", __name__, url_prefix="/api")

#: Bounds of a batch in cycles (contract section 10).
MIN_CYCLES, MAX_CYCLES = 1, 998
_TRUE = frozenset({"true", "1", "on", "yes"})
_FALSE = frozenset({"false", "0", "off", "no", ""})


@bp.post("/orchestrator/start")
def start() -> Response:
    """Start a batch of so many cycles, or of all, maybe limited to some stories."""
    values = body()
    arguments = {"batch_size": _batch_size(values), "stories": _stories(values)}
    return answer(services().submit("start", arguments), 202)


@bp.post("/orchestrator/stop")
def stop() -> Response:
    """Stop now, or after the current story."""
    return answer(services().submit("stop", {"after_story": _flag(body(), "after_story")}), 202)


@bp.post("/orchestrator/resume")
def resume() -> Response:
    """Continue the newest interrupted batch, or end a sleep."""
    return answer(services().submit("resume", {}), 202)


@bp.post("/stories/<key:key>/retry")
def retry(key: str) -> Response:
    """Let a story go on at a phase."""
    return answer(services().submit("retry", {"key": key, "phase": _phase(body())}), 202)


@bp.post("/stories/<key:key>/done")
def done(key: str) -> Response:
    """A person says that the story is done."""
    return answer(services().submit("done", {"key": key}), 200)


@bp.post("/stories/<key:key>/skip")
def skip(key: str) -> Response:
    """A person has seen that the story is blocked."""
    return answer(services().submit("skip", {"key": key}), 200)


@bp.post("/commands/<command_id>/stop")
def stop_command(command_id: str) -> Response:
    """End the process tree of one command."""
    return answer(services().submit("stop_command", {"id": row_id(command_id)}), 202)


def _batch_size(values: Mapping[str, Any]) -> int | None:
    """The number of cycles; None for all."""
    given = values.get("batch_size")
    if given is None or given == "":
        return int(services().layers().values.default_max_cycles)
    if given == "all":
        return None
    # A form can only send text; JSON has numbers, but 1.0 and true are none of a person's.
    size = whole_number(given, MIN_CYCLES, MAX_CYCLES) if isinstance(given, str) else given
    if type(size) is not int or not MIN_CYCLES <= size <= MAX_CYCLES:
        raise BadRequest(f'batch_size must be "all" or a whole number from {MIN_CYCLES} to {MAX_CYCLES}')
    return size


def _stories(values: Mapping[str, Any]) -> list[str] | None:
    given = values.get("stories")
    if given is None:
        return None
    if not isinstance(given, list) or not all(isinstance(key, str) and key for key in given):
        raise BadRequest("stories must be a list of story keys")
    if not given:
        raise BadRequest("stories is empty; leave it out to take all stories in their order")
    return given


def _flag(values: Mapping[str, Any], name: str) -> bool:
    given = values.get(name, False)
    if given is None or isinstance(given, bool):
        return bool(given)
    if isinstance(given, str) and given.lower() in _TRUE | _FALSE:
        return given.lower() in _TRUE
    raise BadRequest(f"{name} must be true or false")


def _phase(values: Mapping[str, Any]) -> str | None:
    given = values.get("phase")
    if given is None or given == "":
        return None
    if given not in [str(command) for command in Command]:
        raise BadRequest(f"phase must be one of {', '.join(Command)}")
    return str(given)
