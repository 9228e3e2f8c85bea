"""One stream client: its socket, its cursor, and writes that neither block nor give up the GIL."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import time
from enum import Enum

#: Unsent bytes of live messages a client may owe before it is taken for stalled.
MAX_BACKLOG = 1 << 20
#: Seconds without a byte taken, while bytes wait, after which a client is dropped.
WRITE_DEADLINE = 10.0
#: Seconds since its last progress in which a client with a full backlog still counts as reading.
READING = 1.0
#: Bytes a stream client may send us; it has nothing to say.
MAX_CHATTER = 16 << 10
#: Longer writes go through socket.send, which lets other threads run meanwhile.
_KEPT = 64 << 10
_USER_TIMEOUT_MS = 30_000

# PyDLL keeps the GIL during the call: with it given up at each of N sends, one busy thread in the
# process makes every send wait a switch interval.
_send = ctypes.PyDLL(None, use_errno=True).send
_send.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int)
_send.restype = ctypes.c_ssize_t
_FLAGS = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL


class Gone(Exception):
    """The client is not there any more, or must go."""


class Kind(Enum):
    """Which of the two streams a client follows."""

    HTML = "html"
    JSON = "json"


class Client:
    """A stream client; owned by the hub thread once it is attached."""

    __slots__ = ("_chatter", "backlog", "candidates", "cursor", "kind", "live", "progress_at", "sock")

    def __init__(self, sock: socket.socket, kind: Kind, candidates: tuple[int, ...]) -> None:
        sock.setblocking(False)
        with contextlib.suppress(OSError):  # not every stream socket is TCP
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT_MS)
        self.sock = sock
        self.kind = kind
        #: Cursors the client sent; which one holds is decided against the hub's own newest id.
        self.candidates = candidates
        #: The newest id written or queued; None before the first message.
        self.cursor: int | None = None
        #: Live clients get every round; the others are catching up.
        self.live = False
        self.backlog = bytearray()
        self.progress_at = time.monotonic()
        self._chatter = 0

    def offer(self, data: bytes) -> int:
        """Send at once what the socket takes and return how much; ``write`` is for the rest. Never raises.

        The usual way of a message, one call a client: a quarter of the time of a round was spent around it.
        """
        if self.backlog or len(data) > _KEPT:
            return 0
        return max(0, int(_send(self.sock.fileno(), data, len(data), _FLAGS)))

    def write(self, data: bytes) -> None:
        """Send what the socket takes, queue the rest; raises Gone."""
        if self.backlog:
            self.backlog += data
            return
        sent = self._try(data)
        if sent < len(data):
            self.backlog += memoryview(data)[sent:]
            self.progress_at = time.monotonic()

    def flush(self) -> None:
        """Send queued bytes while the socket takes them; raises Gone."""
        while self.backlog:
            sent = self._try(bytes(self.backlog[:_KEPT]))
            if sent == 0:
                return
            del self.backlog[:sent]
            self.progress_at = time.monotonic()

    def _try(self, data: bytes) -> int:
        if len(data) <= _KEPT:
            sent = int(_send(self.sock.fileno(), data, len(data), _FLAGS))
            if sent >= 0:
                return sent
        try:
            return self.sock.send(data, _FLAGS)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            raise Gone(str(error)) from error

    def listen(self) -> None:
        """Read away what the client says; raises Gone at its end or when it says too much."""
        try:
            said = len(self.sock.recv(4096))
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            raise Gone(str(error)) from error
        self._chatter += said
        if said == 0 or self._chatter > MAX_CHATTER:
            raise Gone("closed by the client" if said == 0 else "the client sends instead of reading")

    def overdue(self, now: float) -> bool:
        """Whether bytes have waited for the write deadline without one being taken."""
        return bool(self.backlog) and now - self.progress_at > WRITE_DEADLINE

    def fell_behind(self, now: float) -> bool:
        """Whether a full backlog makes it leave the live rounds; raises Gone when it does not read at all.

        A reader that is only slower than a burst follows from the log at its own pace.
        """
        if len(self.backlog) <= MAX_BACKLOG:
            return False
        if now - self.progress_at > READING:
            raise Gone("backlog full")
        return True

    def close(self) -> None:
        """End the connection; the client comes back with its cursor. Repeatable."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
