"""Group D: more requests, more clients and larger bodies than anybody needs."""

from __future__ import annotations

import json
import os
import re
import resource
import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import browser
import client
import flood
import plans
import processes
import raw_http
from checks import Failed, check, expect
from client import HOST
from crowd import HTML, JSON, Crowd, Member
from harness import G, World
from raw_http import START
from watching import Watch

from sprintrunner.server import GUNICORN

MEGABYTE = 1_000_000
STOP = "/api/orchestrator/stop"
_FORM = "application/x-www-form-urlencoded"
_REPOSITORY = Path(__file__).resolve().parents[2]


# D1-D6: start and stop


def _one_batch(world: World, found: Mapping[int, int], total: int) -> None:
    expect(found == {202: 1, 409: total - 1}, f"the answers were {dict(found)}")
    expect(len(world.rows("SELECT 1 FROM batches")) == 1, "there is more than one batch")
    world.agent_runs("create-story")
    pairs = [(run["command"], run["attempt"]) for run in world.runs()]
    expect(len(pairs) == len(set(pairs)), f"there is more than one set of agents: {pairs}")


@check("D1", "10,000 starts over 16 connections")
def many_starts() -> None:
    with World("hang@create-story") as world:
        world.serve()
        found: Counter[int] = Counter()
        lock = threading.Lock()

        def work() -> None:
            connection = raw_http.Keep(world.port)
            mine = Counter(connection.post(START, {"batch_size": 1}) for _ in range(625))
            connection.close()
            with lock:
                found.update(mine)

        threads = [threading.Thread(target=work) for _ in range(16)]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        seconds = time.monotonic() - began
        _one_batch(world, found, 10_000)
        expect(seconds < 30, f"it took {seconds:.0f} s")


@check("D2", "20 starts whose bodies are released together")
def released_together() -> None:
    with World("hang@create-story") as world:
        world.serve()
        body = b'{"batch_size": 1}'
        sent = [
            ("Host", f"{HOST}:{world.port}"),
            ("Content-Type", "application/json"),
            ("Connection", "close"),
        ]
        top = raw_http.head("POST", START, [*sent, ("Content-Length", str(len(body)))])
        connections = [raw_http.connect(world.port, 30) for _ in range(20)]
        for sock in connections:
            sock.sendall(top + body[:-1])
        time.sleep(0.3)
        expect(not world.rows("SELECT 1 FROM batches"), "a start did not wait for its body")
        for sock in connections:
            sock.sendall(body[-1:])
        found = Counter(raw_http.parse(raw_http.read_all(sock), 0).status for sock in connections)
        for sock in connections:
            sock.close()
        _one_batch(world, found, 20)


def _idle(world: World) -> bool:
    return bool(world.get("/api/orchestrator/status")["status"] == "idle")


@check("D3", "start and stop alternating 500 times")
def alternating() -> None:
    with World("hang@create-story") as world:
        world.serve()
        connection = raw_http.Keep(world.port)
        found = Counter(
            (path.rpartition("/")[2], connection.post(path, {})) for _ in range(500) for path in (START, STOP)
        )
        connection.close()
        expect(
            set(found) <= {(n, s) for n in ("start", "stop") for s in (202, 409)}, f"answers: {dict(found)}"
        )
        expect(found["start", 202] > 5, f"hardly any start was accepted: {dict(found)}")
        world.wait(lambda: _idle(world), 30, "idle")
        left = processes.gone_within(world.tree, G + 1)
        expect(not left, f"{len(left)} processes are left")
        rows = world.rows("SELECT status, count(*) AS n FROM batches GROUP BY status")
        expect([row["status"] for row in rows] == ["stopped"], f"batches: {rows}")
        ends = [event["payload"]["batch_id"] for event in world.events("batch:end")]
        expect(len(ends) == len(set(ends)) == found["start", 202], f"{len(ends)} ends of {dict(found)}")


