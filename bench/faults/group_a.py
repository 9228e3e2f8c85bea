"""Group A: what an agent may do, and what must come of it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import plans
import processes
from checks import check, expect
from harness import PATIENCE, G, World
from watching import Watch

MEGABYTE = 1_000_000
DEV_STORY = ((plans.STORY, "ready-for-dev"),)


def _finished(world: World, row: Mapping[str, Any], name: str = "create-story") -> None:
    expect(row["status"] == "succeeded", f"{name} {row['status']}: {row['reason']}")


def _counted(row: Mapping[str, Any]) -> int:
    """How many bad lines the command's record says it met."""
    return int((json.loads(row["evidence"] or "{}")).get("raw_lines", 0))


def _not_done(world: World) -> None:
    """The story is not done, in the status file, the records and the history."""
    expect(plans.status_of(world.root, plans.STORY) != "done", "the status file says done")
    expect(not world.rows("SELECT 1 FROM stories WHERE status = 'done'"), "the records say done")
    expect(not plans.commits_of(world.root, plans.STORY), "the story was committed")


def _dead(world: World, what: str) -> None:
    """What the agent left behind was started, and does not live any more."""
    left = [processes.look(note["pid"]) for note in world.runs("leftover")]
    expect(left, f"no {what} was started")
    alive = [one for one in left if one]
    expect(not alive, f"{len(alive)} of {len(left)} survive: {', '.join(map(str, alive[:3]))}")


def _dies_at_stop(world: World, seconds: float) -> None:
    """Ask to stop, and see that the tree is dead within so many seconds."""
    expect(world.agents(), "no agent runs")
    answer = world.request("POST", "/api/orchestrator/stop", {})
    expect(answer.status == 202, f"stop was answered {answer.status}")
    left = processes.gone_within(world.tree, seconds)
    expect(not left, f"{len(left)} alive {seconds:.0f} s after the stop: {', '.join(map(str, left[:3]))}")
    end = world.batch_end()
    expect(end["status"] == "stopped", f"the batch ended {end['status']}")


@check("A1", "10 MB to stderr")
def stderr_flood() -> None:
    with World("A1@create-story") as world:
        world.serve().start()
        row = world.ended("create-story")
        _finished(world, row)
        files = list(world.state.glob(f"runs/{row['id']}/stderr*"))
        expect(files and files[0].stat().st_size > MEGABYTE, "stderr was not flooded")
        tail = row["stderr_tail"] or ""
        expect(tail.rstrip().endswith("the last words on stderr"), f"the tail is lost: …{tail[-80:]!r}")
        expect(len(tail.encode()) <= 64 << 10, f"{len(tail)} characters of stderr are kept")
        # The line that says what was left out comes on top of the cap.
        size = files[0].stat().st_size
        expect(size <= (4 << 20) + 200, f"stderr takes {size} bytes on disk")


@check("A2", "100 MB on one line, then a valid line")
def long_line() -> None:
    with World("A2@create-story") as world:
        worker = world.serve().worker
        with Watch(lambda: processes.rss(worker.pid)) as memory:
            world.start()
            row = world.ended("create-story")
        expect(len(world.transcript(row)) > 50 * MEGABYTE, "the long line was not sent")
        _finished(world, row)
        growth = (max(memory.values) - memory.values[0]) / MEGABYTE
        expect(growth < 60, f"the server grew by {growth:.0f} MB")
        expect(_counted(row) == 1, f"{_counted(row)} raw lines are recorded, not 1")


@check("A3", "1 million short lines")
def million_lines() -> None:
    with World("A3@create-story") as world:
        world.serve().start()
        began = time.monotonic()
        row = world.ended("create-story", 90)
        seconds = time.monotonic() - began
        expect(world.transcript(row).count(b"\n") >= 900_000, "the lines were not sent")
        _finished(world, row)
        expect(seconds < 60, f"it took {seconds:.0f} s")
        told = len([e for e in world.events() if e["command_id"] == row["id"]])
        expect(told < 10 * seconds + 20, f"{told} events were recorded in {seconds:.0f} s")


