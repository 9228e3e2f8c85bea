"""A second look at the engine: what a commit, a retry, a crash or a budget met that nobody had thought of."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest
from engine import (
    BOTH,
    FIRST,
    READY,
    SECOND,
    THIRD,
    Engine,
    Make,
    agent_script,
    git,
    set_status,
    statuses,
    until,
)

from sprintrunner.agents.claude_stream import ClaudeStream
from sprintrunner.errors import Conflict, Refused
from sprintrunner.git import Git
from sprintrunner.orchestrator.blocking import Blocking
from sprintrunner.orchestrator.board import Board
from sprintrunner.sprint import BatchState, BatchStatus, CommandStatus
from sprintrunner.store import DATABASE, Store

GREEN = 'verify = ["true"]\n'


def full(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


def cut_at(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, begin: Callable[[], int]
) -> int:
    """Begin a batch and end the server in order where it is about to call ``owner.name``."""
    reached: list[bool] = []

    async def waits(self: Any, *_: Any) -> None:
        reached.append(True)
        await self.batch.pause(60)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, waits)
        batch = begin()
        until(lambda: reached)
        engine.close()
    return batch


def crash(engine: Engine, batch: int, *, ago: int) -> None:
    """End the server; leave what a kill -9 leaves of a live batch, ``ago`` ms before now."""
    engine.close()
    store = Store.open(engine.state / DATABASE)
    try:
        with store.transaction() as tx:
            live = {"status": BatchStatus.RUNNING, "state": BatchState.RUNNING, "ended_at": None}
            tx.update_batch(batch, heartbeat_at=store.now() - ago, left_paths=None, **live)
    finally:
        store.close()
    with sqlite3.connect(engine.state / DATABASE) as connection:
        connection.execute("UPDATE events SET timestamp = timestamp - ?", (ago,))


# a commit that cannot be made


def test_a_full_disk_at_the_commit_leaves_no_story_done(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make(statuses(first="review"))
    monkeypatch.setattr(Git, "_run_long", full)
    engine.run(FIRST)
    assert engine.raw_status(FIRST) != "done"
    assert engine.story(FIRST).status == "blocked"
    assert "No space left on device" in str(engine.story(FIRST).reason)


def test_an_error_nobody_thought_of_at_the_commit_leaves_no_line_done(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make(statuses(first="review"))

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("out of the blue")

    monkeypatch.setattr(Git, "commit", broken)
    row = engine.run(FIRST)
    assert row.status == BatchStatus.FAILED
    assert engine.raw_status(FIRST) == "review"


# what a batch was asked to do, and no more


def test_a_retry_that_cannot_go_on_starts_no_further_cycle(make: Make) -> None:
    given = statuses(first="ready-for-dev", second="blocked", third="ready-for-dev")
    engine = make(given, toml=GREEN + "pair_stories = false\n")
    engine.env(REHEARSAL_FAULT="hang@dev-story")
    batch = engine.start(size=1)
    until(lambda: engine.ran("dev-story"))
    engine.submit("retry", key=SECOND)
    set_status(engine.root, SECOND, "on-hold")
    engine.env(REHEARSAL_FAULT="")
    engine.submit("stop_command", id=engine.commands(batch, "dev-story")[0].id)
    assert engine.wait(batch).status == BatchStatus.COMPLETED
    assert engine.raw_status(FIRST) == "done"
    assert engine.raw_status(THIRD) == "ready-for-dev"


def test_a_batch_that_had_its_cycles_before_a_crash_begins_no_other(make: Make) -> None:
    engine = make(statuses(first="review", second="review"), toml=GREEN + "pair_stories = false\n")
    batch = engine.start(size=1)
    engine.wait(batch)
    crash(engine, batch, ago=0)
    engine.open()
    assert engine.wait(batch).status == BatchStatus.COMPLETED
    assert engine.raw_status(SECOND) == "review"


def test_a_retry_whose_queue_cannot_be_written_leaves_no_batch_without_an_owner(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make(statuses(first="blocked"))
    assert engine.live.alive()
    with monkeypatch.context() as patch:
        patch.setattr("sprintrunner.files.keep", full)
        row = engine.wait(engine.submit("retry", key=FIRST)["batch_id"])
    assert row.status == BatchStatus.FAILED
    assert "could not be noted in the state folder" in str(row.reason)
    assert engine.run().status == BatchStatus.ALL_DONE


def test_a_retry_that_a_crash_met_after_its_preparation_runs_once(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make(statuses(first="blocked"))

    def begin() -> int:
        return int(engine.submit("retry", key=FIRST, phase="dev-story")["batch_id"])

    batch = cut_at(engine, monkeypatch, Board, "force", begin)
    engine.open(resume=True)
    engine.wait(batch)
    assert engine.raw_status(FIRST) == "done"
    assert engine.ran("dev-story") == 1


# a sleep that a crash cut short


def test_a_sleep_of_a_former_life_is_over_once_the_batch_goes_on(make: Make) -> None:
    engine = make(READY)
    engine.env(REHEARSAL_FAULT="hang@dev-story:1")
    batch = engine.start(FIRST)
    until(lambda: engine.ran("dev-story"))
    engine.close()
    store = engine.open().store
    with store.transaction() as tx:
        # What a kill -9 in the middle of a sleep leaves where resume_after_crash is "ask".
        tx.update_batch(batch, resumes_at=store.now() + 3_600_000, limit_kind="five_hour")
    engine.env(REHEARSAL_FAULT="hang@dev-story:2")
    engine.submit("resume")
    until(lambda: engine.ran("dev-story") == 2)
    with pytest.raises(Conflict):
        engine.submit("resume")


# agents of single commands


def test_an_agent_of_one_command_that_tells_no_cost_refuses_a_dollar_budget(make: Make) -> None:
    toml = GREEN + 'budget_usd_per_batch = 5\n\n[commands.code-review]\nagent = "codex"\n'
    engine = make(READY, toml=toml)
    codex = engine.home / "bin" / "codex"
    codex.write_text("#!/bin/sh\necho codex-cli 0.169.0\n")
    codex.chmod(0o755)
    with pytest.raises(Refused, match="codex cannot tell its cost"):
        engine.start(FIRST)


def test_an_agent_of_one_command_that_is_missing_refuses_the_start(make: Make) -> None:
    engine = make(READY, toml=GREEN + '\n[commands.code-review]\nagent = "opencode"\n')
    with pytest.raises(Refused, match="opencode was not found"):
        engine.start(FIRST)


# an end between the last attempt and its consequence


def test_a_story_without_its_tech_spec_is_not_developed_after_a_restart(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make(statuses(first="backlog"))
    engine.env(REHEARSAL_FAULT="no-decision@create-story,crash@create-tech-spec")
    batch = cut_at(engine, monkeypatch, Blocking, "block", lambda: engine.start(FIRST))
    assert engine.ran("create-tech-spec") == 3
    engine.open(resume=True)
    engine.wait(batch)
    assert engine.ran("dev-story") == 0
    assert engine.story(FIRST).status == "blocked"
    assert "no result" in str(engine.story(FIRST).reason)


def test_why_dev_story_failed_is_told_after_a_restart_too(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make(READY, toml=GREEN + "no_progress_attempts = 10\n")
    engine.env(REHEARSAL_FAULT="crash@dev-story")
    batch = cut_at(engine, monkeypatch, Blocking, "block", lambda: engine.start(FIRST))
    engine.open(resume=True)
    engine.wait(batch)
    assert engine.ran("dev-story") == 3
    assert "no result" in str(engine.story(FIRST).reason)


# what an agent leaves in the tree


@pytest.mark.parametrize("then", ["", " && git -C vendored commit -q --allow-empty -m Born"])
def test_a_repository_within_ours_costs_one_story_not_the_night(make: Make, then: str) -> None:
    engine = make(BOTH)
    wanted = f'[ "$SPRINTRUNNER_COMMAND$SPRINTRUNNER_STORY_KEYS" = "dev-story{FIRST}" ]'
    who = "GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@a GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@a"
    made = f"git init -q vendored{then}"
    agent_script(engine.home, f'{wanted} && export {who} && {made}\nexec claude-rehearsal "$@"')
    row = engine.run(FIRST, SECOND)
    assert row.status == BatchStatus.ALL_DONE
    assert "vendored/ is a git repository of its own" in str(engine.story(FIRST).reason)
    assert engine.raw_status(SECOND) == "done"
    assert (engine.root / "vendored" / ".git").is_dir()
    assert "vendored" not in git(engine.root, "ls-files")
    assert "Left out of the commit" in engine.warnings(row.id)


# a person's change between a crash and the restart


def test_what_a_person_changed_after_the_crash_is_not_committed(make: Make) -> None:
    engine = make(READY)
    engine.env(REHEARSAL_FAULT="hang@dev-story:1")
    batch = engine.start(FIRST)
    until(lambda: engine.ran("dev-story"))
    crash(engine, batch, ago=60_000)
    (engine.root / "README.md").write_text("mine, written in the morning\n")
    engine.env(REHEARSAL_FAULT="")
    engine.open()
    engine.wait(batch)
    assert engine.raw_status(FIRST) == "done"
    assert "README.md" not in git(engine.root, "show", "--name-only", "--format=", "HEAD").splitlines()
    assert engine.dirty() == ["README.md"]
    assert "README.md" in engine.warnings(batch)


def test_what_an_agent_changed_before_the_crash_is_still_committed(make: Make) -> None:
    engine = make(READY)
    text = '[ "$SPRINTRUNNER_COMMAND" = dev-story ] && echo ours > README.md\nexec claude-rehearsal "$@"'
    agent_script(engine.home, text)
    engine.env(REHEARSAL_FAULT="hang@dev-story:1")
    batch = engine.start(FIRST)
    until(lambda: engine.ran("dev-story"))
    crash(engine, batch, ago=0)
    engine.env(REHEARSAL_FAULT="")
    engine.open()
    engine.wait(batch)
    assert "README.md" in git(engine.root, "show", "--name-only", "--format=", "HEAD").splitlines()
    assert engine.dirty() == []


# money


def test_a_budget_in_dollars_ends_a_batch_whose_agents_tell_no_cost(make: Make) -> None:
    engine = make(BOTH, toml=GREEN + "budget_usd_per_batch = 5\n")
    row = engine.run(FIRST, SECOND, fault="crash")
    assert row.status == BatchStatus.LIMIT
    assert "3 commands in a row ended without telling their cost" in str(row.reason)
    assert engine.ran("dev-story") == 3


def test_the_tokens_of_an_agent_that_was_cut_off_count_for_the_budget(make: Make) -> None:
    engine = make(BOTH, toml=GREEN + "budget_tokens_per_batch = 1\n")
    row = engine.run(FIRST, SECOND, fault="crash")
    assert row.status == BatchStatus.LIMIT
    assert "tokens per batch" in str(row.reason)
    assert [(r.command, bool(r.tokens_in)) for r in engine.commands(row.id)] == [("dev-story", True)]


REFUSES = """
[ "$SPRINTRUNNER_COMMAND" = dev-story ] || exec claude-rehearsal "$@"
cat > /dev/null
echo '{"type":"system","subtype":"model_refusal_no_fallback","original_model":"opus"}'
echo '{"type":"result","subtype":"error_during_execution","is_error":true,"errors":["declined"]}'
exit 1
"""


def test_a_model_that_refuses_a_story_is_not_asked_again(make: Make) -> None:
    engine = make(READY)
    agent_script(engine.home, '[ "$1" = -p ] || exec claude-rehearsal "$@"' + REFUSES)
    row = engine.run(FIRST)
    assert len(engine.commands(row.id, "dev-story")) == 1
    assert engine.story(FIRST).status == "blocked"
    assert "the model refused" in str(engine.story(FIRST).reason)


# an answer that cannot be judged


def test_a_run_whose_judgement_fails_does_not_hang_the_batch(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make(statuses(first="review"))

    def broken(self: ClaudeStream, *_: Any) -> Any:
        raise OverflowError("a number of a form never seen")

    monkeypatch.setattr(ClaudeStream, "result", broken)
    batch = engine.start(FIRST)
    engine.wait(batch, 30)
    assert engine.story(FIRST).status == "blocked"
    assert {row.status for row in engine.commands(batch, "code-review")} == {CommandStatus.FAILED}


# an answer that is missing

FORGETS = """
[ "$1" = -p ] && [ "$SPRINTRUNNER_COMMAND" = create-story ] || exec claude-rehearsal "$@"
case "$*" in *--resume*) ;; *) export REHEARSAL_FAULT=no-schema ;; esac
exec claude-rehearsal "$@"
"""


def test_an_agent_that_forgot_its_verdict_is_asked_once_more_in_its_own_session(make: Make) -> None:
    engine = make(statuses(first="backlog"))
    agent_script(engine.home, FORGETS)
    row = engine.run(FIRST)
    first, second = engine.commands(row.id, "create-story")
    assert (first.status, first.outcome, first.counted) == ("failed", "schema_not_met", False)
    assert (second.status, second.session_id) == ("succeeded", first.session_id)
    assert engine.raw_status(FIRST) == "done"