@check("D4", "stop while starting")
def stop_while_starting() -> None:
    with World("hang@create-story") as world:
        world.serve()
        states = set()
        for pause in (0.0, 0.005, 0.02, 0.06, 0.15):
            world.start()
            states.add(world.get("/api/orchestrator/status")["status"] if pause == 0 else "")
            time.sleep(pause)
            answer = world.request("POST", STOP, {})
            expect(answer.status == 202, f"the stop was answered {answer.status}")
            answered = time.monotonic_ns()
            world.wait(lambda: _idle(world), G + 5, "idle")
            later = [run for run in world.runs() if run["ns"] > answered + 20_000_000]
            expect(not later, f"{len(later)} agents were started after the stop")
            expect(not processes.gone_within(world.tree, G + 1), "processes are left")
            expect(world.batch()["status"] == "stopped", f"the batch is {world.batch()['status']}")


@check("D5", "stop twice")
def stop_twice() -> None:
    with World("A23@create-story") as world:
        world.serve().start()
        world.agent_runs("create-story")
        answers = [world.request("POST", STOP, {}) for _ in range(2)]
        for one, answer in enumerate(answers, 1):
            expect(answer.seconds < 0.5, f"stop {one} took {answer.seconds:.2f} s")
        expect(answers[0].status == 202, f"the first was answered {answers[0].status}")
        expect(answers[1].status in (202, 409), f"the second was answered {answers[1].status}")
        end = world.batch_end(G + 5)
        expect(end["status"] == "stopped", f"the batch ended {end['status']}")
        expect(world.request("POST", STOP, {}).status == 409, "a stop after the end was accepted")
        expect(len(world.events("batch:end")) == 1, "there is more than one batch:end")


@check("D6", "stop when idle")
def stop_when_idle() -> None:
    with World() as world:
        world.serve()
        before = world.events()
        for body in ({}, {"after_story": True}):
            answer = world.request("POST", STOP, body)
            expect(answer.status == 409, f"it was answered {answer.status}")
        expect(world.events() == before and _idle(world), "something changed")
        world.start()
        expect(world.batch_end()["status"] in ("completed", "all_done"), "a later batch was touched by it")


# D7-D14: streams


def _threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def _descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def _all_threads(world: World) -> None:
    """Have the server start every thread of its pool, which it does only when it needs one."""
    for sock in _half_headers(world, int(GUNICORN["threads"])):
        sock.close()
    world.wait(world.healthy, 10, "the server to be healthy")


def _here(crowd: Crowd, members: list[Member]) -> None:
    left = crowd.wait(lambda one: one not in members or one.status == 200, 60)
    expect(not left, f"{len(left)} of {len(members)} stream clients were not let in")


@check("D7", "1,000 stream clients, events flowing")
def thousand_clients() -> None:
    with World(speed=0.3) as world, Crowd(world.port) as crowd:
        world.serve()
        worker = world.worker
        _here(crowd, [*crowd.open(1, JSON), *crowd.open(1, HTML)])
        _all_threads(world)
        before = _threads(worker.pid)
        _here(crowd, [*crowd.open(500, JSON), *crowd.open(498, HTML)])
        grown = _threads(worker.pid) - before
        world.start()
        over = threading.Event()
        flow = threading.Thread(target=_flow, args=(world, over), daemon=True)
        flow.start()
        slow: dict[str, list[float]] = {"/": [], "/api/orchestrator/status": []}
        for _ in range(15):
            for path, times in slow.items():
                times.append(world.request("GET", path).seconds)
            time.sleep(0.1)
        over.set()
        flow.join(30)
        world.batch_end(60)
        newest = max(event["id"] for event in world.events())
        left = crowd.wait(lambda one: one.last >= newest, 60)
        expect(not left, f"{len(left)} clients lack the newest event")
        readers = [one for one in crowd.members if one.path == JSON]
        wrong = [one for one in readers if one.bad]
        expect(not wrong, f"{len(wrong)} clients missed or repeated events")
        expect(min(one.count for one in readers) > 100, "hardly any events were flowing")
        expect(grown <= 0, f"{grown} threads more")
        for path, times in slow.items():
            expect(
                max(times) < 0.5, f"{path}: {max(times):.2f} s at most, {statistics.median(times):.2f} median"
            )


def _flow(world: World, over: threading.Event) -> None:
    while not over.wait(0.1):
        flood.events(world, 5, 200)


