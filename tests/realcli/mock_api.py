"""A scripted Messages API on loopback, and a trap for every request that would leave the machine."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

#: A request that offers one of these comes from the main loop; others want a title or a summary.
_WORK_TOOLS = frozenset({"Bash", "Read", "Write", "StructuredOutput"})
_FACTS = re.compile(r"^<facts>\n(.*?)\n</facts>$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Use:
    """A tool call of the model."""

    tool: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Reply:
    """What the model says and does in one turn."""

    uses: Sequence[Use] = ()
    text: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Refusal:
    """An HTTP error in the form of the API."""

    status: int
    kind: str
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Silence:
    """No answer, until the client gives up or the server is closed."""


Answer = Reply | Refusal | Silence


def usage_limit(seconds: float, kind: str = "five_hour") -> Refusal:
    """The refusal of a subscription whose limit resets in so many seconds."""
    resets = str(int(time.time() + seconds))
    stem = "anthropic-ratelimit-unified"
    headers = {
        f"{stem}-status": "rejected",
        f"{stem}-reset": resets,
        f"{stem}-representative-claim": kind,
        f"{stem}-5h-status": "rejected" if kind == "five_hour" else "allowed",
        f"{stem}-5h-reset": resets,
        f"{stem}-5h-utilization": "1.0",
        f"{stem}-7d-status": "rejected" if kind == "seven_day" else "allowed",
        f"{stem}-7d-reset": resets,
        f"{stem}-7d-utilization": "0.4",
        f"{stem}-overage-status": "rejected",
        f"{stem}-overage-disabled-reason": "org_level_disabled",
        "retry-after": str(int(seconds)),
    }
    return Refusal(429, "rate_limit_error", "This request would exceed your account's rate limit.", headers)


OVERLOADED = Refusal(529, "overloaded_error", "Overloaded")
BAD_TOKEN = Refusal(401, "authentication_error", "Invalid bearer token")


@dataclass(frozen=True)
class Request:
    """One request of the main loop, read the way a model reads it."""

    body: Mapping[str, Any]
    headers: Mapping[str, str]

    @property
    def model(self) -> str:
        """The model asked for."""
        return str(self.body.get("model"))

    @property
    def tools(self) -> frozenset[str]:
        """The names of the tools on offer."""
        return frozenset(str(tool.get("name")) for tool in self.body.get("tools") or ())

    @property
    def facts(self) -> dict[str, Any]:
        """The facts block of the newest prompt; empty where there is none."""
        place = self._prompt()
        return _facts_in(self._messages()[place]) if place is not None else {}

    @property
    def command(self) -> str:
        """The command that the newest prompt asks for."""
        return str(self.facts.get("command", ""))

    @property
    def turn(self) -> int:
        """How often the model has answered since the newest prompt."""
        place = self._prompt()
        later = self._messages()[place:] if place is not None else self._messages()
        return sum(message.get("role") == "assistant" for message in later)

    @property
    def turns_before(self) -> int:
        """How often it had answered before the newest prompt: more than 0 in a resumed agent session."""
        place = self._prompt() or 0
        return sum(message.get("role") == "assistant" for message in self._messages()[:place])

    @property
    def results(self) -> list[tuple[bool, str]]:
        """The tool results since the newest prompt: whether each is an error, and its text."""
        found: list[tuple[bool, str]] = []
        for message in self._messages()[self._prompt() or 0 :]:
            for block in _blocks(message):
                if block.get("type") == "tool_result":
                    found.append((bool(block.get("is_error")), _text(block.get("content"))))
        return found

    @property
    def system(self) -> str:
        """The system prompt."""
        return _text(self.body.get("system"))

    def _messages(self) -> list[dict[str, Any]]:
        return list(self.body.get("messages") or ())

    def _prompt(self) -> int | None:
        places = [n for n, message in enumerate(self._messages()) if _facts_in(message)]
        return places[-1] if places else None


Model = Callable[[Request], Answer]


def _blocks(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content")
    return [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))


def _facts_in(message: Mapping[str, Any]) -> dict[str, Any]:
    if message.get("role") != "user":
        return {}
    found = _FACTS.findall(_text(message.get("content")))
    lines = (line.partition(": ") for line in found[-1].splitlines()) if found else ()
    return {name: json.loads(value) for name, _, value in lines}


class MockApi:
    """The server, as a context manager. ``requests`` are those of the main loop, in order of arrival."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.requests: list[Request] = []
        #: The Authorization and x-api-key headers seen.
        self.credentials: set[tuple[str | None, str | None]] = set()
        #: What the clients tried to reach through the proxy: everything but this server.
        self.strays: list[str] = []
        self.faults: list[str] = []
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._server = _server(self, _ApiHandler)
        self._trap = _server(self, _TrapHandler)

    def __enter__(self) -> Self:
        for server in (self._server, self._trap):
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        for server in (self._server, self._trap):
            server.shutdown()
            server.server_close()

    @property
    def url(self) -> str:
        """The base address of the API."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def proxy(self) -> str:
        """The address of the trap."""
        return f"http://127.0.0.1:{self._trap.server_address[1]}"

    def answer(self, request: Request) -> Answer:
        """Let the model answer; one at a time, because a script may count."""
        with self._lock:
            self.requests.append(request)
            try:
                return self.model(request)
            except Exception as error:
                # A fault of the script must show as itself, not as a retry of the client.
                self.faults.append(f"{request.command}, turn {request.turn}: {error!r}")
                return Refusal(400, "invalid_request_error", f"the script failed: {error!r}")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    api: MockApi

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed leaves its connection; that is what the tests are about."""


