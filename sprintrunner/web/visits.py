"""Notices requests that an agent sends to its own supervisor, at a bounded cost."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from flask import request

from ..errors import SprintRunnerError
from ..services import Services

log = logging.getLogger(__name__)

_READING = frozenset({"GET", "HEAD", "OPTIONS"})
#: To find a sender takes some 10 ms of reading /proc: so many at once, and so many a second after that.
BURST, A_SECOND = 50, 5.0


class Allowance:
    """How many looks may still be taken; grows with time up to a burst."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left = float(BURST)
        self._at = clock()
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Whether one more may be taken now."""
        with self._lock:
            now = self._clock()
            self._left = min(BURST, self._left + (now - self._at) * A_SECOND)
            self._at = now
            if self._left < 1:
                return False
            self._left -= 1
            return True


def note_sender(services: Services, allowance: Allowance) -> None:
    """Without a token an agent can press our buttons: where it does, that is counted and shown."""
    port = str(request.environ.get("REMOTE_PORT", ""))
    if request.method in _READING or not port.isdecimal() or not allowance.take():
        return
    try:
        services.saw_client(f"{request.method} {request.path[:200]}", int(port), services.port)
    except SprintRunnerError:
        log.exception("the sender of a request could not be told")
