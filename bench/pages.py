"""What pages cost with a long history: server time and bytes, against histories ten times shorter."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from common import history, projects, report
from common.clients import Caller
from common.figures import median, number, percentile
from common.servers import Folder, ours

STORIES, BATCHES, LINES = 500, 1000, 1_000_000
#: Of the newest batch: the one whose transcript is long.
_TIMES = 25
#: A page that grows as the logarithm of its data may take this much longer with ten times as much.
_LOGARITHMIC = 2.0

Seen = Mapping[str, tuple[list[float], int]]


def look(stories: int, batches: int, lines: int, times: int) -> dict[str, tuple[list[float], int]]:
    """Milliseconds of each request, and bytes of the page, by name; the first request is left out."""
    with Folder() as folder:
        keys = projects.keys(stories)
        projects.plan(folder.root, [(key, "done" if n % 3 else "backlog") for n, key in enumerate(keys)])
        history.seed(folder.state / "sprint-runner.db", keys, batches)
        command = batches * 20 - 1
        history.transcript(folder.state / "transcripts" / f"{command}.jsonl", lines)
        with ours(folder) as server:
            caller = Caller(server.port)
            paths = _paths(keys, batches, command, lines)
            return {name: _timed(caller, path, times) for name, path in paths.items()}


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


def _timed(caller: Caller, path: str, times: int) -> tuple[list[float], int]:
    took = []
    for _ in range(times + 1):
        status, body, seconds = caller.request(path)
        if status != 200:
            raise RuntimeError(f"{path} was answered {status}: {body[:200]!r}")
        took.append(seconds * 1000)
    return took[1:], len(body)


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
        "lines. Times are those of a request over a kept connection to the whole server."
    )
    slower = {
        name: median(times) / median(seen["10× less history"][name][0])
        for name, (times, _) in seen["all"].items()
    }
    worst = max(slower, key=lambda name: slower[name])
    found.at_most(f"growth with 10× more history, worst ({worst})", slower[worst], _LOGARITHMIC, "times")


def _table(found: report.Report, seen: Mapping[str, Seen]) -> None:
    columns = [f"{title}: p50 / p99 ms, KB" for title in seen]
    growth = [f"growth from {title}" for title in list(seen)[1:]]
    table = found.table("server time and size of pages", "page", *columns, *growth)
    titles = list(seen)
    for name in seen[titles[0]]:
        cells = []
        for title in titles:
            times, size = seen[title][name]
            cells.append(
                f"{number(median(times))} / {number(percentile(times, 0.99))}, {number(size / 1024)}"
            )
        first = median(seen[titles[0]][name][0])
        cells += [f"{first / median(seen[title][name][0]):.2f}×" for title in titles[1:]]
        table.add(name, *cells)


if __name__ == "__main__":
    sys.exit(report.main("Pages", measure))
