"""Group B, continued: errors inside the server, and what the next life makes of the last (B24-B28)."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path
from typing import Any

import plans
import processes
from checks import check, expect
from harness import PATIENCE, G, World

READY = ((plans.STORY, "ready-for-dev"),)
MEGABYTE = 1 << 20
#: Functions that run in the orchestrator's thread, or whose errors come to it, from start to commit.
POINTS = (
    "sprintrunner.orchestrator.board:Board.next_picks",
    "sprintrunner.orchestrator.board:Board.set_status",
    "sprintrunner.orchestrator.board:Board.reconcile",
    "sprintrunner.orchestrator.runner:make_plan",
    "sprintrunner.orchestrator.runner:write_papers",
    "sprintrunner.orchestrator.records:Records.open",
    "sprintrunner.orchestrator.records:Records.close",
    "sprintrunner.orchestrator.batch:BatchRun._project_context",
    "sprintrunner.orchestrator.developing:Developing._prove",
    "sprintrunner.orchestrator.committing:Committing._carry",
)


@check("B24", "the server runs out of memory in a worker thread (RLIMIT_AS)")
def out_of_memory() -> None:
    # With an arena a thread, memory set aside long before would be used up first.
    env = {"REHEARSAL_SCALE": "0.2", "MALLOC_ARENA_MAX": "1"}
    with World("long-line@dev-story", stories=READY, env=env) as world:
        launcher = world.bin / "claude"
        # Time to set the limit between the start of the shim and the agent's first word.
        late = '#!/bin/sh\n[ -z "$SPRINTRUNNER_RUN_ID" ] || sleep 1\n'
        launcher.write_text(launcher.read_text().replace("#!/bin/sh\n", late))
        worker = world.serve().worker
        world.request("GET", "/")
        world.start()
        world.wait(world.shims, PATIENCE, "the shim of dev-story")
        size = int(processes.read(worker.pid, "statm").split()[0]) * resource.getpagesize()
        # A line of 20 MB is buffered up to 8 MiB: there is room for half of that.
        resource.prlimit(worker.pid, resource.RLIMIT_AS, (size + 4 * MEGABYTE, resource.RLIM_INFINITY))
        row = world.batch_end()
        resource.prlimit(worker.pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        short = ("MemoryError", "can't start new thread", "Cannot allocate memory")
        expect(any(word in world.words() for word in short), "memory did not run out")
        expect(row["status"] == "failed", f"the batch ended {row['status']}: {row['reason']}")
        expect(row["reason"], "the batch does not say why")
        live = world.rows("SELECT command FROM commands WHERE status = 'running'")
        expect(not live, f"a command is still live: {live}")
        expect(processes.lives(worker) and world.healthy(), "the server does not answer any more")
        expect(world.request("GET", "/").status == 200, "the page does not come")


class _Faulty(World):
    """A world whose server raises where the check says."""

    @property
    def switch(self) -> Path:
        return self.folder / "inject"

    def command(self, *words: str) -> list[str]:
        self.env["BENCH_INJECT"] = str(self.switch)
        program = str(Path(__file__).with_name("inject.py"))
        project = ["--project", str(self.root)]
        return [sys.executable, "-P", program, *POINTS, "--", *project, *words]

    def _is_server(self, one: processes.Process) -> bool:
        return any(word.endswith("/inject.py") for word in one.words)


@check("B25", "exception in the orchestrator thread, injected at 10 points")
def exceptions() -> None:
    with _Faulty() as world:
        worker = world.serve().worker
        for point in POINTS:
            _raises(world, point)
        expect(processes.lives(worker), "the worker process was replaced")
        world.start()
        row = world.batch_end()
        expect(row["status"] == "completed", f"the last batch ended {row['status']}: {row['reason']}")
        expect(plans.status_of(world.root, plans.STORY) == "done", "the story is not done in the end")


def _raises(world: _Faulty, point: str) -> None:
    """One batch that meets one exception: failed, said, logged, nothing left, and healthy."""
    world.switch.write_text(point)
    world.start()
    row = world.batch_end()
    name = point.partition(":")[2]
    expect(not world.switch.read_text(), f"{name} was never called")
    expect(row["status"] == "failed", f"{name}: the batch ended {row['status']}: {row['reason']}")
    expect("injected" in (row["reason"] or ""), f"{name}: the reason is {row['reason']}")
    words = world.words()
    expect("Traceback" in words and f"injected at {point}" in words, f"{name}: no traceback in the log")
    expect(
        not world.rows("SELECT 1 FROM commands WHERE status = 'running'"), f"{name}: a command is still live"
    )
    left = processes.gone_within(world.tree, G + 1)
    expect(not left, f"{name}: an agent lives on")
    world.wait(world.healthy, 5, f"/healthz after {name}")


@check("B26", "restart with stale rows of every state")
def stale_rows() -> None:
    with World(settings={"resume_after_crash": "ask"}) as world:
        world.serve()
        world.kill_group()
        for state in ("starting", "running", "waiting", "stopping"):
            _leave_rows(world, state)
            expect(world.rows("SELECT 1 FROM batches WHERE status = 'running'"), "no stale row was left")
            world.serve()
            for table in ("batches", "commands", "background_tasks"):
                live = world.rows(f"SELECT * FROM {table} WHERE status = 'running'")
                expect(not live, f"{state}: {len(live)} rows of {table} stay live: {live[:1]}")
            guessed = world.rows(
                "SELECT 1 FROM batches WHERE status = 'stopped' AND reason != 'ended before'"
            )
            expect(not guessed, f"{state}: a batch became stopped by guess")
            status = world.get("/api/orchestrator/status")
            expect(
                status["status"] == "idle" and not status["current_stories"],
                f"{state}: the status is {status}",
            )
            world.kill_group()


def _leave_rows(world: World, state: str) -> None:
    """What a life may leave behind: a live batch, and rows that stayed open in one that has ended."""
    with world.writing() as connection:

        def insert(table: str, **columns: Any) -> int:
            marks = ", ".join("?" * len(columns))
            sql = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"
            return int(connection.execute(sql, tuple(columns.values())).lastrowid or 0)

        now = int(time.time() * 1000)
        live = insert("batches", started_at=now, status="running", state=state, resumes_at=now)
        ended = insert(
            "batches", started_at=now, ended_at=now, status="stopped", state="ended", reason="ended before"
        )
        statuses = ["backlog", "ready-for-dev", "in-progress", "review", "done", "blocked", "optional"]
        for batch in (live, ended):
            for number, status in enumerate(statuses):
                key = f"9-{number}-stale-{status}"
                story = insert(
                    "stories", batch_id=batch, story_key=key, epic_id="9", status=status, started_at=now
                )
                shared: dict[str, Any] = {
                    "batch_id": batch,
                    "story_id": story,
                    "story_keys": key,
                    "started_at": now,
                }
                command = insert("commands", **shared, command="dev-story", task_id="dev-story", attempt=1)
                insert("commands", **shared, command="code-review", task_id="code-review", attempt=1, pid=1)
                task = {"batch_id": batch, "story_key": key, "task_type": "story-review", "spawned_at": now}
                insert("background_tasks", **task, command_id=command)


def _crashed(world: World, name: str = "dev-story") -> int:
    """Kill the server while a command works; returns how many commands of that name were started."""
    seen = len([run for run in world.runs() if run["command"] == name])
    world.wait(lambda: world.agents(), PATIENCE, f"{name} to run")
    world.kill_group()
    left = processes.gone_within(world.tree, G + 2)
    expect(not left, "the tree outlived the server")
    return seen


@check("B27", "resume: auto, three times without progress, ask, one click")
def resume() -> None:
    _goes_on_by_itself()
    _gives_up_after_three()
    _asks()


def _goes_on_by_itself() -> None:
    with World("hang@dev-story:1") as world:
        world.serve().start()
        world.agent_runs("dev-story")
        before = len([run for run in world.runs() if run["command"] != "dev-story"])
        stopped = {time.strftime("%H:%M", time.localtime(time.time() - back)) for back in (0, 1, 60)}
        _crashed(world)
        began = time.monotonic()
        world.serve()
        world.wait(lambda: world.batch()["status"] == "running", 5, "the batch to go on by itself")
        seconds = time.monotonic() - began
        expect(seconds < 5, f"it went on after {seconds:.1f} s")
        told = [event["payload"]["warning"] for event in world.events("batch:warning")]
        said = [text for text in told if any(hour in text for hour in stopped)]
        expect(said, f"no event names the time the server stopped: {told}")
        page = world.request("GET", "/").text
        expect(any(f"stopped at {hour}" in page for hour in stopped), "the page does not name the time")
        row = world.batch_end()
        expect(row["status"] == "completed", f"the batch ended {row['status']}: {row['reason']}")
        names = [run["command"] for run in world.runs()]
        again = [
            name for name in set(names) if names.count(name) > 1 and name not in ("dev-story", "code-review")
        ]
        expect(not again and names.count("dev-story") == 2, f"run again: {again or names} ({before} before)")


def _gives_up_after_three() -> None:
    with World("hang@dev-story", stories=READY) as world:
        world.serve().start()
        for life in range(4):
            _crashed(world)
            world.serve()
            status = "running" if life < 3 else "interrupted"
            row = world.batch()
            expect(row["status"] == status, f"after kill {life + 1} the batch is {row['status']}")
        expect(world.get("/api/orchestrator/status")["status"] == "idle", "the orchestrator is not idle")
        expect(not world.agents(), "an agent runs")
        world.env["REHEARSAL_FAULT"] = ""
        _click(world)


def _asks() -> None:
    with World("hang@dev-story:1", stories=READY, settings={"resume_after_crash": "ask"}) as world:
        world.serve().start()
        _crashed(world)
        world.serve()
        expect(world.batch()["status"] == "interrupted", f"with ask the batch is {world.batch()['status']}")
        expect(not world.agents(), "with ask an agent runs")
        _click(world)
        row = world.batch_end()
        expect(row["status"] == "completed", f"the batch ended {row['status']}: {row['reason']}")


def _click(world: World) -> None:
    answer = world.request("POST", "/api/orchestrator/resume", {})
    expect(answer.status == 202, f"the click is answered {answer.status}: {answer.text[:200]}")
    world.wait(lambda: world.batch()["status"] == "running", 5, "the batch to go on")
    world.wait(world.agents, PATIENCE, "an agent")


@check("B28", "story finished in git, verdict missing")
def finished_in_git() -> None:
    with World(stories=READY) as world:
        world.serve()
        assert world.server is not None
        hook, target = world.root / ".git" / "hooks" / "post-commit", world.folder / "pgid"
        hook.parent.mkdir(exist_ok=True)
        # git runs this when the commit is made, before our own record of it.
        hook.write_text(f'#!/bin/sh\nmv "{target}" "{target}.used" && kill -9 -"$(cat "{target}.used")"\n')
        hook.chmod(0o755)
        target.write_text(str(world.server.pid))
        world.start()
        world.wait(
            lambda: world.server and world.server.poll() is not None, PATIENCE, "the kill at the commit"
        )
        expect(plans.commits_of(world.root, plans.STORY) == 1, "the story was not committed")
        records = world.rows("SELECT status FROM stories")
        expect(records[0]["status"] != "done", "the record says done already")
        before = len(world.runs())
        processes.gone_within(world.tree, G + 2)
        row = world.serve().batch_end()
        expect(len(world.runs()) == before, f"{len(world.runs()) - before} agents were run again")
        expect(row["status"] == "completed", f"the batch ended {row['status']}: {row['reason']}")
        expect(
            world.rows("SELECT status FROM stories")[0]["status"] == "done", "the record does not say done"
        )
        expect(plans.status_of(world.root, plans.STORY) == "done", "the status file does not say done")
        expect(plans.commits_of(world.root, plans.STORY) == 1, "it was committed twice")
        live = world.rows("SELECT command, status FROM commands WHERE status = 'running'")
        expect(not live, f"live without an owner: {live}")
