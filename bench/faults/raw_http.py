"""HTTP as bytes: requests that no library would send, and many connections at once."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from client import HOST, Answer

START = "/api/orchestrator/start"


def connect(port: int, timeout: float = 15.0) -> socket.socket:
    """A connection to the server; raises OSError."""
    return socket.create_connection((HOST, port), timeout=timeout)


def head(method: str, path: str, headers: Iterable[tuple[str, str]], version: str = "1.1") -> bytes:
    """The head of a request, its lines as they are given."""
    lines = [f"{method} {path} HTTP/{version}", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape")


def send(port: int, data: bytes, timeout: float = 15.0) -> Answer:
    """Send bytes and read the answer to its end; status 0 when nothing came."""
    began = time.monotonic()
    with connect(port, timeout) as sock:
        # A server that refuses may close before it has read everything.
        with suppress(OSError):
            sock.sendall(data)
        return parse(read_all(sock), began)


def read_all(sock: socket.socket) -> bytes:
    """What comes until the other side closes, or until nothing has come for the timeout."""
    parts = []
    with suppress(OSError):
        while part := sock.recv(65536):
            parts.append(part)
    return b"".join(parts)


def read_head(sock: socket.socket) -> bytes:
    """What comes until the blank line after the headers; for answers that never end."""
    data = b""
    with suppress(OSError):
        while b"\r\n\r\n" not in data and (part := sock.recv(4096)):
            data += part
    return data


def parse(data: bytes, began: float) -> Answer:
    """The parts of an answer."""
    top, _, body = data.partition(b"\r\n\r\n")
    first, *lines = top.decode("latin-1").split("\r\n")
    words = first.split()
    status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
    headers = dict(line.split(": ", 1) for line in lines if ": " in line)
    return Answer(status, headers, body, time.monotonic() - began)


@dataclass
class Keep:
    """One kept-alive connection, read by the length the server names."""

    port: int
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._file = connect(self.port, 60.0)
        self._left = b""

    def post(self, path: str, values: Mapping[str, object]) -> int:
        """Send JSON and return the status."""
        body = json.dumps(values).encode()
        sent = {"Host": f"{HOST}:{self.port}", "Content-Type": "application/json", **self.headers}
        top = head("POST", path, [*sent.items(), ("Content-Length", str(len(body)))])
        self._file.sendall(top + body)
        return self._answer()

    def _answer(self) -> int:
        data = self._left
        while b"\r\n\r\n" not in data:
            data += self._more()
        top, _, rest = data.partition(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in top.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
        )
        while len(rest) < length:
            rest += self._more()
        self._left = rest[length:]
        if b"connection: close" in top.lower():
            self.close()
            self.__post_init__()
        return int(top.split()[1])

    def _more(self) -> bytes:
        part = self._file.recv(65536)
        if not part:
            raise ConnectionError("the server closed the connection")
        return part

    def close(self) -> None:
        """Close the connection."""
        self._file.close()
