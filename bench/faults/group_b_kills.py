"""Group B, continued: what a kill interrupts (B6-B15)."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import plans
import processes
from checks import Failed, check, expect
from harness import PATIENCE, G, World

READY = ((plans.STORY, "ready-for-dev"),)


def _starts(world: World, name: str) -> list[dict[str, Any]]:
    return [run for run in world.runs() if run["command"] == name]


@check("B6", "kill -9 between the spawn of the shim and its go byte")
def before_go() -> None:
    with World(stories=READY) as world:
        world.serve()
        world.start()
        for _ in range(5):
            row = _killed_before_go(world)
            if row:
                break
            world.serve()
        else:
            raise Failed("the server was never killed between spawn and go byte")
        left = processes.gone_within(world.shims, G + 1)
        expect(not left, "the shim lives on")
        ran = [run for run in world.runs() if run["run_id"] == row["run_id"]]
        expect(not ran, "the agent was executed")
        world.serve().batch_end()
        again = world.rows("SELECT status FROM commands WHERE id = ?", row["id"])[0]["status"]
        expect(again == "interrupted", f"the command without an agent became {again}")


def _killed_before_go(world: World) -> dict[str, Any] | None:
    """Hold the write lock from the command's first row on: the pid cannot be recorded, the go byte waits."""
    sql = "SELECT id, run_id, pid FROM commands WHERE status = 'running' AND command != 'commit'"
    with closing(sqlite3.connect(f"file:{world.database}?mode=ro", uri=True, timeout=10)) as looking:
        limit = time.monotonic() + PATIENCE
        while time.monotonic() < limit:
            rows = [row for row in looking.execute(sql) if row[2] is None]
            if rows:
                break
        else:
            raise Failed("no command was begun")
    with world.writing() as lock:
        world.wait(world.shims, 4, "a shim")
        row = lock.execute("SELECT id, run_id, pid FROM commands WHERE id = ?", (rows[0][0],)).fetchone()
        world.kill_group()
    return {"id": row[0], "run_id": row[1]} if row[2] is None else None


@check("B7", "kill -9 between the agent's end and the recording of its verdict")
def before_verdict() -> None:
    with World(stories=READY, speed=0.3, env={"REHEARSAL_TASKS": "none"}) as world:
        world.serve().start()
        world.agent_runs("dev-story")
        world.wait(lambda: world.runs("prompt"), PATIENCE, "the agent to read its prompt")
        row = world.commands("dev-story")[0]
        with world.writing():
            world.wait((world.state / "runs" / str(row["id"]) / "exit.json").exists, 4, "the written verdict")
            world.kill_group()
        expect(world.commands("dev-story")[0]["status"] == "running", "the verdict was recorded already")
        world.serve().batch_end()
        rows = world.commands("dev-story")
        expect([r["status"] for r in rows] == ["succeeded"], f"dev-story: {[r['status'] for r in rows]}")
        expect(len(_starts(world, "dev-story")) == 1, "dev-story was run again")
        expect(plans.status_of(world.root, plans.STORY) == "done", "the story is not done")


@check("B8", "kill -9 while the verdict file is renamed")
def half_a_verdict() -> None:
    from supervising import kill_at_rename

    with World() as world:
        hits = 0
        for number in range(60):
            folder = world.folder / f"run-{number}"
            hits += kill_at_rename(folder, old=number % 2 == 0)
        expect(hits, "no shim was killed while its verdict was being written")


@check("B9", "kill -9 of the shim")
def shim_killed() -> None:
    with World("ignore-term@dev-story:1,hang@dev-story:1", stories=READY) as world:
        world.serve().start()
        agent = world.agent_runs("dev-story")
        shims = world.shims()
        expect(len(shims) == 1 and agent.parent == shims[0].pid, "the agent is not the shim's child")
        processes.kill(shims[0])
        left = processes.gone_within(lambda: [agent] if processes.lives(agent) else [], G + 2)
        expect(not left, f"the agent lives {G + 2:.0f} s after its shim was killed")
        row = world.ended("dev-story")
        expect(row["status"] in ("failed", "interrupted"), f"the command is {row['status']}")
        expect(world.healthy(), "the server is not healthy")