@check("D8", "1,000 stream clients half-close or vanish")
def vanishing_clients() -> None:
    with World(settings={"heartbeat_seconds": 1}) as world, Crowd(world.port) as crowd:
        world.serve()
        worker = world.worker
        warm = crowd.open(300, JSON) + crowd.open(300, HTML)
        _here(crowd, warm)
        crowd.leave(warm, half=False)
        _all_threads(world)
        time.sleep(2.5)
        before = (_descriptors(worker.pid), _threads(worker.pid), processes.rss(worker.pid))
        crowd.members.clear()
        members = crowd.open(500, JSON) + crowd.open(500, HTML)
        _here(crowd, members)
        expect(_descriptors(worker.pid) > before[0] + 950, "the clients are not there")
        crowd.leave(members[::2], half=True)
        crowd.leave(members[1::2], half=False)
        time.sleep(2.0)
        after = (_descriptors(worker.pid), _threads(worker.pid), processes.rss(worker.pid))
        expect(after[0] <= before[0] + 2, f"{after[0] - before[0]} descriptors more after 2 heartbeats")
        expect(after[1] <= before[1], f"{after[1] - before[1]} threads more")
        growth = (after[2] - before[2]) / MEGABYTE
        expect(growth < 10, f"{growth:.0f} MB more")


@check("D9", "100 stream clients that never read, 100 MB of events")
def never_reading() -> None:
    with World() as world, Crowd(world.port) as crowd:
        world.serve()
        worker = world.worker
        readers = crowd.open(4, JSON)
        _here(crowd, readers)
        start = readers[0].last
        before = _descriptors(worker.pid)
        silent = crowd.open(100, JSON, reads=False)
        world.wait(lambda: _descriptors(worker.pid) >= before + 100, 20, "the silent clients")
        with Watch(lambda: processes.rss(worker.pid)) as memory:
            newest = flood.events(world, 1_600, 63_000, chunk=20)
            began = time.monotonic()
            left = crowd.wait(lambda one: one in silent or one.last >= newest, 60)
            behind = time.monotonic() - began
            expect(not left, f"{len(left)} readers did not get everything")
            expect(behind < 10, f"the readers got the last event {behind:.0f} s after it was written")
            world.wait(lambda: _descriptors(worker.pid) <= before + 5, 25, "the silent ones to be dropped")
        expect(not any(one.bad for one in readers), "a reader missed or repeated events")
        expect(min(one.size for one in readers) > 100 * MEGABYTE, "it was not 100 MB")
        growth = (max(memory.values) - memory.values[0]) / MEGABYTE
        expect(growth < 250, f"the server grew by {growth:.0f} MB")
        _returns(crowd, silent[0], start, newest)


def _returns(crowd: Crowd, dropped: Member, start: int, newest: int) -> None:
    """A dropped client reads what it was sent, comes back with its cursor and gets the rest, once."""
    dropped.sock.settimeout(5)
    dropped.take(raw_http.read_all(dropped.sock))
    cursor = dropped.last or start
    again = crowd.open(1, f"{JSON}?after={cursor}")[0]
    crowd.wait(lambda one: one is not again or one.last >= newest, 60)
    expect(again.last == newest, f"it came back at {cursor} and got {again.last} of {newest}")
    expect(again.first == cursor + 1 and not again.bad, "it missed or repeated events")


# What follows the clock is left out: times, and the cards of ended commands, which fade after 5 s.
_FACE = """() => { const main = document.querySelector('main').cloneNode(true);
for (const one of main.querySelectorAll('time, .tick, [data-ago], .now-card.over, #now-title')) one.remove();
return main.textContent.replace(/\\s+/g, ' ').trim(); }"""


