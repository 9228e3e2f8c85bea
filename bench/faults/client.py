"""HTTP requests to the server, and a stream client that records what was published."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Answer:
    """One answer; ``json`` decodes its body."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def request(
    port: int,
    method: str,
    path: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = 30.0,
) -> Answer:
    """Send one request on a connection of its own; a body that is not bytes goes as JSON.

    Raises OSError or HTTPException while nobody answers.
    """
    sent = dict(headers or {})
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
        sent.setdefault("Content-Type", "application/json")
    began = time.monotonic()
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout)
    try:
        connection.request(method, path, body, sent)
        answer = connection.getresponse()
        data = answer.read()
    finally:
        connection.close()
    return Answer(answer.status, dict(answer.getheaders()), data, time.monotonic() - began)


@dataclass
class StreamClient:
    """A reader of ``/api/events/stream`` in a thread of its own.

    ``events`` holds every event that was published to it, in order, ``init`` messages apart.
    """

    port: int
    after: int | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    inits: list[dict[str, Any]] = field(default_factory=list)
    status: int = 0
    ended: bool = False

    def start(self) -> StreamClient:
        """Connect; raises OSError while nobody listens."""
        path = "/api/events/stream" + (f"?after={self.after}" if self.after is not None else "")
        self._socket = socket.create_connection((HOST, self.port), timeout=10)
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: {HOST}:{self.port}\r\n\r\n".encode())
        self._socket.settimeout(None)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        return self

    def _read(self) -> None:
        with suppress(OSError, ValueError), self._socket.makefile("rb") as file:
            self.status = int(file.readline().split()[1])
            while file.readline().strip():
                pass
            data: list[bytes] = []
            for line in file:
                if line.startswith(b"data:"):
                    data.append(line[5:].strip())
                elif not line.strip() and data:
                    self._take(json.loads(b"\n".join(data)))
                    data = []
        self.ended = True

    def _take(self, message: dict[str, Any]) -> None:
        if message.get("type") == "init":
            self.inits.append(message)
        elif "id" in message:
            self.events.append(message)

    @property
    def cursor(self) -> int | None:
        """The id of the newest event seen."""
        if self.events:
            return int(self.events[-1]["id"])
        return int(self.inits[-1]["id"]) if self.inits else self.after

    def seen(self, kind: str, **values: Any) -> list[dict[str, Any]]:
        """The events of a type whose payload holds these values."""
        return [
            event
            for event in list(self.events)
            if event["type"] == kind and all(event["payload"].get(k) == v for k, v in values.items())
        ]

    def wait(self, condition: Callable[[], Any], seconds: float) -> Any:
        """What the condition gives once it is true, or its last answer after so many seconds."""
        limit = time.monotonic() + seconds
        while not (found := condition()) and time.monotonic() < limit:
            time.sleep(0.01)
        return found

    def close(self) -> None:
        """Go away and wait for what was already under way."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._socket.close()
