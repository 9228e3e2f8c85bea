"""How soon and how cheaply one event reaches N stream clients: ours, v1's, Starlette, nginx + nchan."""

from __future__ import annotations

import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from common import messages, report
from common.clients import Caller, Load
from common.figures import number, pair, percentile, ratio
from common.servers import Folder, Server, Unavailable, nchan, ours, rival

SIZES = (1, 10, 100, 1000, 2000)
GAP_MS = 100
#: The size the goals speak of.
MANY = 1000


@dataclass
class Cell:
    """One server with N clients."""

    p50: float = float("nan")  # ms
    p99: float = float("nan")
    worst: float = float("nan")
    cpu: float = float("nan")  # seconds per 100,000 messages at 10 events a second
    burst: float = float("nan")  # messages delivered a second
    burst_cpu: float = float("nan")
    memory: float = float("nan")  # KB a client
    accepted: float = float("nan")  # seconds
    lost: int = 0


@dataclass
class Rival:
    """How to start one server, follow it, and have it publish ``count`` events each ``gap`` ms."""

    name: str
    start: Callable[[], AbstractContextManager[Server]]
    publish: Callable[[Server, int, int], None]
    path: str = "/stream"
    websocket: str = ""


@contextmanager
def _ours() -> Iterator[Server]:
    with Folder() as folder, ours(folder) as server:
        yield server


@contextmanager
def _nchan() -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="sprintrunner-bench-") as folder:
        Path(folder).chmod(0o755)
        with nchan(Path(folder)) as server:
            yield server


def _asked(prefix: str) -> Callable[[Server, int, int], None]:
    """The server publishes by itself, in its own process, as each of them would."""

    def publish(server: Server, count: int, gap: int) -> None:
        caller = Caller(server.port)
        caller.request(f"{prefix}/{count}/{gap}", "POST")
        caller.close()

    return publish


def _posted(server: Server, count: int, gap: int) -> None:
    """nchan is published to from outside, over one kept connection; its publisher is not in its CPU."""
    threading.Thread(target=_post_all, args=(server.port, count, gap / 1000), daemon=True).start()


def _post_all(port: int, count: int, gap: float) -> None:
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        due = time.monotonic()
        for index in range(count):
            body = messages.event(index).encode()
            head = f"POST /publish HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            sock.sendall(head.encode() + body)
            sock.recv(65536)
            due += gap
            time.sleep(max(0.0, due - time.monotonic()) if gap else 0.0)


RIVALS = (
    Rival("Sprint Runner", _ours, _asked("/bench/publish"), "/api/events/stream"),
    # aiohttp compresses for whoever asks, and every browser does.
    Rival("v1: aiohttp WebSocket", lambda: rival("v1_websocket"), _asked("/publish"), websocket="deflate"),
    Rival("v1, nothing compressed", lambda: rival("v1_websocket"), _asked("/publish"), websocket="plain"),
    Rival("Starlette + sse-starlette", lambda: rival("starlette_sse"), _asked("/publish")),
    Rival("nginx + nchan", _nchan, _posted),
)


def cell(one: Rival, clients: int, seconds: float) -> Cell:
    """Measure one server with so many clients."""
    found = Cell()
    with one.start() as server:
        _warm(one, server)
        before = server.cost()
        with Load(server.port, one.path, clients, websocket=one.websocket) as load:
            found.accepted = load.accepted
            found.memory = (server.cost().pss - before.pss) / clients / 1024
            _steadily(one, server, load, clients, seconds, found)
            _burst(one, server, load, clients, found)
    return found


def _warm(one: Rival, server: Server) -> None:
    """What is loaded or compiled once must not count as the memory of a client."""
    with Load(server.port, one.path, 8, websocket=one.websocket) as load:
        one.publish(server, 20, 5)
        load.await_messages(8 * 20, 10)


def _steadily(one: Rival, server: Server, load: Load, clients: int, seconds: float, found: Cell) -> None:
    count = int(seconds * 1000 / GAP_MS)
    load.reset()
    before = server.cost()
    one.publish(server, count, GAP_MS)
    seen = load.await_messages(clients * count, seconds + 20)
    found.p50, found.p99, found.worst = seen["p50"], seen["p99"], seen["max"]
    found.cpu = (server.cost().cpu - before.cpu) / max(1, seen["messages"]) * 100_000
    found.lost = clients * count - seen["messages"]


