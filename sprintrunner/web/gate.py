"""The gate before all other code: hosts, origins and bodies let in, and the headers of every answer."""

from __future__ import annotations

import ipaddress
import json
import re
import socket
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from werkzeug.datastructures import Headers
from werkzeug.http import parse_options_header

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

#: Largest body of a request, in bytes.
MAX_BODY = 64 << 10
#: Most parts of a form, multipart or not.
MAX_PARTS = 1000
#: Both streams: a foreign page could read along, so they pass the gate like an unsafe method.
STREAMS = frozenset({"/events", "/api/events/stream"})

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_METHODS = _SAFE | {"POST", "PUT", "DELETE"}
_BODY_TYPES = frozenset({"application/json", "application/x-www-form-urlencoded", "multipart/form-data"})
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")
_UNSPECIFIED = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, never bound
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_FORWARDED = ("HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_HOST", "HTTP_X_FORWARDED_PROTO")

#: On every answer, errors and streams included.
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}

_TITLES = {
    400: "400 Bad Request",
    403: "403 Forbidden",
    405: "405 Method Not Allowed",
    413: "413 Content Too Large",
    415: "415 Unsupported Media Type",
    421: "421 Misdirected Request",
}


class Stopped(Exception):
    """A request the gate does not let in: the status and one sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


def protect(headers: Headers) -> None:
    """Add the security headers, and ``no-store`` where nothing else was said about caching."""
    for name, value in SECURITY_HEADERS.items():
        headers[name] = value
    headers.setdefault("Cache-Control", "no-store")


class Gate:
    """WSGI middleware; stands right behind the proxy fix, before Flask sees the request."""

    def __init__(self, app: WSGIApplication, hosts: Collection[str]) -> None:
        self._app = app
        names = {host.lower().strip("[]") for host in hosts}
        self._everywhere = bool(names & _UNSPECIFIED)
        self._hosts = frozenset(names - _UNSPECIFIED)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            self._check(environ)
        except Stopped as stopped:
            return refuse(stopped, environ, start_response)
        return self._app(environ, start_response)

    def _check(self, environ: WSGIEnvironment) -> None:
        host = environ.get("HTTP_HOST", "")
        # Bound to every address, the one reached is ours; unlike a name it cannot be rebound.
        names = self._hosts | local_address(environ) if self._everywhere else self._hosts
        if not host_allowed(host, names):
            raise Stopped(421, "this host name is not served here; add it to allowed_hosts")
        check_target(environ)
        method = environ["REQUEST_METHOD"]
        if method not in _METHODS:
            raise Stopped(405, "this method is not used here")
        if method not in _SAFE or environ.get("PATH_INFO") in STREAMS:
            check_origin(environ, host)
        check_body(environ)


class HopCheck:
    """WSGI middleware before the proxy fix: more hops than configured means that the values are not ours."""

    def __init__(self, app: WSGIApplication, hops: int) -> None:
        self._app = app
        self._hops = hops

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if any(environ.get(name, "").count(",") >= self._hops for name in _FORWARDED):
            return refuse(Stopped(400, "more proxies than trusted_proxies allows"), environ, start_response)
        return self._app(environ, start_response)


def refuse(stopped: Stopped, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer in the form of the path: JSON under ``/api``, else plain text."""
    as_json = str(environ.get("PATH_INFO", "")).startswith("/api/")
    text = json.dumps({"error": stopped.sentence}) if as_json else stopped.sentence + "\n"
    data = text.encode()
    headers = Headers({"Content-Length": str(len(data))})
    headers["Content-Type"] = "application/json" if as_json else "text/plain; charset=utf-8"
    protect(headers)
    start_response(_TITLES[stopped.status], headers.to_wsgi_list())
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [data]


def host_allowed(host: str, names: Collection[str]) -> bool:
    """Whether a Host header names us: localhost, a loopback address, or one of ``names`` (any port).

    Only this stops DNS rebinding: there Origin equals Host and no Sec-Fetch header is sent.
    """
    matched = _HOST.fullmatch(host)
    if matched is None or int(matched[2] or 0) > 65535:
        return False
    bracketed = matched[1].startswith("[")
    name = matched[1].strip("[]").lower()
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return not bracketed and (name == "localhost" or name in names)
    return (address.version == 6) is bracketed and (address.is_loopback or name in names)


def local_address(environ: dict[str, Any]) -> frozenset[str]:
    """The address of this machine that the connection came in on, where the server tells its socket."""
    sock = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
    name = sock.getsockname() if isinstance(sock, socket.socket) else None
    if not isinstance(name, tuple):
        return frozenset()
    return frozenset({str(name[0]).removeprefix("::ffff:")})


def check_target(environ: WSGIEnvironment) -> None:
    """Refuse absolute-form targets and upgrades: no browser sends the one, nothing here speaks the other."""
    target = environ.get("RAW_URI") or environ.get("REQUEST_URI") or "/"
    if not target.startswith("/") and not (target == "*" and environ["REQUEST_METHOD"] == "OPTIONS"):
        raise Stopped(400, "the request target must be a path")
    if environ.get("HTTP_UPGRADE", "").lower().strip() == "websocket":
        raise Stopped(400, "there are no WebSockets here; use the event streams")


def check_origin(environ: WSGIEnvironment, host: str) -> None:
    """Sec-Fetch-Site and Origin, each where it is there, must say that our own page asks."""
    site = environ.get("HTTP_SEC_FETCH_SITE")
    if site is not None and site not in ("same-origin", "none"):
        raise Stopped(403, "requests from other sites are refused")
    origin = environ.get("HTTP_ORIGIN")
    if origin is not None and not same_origin(origin, environ["wsgi.url_scheme"], host):
        raise Stopped(403, "requests from other origins are refused")


def same_origin(origin: str, scheme: str, host: str) -> bool:
    """Whether an Origin header is exactly ``scheme://host``, default ports spelt or not."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    if parts.path or parts.query or parts.fragment or parts.scheme.lower() != scheme:
        return False
    return _with_port(parts.netloc, scheme) == _with_port(host, scheme) is not None


def _with_port(netloc: str, scheme: str) -> tuple[str, str | None] | None:
    matched = _HOST.fullmatch(netloc)
    return (matched[1].lower(), matched[2] or _DEFAULT_PORTS.get(scheme)) if matched else None


def check_body(environ: WSGIEnvironment) -> None:
    """A body only as form or JSON, and only a short one; what is sent in chunks is measured when read."""
    length = str(environ.get("CONTENT_LENGTH") or "0")
    chunked = "HTTP_TRANSFER_ENCODING" in environ
    if not (length.isascii() and length.isdigit()):
        raise Stopped(400, "the length of the body is not a number")
    if len(length) > 15 or int(length) > MAX_BODY:
        raise Stopped(413, f"the body may hold at most {MAX_BODY} bytes")
    if (int(length) or chunked) and _media_type(environ) not in _BODY_TYPES:
        raise Stopped(415, "send the body as a form or as JSON")


def _media_type(environ: dict[str, Any]) -> str:
    return parse_options_header(environ.get("CONTENT_TYPE", ""))[0].lower()
