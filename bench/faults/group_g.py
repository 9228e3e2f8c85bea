"""Group G: a database that is full, damaged, locked, gone or under load, and what it refuses by itself."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import plans
import processes
import small_disk
import starving
from adjusted import Adjusted, wrap_agent
from checks import Skipped, check, expect
from harness import World
from starving import FAULT, STORIES, starve
from watching import Watch

MEGABYTE = 1_000_000

# nothing can be written for a while


@check("G1", "database full (max_page_count)")
def full_database() -> None:
    with Adjusted(FAULT, stories=STORIES) as world:
        world.serve()

        def fill() -> None:
            world.full.touch()
            world.wait(lambda: starving.report(world, "m" * 150), 30, "the database to be full")

        starve(world, fill, world.full.unlink, ["disk is full"])


@check("G2", "file size limit (RLIMIT_FSIZE)")
def file_size_limit() -> None:
    with World(FAULT, stories=STORIES) as world:
        pid = world.serve().worker.pid
        before = resource.prlimit(pid, resource.RLIMIT_FSIZE)

        def limit() -> None:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, before[1]))
            told = starving.report(world, "one more")
            expect(told, "a record was taken despite the limit")

        def lift() -> None:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, before)

        starve(world, limit, lift, ["could not be written", "disk is full"])


@check("G3", "state folder on a 64 MiB tmpfs")
def tmpfs() -> None:
    if subprocess.run([*small_disk.INSIDE, "true"], capture_output=True, check=False).returncode:
        raise Skipped("no user namespace with a mount of its own here")
    program = [sys.executable, small_disk.__file__]
    done = subprocess.run([*small_disk.INSIDE, *program], capture_output=True, text=True, check=False)
    expect(done.returncode == 0, done.stderr.strip()[-500:])


@check("G4", "database file read-only")
def read_only() -> None:
    with World(FAULT, stories=STORIES) as world:
        world.serve()

        def protect() -> None:
            world.database.chmod(0o400)
            expect("read-only" in starving.report(world, "one more"), "a record was taken")

        starve(world, protect, lambda: world.database.chmod(0o600), ["read-only"])
        world.end()
        world.database.chmod(0o400)
        again = world.run("run", "1")
        expect(again.returncode == 2, f"run on a read-only database ended with {again.returncode}")
        said = again.stderr.strip()
        expect("read-only" in said and "\n" not in said, f"it said: {said[-300:]}")
        world.database.chmod(0o600)


# damaged at the start


def _after_damage(damage: Callable[[Path], None]) -> str:
    """Damage the database of a stopped server; it is moved aside, the backup is back, and both are said."""
    with World() as world:
        world.serve().start()
        world.batch_end()
        # A second start finds a batch to back up, at the latest.
        world.end()
        world.serve()
        world.wait(lambda: list((world.state / "backups").glob("*.db")), 30, "a backup")
        world.end()
        damage(world.database)
        broken = world.database.read_bytes()
        began = len(world.words())
        world.serve()
        aside = [
            p for p in world.state.glob("sprint-runner.db.damaged-*") if not p.name.endswith(("-wal", "-shm"))
        ]
        expect(len(aside) == 1, f"moved aside: {aside}")
        expect(aside[0].read_bytes() == broken, "what was moved aside is not the damaged file")
        listed = world.get("/api/batches")
        expect(listed["total"] == 1 and listed["batches"][0]["status"] == "completed", f"restored: {listed}")
        page = world.request("GET", "/").text
        expect("moved to" in page and "restored" in page, "the page does not say it")
        said = [event for event in world.events("error") if "restored" in event["payload"]["message"]]
        expect(len(said) == 1, f"{len(said)} events say it")
        log = world.words()[began:]
        expect("moved to" in log, f"the log does not say it: {log[-300:]}")
        world.sound()
        return (
            next(line for line in log.splitlines() if "moved to" in line)
            .partition(". ")[0]
            .rpartition(" ")[2]
            + log
        )


def _spoil_pages(path: Path) -> None:
    data = bytearray(path.read_bytes())
    size = int.from_bytes(data[16:18], "big") or 65536
    expect(len(data) > 6 * size, "the database is too small to damage")
    data[3 * size : 5 * size] = b"\xa5" * (2 * size)
    path.write_bytes(data)
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        try:
            told = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        except sqlite3.DatabaseError as error:
            told = str(error)
    expect(told != "ok", "SQLite finds nothing wrong with it")


@check("G5", "a damaged page")
def damaged_page() -> None:
    log = _after_damage(_spoil_pages)
    expect("is damaged" in log, f"its own message is missing: {log[-300:]}")


@check("G6", "truncated file")
def truncated() -> None:
    def cut(path: Path) -> None:
        os.truncate(path, path.stat().st_size // 2 + 1_000)

    log = _after_damage(cut)
    expect("cut short" in log, f"its own message is missing: {log[-300:]}")


@check("G7", "not a database")
def not_a_database() -> None:
    log = _after_damage(
        lambda path: path.write_bytes(b"Dear diary, today I was a text file.\n" * 500) and None
    )
    expect("is not a database" in log, f"its own message is missing: {log[-300:]}")


@check("G8", "schema version newer than the program")
def newer_schema() -> None:
    with World() as world:
        world.serve().end()
        with world.writing() as connection:
            connection.execute("UPDATE alembic_version SET version_num = '9999'")
        before = _bytes_of(world)
        for words in (("serve", "--port", str(world.port)), ("run", "1")):
            done = world.run(*words)
            expect(done.returncode == 2, f"{words[0]} ended with {done.returncode}")
            said = done.stderr.strip()
            expect("newer" in said and "\n" not in said, f"{words[0]} said: {said[-300:]}")
        expect(_bytes_of(world) == before, "the database was touched")
        expect(not list(world.state.glob("*.damaged-*")), "it was moved aside")


def _bytes_of(world: World) -> bytes:
    """The content of the stopped database, its log written into it first."""
    with closing(sqlite3.connect(world.database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return world.database.read_bytes()


@check("G9", "a stored file of every released version")
def released_versions() -> None:
    import released

    for version in released.versions():
        with World() as world:
            world.state.mkdir(mode=0o700)
            released.put(version, world.database)
            before = released.counted(world.database)
            expect(before["events"] > 0 and before["batches"] > 0, f"the stored {version} is empty")
            world.serve()
            expect(
                released.version_of(world.database) == released.versions()[-1], f"{version} was not migrated"
            )
            now = released.counted(world.database)
            for table, count in before.items():
                expect(now[table] >= count, f"{version}: {count} rows of {table} became {now[table]}")
            expect(world.get("/api/batches")["total"] == before["batches"], f"{version}: batches are missing")
            world.start()
            row = world.batch_end()
            expect(
                row["status"] == "completed", f"{version}: the batch ended {row['status']}: {row['reason']}"
            )
            world.sound()


# others at the database


@check("G10", "a foreign writer holds the lock for 3 s")
def locked_briefly() -> None:
    with World("hang@dev-story:1", stories=STORIES) as world:
        world.serve()
        stream = world.stream()
        world.start()
        agent = world.agent_runs("dev-story")
        told: list[str] = []
        with world.writing():
            reporter = threading.Thread(
                target=lambda: told.append(starving.report(world, "while it was locked"))
            )
            reporter.start()
            time.sleep(3.0)  # the length of the fault
            expect(not told, f"the record did not wait: {told}")
        reporter.join(10)
        expect(told == [""], f"it was refused: {told}")
        expect(processes.lives(agent), "the agent was ended for it")
        said = [
            e for e in world.events("command:progress") if e["payload"]["message"] == "while it was locked"
        ]
        expect(len(said) == 1, f"recorded {len(said)} times")
        stream.wait(lambda: any(e["id"] == said[0]["id"] for e in stream.events), 5)
        expect(any(e["id"] == said[0]["id"] for e in stream.events), "it was not published")


@check("G11", "a foreign writer holds the lock for 30 s")
def locked_long() -> None:
    with World(FAULT, stories=STORIES) as world:
        world.serve()
        held: list[sqlite3.Connection] = []

        def hold() -> None:
            held.append(sqlite3.connect(world.database, isolation_level=None, timeout=10))
            held[0].execute("BEGIN IMMEDIATE")

        def release() -> None:
            held[0].execute("COMMIT")
            held[0].close()

        starve(world, hold, release, ["locked"], hold=30.0)


@check("G12", "20,000 events with 16 stream clients reading")
def many_events() -> None:
    with World("hang@dev-story", stories=STORIES) as world:
        world.serve()
        world.start()
        world.agent_runs("dev-story")
        streams = [world.stream() for _ in range(16)]
        for stream in streams:
            # What comes before a client is let in is told in its first message, not one by one.
            expect(stream.wait(lambda s=stream: s.inits, 10), "a client was not let in")
        log = world.database.with_name(world.database.name + "-wal")
        with Watch(lambda: log.stat().st_size if log.exists() else 0) as watch:
            _report_many(world, 20_000)
        recorded = world.rows(
            "SELECT count(*) AS n, max(id) AS last FROM events WHERE event_type = 'command:progress'"
        )
        expect(recorded[0]["n"] >= 20_000, f"{recorded[0]['n']} events were recorded")
        for stream in streams:
            stream.wait(lambda s=stream: (s.cursor or 0) >= recorded[0]["last"], 60)
            seen = len(stream.seen("command:progress"))
            expect(seen >= 20_000, f"a client got {seen} events")
        print(f"     WAL at most {max(watch.values) / MEGABYTE:.1f} MB", flush=True)
        expect(max(watch.values) < 16 * MEGABYTE, f"the WAL grew to {max(watch.values) / MEGABYTE:.1f} MB")


def _report_many(world: World, count: int) -> None:
    """Reports of the running agent, from eight of its children at once."""
    with ThreadPoolExecutor(8) as pool:
        refused = [
            why for why in pool.map(lambda n: starving.report(world, f"step {n}"), range(count)) if why
        ]
    expect(not refused, f"{len(refused)} reports were refused: {refused[:2]}")


@check("G13", "database deleted while running")
def deleted() -> None:
    with World(FAULT, stories=STORIES) as world:
        world.serve()
        gone: list[Path] = []

        def delete() -> None:
            before = world.rows("SELECT count(*) AS n FROM events")[0]["n"]
            for path in world.state.glob("sprint-runner.db*"):
                path.rename(world.folder / path.name)  # what stays is looked at, never given back
                gone.append(path)
            expect(before and not world.database.exists(), "it was not deleted")

        _starve_without_file(world, delete)


def _starve_without_file(world: World, delete: Callable[[], None]) -> None:
    """As ``starve``, but nobody gives the file back: the program does, from what it still holds."""
    stream = world.stream()
    world.start()
    agent = world.agent_runs("dev-story")
    row = world.rows("SELECT run_id FROM commands WHERE status = 'running'")[0]
    delete()
    told = _report_as(world, row["run_id"])
    expect("deleted" in told, f"a report was answered: {told!r}")
    world.wait(lambda: not processes.lives(agent), 15, "the running agent to be ended")
    ended = world.wait(
        lambda: starving._completed(world) if world.database.exists() else None, 120, "the end"
    )
    expect(ended["id"] == 1, "another batch was made")
    known = {event["id"]: event["event_type"] for event in world.events()}
    stream.wait(lambda: stream.cursor == max(known), 5)
    lost = [event for event in stream.events if known.get(event["id"]) != event["type"]]
    expect(not lost, f"{len(lost)} published events are not recorded: {lost[:2]}")
    said = " ".join(str(event["payload"].get("warning", "")) for event in world.events("batch:warning"))
    expect("was deleted while in use" in said, f"no event says it: {said[-300:]}")
    expect(
        not [e for e in stream.seen("command:progress") if e["payload"]["message"] == "unrecorded"],
        "published",
    )
    world.sound()


def _report_as(world: World, run_id: str) -> str:
    from sprintrunner import control
    from sprintrunner.errors import SprintRunnerError

    told = {"epic_id": "1", "story_id": plans.STORY, "command": "dev-story", "task_id": "implement"}
    told |= {"status": "start", "message": "unrecorded", "run_id": run_id}
    try:
        control.request(world.state, "log", told, timeout=30)
    except SprintRunnerError as error:
        return error.sentence
    return ""


@check("G14", "50 concurrent starts at the database")
def concurrent_starts() -> None:
    with World() as world:
        world.serve().end()
        gate = threading.Barrier(50)

        def insert(number: int) -> str:
            with closing(sqlite3.connect(world.database, isolation_level=None, timeout=30)) as connection:
                gate.wait()
                try:
                    connection.execute(
                        "INSERT INTO batches (started_at, status, state) VALUES (?, 'running', 'starting')",
                        (number,),
                    )
                except sqlite3.IntegrityError as error:
                    return str(error)
            return "accepted"

        with ThreadPoolExecutor(50) as pool:
            told = list(pool.map(insert, range(50)))
        expect(told.count("accepted") == 1, f"{told.count('accepted')} of 50 were accepted")
        expect(sum("UNIQUE" in one for one in told) == 49, f"refused otherwise: {set(told)}")
        expect(len(world.rows("SELECT id FROM batches WHERE status = 'running'")) == 1, "not one live batch")


_EVENT = "INSERT INTO events (batch_id, timestamp, event_type, payload) VALUES"
_STORY = "INSERT INTO stories (batch_id, story_key, epic_id, status) VALUES"
_ILLEGAL = {
    "an illegal status of a story": f"{_STORY} (1, 'k', '1', 'finished')",
    "an illegal status of a command": "UPDATE commands SET status = 'maybe' WHERE id = 1",
    "an illegal status of a batch": "UPDATE batches SET status = 'paused' WHERE id = 1",
    "a text for a time": "UPDATE batches SET started_at = 'yesterday' WHERE id = 1",
    "a story of no batch": f"{_STORY} (999, 'k', '1', 'done')",
    "an event of no batch": f"{_EVENT} (999, 1, 'error', '{{}}')",
    "an event without type": "INSERT INTO events (batch_id, timestamp, payload) VALUES (1, 1, '{}')",
    "an event of an unknown type": f"{_EVENT} (1, 1, 'x', '{{}}')",
}


@check("G15", "illegal status, wrong type, missing parent, event without type")
def illegal_rows() -> None:
    with World() as world:
        world.serve().start()
        world.batch_end()
        with closing(sqlite3.connect(world.database, isolation_level=None, timeout=10)) as connection:
            connection.execute("PRAGMA foreign_keys = ON")
            for what, statement in _ILLEGAL.items():
                try:
                    connection.execute(statement)
                except sqlite3.IntegrityError:
                    continue
                raise AssertionError(f"{what} was accepted")
            good = (
                "INSERT INTO events (batch_id, timestamp, event_type, payload) VALUES (1, 1, 'error', '{}')"
            )
            connection.execute(good)  # so that the refusals were not for another reason


@check("G16", "backup during writes")
def backup_during_writes() -> None:
    with World("hang@dev-story", stories=STORIES) as world:
        world.serve()
        world.start()
        world.agent_runs("dev-story")
        over = threading.Event()
        counts: list[int] = []

        def write() -> None:
            while not over.is_set():
                starving.report(world, f"step {len(counts)}")
                counts.append(1)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            copies = [_backed_up(world, counts) for _ in range(3)]
        finally:
            over.set()
            writer.join()
        for copy, before, after in copies:
            with closing(sqlite3.connect(f"file:{copy}?mode=ro", uri=True)) as connection:
                expect(
                    connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok", "a backup is damaged"
                )
                expect(
                    not connection.execute("PRAGMA foreign_key_check").fetchall(), "a backup lacks parents"
                )
                held = connection.execute(
                    "SELECT count(*) FROM events WHERE task_id = 'implement'"
                ).fetchone()[0]
                expect(before <= held <= after + 8, f"a backup holds {held} events of {before} to {after}")
        world.end()
        world.database.write_bytes(b"spoiled" * 1000)
        world.serve()
        expect(world.get("/api/batches")["total"] == 1, "the backup did not take its place")
        world.sound()


def _backed_up(world: World, counts: list[int]) -> tuple[Path, int, int]:
    from sprintrunner.store import Store

    world.wait(lambda: len(counts) >= 20, 30, "some events")
    before = len(world.rows("SELECT id FROM events WHERE task_id = 'implement'"))
    store = Store.open(world.database)
    try:
        copy = store.backup(world.state / "backups")
    finally:
        store.close()
    after = len(world.rows("SELECT id FROM events WHERE task_id = 'implement'"))
    return copy, before, after


@check("G17", "retention while a batch is live")
def retention() -> None:
    from sprintrunner.store import Store

    with World("hang@dev-story", stories=(*STORIES, ("1-2-grow-a-root", "backlog"))) as world:
        world.serve()
        world.start(1, stories=["1-2-grow-a-root"])
        world.wait(
            lambda: [r for r in world.runs() if r["command"] == "dev-story"], 60, "the first dev-story"
        )
        world.request("POST", "/api/orchestrator/stop", {})
        old = world.batch_end()
        live = world.start(1, stories=[plans.STORY])
        world.wait(
            lambda: len([r for r in world.runs() if r["command"] == "dev-story"]) > 1, 60, "the second"
        )
        before = world.rows("SELECT * FROM events WHERE batch_id = ?", live)
        expect(
            world.rows("SELECT id FROM events WHERE batch_id = ?", old["id"]), "nothing is there to delete"
        )
        store = Store.open(world.database)
        try:
            gone = store.prune_events(int(time.time() * 1000) + 86_400_000, chunk=3)
        finally:
            store.close()
        expect(gone, "nothing was deleted")
        expect(
            not world.rows("SELECT id FROM events WHERE batch_id = ?", old["id"]),
            "old events are still there",
        )
        now = world.rows("SELECT * FROM events WHERE batch_id = ?", live)
        expect(now[: len(before)] == before, f"{len(before)} events of the live batch became {len(now)}")
        expect(starving.report(world, "still here") == "", "the live batch does not go on")
        expect(world.agents(), "its agent was ended")
        world.sound()


@check("G18", "fork")
def forks() -> None:
    with World("hang@dev-story", stories=STORIES) as world:
        world.serve()
        world.start()
        world.agent_runs("dev-story")
        worker = world.worker
        expect(_holds_database(worker.pid), "the worker has no connection: nothing is shown")
        assert world.server is not None
        for one in [*world.tree(), processes.look(world.server.pid)]:
            expect(one is None or not _holds_database(one.pid), f"{one} holds the database")
        _forked_store(world)
        world.sound()


def _holds_database(pid: int) -> bool:
    links = []
    for entry in os.scandir(f"/proc/{pid}/fd"):
        try:
            links.append(os.readlink(entry.path))
        except OSError:
            continue
    return any("sprint-runner.db" in link for link in links)


def _forked_store(world: World) -> None:
    """A program that forks with an open store: both sides go on, neither with the other's connection."""
    program = textwrap.dedent(
        """
        import os, sys
        from pathlib import Path
        from sprintrunner.store import Store
        store = Store.open(Path(sys.argv[1]))
        def said(text):
            with store.transaction() as tx:
                return tx.append("error", {"type": "fork", "message": text})
        said("before")
        mine = store._connections()
        child = os.fork()
        if not child:
            said("child")
            os._exit(0 if store._connections() is not mine else 7)
        said("parent")
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "the child used our connection"
        assert store._connections() is mine
        said("after")
        """
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, str(world.database)],
        env=world.env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    expect(done.returncode == 0, done.stderr[-300:])
    told = [event["payload"]["message"] for event in world.events("error")]
    expect(sorted(told) == ["after", "before", "child", "parent"], f"recorded: {told}")


