"""What a night brings beside faults: words of people in the middle of it, limits half way, restarts."""

from __future__ import annotations

import socket

import pytest
from engine import (
    ARTEFACTS,
    BOTH,
    FIRST,
    IN_REVIEW,
    READY,
    SECOND,
    Engine,
    Make,
    git,
    statuses,
    until,
)

from sprintrunner import control
from sprintrunner.errors import NotFound
from sprintrunner.sprint import BatchStatus, CommandStatus


def cut_off(engine: Engine, batch: int, command: str, number: int = 1) -> None:
    """Stop the server in order while the agent of the ``number``-th such command hangs."""
    until(lambda: engine.ran(command) == number)
    engine.close()


# a story put aside


def test_a_story_that_is_put_aside_meanwhile_stops_and_its_word_stays(make: Make) -> None:
    engine = make(BOTH)
    row = engine.run(FIRST, SECOND, fault=f"defers-itself@dev-story#{FIRST}")
    assert engine.raw_status(FIRST) == "deferred"
    assert engine.story(FIRST).status == "blocked"
    assert "Somebody set it to deferred" in str(engine.story(FIRST).reason)
    assert f"{FIRST} was set to deferred in the status file" in engine.warnings(row.id)
    assert engine.raw_status(SECOND) == "done"
    assert engine.trailers() == [f"Sprint-Batch: {row.id}", f"Sprint-Story: {SECOND}"]


def test_a_story_that_is_put_aside_in_its_last_review_is_not_committed(make: Make) -> None:
    engine = make(IN_REVIEW)
    head = git(engine.root, "rev-parse", "HEAD")
    engine.run(FIRST, fault="defers-itself@code-review")
    assert engine.raw_status(FIRST) == "deferred"
    assert engine.story(FIRST).status == "blocked"
    assert git(engine.root, "rev-parse", "HEAD") == head


# an end half way through a pair


def test_what_ends_the_batch_in_the_second_story_leaves_the_first_one_committed(make: Make) -> None:
    engine = make(BOTH)
    row = engine.run(FIRST, SECOND, fault=f"auth@dev-story#{SECOND}")
    assert row.status == BatchStatus.FAILED
    assert engine.raw_status(FIRST) == "done"
    assert engine.trailers() == [f"Sprint-Batch: {row.id}", f"Sprint-Story: {FIRST}"]
    assert engine.raw_status(SECOND) == "in-progress"


def test_a_limit_in_the_second_story_leaves_the_first_one_committed(make: Make) -> None:
    engine = make(BOTH)
    engine.env(SPRINTRUNNER_MAX_LIMIT_WAIT_HOURS="0", REHEARSAL_RESET_SECONDS="3600")
    row = engine.run(FIRST, SECOND, fault=f"usage-limit@dev-story#{SECOND}")
    assert row.status == BatchStatus.LIMIT
    assert engine.raw_status(FIRST) == "done"
    assert engine.trailers() == [f"Sprint-Batch: {row.id}", f"Sprint-Story: {FIRST}"]


# restarts


def test_a_retry_that_waits_its_turn_outlives_the_server(make: Make) -> None:
    engine = make(statuses(first="review", second="done"))
    engine.env(REHEARSAL_FAULT=f"hang@code-review#{FIRST}")
    batch = engine.start(FIRST)
    until(lambda: engine.ran("code-review"))
    engine.submit("retry", key=SECOND, phase="code-review")
    engine.close()
    engine.env(REHEARSAL_FAULT="")
    engine.open(resume=True)
    assert engine.wait(batch).status == BatchStatus.ALL_DONE
    assert "was to be retried" not in engine.warnings(batch)
    assert [r.story_keys for r in engine.commands(batch, "commit")] == [FIRST, SECOND]


def test_reviews_without_a_verdict_count_on_over_a_restart(make: Make) -> None:
    engine = make(IN_REVIEW)
    engine.env(REHEARSAL_FAULT="crash@code-review:1,crash@code-review:2,hang@code-review:3")
    batch = engine.start(FIRST)
    cut_off(engine, batch, "code-review", 3)
    engine.env(REHEARSAL_FAULT="crash@code-review")
    engine.open(resume=True)
    engine.wait(batch)
    ended = [row.status for row in engine.commands(batch, "code-review")]
    failed = CommandStatus.FAILED
    assert ended == [failed, failed, CommandStatus.INTERRUPTED, failed]
    assert "3 code reviews in a row" in str(engine.story(FIRST).reason)


def test_what_verify_said_reaches_the_attempt_after_a_restart(make: Make) -> None:
    engine = make(READY, toml="verify = ['echo the pump is dry; exit 1']\n")
    engine.env(REHEARSAL_FAULT="hang@dev-story:2")
    batch = engine.start(FIRST)
    cut_off(engine, batch, "dev-story", 2)
    engine.env(REHEARSAL_FAULT="")
    engine.open(resume=True)
    engine.wait(batch)
    third = engine.commands(batch, "dev-story")[2]
    assert "the pump is dry" in (engine.state / "runs" / str(third.id) / "prompt.md").read_text()


# words of people


def test_a_sleep_on_the_way_to_a_stop_after_the_story_can_be_ended(make: Make) -> None:
    engine = make(READY)
    engine.env(REHEARSAL_RESET_SECONDS="3600", REHEARSAL_FAULT="usage-limit@dev-story:1")
    batch = engine.start(FIRST)
    until(lambda: engine.submit("status")["status"] == "waiting")
    engine.submit("stop", after_story=True)
    assert engine.submit("resume") == {"status": "started", "batch_id": batch}
    assert engine.wait(batch).status == BatchStatus.STOPPED
    assert engine.raw_status(FIRST) == "done"


def test_a_story_called_done_before_any_batch_does_not_refuse_the_first(make: Make) -> None:
    engine = make(BOTH)
    engine.submit("done", key=FIRST)
    row = engine.run(SECOND)
    assert row.status == BatchStatus.ALL_DONE
    assert (engine.raw_status(FIRST), engine.raw_status(SECOND)) == ("done", "done")
    assert engine.dirty() == []


def test_a_context_whose_making_is_stopped_has_its_end_in_the_log(make: Make) -> None:
    engine = make(READY, context=False)
    engine.env(REHEARSAL_FAULT="hang@generate-project-context")
    batch = engine.start(FIRST)
    until(lambda: engine.ran("generate-project-context"))
    engine.submit("stop")
    engine.wait(batch)
    assert [p["status"] for p in engine.payloads(batch, "context:create")] == ["start", "failed"]


# the story's own file


def test_the_storys_own_file_says_done_in_the_commit_and_review_where_it_failed(make: Make) -> None:
    engine = make(statuses(first="review", second="review"))
    path = ARTEFACTS / f"{FIRST}.md"
    engine.run(FIRST)
    assert "\nStatus: done\n" in git(engine.root, "show", f"HEAD:{path}")
    assert engine.dirty() == []
    hook = engine.root / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    engine.run(SECOND)
    assert "\nStatus: review\n" in (engine.root / ARTEFACTS / f"{SECOND}.md").read_text()


# other shells


def test_a_socket_that_may_not_be_asked_is_one_sentence(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make(READY)
    assert engine.live.alive()

    def refused(self: socket.socket, address: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", refused, raising=False)
    with pytest.raises(NotFound, match=r"cannot be asked at .*: Permission denied"):
        control.request(engine.state, "status", {}, 1.0)
