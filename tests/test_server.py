"""What keeps gunicorn's worker alive."""

from __future__ import annotations

import errno
import resource
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.config import Config

from sprintrunner import server
from sprintrunner.rehearsal import sample
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


def test_gunicorn_by_hand_waits_for_the_grace_of_the_agents_too(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = sample.create(tmp_path / "project")
    (root / "sprintrunner.toml").write_text("stop_grace_seconds = 40\n")
    monkeypatch.setenv("SPRINTRUNNER_PROJECT", str(root))
    monkeypatch.setenv("SPRINTRUNNER_STATE_DIR", str(tmp_path / "state"))
    arbiter = SimpleNamespace(cfg=Config())
    for name, value in server.GUNICORN.items():
        arbiter.cfg.set(name, value)
    runpy.run_path(str(repository / "gunicorn.conf.py"))["on_starting"](arbiter)
    assert arbiter.cfg.graceful_timeout == 50