def _burst(one: Rival, server: Server, load: Load, clients: int, found: Cell) -> None:
    """Events back to back, as fast as they can be published."""
    count = max(50, min(1000, 200_000 // clients))
    load.reset()
    before, began = server.cost(), time.monotonic_ns()
    one.publish(server, count, 0)
    seen = load.await_messages(clients * count, 20)
    found.burst = seen["messages"] / max(1e-9, (seen["last"] - began) / 1e9)
    found.burst_cpu = (server.cost().cpu - before.cpu) / max(1, seen["messages"]) * 100_000
    found.lost += clients * count - seen["messages"]


def page_meanwhile(clients: int, seconds: float) -> list[float]:
    """Milliseconds of ordinary pages while so many clients follow ten events a second."""
    publish = _asked("/bench/publish")
    with _ours() as server, Load(server.port, "/api/events/stream", clients):
        caller = Caller(server.port)
        caller.request("/")
        publish(server, int(seconds * 1000 / GAP_MS), GAP_MS)
        times, limit = [], time.monotonic() + seconds
        while time.monotonic() < limit:
            status, _, took = caller.request("/")
            assert status == 200
            times.append(took * 1000)
            time.sleep(0.02)
        caller.close()
    return times


def fragments(clients: int, seconds: float) -> dict[str, float]:
    """The same for the fragments of the dashboard: rendered for the page, newest wins."""
    with _ours() as server, Load(server.port, "/events", clients) as load:
        load.reset()
        _asked("/bench/publish")(server, int(seconds * 1000 / GAP_MS), GAP_MS)
        time.sleep(seconds + 1.0)
        return load.report()


def measure(found: report.Report, quick: bool) -> None:
    """All servers at all sizes."""
    sizes, seconds = ((5,), 0.2) if quick else (SIZES, 4.0)
    cells = _cells(found, sizes, seconds)
    _tables(found, sizes, cells)
    if quick:
        return
    pages, html = page_meanwhile(MANY, 6.0), fragments(MANY, 5.0)
    other = found.table(f"ours with {MANY} clients", "what", "p50 ms", "p99 ms")
    other.add("GET / meanwhile", percentile(pages, 0.5), percentile(pages, 0.99))
    other.add("fragments of the page (/events)", html["p50"], html["p99"])
    _goals(found, cells, pages)
    _headlines(found, cells)


def _headlines(found: report.Report, cells: dict[tuple[str, int], Cell]) -> None:
    own, *others = [(one.name, cells[one.name, MANY]) for one in RIVALS if (one.name, MANY) in cells]
    shown: list[tuple[str, Callable[[Cell], float]]] = [
        ("delivery, p99, ms", lambda one: one.p99),
        ("CPU s per 100,000 messages", lambda one: one.cpu),
        ("messages/s in a burst, thousands", lambda one: one.burst / 1000),
        ("memory a client, KB", lambda one: one.memory),
    ]
    for what, take in shown:
        rivals = " · ".join(f"{name} {number(take(one))}" for name, one in others)
        found.headline(f"{MANY:,} clients: {what}", number(take(own[1])), rivals)


def _cells(found: report.Report, sizes: tuple[int, ...], seconds: float) -> dict[tuple[str, int], Cell]:
    cells: dict[tuple[str, int], Cell] = {}
    missing: set[str] = set()
    for size in sizes:
        for one in RIVALS:
            if one.name in missing:
                continue
            try:
                # One late event is a hundredth of a short run: the size of the goals gets a longer one.
                cells[one.name, size] = cell(one, size, seconds * 1.5 if size == MANY else seconds)
            except Unavailable as error:
                missing.add(one.name)
                found.notes.append(f"{one.name} was not measured: {error}")
            print(f"{size:5} {one.name:28} {cells.get((one.name, size))}", file=sys.stderr, flush=True)
    return cells


def _tables(found: report.Report, sizes: tuple[int, ...], cells: dict[tuple[str, int], Cell]) -> None:
    names = [one.name for one in RIVALS if (one.name, sizes[0]) in cells]
    columns = [f"N={size}" for size in sizes]
    shown: list[tuple[str, Callable[[Cell], str]]] = [
        ("latency at 10 events/s, ms, p50 / p99", lambda one: pair(one.p50, one.p99)),
        ("the same, worst message, ms", lambda one: number(one.worst)),
        ("CPU seconds per 100,000 messages at 10 events/s", lambda one: number(one.cpu)),
        ("burst: 1,000 messages/s delivered", lambda one: number(one.burst / 1000)),
        ("CPU seconds per 100,000 messages in the burst", lambda one: number(one.burst_cpu)),
        ("memory a client, KB (PSS)", lambda one: number(one.memory)),
        ("seconds until N clients have their first bytes", lambda one: number(one.accepted)),
        ("messages that did not arrive", lambda one: str(one.lost)),
    ]
    for title, show in shown:
        table = found.table(title, "server", *columns)
        for name in names:
            table.add(name, *(show(cells[name, size]) for size in sizes))
    _ratios(found, MANY if MANY in sizes else sizes[-1], names, cells)


def _ratios(found: report.Report, size: int, names: list[str], cells: dict[tuple[str, int], Cell]) -> None:
    columns = ("p50", "p99", "CPU", "burst", "CPU in the burst", "memory", "accept")
    table = found.table(f"rivals against ours at N={size} (above 1: ours is better)", "server", *columns)
    own = cells[names[0], size]
    for name in names[1:]:
        one = cells[name, size]
        table.add(
            name,
            ratio(one.p50, own.p50),
            ratio(one.p99, own.p99),
            ratio(one.cpu, own.cpu),
            ratio(own.burst, one.burst),
            ratio(one.burst_cpu, own.burst_cpu),
            ratio(one.memory, own.memory),
            ratio(one.accepted, own.accepted),
        )


def _goals(found: report.Report, cells: dict[tuple[str, int], Cell], pages: list[float]) -> None:
    own = cells[RIVALS[0].name, MANY]
    for one, p99, cpu in ((RIVALS[1], 5.0, 2.5), (RIVALS[3], 5.0, 2.5), (RIVALS[4], 1.0, 1.0)):
        theirs = cells.get((one.name, MANY))
        if theirs:
            found.at_least(f"p99 against {one.name}, N={MANY}", theirs.p99 / own.p99, p99, "times better")
            found.at_least(f"CPU against {one.name}, N={MANY}", theirs.cpu / own.cpu, cpu, "times less")
    found.at_most(f"memory a client, N={MANY}", own.memory, 4.0, "KB")
    found.at_most(f"GET / with {MANY} clients, p99", percentile(pages, 0.99), 50.0, "ms")


if __name__ == "__main__":
    sys.exit(report.main("Fan-out", measure))