@check("B10", "kill -9 of shim and server")
def both_killed() -> None:
    with World("ignore-term@dev-story:1,hang@dev-story:1", stories=READY) as world:
        world.serve().start()
        agent = world.agent_runs("dev-story")
        for shim in world.shims():
            processes.kill(shim)
        world.kill_group()
        # Nobody is left who could end it.
        expect(
            not processes.gone_within(world.shims, 1) and processes.lives(agent), "the agent died by itself"
        )
        before = world.rows("SELECT max(id) AS id FROM events")[0]["id"]
        world.server = world.spawn("serve", "--port", str(world.port))
        _dies_first(world, agent, before)
        world.wait(world.healthy, PATIENCE, "the server to be healthy")
        world.batch_end()


def _dies_first(world: World, agent: processes.Process, before: int) -> None:
    """Until the old agent is dead, the new life records nothing and starts nobody."""
    limit = time.monotonic() + PATIENCE
    while processes.lives(agent):
        new = world.rows("SELECT event_type FROM events WHERE id > ?", before)
        alive = processes.lives(agent)
        expect(not (new and alive), f"{new and new[0]['event_type']} was recorded while the old agent lived")
        expect(len(_starts(world, "dev-story")) == 1 or not alive, "a new agent started beside the old one")
        expect(time.monotonic() < limit, "the next start leaves the old agent alive")


@contextmanager
def _stranger() -> Iterator[processes.Process]:
    """A process that has nothing to do with us."""
    child = subprocess.Popen(["sleep", "120"], cwd="/", env={"PATH": "/usr/bin:/bin"}, start_new_session=True)
    try:
        found = processes.look(child.pid)
        assert found is not None
        yield found
    finally:
        child.kill()
        child.wait()


def _crash_in_dev_story(world: World) -> dict[str, Any]:
    """Kill the server in the middle of dev-story; returns the row it leaves open."""
    world.serve().start()
    world.agent_runs("dev-story")
    world.kill_group()
    left = processes.gone_within(world.tree, G + 2)
    expect(not left, "the tree outlived the server")
    row = world.commands("dev-story")[-1]
    expect(row["status"] == "running" and row["pid"], "no open row with a pid was left")
    return row


def _closed(world: World, command: int) -> str:
    """The status of a command, empty while it is open."""
    row = world.rows("SELECT status, ended_at FROM commands WHERE id = ?", command)[0]
    return str(row["status"]) if row["ended_at"] is not None else ""


def _claims(columns: Callable[[processes.Process], dict[str, Any]], what: str) -> None:
    """The open row names a stranger; the next start leaves the stranger alone and the row interrupted."""
    with World("hang@dev-story:1", stories=READY) as world, _stranger() as stranger:
        row = _crash_in_dev_story(world)
        values = columns(stranger)
        with world.writing() as connection:
            listed = ", ".join(f"{name} = ?" for name in values)
            connection.execute(f"UPDATE commands SET {listed} WHERE id = ?", (*values.values(), row["id"]))
        world.serve()
        status = world.wait(lambda: _closed(world, row["id"]), 10, "the open row to be closed")
        expect(status == "interrupted", f"the row is {status}")
        expect(processes.lives(stranger), f"the process was killed ({what})")


@check("B11", "pid reused by a foreign process")
def pid_reused() -> None:
    _claims(lambda one: {"pid": one.pid, "start_ticks": one.start_ticks - 1}, "pid with another start time")


@check("B12", "boot id differs")
def another_boot() -> None:
    boot = "00000000-0000-4000-8000-000000000000"
    _claims(lambda o: {"pid": o.pid, "start_ticks": o.start_ticks, "boot_id": boot}, "of another boot")