@check("D10", "reconnect with 1,000 events in between")
def reconnecting() -> None:
    with World() as world, Crowd(world.port) as crowd:
        world.serve()
        base = f"http://{HOST}:{world.port}"
        left = world.request("GET", "/").text
        cursor = int(re.findall(r'data-after="(\d+)"', left)[0])
        with browser.opened() as stayed:
            stayed.page.goto(base)
            stayed.wait(lambda: _connected(stayed), 15, "the page to be live")
            world.start()
            world.batch_end()
            _same_page(world, base, stayed, left, "in reach")
            newest = flood.events(world, 1_000, batch=1)
            stayed.linger(2.5)
            _same_page(world, base, stayed, left, "out of reach")
        header = crowd.open(1, JSON)[0]
        with_id = crowd.open(1, f"{JSON}?after={cursor}")[0]
        crowd.wait(lambda one: one.last >= newest, 20)
        expect(header.last == newest, "a client without a cursor does not begin at the newest event")
        rows = [event["id"] for event in world.events() if event["id"] > cursor]
        expect(len(rows) > 1_000, "there were no 1,000 events in between")
        told = (with_id.first, with_id.last, with_id.count, with_id.bad)
        expect(told == (rows[0], rows[-1], len(rows), 0), f"gaps or repeats: {told} of {len(rows)}")
        ids = _ids(world, {"Last-Event-ID": str(cursor)}, newest)
        expect(ids == rows, f"with the header {len(ids)} of {len(rows)} events came")


def _connected(seen: browser.Page) -> bool:
    return bool(seen.page.evaluate("document.body.dataset.connection") in ("live", "open", "connected"))


def _same_page(world: World, base: str, stayed: browser.Page, old: str, what: str) -> None:
    """The page that stayed, an old one that came back with its cursor, and a new one say the same."""
    with browser.opened() as returned, browser.opened() as fresh:
        returned.page.route(base + "/", lambda route: route.fulfill(body=old, content_type="text/html"))
        returned.page.goto(base + "/")
        fresh.page.goto(base + "/")
        fresh.linger(1.0)
        for one, who in ((returned, "came back"), (stayed, "stayed")):
            limit = time.monotonic() + 10
            while (seen := one.page.evaluate(_FACE)) != (wanted := fresh.page.evaluate(_FACE)):
                told = f"{what}: the page that {who} differs: {_difference(seen, wanted)}"
                expect(time.monotonic() < limit, told)
                one.linger(0.2)
            expect(wanted, "the page is empty")


