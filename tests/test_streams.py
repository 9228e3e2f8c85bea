"""The two streams over HTTP: with the test client, and with a real gunicorn."""

from __future__ import annotations

import os
import selectors
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from web_project import make_project, make_services
from web_server import Server

from sprintrunner import create_app
from sprintrunner.services import Services
from sprintrunner.web import streams
from sprintrunner.web.gate import SECURITY_HEADERS

HOST = {"Host": "localhost"}


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    made = make_services(make_project(tmp_path / "project"), tmp_path / "state")
    yield made
    made.close_streams()
    made.store.close()


@pytest.fixture
def client(services: Services) -> FlaskClient:
    return create_app(services).test_client()


def say(services: Services, count: int = 1) -> int:
    last = 0
    for number in range(count):
        with services.store.transaction() as tx:
            last = tx.append("error", {"type": "test", "message": f"m {number}"})
    return last


@contextmanager
def stream(client: FlaskClient, path: str, **headers: str) -> Iterator[Any]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = client.get(path, headers={**HOST, **named}, buffered=False)
    try:
        yield answer
    finally:
        answer.close()


def read_until(answer: Any, enough: Callable[[bytes], bool]) -> bytes:
    seen = b""
    for part in answer.response:
        seen += part
        if enough(seen):
            return seen
    raise AssertionError(seen)


def test_a_stream_has_the_headers_of_a_stream_and_of_every_answer(client: FlaskClient) -> None:
    for path in ("/events", "/api/events/stream"):
        with stream(client, path) as answer:
            assert answer.status_code == 200
            assert answer.content_type == "text/event-stream; charset=utf-8"
            assert answer.headers["Cache-Control"] == "no-store"
            assert answer.headers["X-Accel-Buffering"] == "no"
            assert "Content-Length" not in answer.headers
            for name, value in SECURITY_HEADERS.items():
                assert answer.headers[name] == value


def test_retry_is_sent_once_and_first(client: FlaskClient, services: Services) -> None:
    say(services, 3)
    with stream(client, "/api/events/stream?after=0") as answer:
        seen = read_until(answer, lambda data: b"id: 3" in data and data.endswith(b"\n\n"))
    assert seen.startswith(b"retry: ")
    assert seen.count(b"retry:") == 1


def test_the_larger_of_header_and_argument_wins(client: FlaskClient, services: Services) -> None:
    last = say(services, 5)
    with stream(client, "/api/events/stream?after=2", Last_Event_ID="4") as answer:
        seen = read_until(answer, lambda data: f"id: {last}\n".encode() in data)
    assert b"id: 4\n" not in seen
    assert b"init" not in seen


def test_the_page_stream_sends_replacing_fragments(client: FlaskClient, services: Services) -> None:
    last = say(services, 1)
    with stream(client, "/events") as answer:
        seen = read_until(answer, lambda data: data.count(b"\n\n") >= 2)
    assert f"id: {last}\n".encode() in seen
    assert b"hx-swap-oob" in seen


def test_head_tells_the_headers_and_opens_nothing(client: FlaskClient, services: Services) -> None:
    answer = client.head("/events", headers=HOST)
    assert answer.status_code == 200
    assert answer.mimetype == "text/event-stream"
    assert services.hub is not None
    assert services.hub.clients == 0


def test_servers_without_a_socket_get_a_few_streams(client: FlaskClient, services: Services) -> None:
    opened = [client.get("/events", headers=HOST, buffered=False) for _ in range(streams.FALLBACK_STREAMS)]
    assert {answer.status_code for answer in opened} == {200}
    assert client.get("/events", headers=HOST).status_code == 503
    opened.pop().close()
    with stream(client, "/events") as answer:
        assert answer.status_code == 200
    for answer in opened:
        answer.close()


def test_a_closed_hub_answers_503(client: FlaskClient, services: Services) -> None:
    services.close_streams()
    answer = client.get("/api/events/stream", headers=HOST)
    assert answer.status_code == 503
    assert "error" in answer.json


def test_closing_the_hub_ends_a_stream_of_the_test_client(client: FlaskClient, services: Services) -> None:
    with stream(client, "/api/events/stream") as answer:
        read_until(answer, lambda data: b"init" in data)
        services.close_streams()
        assert b"".join(answer.response) == b""


