"""What a second look at the engine found: ends without a record, words and work of people that got lost."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from typing import Any

import pytest
from engine import (
    BOTH,
    CONTEXT,
    FIRST,
    IN_REVIEW,
    READY,
    REHEARSE,
    SECOND,
    Engine,
    Make,
    agent_script,
    git,
    hook,
    set_status,
    statuses,
    until,
)

from sprintrunner.control import Control
from sprintrunner.errors import Conflict
from sprintrunner.git import Git
from sprintrunner.orchestrator.batch import BatchRun
from sprintrunner.orchestrator.requests import Requests
from sprintrunner.runtime import Runtime
from sprintrunner.sprint import BatchStatus, CommandStatus

SECRET = "hunter2-hunter2-hunter2"


def hanging(engine: Engine, command: str) -> int:
    """A batch for the first story whose agent hangs in this command; its id."""
    engine.env(REHEARSAL_FAULT=f"hang@{command}")
    batch = engine.start(FIRST)
    until(lambda: engine.ran(command))
    return batch


def crashed(engine: Engine, *, state: str, command: str | None = None) -> int:
    """Leave the records of a batch whose server was killed, with an open command; return the batch's id."""
    runtime = Runtime.open(engine.root)
    with runtime.store.transaction() as tx:
        batch = tx.insert_batch(
            started_at=runtime.store.now(),
            cycles_completed=0,
            status="running",
            state=state,
            requested=[FIRST],
            base_head=git(engine.root, "rev-parse", "HEAD"),
            branch=git(engine.root, "branch", "--show-current"),
            dirty_paths=[],
        )
        story = tx.insert_story(
            batch_id=batch, story_key=FIRST, epic_id="1", status="review", started_at=runtime.store.now()
        )
        if command:
            tx.insert_command(
                batch_id=batch,
                story_id=story,
                story_ids=[story],
                story_keys=FIRST,
                command=command,
                started_at=runtime.store.now(),
                status="running",
                attempt=1,
            )
    runtime.store.close()
    return batch


# ends


def test_a_budget_used_up_by_its_creation_blocks_the_story_and_not_the_batch(make: Make) -> None:
    engine = make(statuses(first="backlog", second="review"))
    engine.env(SPRINTRUNNER_BUDGET_USD_PER_STORY="0.000001")
    row = engine.run(FIRST, SECOND)
    assert row.status == BatchStatus.ALL_DONE, row.reason
    assert "per story reached" in str(engine.story(FIRST).reason)