def _difference(one: str, other: str) -> str:
    at = next(
        (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )
    return f"{one[max(0, at - 30) : at + 60]!r} is not {other[max(0, at - 30) : at + 60]!r}"


def _ids(world: World, headers: Mapping[str, str], newest: int) -> list[int]:
    """The ids that a client with these headers gets until the newest one."""
    with raw_http.connect(world.port, 10) as sock:
        sent = [("Host", f"{HOST}:{world.port}"), *headers.items()]
        sock.sendall(raw_http.head("GET", JSON, sent))
        data = b""
        while f"id: {newest}\n".encode() not in data and (part := sock.recv(1 << 16)):
            data += part
    return [int(found) for found in re.findall(rb"(?m)^id: (\d+)$", data)]


def _first_message(world: World, path: str, headers: Mapping[str, str]) -> tuple[int, str]:
    """The status of a stream and its first message."""
    with raw_http.connect(world.port, 10) as sock:
        sock.sendall(raw_http.head("GET", path, [("Host", f"{HOST}:{world.port}"), *headers.items()]))
        data = b""
        while not re.search(rb"\ndata: .*\n\n", data, re.DOTALL) and (part := sock.recv(1 << 16)):
            data += part
    top, _, body = data.partition(b"\r\n\r\n")
    return int(top.split()[1]), body.decode()


def _targets(message: str) -> set[str]:
    return set(re.findall(r'hx-swap-oob="([^"]+)"', message))


def _absent(cursor: str) -> None:
    """A cursor that counts as none, as header and as argument, on both streams."""
    with World() as world:
        world.serve().start()
        world.batch_end()
        status, plain = _first_message(world, HTML, {})
        expect(status == 200 and len(_targets(plain)) > 3, "without a cursor there is no snapshot")
        for path in (JSON, HTML):
            for where, headers in ((f"{path}?after={cursor}", {}), (path, {"Last-Event-ID": cursor})):
                status, message = _first_message(world, where, headers)
                expect(status == 200, f"{where} was answered {status}")
                if path == JSON:
                    told = json.loads(re.findall(r"data: (.*)", message)[0])
                    expect(told.get("type") == "init", f"{where} {headers}: first came {told.get('type')}")
                else:
                    expect(_targets(message) == _targets(plain), f"{where} {headers}: no snapshot came")


@check("D11", "cursor -1")
def negative_cursor() -> None:
    _absent("-1")


@check("D12", "cursor 10^30")
def huge_cursor() -> None:
    _absent(str(10**30))


@check("D13", "cursor that is text")
def text_cursor() -> None:
    _absent("abc")
    _absent("1e3")


@check("D14", "cursor in the future")
def future_cursor() -> None:
    _absent("999999")


# D15-D19: slow and large requests


def _half_headers(world: World, count: int) -> list[socket.socket]:
    connections = [raw_http.connect(world.port) for _ in range(count)]
    for sock in connections:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: ")
    time.sleep(0.5)
    return connections


@check("D15", "connections that send half a header")
def half_headers() -> None:
    with World() as world:
        world.serve()
        # One thread is left for pages; the number is told in docs/deploy.md.
        number = int(GUNICORN["threads"]) - 1
        told = (_REPOSITORY / "docs" / "deploy.md").read_text("utf-8")
        for count in (8, number):
            connections = _half_headers(world, count)
            answers = [world.request("GET", "/", timeout=20) for _ in range(3)]
            slowest = max(answer.seconds for answer in answers)
            expect(slowest <= 2, f"with {count} of them GET / took {slowest:.1f} s")
            for sock in connections:
                sock.close()
        connections = _half_headers(world, number + 1)
        with suppress(OSError):
            answer = world.request("GET", "/healthz", timeout=3)
            raise Failed(f"more than {number} do no harm ({answer.status}): the documented number is wrong")
        for sock in connections:
            sock.close()
        world.wait(world.healthy, 10, "the server to be healthy again")
        expect(
            re.search(rf"\b{number}\b[^.]*half", told), f"docs/deploy.md does not tell the number {number}"
        )


def _endless(world: World, path: str, kind: str) -> tuple[int, int]:
    """Send a chunked body without end; the status of the answer and the bytes that were taken."""
    sent = [("Host", f"{HOST}:{world.port}"), ("Content-Type", kind), ("Transfer-Encoding", "chunked")]
    taken = 0
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    limit = time.monotonic() + 20
    with raw_http.connect(world.port, 5) as sock:
        sock.sendall(raw_http.head("POST", path, sent))
        try:
            while taken < 200 * MEGABYTE and time.monotonic() < limit:
                sock.sendall(chunk)
                taken += len(chunk)
        except OSError:
            pass
        return raw_http.parse(raw_http.read_head(sock), 0).status, taken


@check("D16", "Content-Length of 1 GB; endless chunked body")
def giant_bodies() -> None:
    with World() as world:
        world.serve()
        worker = world.worker
        with Watch(lambda: processes.rss(worker.pid)) as memory:
            for path in (START, "/login", "/settings", "/events"):
                sent = [("Host", f"{HOST}:{world.port}"), ("Content-Type", "application/json")]
                top = raw_http.head("POST", path, [*sent, ("Content-Length", str(10**9))])
                answer = raw_http.send(world.port, top + b"x" * 200_000)
                expect(answer.status == 413, f"1 GB to {path} was answered {answer.status}")
            for kind in ("application/json", _FORM):
                status, taken = _endless(world, START, kind)
                # A refusal closes the connection, which may destroy the answer on its way.
                expect(status in (413, 0), f"an endless body was answered {status}")
                expect(taken < 50 * MEGABYTE, f"{taken / MEGABYTE:.0f} MB of an endless body were taken")
        growth = (max(memory.values) - memory.values[0]) / MEGABYTE
        expect(growth < 40, f"the server grew by {growth:.0f} MB")
        again = [world.request("GET", "/healthz").seconds for _ in range(20)]
        expect(max(again) < 2, "the server does not answer afterwards")
        expect(not world.rows("SELECT 1 FROM batches"), "a batch was started")
        chunked = b"POST " + START.encode() + b" HTTP/1.1\r\nHost: " + f"{HOST}:{world.port}".encode()
        chunked += b"\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        large = raw_http.send(world.port, chunked + b"18000\r\n" + b" " * 0x18000 + b"\r\n0\r\n\r\n", 5)
        expect(large.status == 413, f"96 KB in chunks were answered {large.status}")


def _multipart(count: int) -> bytes:
    part = b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n"
    return part * count + b"--b--\r\n"


@check("D17", "1,001 form parts; a field of 10 MB")
def form_parts() -> None:
    multipart = "multipart/form-data; boundary=b"
    with World() as world:
        world.serve()
        for path in (START, "/settings", f"/api/stories/{plans.STORY}/done", "/login"):
            for kind, body in ((_FORM, b"&".join([b"a="] * 1001)), (multipart, _multipart(1001))):
                status = world.request("POST", path, body, headers={"Content-Type": kind}).status
                expect(status == 413, f"1,001 parts as {kind} to {path} were answered {status}")
            big = b"batch_size=" + b"1" * 10 * MEGABYTE
            top = [
                ("Host", f"{HOST}:{world.port}"),
                ("Content-Type", _FORM),
                ("Content-Length", str(len(big))),
            ]
            status = raw_http.send(world.port, raw_http.head("POST", path, top) + big).status
            expect(status == 413, f"a field of 10 MB to {path} was answered {status}")
        expect(not world.rows("SELECT 1 FROM batches"), "a batch was started")
        expect(plans.status_of(world.root, plans.STORY) == "backlog", "the status file was changed")
        few = b"batch_size=1&" + b"&".join([b"a="] * 998)
        status = world.request("POST", START, few, headers={"Content-Type": _FORM}).status
        expect(status == 202, f"999 parts were answered {status}")


@check("D18", "100,000 events in one batch")
def many_events() -> None:
    with World() as world:
        world.serve().start()
        world.batch_end()
        flood.events(world, 100_000, 80, batch=1, chunk=5_000)
        expect(
            len(world.rows("SELECT 1 FROM events WHERE batch_id = 1")) > 100_000, "the events are not there"
        )
        worker = world.worker
        world.request("GET", "/")
        with Watch(lambda: processes.rss(worker.pid)) as memory:
            for path in (
                "/",
                "/batches",
                "/batches/1",
                f"/stories/{plans.STORY}",
                "/api/batches/1",
                "/api/events",
            ):
                answer = world.request("GET", path)
                expect(answer.status == 200, f"{path} was answered {answer.status}")
                expect(answer.seconds < 1, f"{path} took {answer.seconds:.2f} s")
                expect(len(answer.body) < 2 * MEGABYTE, f"{path} has {len(answer.body) / MEGABYTE:.1f} MB")
            for path in (JSON, HTML):
                began = time.monotonic()
                status, _ = _first_message(world, path, {})
                expect(status == 200 and time.monotonic() - began < 3, f"{path}: its first message is late")
        growth = (max(memory.values) - memory.values[0]) / MEGABYTE
        expect(growth < 60, f"the server grew by {growth:.0f} MB")


_NUMBERS = (
    str(10**23),
    "-1",
    "",
    "\u0661\u0662",
    "1.5",
    "1e3",
    "0x1",
    "nan",
    "9223372036854775808",
    " 1",
    "1;2",
)


@check("D19", "offset, limit or id that can be none")
def numbers() -> None:
    from urllib.parse import quote

    with World() as world:
        world.serve().start()
        world.batch_end()
        for given in map(quote, _NUMBERS):
            lists = [f"/api/batches?{name}={given}" for name in ("limit", "offset")]
            lists += [f"/api/events?{name}={given}" for name in ("after", "limit", "batch_id")]
            ids = [f"{path}/{given}" for path in ("/api/batches", "/batches", "/commands")] if given else []
            for path in (*lists, f"/batches?offset={given}", *ids, f"/commands/{given}/transcript"):
                status = world.request("GET", path).status
                expect(status in (400, 404), f"GET {path} was answered {status}")
            status = world.request("POST", f"/api/commands/{given}/stop", {}).status
            expect(status in (400, 404), f"stopping command {given} was answered {status}")
            status = world.request("POST", START, {"batch_size": given}).status
            expect(status in (202, 400), f"batch_size {given!r} was answered {status}")
        expect("Traceback" not in world.words(), "the log holds a traceback")


# D20-D22: long and short of everything

_FAST = """import sprintrunner.web.rounds as rounds
rounds.MAX_HEARTBEAT = 0.014
"""


@check("D20", "24 h of idle streams at 1,000 times the speed")
def idle_day() -> None:
    with World() as world, Crowd(world.port) as crowd:
        patches = world.folder / "patches"
        patches.mkdir()
        (patches / "sitecustomize.py").write_text(_FAST)
        world.env["PYTHONPATH"] = str(patches)
        world.serve()
        worker = world.worker
        members = crowd.open(20, JSON) + crowd.open(20, HTML)
        _here(crowd, members)
        sizes = [one.size for one in members]
        time.sleep(5)
        rate = (members[0].size - sizes[0]) / 3 / 5
        expect(rate > 40, f"only {rate:.0f} heartbeats a second")
        before = (_descriptors(worker.pid), _threads(worker.pid), processes.rss(worker.pid))
        # 14 s between two heartbeats: 6,171 of them in a day.
        left = crowd.wait(lambda one: one.size > 3 * 6_171, 200)
        expect(not left, f"{len(left)} clients did not get a day's heartbeats")
        after = (_descriptors(worker.pid), _threads(worker.pid), processes.rss(worker.pid))
        expect(after[:2] == before[:2], f"descriptors and threads: {before[:2]} became {after[:2]}")
        expect(after[2] - before[2] < 5 * MEGABYTE, f"{(after[2] - before[2]) / MEGABYTE:.1f} MB more")


@check("D21", "server stop with 1,000 stream clients open")
def stop_with_clients() -> None:
    with World("hang@create-story") as world, Crowd(world.port) as crowd:
        world.serve().start()
        world.agent_runs("create-story")
        members = crowd.open(500, JSON) + crowd.open(500, HTML)
        _here(crowd, members)
        seconds = world.end()
        expect(seconds < G + 3, f"the server ended after {seconds:.1f} s")
        left = processes.gone_within(world.tree, 0.5)
        expect(not left, f"{len(left)} orphans: {left[:2]}")
        open_still = crowd.wait(lambda one: one.ended, 5)
        expect(not open_still, f"{len(open_still)} streams were not ended")
        expect(world.batch()["status"] == "interrupted", f"the batch is {world.batch()['status']}")


@check("D22", "file descriptor limit of 64")
def few_descriptors() -> None:
    with World("A22@create-story") as world:
        world.serve().start()
        agent = world.agent_runs("create-story")
        worker = world.worker
        resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (64, 64))
        connections = []
        for _ in range(80):
            with suppress(OSError):
                connections.append(raw_http.connect(world.port, 5))
                connections[-1].sendall(raw_http.head("GET", JSON, [("Host", f"{HOST}:{world.port}")]))
        time.sleep(1)
        expect(_descriptors(worker.pid) > 55, f"only {_descriptors(worker.pid)} descriptors are used")
        status = _status_or_none(lambda: world.request("GET", "/", timeout=5).status)
        expect(status in (None, 200, 500, 503), f"the page was answered {status}")
        time.sleep(2)
        expect(processes.lives(agent), "the agent was harmed")
        for sock in connections:
            sock.close()
        world.wait(world.healthy, 20, "the server to be healthy again")
        expect(world.request("GET", "/").status == 200, "the page does not come back")
        expect(processes.lives(agent) and processes.lives(worker), "the agent or the worker was harmed")
        row = world.commands("create-story")[0]
        expect(row["ended_at"] is None, f"the command ended {row['status']}: {row['reason']}")
        stopped = world.request("POST", STOP, {})
        expect(stopped.status == 202, f"the stop was answered {stopped.status}")
        expect(world.batch_end(G + 6)["status"] == "stopped", "the batch was not stopped")


def _status_or_none(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except (OSError, client.http.client.HTTPException):
        return None
