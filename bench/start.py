"""How soon it is there: the command line, the server, and the server again after kill -9."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable

from common import projects, report
from common.clients import clean_environment
from common.figures import median, number, percentile, ratio
from common.servers import Folder, Unavailable, product, rival

from sprintrunner import rehearsal


def _runs(words: list[str], times: int) -> list[float]:
    """Milliseconds of a program from its start to its end."""
    took = []
    for _ in range(times):
        began = time.monotonic()
        subprocess.run(words, check=True, capture_output=True, env=clean_environment())
        took.append((time.monotonic() - began) * 1000)
    return took


def _serving(times: int) -> list[float]:
    """Milliseconds from the start of ``serve`` to its first answer."""
    took = []
    for _ in range(times):
        with Folder() as folder, product(folder, _environment(folder)) as server:
            took.append(server.up_after * 1000)
    return took


def _rival_serving(times: int) -> list[float]:
    took = []
    for _ in range(times):
        with rival("starlette_sse") as server:
            took.append(server.up_after * 1000)
    return took


def _environment(folder: Folder) -> dict[str, str]:
    program = rehearsal.install_launcher(folder.path / "bin")
    return clean_environment(
        PATH=f"{program.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        SPRINTRUNNER_STATE_DIR=str(folder.state),
        REHEARSAL_SPEED="2",
        HOME=str(folder.path),
    )


def _recovering(times: int) -> list[float]:
    """Milliseconds from kill -9 with an agent at work to the first answer of the next life."""
    took = []
    for _ in range(times):
        with Folder() as folder:
            projects.plan(folder.root, [("1-1-grow-a-leaf", "backlog")])
            env = _environment(folder)
            with product(folder, env) as server:
                _start_batch(server.port)
                killed = time.monotonic()
                server.kill()
            with product(folder, env) as server:
                took.append((server.began + server.up_after - killed) * 1000)
    return took


def _start_batch(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(
        "POST", "/api/orchestrator/start", json.dumps({"batch_size": 1}), {"Content-Type": "application/json"}
    )
    answer = connection.getresponse()
    if answer.status != 202:
        raise RuntimeError(f"the batch was not started: {answer.status} {answer.read()[:200]!r}")
    answer.read()
    limit = time.monotonic() + 30
    while time.monotonic() < limit:
        connection.request("GET", "/api/events?limit=100")
        if b"command:progress" in connection.getresponse().read():
            connection.close()
            return
        time.sleep(0.02)
    raise RuntimeError("no agent began to work")


def measure(found: report.Report, quick: bool) -> None:
    """Bare Python and Starlette's server beside ours."""
    few, many = (1, 1) if quick else (5, 15)
    python = [sys.executable, "-P"]
    bare = _runs([*python, "-c", "pass"], many)
    flask = _runs([*python, "-c", "import flask"], few)
    table = found.table("start, ms", "what", "median", "worst", "against bare Python")
    shown: list[tuple[str, list[float]]] = [("python -c pass", bare), ('python -c "import flask"', flask)]
    ours = _runs([*python, "-m", "sprintrunner", "--help"], many)
    shown.append(("sprintrunner --help", ours))
    serving = _serving(few)
    shown.append(("serve until it answers", serving))
    recovered = [] if quick else _recovering(few)
    shown.append(("kill -9 with an agent at work until it serves again", recovered))
    if not quick:
        _add_rival(found, shown, few, _rival_serving)
    for name, times in shown:
        table.add(name, median(times), percentile(times, 1.0), ratio(median(times), median(bare)))
    if not quick:
        for name, times in shown[2:5]:
            found.headline(f"{name}, ms", number(median(times)))
        found.at_most("sprintrunner --help", median(ours), 150.0, "ms")
        found.at_most("serve until it answers", median(serving), 1000.0, "ms")
        found.at_most("kill -9 until it serves again", median(recovered), 2000.0, "ms")


def _add_rival(
    found: report.Report,
    shown: list[tuple[str, list[float]]],
    times: int,
    take: Callable[[int], list[float]],
) -> None:
    try:
        shown.append(("Starlette under uvicorn until it answers", take(times)))
    except Unavailable as error:
        found.notes.append(f"Starlette was not measured: {error}")


if __name__ == "__main__":
    sys.exit(report.main("Start", measure))