class Crowd:
    """Raw stream clients in one selector; each remembers the ids it saw."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._selector = selectors.DefaultSelector()
        self.socks: list[socket.socket] = []
        self.ids: dict[socket.socket, list[int]] = {}
        self._rest: dict[socket.socket, bytes] = {}
        self.ended: set[socket.socket] = set()

    def join(self, path: str, count: int = 1, after: int | None = None) -> list[socket.socket]:
        new = [socket.create_connection(("127.0.0.1", self._port), timeout=10) for _ in range(count)]
        cursor = "" if after is None else f"Last-Event-ID: {after}\r\n"
        for sock in new:
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{cursor}\r\n".encode())
            self._selector.register(sock, selectors.EVENT_READ)
            self.ids[sock], self._rest[sock] = [], b""
        self.socks += new
        return new

    def read(self, seconds: float = 0.1) -> None:
        for key, _ in self._selector.select(seconds):
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            data = sock.recv(1 << 16)
            if not data:
                self._selector.unregister(sock)
                self.ended.add(sock)
                continue
            *whole, self._rest[sock] = (self._rest[sock] + data).split(b"\n")
            self.ids[sock] += [int(line[4:]) for line in whole if line.startswith(b"id: ")]

    def read_until(self, condition: Callable[[], bool], seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "the condition did not come true"
            self.read()

    def leave(self, sock: socket.socket) -> None:
        self._selector.unregister(sock)
        sock.close()
        self.socks.remove(sock)

    def close(self) -> None:
        self._selector.close()
        for sock in self.socks:
            sock.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    if made.process.poll() is None:
        made.stop()


@pytest.fixture
def crowd(server: Server) -> Iterator[Crowd]:
    made = Crowd(server.port)
    yield made
    made.close()


def test_two_hundred_streams_cost_one_thread_and_hold_up_nothing(server: Server, crowd: Crowd) -> None:
    for number in range(8):
        server.get(f"/healthz?{number}")
    crowd.join("/api/events/stream")
    crowd.read_until(lambda: all(crowd.ids.values()))
    before = server.state()["threads"]
    crowd.join("/api/events/stream", 100)
    crowd.join("/events", 100)
    crowd.read_until(lambda: all(crowd.ids.values()))
    state = server.state()
    assert state["clients"] == 201
    assert state["threads"].count("hub") == 1
    assert len([name for name in state["threads"] if "ThreadPool" in name]) <= 8
    assert len(state["threads"]) - len(before) <= 8 - len([name for name in before if "ThreadPool" in name])
    server.say(50)
    crowd.read_until(lambda: all(50 in ids for ids in crowd.ids.values()))
    began = time.monotonic()
    server.get("/healthz")
    assert time.monotonic() - began < 0.5


def test_reconnecting_while_three_thousand_events_run_misses_and_repeats_nothing(
    server: Server, crowd: Crowd
) -> None:
    crowd.join("/api/events/stream?after=0", 5)
    crowd.read_until(lambda: server.state()["clients"] == 5)
    server.say(3000)
    seen: list[int] = []
    followed = crowd.socks[0]
    while not seen or seen[-1] < 3000:
        crowd.read_until(partial(bool, crowd.ids[followed]))
        seen += crowd.ids[followed]
        crowd.leave(followed)
        followed = crowd.join("/api/events/stream?after=0", after=seen[-1])[0]
        if seen[-1] == 3000:
            break
    assert seen == list(range(1, 3001))
    others = [crowd.ids[sock] for sock in crowd.socks[:4]]
    crowd.read_until(lambda: all(ids and ids[-1] == 3000 for ids in others))
    assert all(ids == list(range(1, 3001)) for ids in others)


def test_clients_that_never_read_are_dropped_without_delaying_others(server: Server, crowd: Crowd) -> None:
    stalled = []
    for _ in range(20):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", server.port))
        sock.sendall(b"GET /api/events/stream?after=0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        stalled.append(sock)
    crowd.join("/api/events/stream?after=0", 10)
    server.say(2000, 4000)
    crowd.read_until(lambda: all(ids and ids[-1] == 2000 for ids in crowd.ids.values()), 60)
    assert all(ids == list(range(1, 2001)) for ids in crowd.ids.values())
    crowd.read_until(lambda: server.state()["clients"] == 10, 20)
    for sock in stalled:
        sock.close()


def test_sigterm_ends_the_server_at_once_with_streams_open(server: Server, crowd: Crowd) -> None:
    crowd.join("/api/events/stream", 50)
    crowd.join("/events", 50)
    crowd.read_until(lambda: all(crowd.ids.values()))
    assert server.stop() < 3.0
    crowd.read_until(lambda: len(crowd.ended) == 100)


def test_vanished_clients_leave_nothing_behind(server: Server, crowd: Crowd) -> None:
    crowd.join("/api/events/stream", 1)
    crowd.read_until(lambda: all(crowd.ids.values()))
    worker = subprocess.check_output(["pgrep", "-P", str(server.process.pid)], text=True).split()[0]
    server.state()
    before = len(os.listdir(f"/proc/{worker}/fd"))
    gone = crowd.join("/events", 100)
    crowd.read_until(lambda: all(crowd.ids.values()))
    for number, sock in enumerate(gone):
        if number % 2:
            sock.shutdown(socket.SHUT_WR)
        else:
            crowd.leave(sock)
    crowd.read_until(lambda: server.state()["clients"] == 1)
    crowd.read_until(lambda: len(os.listdir(f"/proc/{worker}/fd")) <= before + 2)