def _rubbish(fault: str, sent: bytes, kept_out: bytes = b"", counted: int = 1) -> None:
    """A command meets one bad line: kept in the transcript, counted, not in the database, no harm done."""
    with World(f"{fault}@create-story") as world:
        world.serve().start()
        row = world.ended("create-story")
        expect(sent in world.transcript(row), "the line was not sent, or not kept")
        _finished(world, row)
        expect(world.healthy(), "the server is not healthy")
        if kept_out:
            found = [name for name, text in world.texts() if kept_out in text]
            expect(not found, f"it is raw in the database: {found[:3]}")
        expect(_counted(row) >= counted, f"{_counted(row)} raw lines are recorded, not {counted}")


@check("A4", "a line that is not UTF-8")
def not_utf8() -> None:
    _rubbish("A4", b'"text":"\xff\xfe\xc3\x28"')


@check("A5", "the line 123")
def number() -> None:
    _rubbish("A5", b"\n123\n")


@check("A6", "the line []")
def empty_list() -> None:
    _rubbish("A6", b"\n[]\n")


@check("A7", "the line null")
def null() -> None:
    _rubbish("A7", b"\nnull\n")


@check("A8", "message.content is a string, or has a wrong type")
def string_content() -> None:
    _rubbish("A8", b"This content is a string.")


@check("A9", "JSON nested 100,000 deep")
def deep_json() -> None:
    _rubbish("A9", b"[" * 100_000, b"[" * 50)


@check("A10", "an integer of 5,000 digits")
def huge_integer() -> None:
    _rubbish("A10", b"9" * 5_000, b"9" * 50)


@check("A11", "NaN")
def nan() -> None:
    _rubbish("A11", b'"value":NaN', b"NaN")


@check("A12", "a lone surrogate")
def surrogate() -> None:
    _rubbish("A12", b"\\ud800 is half", b"\xed\xa0\x80")


@check("A13", "NUL inside a text")
def nul() -> None:
    _rubbish("A13", b"before\\u0000after", b"\0")


def _fails(fault: str, proof: bytes, reason: str) -> None:
    """A command fails for a reason each time it is tried, and the story is not done."""
    with World(f"{fault}@create-story") as world:
        world.serve().start()
        row = world.ended("create-story")
        world.batch_end()
        expect(world.runs(), "the agent did not run")
        text = world.transcript(row)
        expect(proof in text if proof else not text.strip(), f"not what the fault sends: {text[-80:]!r}")
        expect(row["status"] == "failed", f"create-story {row['status']}")
        expect(reason in row["reason"].lower(), f"the reason is: {row['reason']}")
        if fault == "A14":
            expect(_counted(row) == 1, f"{_counted(row)} raw lines are recorded, not 1")
        _not_done(world)


@check("A14", "half a line, then exit")
def half_line() -> None:
    _fails("A14", b'"content":[{"type":"te', "result")


@check("A15", "no output, exit 0")
def no_output() -> None:
    _fails("A15", b"", "no result")


@check("A16", "a success result, then exit 1")
def exit_1() -> None:
    _fails("A16", b'"subtype":"success"', "exit status 1")


def _reviewed(fault: str) -> World:
    return World(fault, stories=DEV_STORY, settings={"max_code_review_attempts": 3})


@check("A17", 'review text holds "CRITICAL" and "ZERO ISSUES"')
def quoted_verdict() -> None:
    with _reviewed("A17") as world:
        world.serve().start()
        world.batch_end()
        reviews = world.commands("code-review")
        text = world.transcript(reviews[0]) if reviews else b""
        expect(b"ZERO ISSUES" in text and b"CRITICAL" in text, "no review says both")
        _not_done(world)


@check("A18", "dev-story succeeds; reviews: crash, HIGH, crash")
def crashing_reviews() -> None:
    # Without the crashes after the third, a clean fourth review would rightly let the story pass.
    with _reviewed("A18,crash@code-review:4,crash@code-review:5") as world:
        world.serve().start()
        world.batch_end()
        expect(
            [r["status"] for r in world.commands("dev-story")] == ["succeeded"], "dev-story did not succeed"
        )
        seen = [row["status"] for row in world.commands("code-review")]
        expect(seen[:3] == ["failed", "succeeded", "failed"], f"the reviews ended {seen}")
        _not_done(world)


