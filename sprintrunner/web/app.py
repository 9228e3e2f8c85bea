"""The application: gate, door, blueprints, streams, in the order a request meets them."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from flask import Flask, Response, abort, request
from werkzeug.middleware.proxy_fix import ProxyFix

from ..events import Event
from ..redact import redact
from ..services import Services
from . import (
    actions,
    api,
    errorpages,
    files,
    fragments,
    hiding,
    login,
    pages,
    pages_history,
    pages_patterns,
    pages_search,
    pages_story,
    pages_time,
    pages_transcript,
    streams,
    visits,
)
from .assets import STATIC
from .context import KeyConverter
from .gate import MAX_BODY, MAX_PARTS, Gate, HopCheck, protect
from .hub import Hub
from .streams import FALLBACK_STREAMS

_BLUEPRINTS = (
    login.bp,
    streams.bp,
    actions.bp,
    api.bp,
    files.bp,
    pages.bp,
    pages_story.bp,
    pages_transcript.bp,
    pages_time.bp,
    pages_history.bp,
    pages_search.bp,
    pages_patterns.bp,
)


def build(services: Services) -> Flask:
    """Wire the application; no thread starts before the first stream."""
    app = Flask("sprintrunner.web", static_folder=str(STATIC), static_url_path="/static")
    app.config.update(
        MAX_CONTENT_LENGTH=MAX_BODY + 1,  # one more, to tell a body in chunks that was cut from a whole one
        MAX_FORM_MEMORY_SIZE=MAX_BODY,
        MAX_FORM_PARTS=MAX_PARTS,
        SEND_FILE_MAX_AGE_DEFAULT=None,
    )
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.url_map.merge_slashes = False  # a story key may hold two slashes
    app.url_map.converters["key"] = KeyConverter
    app.extensions["services"] = services
    _wire_requests(app, services)
    for blueprint in _BLUEPRINTS:
        app.register_blueprint(blueprint)
    errorpages.register(app)
    services.hub = _hub(app, services)
    _wire_middleware(app, services)
    return app


def _wire_requests(app: Flask, services: Services) -> None:
    app.extensions["stream_slots"] = threading.Semaphore(FALLBACK_STREAMS)
    app.before_request(_measure_body)
    if services.token is not None:
        door = login.Door(services.state_dir, services.token, lambda: services.port)
        app.extensions["door"] = door
        app.before_request(lambda: login.guard(door))
    else:
        allowance = visits.Allowance()
        app.before_request(lambda: visits.note_sender(services, allowance))
    secrets = hiding.values_of(services)
    app.after_request(lambda response: _finish(response, secrets))


def _measure_body() -> None:
    """Read a body now: its limit acts only on reading, and a view may not read it."""
    if request.method in ("POST", "PUT", "DELETE"):
        data = request.get_data(cache=True)
        if len(data) > MAX_BODY:
            abort(413, f"the body may hold at most {MAX_BODY} bytes")
        if data.count(b"&") >= MAX_PARTS and request.mimetype == "application/x-www-form-urlencoded":
            abort(413, f"a form may have at most {MAX_PARTS} parts")
        if request.mimetype == "multipart/form-data":
            _ = request.form  # its parts are counted only while it is taken apart, which not every view does


def _finish(response: Response, secrets: Sequence[str]) -> Response:
    hiding.hide(response, secrets)
    protect(response.headers)
    return response


def _hub(app: Flask, services: Services) -> Hub:
    def heartbeat() -> float:
        return float(services.layers().values.heartbeat_seconds)

    return Hub(services.store, Fragments(app, services), heartbeat)


class Fragments:
    """The renderer of the hub: fragments need the context of a request, and the hub has none."""

    def __init__(self, app: Flask, services: Services) -> None:
        self._app = app
        self._services = services
        self._secrets = hiding.values_of(services)

    def snapshot(self) -> str:
        """Everything on the page that can change."""
        with self._app.test_request_context("/events"):
            return redact(fragments.snapshot(self._services), self._secrets)

    def changes(self, events: Sequence[Event]) -> str:
        """What these events changed."""
        with self._app.test_request_context("/events"):
            return redact(fragments.changes(self._services, events), self._secrets)


def _wire_middleware(app: Flask, services: Services) -> None:
    values = services.layers().values
    hops = values.trusted_proxies
    gated = Gate(app.wsgi_app, (*values.allowed_hosts, *services.bind_hosts))
    if hops:
        fixed = ProxyFix(gated, x_for=hops, x_proto=hops, x_host=hops)
        app.wsgi_app = HopCheck(fixed, hops)  # type: ignore[method-assign]
    else:
        app.wsgi_app = gated  # type: ignore[method-assign]