@check("G19", "no code outside the store opens the database file")
def only_the_store() -> None:
    import opening

    found = opening.outside_the_store()
    expect(opening.in_the_store(), "the check sees nothing at all")
    expect(not found, "; ".join(found))


@check("G20", "SQLite library too old")
def old_library() -> None:
    with Adjusted(names=["sqlite3:sqlite_version_info=(3, 36, 0)"]) as world:
        for words in (("serve", "--port", str(world.port)), ("run", "1")):
            done = world.run(*words)
            said = done.stderr.strip()
            expect(done.returncode == 2, f"{words[0]} ended with {done.returncode}: {said[-200:]}")
            expect("3.37" in said and "\n" not in said, f"{words[0]} said: {said[-300:]}")


@check("G21", "power loss by LazyFS")
def power_loss() -> None:
    missing = "/dev/fuse" if not os.access("/dev/fuse", os.R_OK | os.W_OK) else "LazyFS"
    raise Skipped(f"{missing} is not to be had here")


_LOUD = """
if [ "$SPRINTRUNNER_COMMAND" = dev-story ]; then
  printf '{"type":"assistant","message":{"id":"m0","role":"assistant","content":['
  printf '{"type":"tool_use","id":"t0","name":"Bash","input":{"command":"echo '
  head -c 7000000 /dev/zero | tr '\\0' y
  printf '","description":"'
  head -c 500000 /dev/zero | tr '\\0' z
  printf '"}}]}}\\n'
fi
"""


@check("G22", "event payload of 10 MB")
def huge_payload() -> None:
    from sprintrunner.store import Store

    with World(stories=STORIES) as world:
        wrap_agent(world, _LOUD)
        world.serve().start()
        row = world.ended("dev-story")
        world.batch_end()
        expect(len(world.transcript(row)) > 7_500_000, "the transcript does not hold all of it")
        store = Store.open(world.database)
        try:
            with store.transaction() as tx:
                number = tx.append(
                    "batch:warning", {"batch_id": 1, "warning": "w" * 10_000_000, "more": ["x"] * 10**6}
                )
        finally:
            store.close()
        kept = world.rows("SELECT payload FROM events WHERE id = ?", number)[0]["payload"]
        expect('"truncated":true' in kept and kept.startswith('{"batch_id":1'), f"kept: {kept[:80]}")
        longest = world.rows("SELECT max(length(CAST(payload AS BLOB))) AS n FROM events")[0]["n"]
        expect(longest <= 65_536, f"a payload of {longest} bytes is stored")
        answer = world.request("GET", f"/api/events?after={number - 1}")
        expect(answer.status == 200 and len(answer.body) < 100_000, f"{len(answer.body)} bytes are sent")
        expect(world.request("GET", "/").status == 200, "the page does not come")
