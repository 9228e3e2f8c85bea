"""Many stream clients at once, served by one thread of the bench: who got which event, who is still there."""

from __future__ import annotations

import re
import resource
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType

import raw_http
from client import HOST

JSON = "/api/events/stream"
HTML = "/events"
#: Ends a connection by a reset, as a machine that vanished does in the end.
_RESET = struct.pack("ii", 1, 0)
_ID = re.compile(rb"^id: (\d+)$", re.MULTILINE)


@dataclass(eq=False)
class Member:
    """One client: ``first`` and ``last`` ids, how many came, and whether one was missed or repeated."""

    sock: socket.socket
    path: str
    status: int = 0
    count: int = 0
    first: int = 0
    last: int = 0
    bad: int = 0
    ended: bool = False
    size: int = 0
    _rest: bytes = field(default=b"", repr=False)

    def take(self, data: bytes) -> None:
        """Look at what came."""
        self.size += len(data)
        if not self.status:
            self.status = int(data.split(None, 2)[1])
        # Ids stand on lines of their own: only the last line may be incomplete.
        whole, newline, rest = (self._rest + data).rpartition(b"\n")
        self._rest = rest[:64]
        for found in _ID.findall(whole) if newline else ():
            number = int(found)
            if self.last and self.path.startswith(JSON):
                self.bad += number != self.last + 1
            self.first = self.first or number
            self.last = number
            self.count += 1


class Crowd:
    """``with Crowd(port) as crowd``: open clients, count what they get; closes all at its end."""

    def __init__(self, port: int) -> None:
        raise_limit()
        self.port = port
        self.members: list[Member] = []
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Crowd:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(5)
        for member in self.members:
            member.sock.close()
        self._selector.close()

    def open(self, count: int, path: str, *, reads: bool = True) -> list[Member]:
        """Connect so many clients; those that do not read also have a small buffer."""
        made = [self._open(path, reads) for _ in range(count)]
        self.members += made
        if reads:
            with self._lock:
                for member in made:
                    self._selector.register(member.sock, selectors.EVENT_READ, member)
        return made

    def _open(self, path: str, reads: bool) -> Member:
        sock = socket.socket()
        if not reads:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(30)
        sock.connect((HOST, self.port))
        sock.sendall(raw_http.head("GET", path, [("Host", f"{HOST}:{self.port}")]))
        sock.setblocking(False)
        return Member(sock, path)

    def _run(self) -> None:
        while not self._over.is_set():
            with self._lock:
                ready = self._selector.select(0.02)
                for key, _ in ready:
                    self._read(key.data)
            time.sleep(0.001)

    def _read(self, member: Member) -> None:
        try:
            data = member.sock.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            member.take(data)
            return
        member.ended = True
        self._selector.unregister(member.sock)

    def leave(self, members: list[Member], *, half: bool) -> None:
        """Half-close, or vanish."""
        with self._lock:
            for member in members:
                if half:
                    member.sock.shutdown(socket.SHUT_WR)
                    continue
                with suppress(KeyError):
                    self._selector.unregister(member.sock)
                member.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                member.sock.close()

    def wait(self, condition: Callable[[Member], bool], seconds: float) -> list[Member]:
        """Those of whom the condition is still not true after so many seconds."""
        limit = time.monotonic() + seconds
        while (left := [one for one in self.members if not condition(one)]) and time.monotonic() < limit:
            time.sleep(0.05)
        return left


def raise_limit() -> None:
    """A thousand clients need more descriptors than the usual soft limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 8192 if hard == resource.RLIM_INFINITY else min(8192, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
