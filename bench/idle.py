"""What it costs to leave it open: CPU, wake-ups and memory of an idle server, alone and with 50 streams."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack

from common import report
from common.clients import Load, clean_environment
from common.figures import number
from common.processes import Cost
from common.servers import Folder, Server, Unavailable, product, rival

STREAMS = 50


def measure(found: report.Report, quick: bool) -> None:
    """All side by side over the same minute: idle servers hardly disturb each other."""
    seconds = 0.2 if quick else 60.0
    with ExitStack() as stack:
        servers = _servers(stack, found, quick)
        time.sleep(0.1 if quick else 5.0)  # what a start leaves to be done is not idleness
        before = {name: server.cost() for name, server in servers.items()}
        began = time.monotonic()
        time.sleep(seconds)
        after = {name: server.cost() for name, server in servers.items()}
        passed = time.monotonic() - began
    table = found.table(
        f"idle for {seconds:.0f} s", "server", "CPU, % of a core", "wake-ups/s", "RSS, MB", "PSS, MB"
    )
    for name, cost in after.items():
        table.add(name, *_figures(before[name], cost, passed))
    if not quick:
        _goals(found, before, after, passed)


def _servers(stack: ExitStack, found: report.Report, quick: bool) -> dict[str, Server]:
    servers = {}
    for streams in (STREAMS,) if quick else (0, STREAMS):
        folder = stack.enter_context(Folder())
        env = clean_environment(SPRINTRUNNER_STATE_DIR=str(folder.state), HOME=str(folder.path))
        server = stack.enter_context(product(folder, env))
        for path in ("/events", "/api/events/stream") if streams else ():
            stack.enter_context(Load(server.port, path, streams // 2))
        servers[f"Sprint Runner, {streams} streams"] = server
    for name, program in () if quick else (("v1: aiohttp", "v1_websocket"), ("Starlette", "starlette_sse")):
        try:
            server = stack.enter_context(rival(program))
        except Unavailable as error:
            found.notes.append(f"{name} was not measured: {error}")
            continue
        stack.enter_context(
            Load(server.port, "/stream", STREAMS, websocket="deflate" if program == "v1_websocket" else "")
        )
        servers[f"{name}, {STREAMS} streams"] = server
    return servers


def _figures(before: Cost, after: Cost, seconds: float) -> tuple[float, float, float, float]:
    return (
        (after.cpu - before.cpu) / seconds * 100,
        (after.switches - before.switches) / seconds,
        after.rss / 2**20,
        after.pss / 2**20,
    )


def _goals(found: report.Report, before: dict[str, Cost], after: dict[str, Cost], seconds: float) -> None:
    for name in [name for name in after if name.startswith("Sprint Runner")]:
        cpu, wakes, rss, _ = _figures(before[name], after[name], seconds)
        streams = name.partition(", ")[2]
        told = f"{number(cpu)} / {number(wakes)} / {number(rss)}"
        found.headline(f"idle, {streams}: CPU % / wake-ups/s / RSS MB", told)
        found.at_most(f"{name}: CPU", cpu, 0.3, "% of a core")
        found.at_most(f"{name}: RSS of the larger process", rss, 90.0, "MB")


if __name__ == "__main__":
    sys.exit(report.main("Idle", measure))
