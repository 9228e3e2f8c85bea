"""Senders are looked for at a bounded cost, and only where something is to be changed."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask.testing import FlaskClient
from web_project import make_project, make_services

from sprintrunner import create_app
from sprintrunner.web.visits import A_SECOND, BURST, Allowance


def test_an_allowance_is_used_up_and_grows_again() -> None:
    now = [0.0]
    allowance = Allowance(lambda: now[0])
    assert [allowance.take() for _ in range(BURST + 1)] == [True] * BURST + [False]
    now[0] += 1.0
    assert [allowance.take() for _ in range(10)].count(True) == A_SECOND
    now[0] += 3600.0
    assert [allowance.take() for _ in range(2 * BURST)].count(True) == BURST


@pytest.fixture
def seen() -> list[tuple[str, int, int]]:
    return []


@pytest.fixture
def client(tmp_path: Path, seen: list[tuple[str, int, int]]) -> FlaskClient:
    def note(what: str, port: int, server_port: int) -> None:
        seen.append((what, port, server_port))

    services = make_services(make_project(tmp_path / "project"), tmp_path / "state", saw_client=note)
    return create_app(services).test_client()


def test_only_what_may_change_something_is_looked_at(
    client: FlaskClient, seen: list[tuple[str, int, int]]
) -> None:
    for method, path in (("GET", "/"), ("POST", "/api/orchestrator/start"), ("OPTIONS", "/")):
        client.open(path, method=method, environ_base={"REMOTE_PORT": "4711"})
    assert seen == [("POST /api/orchestrator/start", 4711, 8080)]
    for _ in range(2 * BURST):
        client.post("/api/orchestrator/stop", environ_base={"REMOTE_PORT": "4711"})
    assert len(seen) <= BURST + A_SECOND