def test_a_tree_that_cannot_be_looked_at_keeps_no_batch_live(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make(READY)
    batch = hanging(engine, "dev-story")

    def no_memory(self: Git) -> list[str]:
        raise OSError(12, "Cannot allocate memory")

    with monkeypatch.context() as patch:
        patch.setattr(Git, "dirty", no_memory)
        engine.submit("stop")
        assert engine.wait(batch).status == BatchStatus.STOPPED
    until(lambda: engine.submit("status")["status"] == "idle")
    engine.env(REHEARSAL_FAULT="")
    git(engine.root, "checkout", "-q", "--", ".")
    assert engine.run(FIRST).status == BatchStatus.ALL_DONE


def test_a_start_that_fails_half_way_leaves_no_orchestrator_behind(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make(READY)

    def full(self: Control) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Control, "start", full)
        with pytest.raises(OSError, match="No space left"):
            engine.open()
    assert not [t for t in threading.enumerate() if t.name == "orchestrator"]
    assert engine.run(FIRST).status == BatchStatus.ALL_DONE


def test_a_renewal_of_the_context_is_a_background_task(make: Make) -> None:
    engine = make(READY)
    engine.env(SPRINTRUNNER_PROJECT_CONTEXT_MAX_AGE_HOURS="1")
    os.utime(engine.root / CONTEXT, (0, 0))
    row = engine.run(FIRST)
    tasks = engine.live.store.background_tasks(row.id)
    assert [(t.task_type, t.status) for t in tasks] == [("generate-project-context", "succeeded")]
    assert tasks[0].completed_at is not None


# stop


def test_a_stop_during_the_checks_of_a_resume_holds(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make(READY)
    batch = hanging(engine, "dev-story")
    engine.close()
    engine.open()
    reached, go = threading.Event(), threading.Event()
    unmoved = Requests._unmoved

    def slow(self: Requests, row: Any) -> None:
        reached.set()
        go.wait(20)
        unmoved(self, row)

    monkeypatch.setattr(Requests, "_unmoved", slow)
    before = engine.ran("dev-story")
    thread = threading.Thread(target=engine.submit, args=("resume",))
    thread.start()
    assert reached.wait(20)
    assert engine.submit("stop") == {"status": "stopping"}
    go.set()
    thread.join(20)
    assert engine.wait(batch).status == BatchStatus.STOPPED
    assert engine.ran("dev-story") == before


def test_a_batch_that_was_being_stopped_does_not_go_on_by_itself(make: Make) -> None:
    engine = make(IN_REVIEW)
    batch = crashed(engine, state="stopping")
    engine.open()
    row = engine.live.store.batch(batch)
    assert row is not None
    assert row.status == BatchStatus.INTERRUPTED
    assert "a stop had been asked" in str(row.reason)
    assert not engine.runs()
    engine.submit("resume")
    assert engine.wait(batch).status == BatchStatus.ALL_DONE


def test_a_verify_that_a_person_stopped_is_neither_red_nor_a_review(make: Make) -> None:
    engine = make(IN_REVIEW)
    go, once, asleep = (engine.home / name for name in ("go", "once", "asleep"))
    # Quick where the agent runs it itself.
    toml = f"verify = ['test -n \"$INSIDE\" || test -e {go} || (touch {asleep}; sleep 60)']\n"
    (engine.root / "sprintrunner.toml").write_text(toml)
    git(engine.root, "commit", "-qam", "Verify slowly")
    agent_script(
        engine.home,
        f"case $* in *stream-json*) [ -e {once} ] || rm -f {go};; esac\nexport INSIDE=1\n{REHEARSE}",
    )
    go.touch()
    batch = engine.start(FIRST)
    row = until(lambda: [r for r in engine.commands(batch, "code-review") if r.current_task == "verify"])[0]
    until(asleep.exists)
    once.touch()
    go.touch()
    until(lambda: _stop(engine, row.id))
    assert engine.wait(batch).status == BatchStatus.ALL_DONE
    stopped = engine.live.store.command(row.id)
    assert stopped is not None
    assert stopped.status == CommandStatus.STOPPED, stopped.reason
    assert "verify" not in {f.identity for f in engine.live.store.findings(engine.story(FIRST).id)}
    assert engine.raw_status(FIRST) == "done"


def _stop(engine: Engine, command: int) -> bool:
    try:
        engine.submit("stop_command", id=command)
    except Conflict:
        return False
    return True


# nothing is falsely done


def test_a_commit_agent_that_fails_loses_the_work_of_neither_story(make: Make) -> None:
    engine = make(BOTH)
    engine.env(SPRINTRUNNER_COMMIT="agent")
    engine.run(FIRST, SECOND, fault="crash@commit")
    assert {engine.raw_status(key) for key in (FIRST, SECOND)} == {"blocked"}
    engine.env(REHEARSAL_FAULT="", SPRINTRUNNER_COMMIT="builtin")
    answer = engine.submit("retry", key=SECOND, phase=None)
    row = engine.wait(answer["batch_id"])
    assert engine.raw_status(SECOND) == "done", row.reason
    committed = git(engine.root, "show", "--format=", "--name-only", "HEAD").split()
    assert [path for path in committed if path.startswith("windowsill/")]


def test_a_kill_between_the_line_and_the_commit_leaves_no_line_that_says_done(make: Make) -> None:
    engine = make(IN_REVIEW)
    engine.env(SPRINTRUNNER_RESUME_AFTER_CRASH="ask")
    crashed(engine, state="running", command="commit")
    set_status(engine.root, FIRST, "done")
    engine.open()
    assert engine.raw_status(FIRST) == "review"


# retry


def test_a_retry_in_the_same_batch_counts_a_findings_reviews_anew(make: Make) -> None:
    engine = make(statuses(first="review", second="review"))
    engine.env(SPRINTRUNNER_PAIR_STORIES="false")
    engine.env(REHEARSAL_FAULT=f"same-finding@code-review#{FIRST},hang@code-review#{SECOND}")
    batch = engine.start(FIRST, SECOND)
    second = until(lambda: [r for r in engine.commands(batch) if r.story_keys == SECOND])[0]
    engine.submit("retry", key=FIRST, phase="code-review")
    engine.env(REHEARSAL_FAULT=f"same-finding@code-review#{FIRST}")
    until(lambda: _stop(engine, second.id))
    engine.wait(batch)
    reviews = [r for r in engine.commands(batch, "code-review") if r.story_keys == FIRST]
    assert len(reviews) == 6
    assert engine.raw_status(FIRST) == "blocked"


def test_kept_work_that_is_gone_fails_no_batch(make: Make) -> None:
    engine = make(READY, toml='verify = ["test ! -e windowsill/diary.py"]\n')
    engine.run(FIRST)
    git(engine.root, "update-ref", "-d", str(engine.story(FIRST).blocked_ref))
    row = engine.wait(engine.submit("retry", key=FIRST, phase="code-review")["batch_id"])
    assert row.status == BatchStatus.ALL_DONE, row.reason
    assert "is gone from the repository; retry it at dev-story" in engine.warnings(row.id)
    assert engine.raw_status(FIRST) == "blocked"
    row = engine.wait(engine.submit("retry", key=FIRST, phase="dev-story")["batch_id"])
    assert "is developed anew" in engine.warnings(row.id)
    assert engine.commands(row.id, "dev-story")


def test_a_retry_that_never_came_to_its_turn_is_said(make: Make) -> None:
    engine = make(statuses(first="review", second="done"))
    batch = hanging(engine, "code-review")
    engine.submit("retry", key=SECOND, phase="code-review")
    engine.submit("stop")
    engine.wait(batch)
    assert f"{SECOND} was to be retried" in engine.warnings(batch)


# a person's done


def test_what_a_person_calls_done_between_choice_and_creation_is_not_created(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make(statuses(first="backlog", second="backlog"))
    old_paths = BatchRun._old_paths

    async def meanwhile(self: BatchRun, stories: Any) -> dict[str, str]:
        if len(stories) == 2:
            done = asyncio.get_running_loop().run_in_executor(None, lambda: engine.submit("done", key=SECOND))
            await done
        return await old_paths(self, stories)

    monkeypatch.setattr(BatchRun, "_old_paths", meanwhile)
    row = engine.run(FIRST, SECOND)
    assert {r.story_keys for r in engine.commands(row.id, "create-story")} == {FIRST}
    assert engine.raw_status(SECOND) == "done"


# what a former life left


def test_a_usage_limit_met_before_the_crash_is_no_failed_attempt(make: Make) -> None:
    engine = make(READY)
    engine.env(SPRINTRUNNER_MAX_LIMIT_WAIT_HOURS="0", REHEARSAL_RESET_SECONDS="1")
    row = engine.run(FIRST, fault="usage-limit@dev-story:1")
    assert row.status == BatchStatus.LIMIT
    (limited,) = engine.commands(row.id, "dev-story")
    with engine.live.store.transaction() as tx:
        tx.update_batch(row.id, status="running", state="running", ended_at=None, left_paths=row.left_paths)
        tx.update_command(limited.id, status="running", ended_at=None, reason=None, counted=1)
    engine.close()
    engine.env(SPRINTRUNNER_MAX_LIMIT_WAIT_HOURS="24")
    engine.open()
    assert engine.wait(row.id).status == BatchStatus.ALL_DONE
    first = engine.commands(row.id, "dev-story")[0]
    assert (first.status, first.counted) == (CommandStatus.LIMITED, 0)


def test_what_lies_under_a_number_that_is_used_anew_is_cleared(make: Make) -> None:
    engine = make(IN_REVIEW)
    old = engine.state / "runs" / "1"
    old.mkdir(parents=True)
    (old / "exit.json").write_text("{}")
    (old / "work.patch").write_text("of another command")
    engine.run(FIRST)
    assert not (old / "work.patch").exists()


# secrets


def test_a_secret_that_a_hook_prints_is_in_no_record(make: Make) -> None:
    engine = make(IN_REVIEW)
    engine.env(DEPLOY_TOKEN=SECRET)
    hook(engine.root, 'echo "refused for $DEPLOY_TOKEN"; exit 1')
    row = engine.run(FIRST)
    story = engine.story(FIRST)
    assert "refused for [redacted]" in str(story.reason)
    told = json.dumps([dict(p) for p in engine.payloads(row.id)])
    assert SECRET not in told + str(story) + str(row) + str(engine.commands(row.id))


def test_a_secret_in_a_report_of_an_agent_is_in_no_record(make: Make) -> None:
    engine = make(READY)
    engine.env(DEPLOY_TOKEN=SECRET)
    batch = hanging(engine, "dev-story")
    (row,) = until(lambda: [r for r in engine.commands(batch, "dev-story") if r.pid])
    report = {
        "epic_id": "1",
        "story_id": FIRST,
        "command": "dev-story",
        "task_id": "tests",
        "status": "start",
    }
    engine.submit("log", run_id=row.run_id, **report, message=f"with {SECRET}", metrics={"key": SECRET})
    assert SECRET not in json.dumps([dict(p) for p in engine.payloads(batch)])
    assert "with [redacted]" in json.dumps([dict(p) for p in engine.payloads(batch)])
