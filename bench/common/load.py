"""The load: N stream clients in one process, raw sockets under one epoll; prints JSON, takes orders on stdin.

``python load.py PORT PATH N [--websocket [--deflate]]`` connects N clients, prints ``{"connected": N,
"seconds": s}`` and then answers ``reset`` (forget what was measured), ``report`` (what arrived since) and
the end of stdin. Each message carries ``at=<monotonic ns>``; its age when it is read is its latency.

While messages come, this process only reads and notes the time: whatever else it did then would be measured
as the server's. What was read is looked into, and orders are answered, in the first quiet moment.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import select
import socket
import sys
import time
import zlib
from array import array

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from common.figures import percentile
from common.machine import raise_descriptor_limit

IN_FLIGHT = 64
#: Above this many latencies only the count goes on: a burst is about how many, not how late.
KEPT = 2_000_000
_STAMP = re.compile(rb"at=(\d+)")
_READ = select.EPOLLIN
#: Seconds without a message after which it is quiet.
QUIET = 0.005
#: Seconds after a message for which we look for the next one instead of sleeping: a sender on the same
#: machine pays for waking its reader, which no network card does.
SPIN = 0.002
#: Reads kept at most before they are looked into after all.
MOST_READS = 500_000
_LOST = b""


class Frames:
    """The messages of one WebSocket that a browser would open: compressed, in one window each."""

    def __init__(self) -> None:
        self._rest = b""
        self._inflate = zlib.decompressobj(-15).decompress

    def feed(self, data: bytes) -> bytes:
        """The messages that are complete now, joined."""
        data, at, found = self._rest + data, 0, []
        while len(data) - at >= 4:
            size, begin = data[at + 1] & 127, at + 2
            if size == 126:  # no message here is so long that it would be 127
                size, begin = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
            if len(data) < begin + size:
                break
            part, compressed = data[begin : begin + size], data[at] & 0x40
            found.append(self._inflate(part + b"\0\0\xff\xff") if compressed else part)
            at = begin + size
        self._rest = data[at:]
        return b"".join(found)


class Crowd:
    """The clients and what they have seen."""

    def __init__(self, port: int, path: str, count: int, websocket: bool, deflate: bool) -> None:
        self.port, self.count = port, count
        self.request = _request(port, path, websocket, deflate)
        self.epoll = select.epoll()
        self.sockets: dict[int, socket.socket] = {}
        self.newest: dict[int, int] = {}
        self.frames: dict[int, Frames] | None = {} if deflate else None
        self.lost = 0
        self.reset()

    def reset(self) -> None:
        """Forget what was measured."""
        self.reads: list[tuple[int, int, bytes]] = []
        self.latencies = array("q")
        self.messages = self.bytes = self.repeats = 0
        self.first = self.last = 0

    def connect(self) -> float:
        """Open all connections, 64 at a time; returns the seconds until each has its first bytes."""
        began = time.monotonic()
        waiting: set[int] = set()
        opened = 0
        while opened < self.count or waiting:
            while opened < self.count and len(waiting) < IN_FLIGHT:
                waiting.add(self._open())
                opened += 1
            for fd, mask in self.epoll.poll(10.0):
                if mask & select.EPOLLOUT:
                    self.sockets[fd].send(self.request)
                    self.epoll.modify(fd, _READ)
                elif fd in waiting and self._greeted(fd):
                    waiting.discard(fd)
        return time.monotonic() - began

    def _open(self) -> int:
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(("127.0.0.1", self.port))
        self.sockets[sock.fileno()] = sock
        self.newest[sock.fileno()] = 0
        if self.frames is not None:
            self.frames[sock.fileno()] = Frames()
        self.epoll.register(sock.fileno(), select.EPOLLOUT)
        return sock.fileno()

    def _greeted(self, fd: int) -> bool:
        data = self.sockets[fd].recv(65536)
        if not data.startswith((b"HTTP/1.1 200", b"HTTP/1.1 101")):
            raise SystemExit(f"refused: {data[:80]!r}")
        return True

    def serve(self) -> None:
        """Read and count until stdin ends; orders are answered in quiet moments."""
        self.epoll.register(0, _READ)
        gc.disable()
        poll, clock = self.epoll.poll, time.monotonic
        orders: list[str] = []
        last = 0.0
        while True:
            spins = clock() - last < SPIN
            ready = poll(0 if spins else QUIET if self.reads or orders else None)
            for fd, _ in ready:
                if fd == 0:
                    words = os.read(0, 4096).decode().split()
                    if not words:
                        return
                    orders += words
                else:
                    last = self._note(fd)
            if not (ready or spins) or len(self.reads) > MOST_READS:
                self._digest()
                self._obey(orders)
                orders = []

    def _note(self, fd: int) -> float:
        try:
            data = os.read(fd, 65536)
        except OSError:
            data = _LOST
        now = time.monotonic_ns()
        self.reads.append((fd, now, data))
        if not data:
            self.epoll.unregister(fd)
        return now / 1e9

    def _obey(self, orders: list[str]) -> None:
        for word in orders:
            if word == "reset":
                self.reset()
            _say({"messages": self.messages} if word == "count" else self.report())

    def _digest(self) -> None:
        reads, self.reads = self.reads, []
        for fd, now, data in reads:
            if data:
                self._take(fd, now, data)
            else:
                self.lost += 1
                self.sockets.pop(fd).close()

    def _take(self, fd: int, now: int, data: bytes) -> None:
        self.bytes += len(data)
        if self.frames is not None:
            data = self.frames[fd].feed(data)
        newest = self.newest[fd]
        for stamp in map(int, _STAMP.findall(data)):
            if stamp <= newest:  # a fragment shows the same action again, a reconnect repeats
                self.repeats += 1
                continue
            newest = stamp
            self.messages += 1
            if self.messages <= KEPT:
                self.latencies.append(now - stamp)
        self.newest[fd] = newest
        self.first = self.first or now
        self.last = now

    def report(self) -> dict[str, float]:
        """What arrived since the last reset; latencies in ms, times in monotonic ns."""
        seen = [value / 1e6 for value in self.latencies]
        return {
            "messages": self.messages,
            "bytes": self.bytes,
            "lost": self.lost,
            "first": self.first,
            "last": self.last,
            "p50": percentile(seen, 0.5),
            "p99": percentile(seen, 0.99),
            "max": max(seen, default=float("nan")),
        }


def _request(port: int, path: str, websocket: bool, deflate: bool) -> bytes:
    lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}"]
    if websocket:
        lines += ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
        lines += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
        lines += ["Sec-WebSocket-Extensions: permessage-deflate"] if deflate else []
    else:
        lines += ["Accept: text/event-stream"]
    return "\r\n".join([*lines, "", ""]).encode()


def _say(message: dict[str, float]) -> None:
    print(json.dumps(message), flush=True)


def main() -> None:
    """Connect, tell, and serve orders."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    parser.add_argument("count", type=int)
    parser.add_argument("--websocket", action="store_true")
    parser.add_argument("--deflate", action="store_true")
    asked = parser.parse_args()
    raise_descriptor_limit()
    crowd = Crowd(asked.port, asked.path, asked.count, asked.websocket, asked.deflate)
    seconds = crowd.connect()
    _say({"connected": asked.count, "seconds": seconds})
    crowd.serve()


if __name__ == "__main__":
    main()
