"""From the byte an agent writes to the pixel: stdout → stored event → stream client → DOM → frame."""

from __future__ import annotations

import sys
import time

from common import report
from common.browser import Page
from common.clients import Caller, Load
from common.figures import pair, percentile
from common.servers import Folder, Unavailable, ours

AGENTS = 4


def measure(found: report.Report, quick: bool) -> None:
    """Four agents print 200 lines a second each; each makes a tool call about twice a second."""
    seconds = 1 if quick else 20
    with Folder() as folder, ours(folder) as server:
        with Load(server.port, "/api/events/stream", 1) as events, Load(server.port, "/events", 1) as html:
            page = _page(found, server.port, quick)
            before = server.cost()
            _talk(server.port, seconds)
            _wait(page, seconds - 0.5)
            # Before the agents end: what has ended is no more in the tree, nor its CPU time.
            cpu = (server.cost().cpu - before.cpu) / (seconds - 0.5)
            _wait(page, 1.5)
            json, fragments = events.report(), html.report()
        _table(found, json, fragments, page)
        if page:
            page.close()
    found.notes.append(
        f"{AGENTS} agents with 200 lines/s each, {json['messages']} tool calls in {seconds} s; the server, "
        f"its shims and these agents used {cpu * 100:.0f} % of a core."
    )
    if not quick:
        found.headline(
            "agent's stdout → stream client, p50 / p99, ms, 4 busy agents", pair(json["p50"], json["p99"])
        )
        found.at_most("stdout → client of the JSON stream, p50", json["p50"], 25.0, "ms")
        found.at_most("stdout → client of the JSON stream, p99", json["p99"], 100.0, "ms")


def _page(found: report.Report, port: int, quick: bool) -> Page | None:
    if quick:
        return None
    try:
        page = Page(f"http://127.0.0.1:{port}/")
    except Unavailable as error:
        found.notes.append(f"The browser was not measured: {error}")
        return None
    page.wait(1.0)
    return page


def _wait(page: Page | None, seconds: float) -> None:
    """The browser's events are read only while playwright waits."""
    if page:
        page.wait(seconds)
    else:
        time.sleep(seconds)


def _talk(port: int, seconds: int) -> None:
    caller = Caller(port)
    caller.request(f"/bench/agents/{AGENTS}/{seconds}", "POST")
    caller.close()


def _table(
    found: report.Report, json: dict[str, float], fragments: dict[str, float], page: Page | None
) -> None:
    table = found.table("ms from the agent's write to …", "place", "p50", "p99", "max", "seen")
    for name, seen in (("client of the JSON stream", json), ("client of the fragments", fragments)):
        table.add(name, seen["p50"], seen["p99"], seen["max"], seen["messages"])
    for name, what in (("DOM in Chromium", "dom"), ("the frame after it", "frame")) if page else ():
        times = page.latencies(what)  # type: ignore[union-attr]
        worst = max(times, default=float("nan"))
        table.add(name, percentile(times, 0.5), percentile(times, 0.99), worst, len(times))
    if page:
        times = page.latencies("dom")
        found.at_most("stdout → DOM, p99", percentile(times, 0.99), 1000.0, "ms")


if __name__ == "__main__":
    sys.exit(report.main("Latency", measure))