def _server(api: MockApi, handler: type[BaseHTTPRequestHandler]) -> _Server:
    server = _Server(("127.0.0.1", 0), handler)
    server.api = api
    return server


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test output clean."""

    def send(self, status: int, body: bytes, kind: str, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {"content-type": kind, "request-id": "req_mock", **headers}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_json(self, status: int, value: Any, headers: Mapping[str, str] | None = None) -> None:
        self.send(status, json.dumps(value).encode(), "application/json", headers or {})

    def refuse(self, refusal: Refusal) -> None:
        error = {"type": refusal.kind, "message": refusal.message}
        self.send_json(refusal.status, {"type": "error", "error": error}, refusal.headers)


class _TrapHandler(_Handler):
    def handle_one_request(self) -> None:
        """Note what was asked for, whatever the method, and refuse it."""
        line = self.rfile.readline(65537).decode("latin-1").strip()
        if line:
            self.server.api.strays.append(line)
            self.wfile.write(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        self.close_connection = True


class _ApiHandler(_Handler):
    def do_HEAD(self) -> None:
        self.send_json(200, {})

    def do_GET(self) -> None:
        self.refuse(Refusal(404, "not_found_error", "mock"))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or b"{}")
        path = urlsplit(self.path).path
        if path.endswith("/count_tokens"):
            self.send_json(200, {"input_tokens": 1234})
        elif path == "/v1/messages":
            api = self.server.api
            api.credentials.add((self.headers.get("authorization"), self.headers.get("x-api-key")))
            self._message(Request(body, dict(self.headers.items())))
        else:
            self.refuse(Refusal(404, "not_found_error", "mock"))

    def _message(self, request: Request) -> None:
        works = bool(request.tools & _WORK_TOOLS)
        answer = self.server.api.answer(request) if works else Reply(text="A short title")
        if isinstance(answer, Refusal):
            self.refuse(answer)
        elif isinstance(answer, Silence):
            self.server.api.closing.wait()
            self.close_connection = True
        elif request.body.get("stream"):
            body = "".join(_events(request.model, answer)).encode()
            self.send(200, body, "text/event-stream", answer.headers)
        else:
            message = {
                **_message(request.model),
                "content": [block for block, _ in _content(answer)],
                "stop_reason": _stop_reason(answer),
            }
            self.send_json(200, message, answer.headers)


_IDS = iter(range(1, 1_000_000))


def _message(model: str) -> dict[str, Any]:
    usage = {"input_tokens": 1200, "cache_read_input_tokens": 800, "output_tokens": 1}
    return {
        "id": f"msg_{next(_IDS)}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "usage": usage,
    }


def _stop_reason(reply: Reply) -> str:
    return "tool_use" if reply.uses else "end_turn"


def _content(reply: Reply) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each block of an answer, whole, and the delta that fills it when it is streamed."""
    if reply.text or not reply.uses:
        text = reply.text or "Done."
        yield {"type": "text", "text": text}, {"type": "text_delta", "text": text}
    for use in reply.uses:
        block = {"type": "tool_use", "id": f"toolu_{next(_IDS)}", "name": use.tool, "input": use.arguments}
        yield block, {"type": "input_json_delta", "partial_json": json.dumps(use.arguments)}


def _events(model: str, reply: Reply) -> Iterator[str]:
    yield _event("message_start", message=_message(model))
    for index, (block, delta) in enumerate(_content(reply)):
        empty = {**block, "text": ""} if block["type"] == "text" else {**block, "input": {}}
        yield _event("content_block_start", index=index, content_block=empty)
        yield _event("content_block_delta", index=index, delta=delta)
        yield _event("content_block_stop", index=index)
    ending = {"stop_reason": _stop_reason(reply), "stop_sequence": None}
    yield _event("message_delta", delta=ending, usage={"output_tokens": 90})
    yield _event("message_stop")


def _event(kind: str, **value: Any) -> str:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **value})}\n\n"
