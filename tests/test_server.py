"""What keeps gunicorn's worker alive."""

from __future__ import annotations

import errno
import resource
from types import SimpleNamespace
from typing import Any

import pytest

from sprintrunner import server
from sprintrunner.web.hub import RESERVE, Hub


class Worker:
    """Accepts with an error."""

    def __init__(self, number: int) -> None:
        self.number = number

    def accept(self, listener: Any) -> None:
        raise OSError(self.number, "no")


def _booted(number: int, monkeypatch: pytest.MonkeyPatch) -> Worker:
    worker = Worker(number)
    monkeypatch.setattr(server, "_Ending", lambda served: None)
    monkeypatch.setattr(server, "_end_with_parent", lambda: None)
    monkeypatch.setattr(server, "_DESCRIPTOR_PAUSE", 0.0)
    served: Any = SimpleNamespace(start=lambda: None)
    server.in_worker(served, worker)
    return worker


def test_a_worker_without_descriptors_waits_instead_of_dying(monkeypatch: pytest.MonkeyPatch) -> None:
    _booted(errno.EMFILE, monkeypatch).accept(None)
    with pytest.raises(OSError, match="no"):
        _booted(errno.EBADF, monkeypatch).accept(None)


def test_streams_leave_descriptors_to_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing: Any = None
    hub = Hub(nothing, nothing)
    assert hub.has_room
    monkeypatch.setattr(resource, "getrlimit", lambda which: (RESERVE, 64))
    assert not hub.has_room
    monkeypatch.setattr(resource, "getrlimit", lambda which: (RESERVE + 1, 64))
    assert hub.has_room
