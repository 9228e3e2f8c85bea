"""Group B: what must hold when processes are killed, and after a restart."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable

import plans
import processes
from checks import Failed, check, expect, options
from harness import PATIENCE, G, World
from killing import Series, series


def _alone() -> Series:
    found = series(options.kills, options.stories, False)
    expect(found.kills >= options.kills * 0.8, f"the stories were done after {found.kills} kills")
    return found


def _none(found: list[str], what: str, told: Series) -> None:
    expect(not found, f"{len(found)} {what} ({told}): {'; '.join(found[:3])}")


@check("B1", "count: published events missing in the database")
def published_events() -> str:
    _none(_alone().lost, "events", _alone())
    return str(_alone())


@check("B2", "count: agents that ran together and must not")
def overlapping_agents() -> str:
    # create-story and its discovery may: a witness that never saw them would see nothing else either.
    expect(_alone().together, "the witness saw nobody run together")
    _none(_alone().overlapping, "pairs", _alone())
    return str(_alone())


@check("B3", "count: agent starts without a committed row")
def unrecorded_starts() -> str:
    _none(_alone().unrecorded, "starts", _alone())
    return str(_alone())


@check("B4", "count: stories that did not reach their end")
def unfinished_stories() -> str:
    _none(_alone().unfinished, f"of {options.stories} stories", _alone())
    return str(_alone())


@check("B5", "the same with kill -9 of the whole process group")
def whole_group() -> str:
    found = series(options.kills, options.stories, True)
    expect(found.kills >= options.kills * 0.8, f"the stories were done after {found.kills} kills")
    for listed, what in (
        (found.lost, "events"),
        (found.overlapping, "overlapping pairs"),
        (found.unrecorded, "starts without a row"),
        (found.unfinished, "unfinished stories"),
        (found.survivors, "survivors"),
    ):
        _none(listed, what, found)
    return str(found)


@check("B16", "second server on the same project")
def second_server() -> None:
    with World() as world:
        world.serve()
        _refuses(world, str(world.root))


@check("B17", "the same through a symbolic link to the project")
def through_a_link() -> None:
    with World() as world:
        # The state folder is to be found from the project's path, as for most people.
        del world.env["SPRINTRUNNER_STATE_DIR"]
        world.env["XDG_STATE_HOME"] = str(world.folder / "xdg")
        link = world.folder / "link"
        link.symlink_to(world.root)
        world.serve()
        _refuses(world, str(link))


def _refuses(world: World, project: str) -> None:
    """A second ``serve`` ends with one sentence that names the first, which is not disturbed."""
    words = [word if word != str(world.root) else project for word in world.command("serve", "--port", "1")]
    second = subprocess.run(
        words, env=world.env, cwd=world.folder, capture_output=True, text=True, timeout=30
    )
    expect(second.returncode != 0, "the second server ended with 0")
    expect(f":{world.port}" in second.stderr, f"the owner is not named: {second.stderr[-200:]!r}")
    expect("Traceback" not in second.stderr, "there is a traceback")
    expect(world.healthy(), "the first is not healthy any more")
    batch = world.start(1)
    expect(batch == 1, "the first does not work any more")


@check("B18", "lock file deleted while running")
def lock_deleted() -> None:
    with World("hang@create-story") as world, World() as other:
        world.serve().start()
        agent = world.agent_runs("create-story")
        locks = list(world.state.glob("*.lock"))
        expect(locks, "there is no lock file")
        for lock in locks:
            lock.unlink()
        words = [word if word != str(other.root) else str(world.root) for word in other.command("serve")]
        with other.log.open("wb") as log:
            second = subprocess.Popen(
                [*words, "--port", str(other.port)],
                env={**world.env, "BENCH_WORLD": other.token},
                cwd=other.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        other.server = second
        world.wait(lambda: second.poll() is not None or other.healthy(), PATIENCE, "the second server")
        if second.poll() is None:
            answer = other.request("POST", "/api/orchestrator/start", {"batch_size": 1})
            expect(answer.status == 409, f"the second server's start is answered {answer.status}")
        expect(processes.lives(agent), "the second server ended the first one's agent")
        expect(world.batch()["status"] == "running", f"the live batch became {world.batch()['status']}")
        expect(len(world.rows("SELECT id FROM batches")) == 1, "there is a second batch")


@check("B19", "two projects at once")
def two_projects() -> None:
    with World() as one, World() as two:
        one.serve()
        two.serve()
        for world in (one, two):
            world.start()
        for world in (one, two):
            end = world.batch_end()
            expect(end["status"] == "completed", f"a batch ended {end['status']}: {end['reason']}")
            expect(plans.commits_of(world.root, plans.STORY) == 1, "the story was not committed")


def _ends_in_order(number: signal.Signals, send: Callable[[World], None]) -> None:
    """A signal ends the agent, leaves the batch interrupted and the server gone within G + 3 s."""
    with World("ignore-term@create-story,hang@create-story") as world:
        worker = world.serve().worker
        world.start()
        agent = world.agent_runs("create-story")
        began = time.monotonic()
        send(world)
        left = processes.gone_within(lambda: [worker] if processes.lives(worker) else [], G + 3)
        seconds = time.monotonic() - began
        expect(not left, f"the worker lives {seconds:.1f} s after {number.name}")
        expect(not processes.lives(agent), "the agent lives")
        if number is not signal.SIGHUP:
            assert world.server is not None
            try:
                world.server.wait(max(0.1, G + 3 - seconds))
            except subprocess.TimeoutExpired:
                raise Failed(f"the server lives {G + 3:.0f} s after {number.name}") from None
        row = world.batch()
        expect(row["status"] == "interrupted", f"the batch is {row['status']}")
        expect(not world.rows("SELECT 1 FROM commands WHERE status = 'running'"), "a command is still live")


@check("B20", "SIGTERM to the server")
def sigterm() -> None:
    _ends_in_order(signal.SIGTERM, lambda world: _signal(world, signal.SIGTERM))


@check("B21", "SIGINT to the server")
def sigint() -> None:
    _ends_in_order(signal.SIGINT, lambda world: _signal(world, signal.SIGINT))


@check("B22", "SIGHUP to the server")
def sighup() -> None:
    _ends_in_order(signal.SIGHUP, lambda world: _signal(world, signal.SIGHUP))


def _signal(world: World, number: signal.Signals) -> None:
    assert world.server is not None
    world.server.send_signal(number)


@check("B23", "Ctrl-C to the foreground process group")
def ctrl_c() -> None:
    with World("hang@create-story") as world:
        world.serve().start()
        assert world.server is not None
        _interrupted(world, world.server)
        expect(world.batch()["status"] == "interrupted", f"the batch is {world.batch()['status']}")
    with World("hang@create-story") as world:
        world.server = world.spawn("run", "1")
        status = _interrupted(world, world.server)
        expect(status == 3, f"run exits {status}, not 3")


def _interrupted(world: World, program: subprocess.Popen[bytes]) -> int:
    """Ctrl-C while the agent works: it ends by our order alone, nothing is left; returns the exit status."""
    agent = world.agent_runs("create-story")
    world.wait(lambda: world.runs("prompt"), PATIENCE, "the agent to read its prompt")
    expect(os.getpgid(agent.pid) != program.pid, "the agent is in the foreground process group")
    os.killpg(program.pid, signal.SIGINT)
    try:
        status = program.wait(G + 5)
    except subprocess.TimeoutExpired:
        raise Failed("it does not end") from None
    left = processes.gone_within(world.processes, 1.0)
    expect(not left, f"still running: {', '.join(map(str, left[:3]))}")
    exits = [run["exit"] for run in world.runs("end") if run["pid"] == agent.pid]
    expect(exits == [143], f"the agent ended with {exits}, not by the SIGTERM of an ordered stop")
    return status
