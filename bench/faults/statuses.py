"""Status files of the checks of group F: put into a project, changed by the real program, compared."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from urllib.parse import quote

import plans
from checks import expect
from client import Answer
from harness import World

#: How long an answer to a file that cannot be used may take, in seconds.
QUICK = 1.0
KEY = plans.STORY
OTHER = "1-2-grow-a-root"


def place(world: World, data: bytes) -> Path:
    """Put these bytes in the place of the world's status file, committed."""
    path = world.root / plans.STATUS_FILE
    path.write_bytes(data)
    plans.git(world.root, "add", "-A")
    plans.git(world.root, "commit", "-q", "-m", "Another status file")
    return path


def done(world: World, key: str = KEY) -> Answer:
    """A person marks a story as done: one status change by the real program."""
    return world.request("POST", f"/api/stories/{quote(key, safe='')}/done", {})


def start(world: World, **more: object) -> Answer:
    """Ask for a batch."""
    return world.request("POST", "/api/orchestrator/start", {"batch_size": "all", **more})


def changed_lines(before: bytes, after: bytes) -> list[int]:
    """The numbers of the lines that differ; fails when lines came or went."""
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    expect(len(old) == len(new), f"the file had {len(old)} lines and has {len(new)}")
    return [number for number, pair in enumerate(zip(old, new, strict=True), 1) if pair[0] != pair[1]]


def one_change(data: bytes, line: int, old: bytes, new: bytes, key: str = KEY) -> None:
    """The real program sets ``key`` to done: this line changes from ``old`` to ``new``, nothing else."""
    with World() as world:
        path = place(world, data)
        mode = path.stat().st_mode
        world.serve()
        answer = done(world, key)
        expect(answer.status == 200, f"it was answered {answer.status}: {answer.text[:200]}")
        lines = data.splitlines(keepends=True)
        expect(old in lines[line - 1], "the fault is not in the file")
        lines[line - 1] = lines[line - 1].replace(old, new)
        after = path.read_bytes()
        expect(after == b"".join(lines), f"lines {changed_lines(data, after)} changed: {after[-300:]!r}")
        expect(path.stat().st_mode == mode, "the mode of the file changed")


def refused(data: bytes, *words: str, key: str = KEY) -> None:
    """The real program is asked for a change and a start: both refused, the reason said, nothing touched."""
    with World() as world:
        path = place(world, data)
        world.serve()
        answer = done(world, key)
        expect(400 <= answer.status < 500, f"it was answered {answer.status}: {answer.text[:200]}")
        for word in words:
            expect(word in answer.text, f"{word!r} is not in the answer: {answer.text[:300]}")
        expect(path.read_bytes() == data, "the file was touched")


def unreadable(data: bytes, *, line: bool) -> None:
    """A content that cannot be used: said within a second, with its line where it has one; never acted on."""
    with World() as world:
        path = place(world, data)
        world.serve()
        told = world.request("GET", "/api/sprint-status")
        expect(told.seconds < QUICK, f"reading took {told.seconds:.1f} s")
        answer = start(world)
        expect(answer.seconds < QUICK, f"the start took {answer.seconds:.1f} s")
        expect(answer.status == 400, f"start was answered {answer.status}: {answer.text[:200]}")
        said = f"{told.text} {answer.text}"
        expect(not line or "ine " in said, f"no line is named: {said[:300]}")
        page = world.request("GET", "/")
        expect(
            page.status == 200 and page.seconds < 2 * QUICK, f"the page: {page.status}, {page.seconds:.1f} s"
        )
        expect(path.read_bytes() == data, "the file was touched")
        expect(not world.runs(), "an agent was started")


def not_a_file(world: World, what: str) -> None:
    """What stands in the place of the file is no file: one sentence from everything, and no hang."""
    for method, path in (("GET", "/api/sprint-status"), ("POST", "/api/orchestrator/start")):
        answer = world.request(method, path, {} if method == "POST" else None, timeout=10)
        expect(400 <= answer.status < 500, f"{path} of {what} was answered {answer.status}")
        expect(answer.seconds < 2 * QUICK, f"{path} of {what} took {answer.seconds:.1f} s")
        sentence = str(answer.json.get("error", ""))
        expect(
            sentence and "\n" not in sentence and "Traceback" not in sentence, f"{what}: {answer.text[:200]}"
        )
    page = world.request("GET", "/", timeout=10)
    expect(page.status == 200, f"the page of {what} was answered {page.status}")
    expect(not world.runs(), "an agent was started")


def opened(pid: int) -> set[str]:
    """The files a process holds open now."""
    found = set()
    with suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                found.add(os.readlink(entry.path))
    return found


def statuses(world: World) -> Mapping[str, str]:
    """What the program reads: key to raw status; empty while nobody answers."""
    with suppress(OSError, HTTPException):
        return {one["key"]: one["raw_status"] for one in world.get("/api/sprint-status")["stories"]}
    return {}
