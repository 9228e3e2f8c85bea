"""What pages cost with a long history: server time and bytes, against histories ten times shorter."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

from common import history, projects, report
from common.clients import Caller
from common.figures import median, number, percentile
from common.servers import Folder, Server, ours

STORIES, BATCHES, LINES = 500, 1000, 1_000_000
_TIMES = 20
#: A page that grows as the logarithm of its data may cost this much more with ten times as much.
_LOGARITHMIC = 2.0


@dataclass(frozen=True)
class Seen:
    """One page: ms a request, the server's CPU ms a request, bytes."""

    times: list[float]
    cpu: float
    size: int


def look(stories: int, batches: int, lines: int, times: int) -> dict[str, Seen]:
    """All pages over a history of this size, by name; the first request of each is left out."""
    with Folder() as folder:
        keys = projects.keys(stories)
        projects.plan(folder.root, [(key, "done" if n % 3 else "backlog") for n, key in enumerate(keys)])
        history.seed(folder.state / "sprint-runner.db", keys, batches)
        command = batches * 20 - 1
        history.transcript(folder.state / "transcripts" / f"{command}.jsonl", lines)
        with ours(folder) as server:
            caller = Caller(server.port)
            paths = _paths(keys, batches, command, lines)
            return {name: _seen(server, caller, path, times) for name, path in paths.items()}


def _paths(keys: list[str], batches: int, command: int, lines: int) -> dict[str, str]:
    return {
        "/": "/",
        "history": "/batches",
        "history, last page": f"/batches?offset={max(0, batches - 20)}",
        "batch": f"/batches/{batches}",
        "story": f"/stories/{keys[2 * batches % len(keys)]}",
        "activity": "/activity",
        "activity, failures": "/activity?only=failures",
        "activity, words": "/activity?q=plant_399",
        "timeline": f"/timeline?batch={batches}",
        "trends": "/trends",
        "transcript": f"/commands/{command}",
        "transcript, near its end": f"/commands/{command}?line={lines - 500}",
        "API: events": "/api/events?limit=100",
    }


def _seen(server: Server, caller: Caller, path: str, times: int) -> Seen:
    _request(caller, path)
    before = server.cost().cpu
    asked = [_request(caller, path) for _ in range(times)]
    cpu = (server.cost().cpu - before) / times * 1000
    return Seen([took for took, _ in asked], cpu, asked[-1][1])


def _request(caller: Caller, path: str) -> tuple[float, int]:
    status, body, seconds = caller.request(path)
    if status != 200:
        raise RuntimeError(f"{path} was answered {status}: {body[:200]!r}")
    return seconds * 1000, len(body)


def measure(found: report.Report, quick: bool) -> None:
    """The long history, one with a tenth of the batches, one with a tenth of everything."""
    if quick:
        _table(found, {"4 stories, 2 batches": look(4, 2, 1000, 1)})
        return
    seen = {
        "all": look(STORIES, BATCHES, LINES, _TIMES),
        "10× less history": look(STORIES, BATCHES // 10, LINES // 10, _TIMES),
        "10× less of all": look(STORIES // 10, BATCHES // 10, LINES // 10, _TIMES),
    }
    _table(found, seen)
    found.notes.append(
        f"all: {STORIES} stories, {BATCHES:,} batches, {BATCHES * 400:,} events, a transcript of {LINES:,} "
        "lines. Times are those of a request over a kept connection to the whole server; growth is that of "
        "the server's CPU time a request, which other work on the machine disturbs least."
    )
    growth = {name: one.cpu / seen["10× less history"][name].cpu for name, one in seen["all"].items()}
    for name in ("/", "history", "activity"):
        times = seen["all"][name].times
        told = f"{number(median(times))} / {number(percentile(times, 0.99))}"
        found.headline(f"{name} with 400,000 events and 500 stories, p50 / p99, ms", told)
    for name, growing in growth.items():
        found.at_most(f"{name}: growth with 10× more history", growing, _LOGARITHMIC, "times")


def _table(found: report.Report, seen: Mapping[str, Mapping[str, Seen]]) -> None:
    titles = list(seen)
    columns = [f"{title}: p50 / p99 ms, CPU ms, KB" for title in titles]
    table = found.table("pages", "page", *columns, *(f"growth from {title}" for title in titles[1:]))
    for name, first in seen[titles[0]].items():
        cells = [_cell(seen[title][name]) for title in titles]
        growth = [f"{first.cpu / seen[title][name].cpu:.2f}×" for title in titles[1:]]
        table.add(name, *cells, *growth)


def _cell(one: Seen) -> str:
    times = f"{number(median(one.times))} / {number(percentile(one.times, 0.99))}"
    return f"{times}, {number(one.cpu)}, {number(one.size / 1024)}"


if __name__ == "__main__":
    sys.exit(report.main("Pages", measure))
