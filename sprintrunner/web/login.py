"""The token: bearer header, login page, one-time code and session cookie."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from flask import Blueprint, Response, current_app, make_response, redirect, request
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import TooManyRequests, Unauthorized
from werkzeug.wrappers import Response as BaseResponse

from .context import local_path, services, shown_status
from .errorpages import page
from .gate import STREAMS

bp = Blueprint("login", __name__)

#: Seconds a printed login link is good for.
CODE_SECONDS = 600
#: Seconds a session lasts.
SESSION_SECONDS = 30 * 24 * 3600
_FREE_FAILURES = 5
_OPEN_ENDPOINTS = frozenset({"static", "login.form", "login.enter", "files.healthz"})
_OPEN_PREFIX = "/static/"
# Data files are read by programs: a login page in their place would be taken for content.
_DATA_ENDS = (".yaml", ".csv", ".md", ".json", ".db")


def issue_code(state_dir: Path) -> str:
    """Make the one-time code of a login link; the one before becomes worthless. Only its hash is kept."""
    code = secrets.token_urlsafe(24)
    record = {"sha256": _digest(code), "until": time.time() + CODE_SECONDS}
    _write_private(state_dir / "login-code", json.dumps(record).encode())
    return code


def use_code(state_dir: Path, code: str) -> bool:
    """Whether ``code`` is the present one, in time and unused; it is used up by that."""
    path = state_dir / "login-code"
    try:
        record = json.loads(path.read_bytes())
        good = hmac.compare_digest(str(record["sha256"]), _digest(code))
        left = float(record["until"]) - time.time()
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if not good or not 0 < left <= CODE_SECONDS:
        return False
    try:
        path.unlink()  # only one of two that come at once succeeds
    except OSError:
        return False
    return True


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _write_private(path: Path, data: bytes) -> None:
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    temporary.replace(path)


class Sessions:
    """Signs session cookies; the key depends on the token, so that a new token ends old sessions."""

    def __init__(self, state_dir: Path, token: str) -> None:
        # A secret of our own beside the token: other servers on localhost receive the cookie, and
        # must not be able to try out tokens against it.
        self._key = hmac.digest(_secret(state_dir), token.encode(), "sha256")

    def issue(self) -> str:
        """A new cookie value, good for SESSION_SECONDS."""
        text = f"{int(time.time()) + SESSION_SECONDS}.{secrets.token_urlsafe(16)}"
        return f"{text}.{self._signature(text)}"

    def accepts(self, cookie: str) -> bool:
        """Whether the value is one of ours and not too old."""
        text, _, signature = cookie.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._signature(text).encode()):
            return False
        return int(text.partition(".")[0]) > time.time()

    def _signature(self, text: str) -> str:
        return hmac.new(self._key, text.encode(), "sha256").hexdigest()


def _secret(state_dir: Path) -> bytes:
    path = state_dir / "session-secret"
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    _write_private(path, secrets.token_bytes(32))
    return path.read_bytes()


class Brake:
    """After five failures in a row each further attempt of that address waits a second."""

    def __init__(self) -> None:
        self._failures: dict[str, int] = {}
        self._lock = threading.Lock()
        # Waiting holds a server thread: never more than two.
        self._slots = threading.Semaphore(2)

    def wait(self, address: str) -> None:
        """Called before an attempt is judged; 429 while too many wait."""
        if self._failures.get(address, 0) < _FREE_FAILURES:
            return
        if not self._slots.acquire(blocking=False):
            raise TooManyRequests("too many attempts; wait a moment and try again", retry_after=1)
        try:
            time.sleep(1.0)
        finally:
            self._slots.release()

    def judged(self, address: str, good: bool) -> None:
        """Count a failure, or forget all of this address."""
        with self._lock:
            if good:
                self._failures.pop(address, None)
                return
            self._failures[address] = self._failures.get(address, 0) + 1
            if len(self._failures) > 1000:
                self._failures.pop(next(iter(self._failures)))


class Door:
    """Who is let in where a token is in force."""

    def __init__(self, state_dir: Path, token: str, port: Callable[[], int]) -> None:
        self._state_dir = state_dir
        self._token = token.encode()
        self._port = port
        self.sessions = Sessions(state_dir, token)
        self.brake = Brake()

    @property
    def cookie(self) -> str:
        """The cookie's name. Cookies ignore ports: two servers on one host would overwrite each other's."""
        return f"sprintrunner_{self._port()}"

    def knows(self, authorization: str | None, cookie: str | None) -> bool:
        """Whether the bearer token or the session is good; a wrong header is not mended by a cookie."""
        if authorization is not None:
            scheme, _, given = authorization.partition(" ")
            return scheme.lower() == "bearer" and self.is_token(given.strip().encode("latin-1", "replace"))
        return cookie is not None and self.sessions.accepts(cookie)

    def is_token(self, given: bytes) -> bool:
        """Compare in constant time."""
        return hmac.compare_digest(given, self._token)

    def admits(self, token: str, code: str) -> bool:
        """Whether the form's token or the link's code is good."""
        if code:
            return use_code(self._state_dir, code)
        return self.is_token(token.encode("utf-8", "replace"))


def guard(door: Door) -> BaseResponse | None:
    """Before each request: None lets it pass; people are sent to the login, programs get 401."""
    if request.endpoint in _OPEN_ENDPOINTS or request.path.startswith(_OPEN_PREFIX):
        return None
    authorization = request.headers.get("Authorization")
    if door.knows(authorization, request.cookies.get(door.cookie)):
        return None
    if authorization is None and _is_page():
        return redirect(f"/login?next={quote(request.full_path.rstrip('?'), safe='')}", 303)
    sentence = "a token is needed: send Authorization: Bearer, or log in at /login"
    raise Unauthorized(sentence, www_authenticate=WWWAuthenticate("bearer"))


def _is_page() -> bool:
    path = request.path
    if request.method not in ("GET", "HEAD") or path.startswith("/api/") or path in STREAMS:
        return False
    return not path.endswith(_DATA_ENDS)


def _door() -> Door | None:
    return current_app.extensions.get("door")


@bp.get("/login")
def form() -> BaseResponse:
    """The login page; with the code of a printed link it logs in at once."""
    door = _door()
    code = request.args.get("code", "")
    if door is None:
        return redirect("/", 303)
    if code and request.method == "GET":
        return _try(door, "", code)
    return _page("", 200)


@bp.post("/login")
def enter() -> BaseResponse:
    """Exchange the token, or a code, for a session cookie."""
    door = _door()
    if door is None:
        return redirect("/", 303)
    return _try(door, request.form.get("token", ""), request.form.get("code", ""))


def _try(door: Door, token: str, code: str) -> BaseResponse:
    address = request.remote_addr or ""
    door.brake.wait(address)
    good = door.admits(token, code)
    door.brake.judged(address, good)
    if not good:
        wrong = "This login link was used or is too old." if code else "This is not the token."
        return _page(wrong, 401)
    response = redirect(local_path(request.values.get("next")), 303)
    response.set_cookie(
        door.cookie,
        door.sessions.issue(),
        max_age=SESSION_SECONDS,
        secure=request.is_secure,
        httponly=True,
        samesite="Strict",
    )
    return response


def _page(message: str, status: int) -> Response:
    values = {"message": message, "next": local_path(request.values.get("next"))}
    return make_response(page("login.html", project=services().project.name, **values), shown_status(status))
