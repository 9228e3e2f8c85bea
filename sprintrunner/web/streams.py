"""The two stream routes and the hand-over of their connections to the hub."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, abort, current_app, request
from werkzeug.wsgi import ClosingIterator

from .context import services
from .frames import RETRY, cursors
from .hub import Hub
from .sender import Client, Kind

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

bp = Blueprint("streams", __name__)

#: Streams served by a thread each where a server gives no socket; the rest stay for pages.
FALLBACK_STREAMS = 4
_FULL = "too many open streams; close some tabs and try again"
# What the dummy connection of the server is told once the real one is ours.
_TAKEN = [("Content-Length", "0"), ("Connection", "close")]
_HOP_HEADERS = frozenset({"content-length", "connection", "transfer-encoding"})


@bp.get("/events")
def fragments() -> Response:
    """Fragments of the dashboard as they change."""
    return _stream(Kind.HTML)


@bp.get("/api/events/stream")
def events() -> Response:
    """Events as JSON, one a message."""
    return _stream(Kind.JSON)


def _stream(kind: Kind) -> Response:
    hub = services().hub
    if hub is None or not hub.has_room:
        abort(503, _FULL)
    sent = cursors(request.headers.get("Last-Event-ID"), request.args.get("after"))
    response = HandOver(hub, kind, sent) if request.method == "GET" else Response()
    response.headers["Content-Type"] = "text/event-stream; charset=utf-8"
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"
    return response


class HandOver(Response):
    """A response that gives its connection to the hub as the very last step of the request."""

    def __init__(self, hub: Hub, kind: Kind, candidates: tuple[int, ...]) -> None:
        super().__init__()
        self._hub = hub
        self._kind = kind
        self._candidates = candidates
        self._slots: threading.Semaphore = current_app.extensions["stream_slots"]

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        taken = server_socket(environ)
        try:
            if taken is None:
                return self._generate(environ, start_response)
            return self._hand_over(taken, start_response)
        except OSError:
            # No descriptor left: nothing was given away yet, so the server can still answer.
            return Response(_FULL + "\n", 503, mimetype="text/plain")(environ, start_response)

    def _hand_over(self, theirs: socket.socket, start_response: StartResponse) -> Iterable[bytes]:
        dummy, other_end = socket.socketpair()
        try:
            mine = theirs.dup()
        except OSError:
            dummy.close()
            other_end.close()
            raise
        # dup() alone would not do: the server shuts the connection itself down, not its descriptor.
        os.dup2(dummy.fileno(), theirs.fileno(), inheritable=False)
        dummy.close()
        other_end.shutdown(socket.SHUT_WR)  # the server's wait for the client's end is over at once
        self._hub.attach(Client(mine, self._kind, self._candidates), self._head() + RETRY)
        start_response("200 OK", list(_TAKEN))
        return ClosingIterator([], other_end.close)

    def _head(self) -> bytes:
        lines = ["HTTP/1.1 200 OK"]
        lines += [f"{name}: {value}" for name, value in self.headers if name.lower() not in _HOP_HEADERS]
        return "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1")

    def _generate(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """For servers without a plain socket: the hub writes into a pair whose other end a thread reads."""
        if not self._slots.acquire(blocking=False):
            return Response(_FULL + "\n", 503, mimetype="text/plain")(environ, start_response)
        try:
            ours, theirs = socket.socketpair()
        except OSError:
            self._slots.release()
            raise
        self._hub.attach(Client(theirs, self._kind, self._candidates), RETRY)
        start_response("200 OK", [(n, v) for n, v in self.headers if n.lower() not in _HOP_HEADERS])
        return ClosingIterator(_read(ours), [lambda: _end(ours), self._slots.release])


def server_socket(environ: dict[str, Any]) -> socket.socket | None:
    """The connection under this request, where it is a plain one that can be taken over."""
    found = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
    one_by_one = environ.get("SERVER_PROTOCOL") in ("HTTP/1.0", "HTTP/1.1")
    if type(found) is socket.socket and one_by_one and environ.get("HTTP_VERSION") != "2":
        return found
    return None


def _read(sock: socket.socket) -> Iterator[bytes]:
    with contextlib.suppress(OSError):
        while data := sock.recv(65536):
            yield data


def _end(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()