@check("A19", "exits while a grandchild holds stdout")
def holds_stdout() -> None:
    with World("A19@create-story") as world:
        world.serve().start()
        world.ended("create-story")
        seen = time.monotonic_ns()
        agent = next(run["pid"] for run in world.runs() if run["command"] == "create-story")
        left = next(run["ns"] for run in world.runs("end") if run["pid"] == agent)
        _dead(world, "grandchild")
        seconds = (seen - left) / 1e9
        expect(seconds < 2, f"the verdict came {seconds:.1f} s after the exit")


@check("A20", "result, then never exits")
def hang_after_result() -> None:
    with World("A20@create-story", settings={"after_result_grace_seconds": 1}) as world:
        world.serve().start()
        agent = world.agent_runs("create-story")
        row = world.ended("create-story", 20)
        expect(b'"type":"result"' in world.transcript(row), "there was no result")
        expect(not processes.lives(agent), "the agent lives")
        _finished(world, row)
        expect(row["ended_by"] == "after_result", f"not flagged: ended_by is {row['ended_by']}")


def _timed_out(fault: str, settings: Mapping[str, Any], word: str) -> None:
    """A command is killed at its limit of 3 s and says which."""
    with World(f"{fault}@create-story", settings=settings) as world:
        world.serve().start()
        agent = world.agent_runs("create-story")
        row = world.ended("create-story", 30)
        seconds = (row["ended_at"] - row["started_at"]) / 1000
        expect(row["status"] == "timed_out", f"create-story {row['status']}: {row['reason']}")
        expect(word in row["reason"], f"the reason is: {row['reason']}")
        expect(2.9 <= seconds < 3 + G + 3, f"it ended after {seconds:.1f} s")
        expect(not processes.lives(agent), "the agent lives")


@check("A21", "silent for ever")
def silent() -> None:
    _timed_out("A21", {"silence_timeout_minutes": 0.05}, "idle")


@check("A22", "talks for ever")
def talks() -> None:
    _timed_out("A22", {"command_timeout_minutes": 0.05}, "command_timeout_minutes")


@check("A23", "ignores SIGTERM")
def ignores_term() -> None:
    with World("A23@create-story") as world:
        world.serve().start()
        agent = world.agent_runs("create-story")
        world.wait(lambda: _ignores_term(agent.pid), PATIENCE, "the agent to ignore SIGTERM")
        _dies_at_stop(world, G + 1)


def _ignores_term(pid: int) -> bool:
    """Whether bit 15 is set in the process's mask of ignored signals."""
    mask = processes.read(pid, "status").partition(b"SigIgn:\t")[2].split(b"\n")[0]
    return bool(mask and int(mask, 16) >> 14 & 1)


@check("A24", "sends itself SIGSTOP")
def stops_itself() -> None:
    with World("A24@create-story") as world:
        world.serve().start()
        agent = world.agent_runs("create-story")
        world.wait(lambda: b"State:\tT" in processes.read(agent.pid, "status"), PATIENCE, "the agent to stop")
        _dies_at_stop(world, G + 1)


def _leaves(fault: str) -> None:
    """A command leaves a daemon; once it has ended there is none."""
    with World(f"{fault}@create-story") as world:
        world.serve().start()
        row = world.ended("create-story")
        _finished(world, row)
        _dead(world, "daemon")


@check("A25", "double-forks a setsid daemon that ignores SIGTERM")
def daemon() -> None:
    _leaves("A25")


@check("A26", "starts a daemon by env -i setsid")
def env_daemon() -> None:
    _leaves("A26")


@check("A27", "200 children")
def many_children() -> None:
    with World("A27@create-story") as world:
        world.serve().start()
        world.wait(lambda: len(world.runs("leftover")) == 200, PATIENCE, "200 children")
        _dies_at_stop(world, G + 3)
        _dead(world, "child")
