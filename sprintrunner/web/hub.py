"""The hub: one thread a process that owns every stream; started by the first client."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import threading
from collections.abc import Callable
from typing import Protocol

from .channels import Renderer, Source
from .rounds import Rounds
from .sender import Client

#: Streams at once; above it a client is told to come back later.
MAX_CLIENTS = 4096
#: Descriptors that streams leave to pages, the database and agents.
RESERVE = 40


class Wakeable(Source, Protocol):
    """A source that tells when something was committed."""

    def listen(self, wake: Callable[[], None]) -> None: ...


class Hub:
    """The way into the hub thread; every method may be called from any thread."""

    def __init__(
        self,
        source: Wakeable,
        renderer: Renderer,
        heartbeat: Callable[[], float] = lambda: 15.0,
        max_clients: int = MAX_CLIENTS,
    ) -> None:
        self._source = source
        self._renderer = renderer
        self._heartbeat = heartbeat
        self._max_clients = max_clients
        self._lock = threading.Lock()
        # Keyed by the process: threads do not survive a fork.
        self._rounds: dict[int, Rounds] = {}
        self._closed = False
        self._listening = False

    @property
    def clients(self) -> int:
        """How many streams are open in this process."""
        rounds = self._rounds.get(os.getpid())
        return rounds.count if rounds else 0

    @property
    def has_room(self) -> bool:
        """Whether one more client would be taken."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        room = self._max_clients if soft == resource.RLIM_INFINITY else min(self._max_clients, soft - RESERVE)
        return not self._closed and self.clients < room

    def attach(self, client: Client, head: bytes) -> None:
        """Take over a client; ``head`` is written first. After ``close`` the client is only closed."""
        rounds = self._running()
        if rounds is None:
            client.close()
        else:
            rounds.add(client, head)

    def wake(self) -> None:
        """Something was committed; carries nothing, so a lost call costs one look."""
        rounds = self._rounds.get(os.getpid())
        if rounds is not None:
            rounds.wake()

    def close(self) -> None:
        """End every stream of this process and the thread. Repeatable."""
        with self._lock:
            self._closed = True
            rounds = self._rounds.get(os.getpid())
        if rounds is not None:
            rounds.stop()

    def _running(self) -> Rounds | None:
        with self._lock:
            if self._closed:
                return None
            pid = os.getpid()
            if pid not in self._rounds:
                self._rounds = {pid: self._start()}
            return self._rounds[pid]

    def _start(self) -> Rounds:
        # With 5 ms a busy thread would hold every round up that long.
        sys.setswitchinterval(0.001)
        _raise_descriptor_limit()
        rounds = Rounds(self._source, self._renderer, self._heartbeat)
        rounds.start()
        if not self._listening:
            self._source.listen(self.wake)
            self._listening = True
        return rounds


def _raise_descriptor_limit() -> None:
    """Each stream is a descriptor, and the usual soft limit is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CLIENTS + 1024
    target = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < target:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