@check("B13", "kill -9 during a migration")
def during_migration() -> None:
    from migrating import old_database, version_of

    with World() as world:
        world.state.mkdir()
        old = world.folder / "old.db"
        first = old_database(old, events=30_000)
        hits = 0
        for number in range(12):
            if not world.database.exists() or version_of(world.database) != first:
                for path in world.state.glob("sprint-runner.db*"):
                    path.unlink()
                world.database.write_bytes(old.read_bytes())
            hits += _killed_while_migrating(world, first, number / 200)
            world.sound()
            expect(world.rows("SELECT count(*) AS n FROM events")[0]["n"] == 30_000, "events are lost")
        expect(hits, "the server was never killed in the middle of the migration")
        world.serve()
        world.sound()
        expect(version_of(world.database) != first, "the migration was not done in the end")


def _killed_while_migrating(world: World, first: str, later: float) -> bool:
    """Kill a starting server so long after its safety copy appeared; returns whether it had not finished."""
    from migrating import version_of

    copies = len(list(world.state.glob("*.before-*")))
    world.server = world.spawn("serve", "--port", str(world.port))
    world.wait(lambda: len(list(world.state.glob("*.before-*"))) > copies, PATIENCE, "the migration to begin")
    time.sleep(later)
    world.kill_group()
    return version_of(world.database) == first


@check("B14", "kill -9 during a write of the status file, 50 times")
def status_file_kills() -> None:
    program = (
        "import sys; from pathlib import Path; from sprintrunner import status_file\n"
        "path, root, key = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    for value in ('review', 'backlog'):\n"
        "        status_file.write(path, key, value, root=root)\n"
    )
    with World() as world:
        path = world.root / plans.STATUS_FILE
        old = path.read_bytes()
        new = old.replace(f"{plans.STORY}: backlog".encode(), f"{plans.STORY}: review".encode())
        expect(old != new, "the file does not hold the line")
        seen, drafts = set(), set()
        for number in range(50):
            _kill_writer(world, [program, str(path), str(world.root), plans.STORY], number / 1000)
            drafts |= set(path.parent.glob(f".{path.name}.*"))
            now = path.read_bytes()
            expect(now in (old, new), f"neither old nor new after kill {number + 1}: {now[-80:]!r}")
            seen.add(now)
        expect(len(seen) == 2, "the writer never wrote")
        expect(drafts, "no kill hit the middle of a write")


def _kill_writer(world: World, words: list[str], later: float) -> None:
    """Run a program of the project's own Python and kill it so long after it said that it is ready."""
    writer = subprocess.Popen(
        [sys.executable, "-P", "-c", *words], cwd=world.folder, env=world.env, stdout=subprocess.PIPE
    )
    assert writer.stdout is not None
    expect(writer.stdout.readline() == b"ready\n", "the writer did not begin")
    time.sleep(later)
    expect(writer.poll() is None, "the writer ended by itself")
    writer.kill()
    writer.wait()
    writer.stdout.close()


@check("B15", "kill -9 during backup and during retention")
def upkeep_kills() -> None:
    from migrating import fill

    program = (
        "import sys; from pathlib import Path; from sprintrunner.store import Store\n"
        "store = Store.open(Path(sys.argv[1])); print('ready', flush=True)\n"
        "while True:\n"
        "    store.backup(Path(sys.argv[2]), 3)\n"
        "    if sys.argv[3] == 'retention': store.prune_events(store.now(), 50)\n"
    )
    with World() as world:
        world.serve()
        world.kill_group()
        folder = world.state / "backups"
        fill(world.database, 20_000)
        for number in range(16):
            what = "retention" if number % 2 else "backup"
            _kill_writer(world, [program, str(world.database), str(folder), what], 0.01 + number / 60)
            world.sound()
        for copy in folder.glob("*.db"):
            with closing(sqlite3.connect(copy)) as connection:
                expect(
                    connection.execute("PRAGMA quick_check").fetchone()[0] == "ok", f"{copy.name} is damaged"
                )
        left = world.rows("SELECT count(*) AS n FROM events")[0]["n"]
        expect(left < 20_000 and list(folder.glob("*")), "nothing was backed up or pruned")
        world.serve()
