"""What people ask of a running engine: start, stop, retry, done, skip, log, and the end of the server."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from engine import (
    ARTEFACTS,
    BOTH,
    FIFTH,
    FIRST,
    FOURTH,
    READY,
    REHEARSE,
    SECOND,
    STATUS,
    THIRD,
    Engine,
    Make,
    agent_script,
    engine_in,
    git,
    set_status,
    statuses,
    until,
)

from sprintrunner import control
from sprintrunner.errors import Conflict, NotFound, Refused
from sprintrunner.runtime import Runtime
from sprintrunner.sprint import BatchStatus, CommandStatus


def hanging(engine: Engine, command: str = "dev-story", *stories: str) -> int:
    """A batch whose agent hangs in this command; returns its id once it hangs."""
    engine.env(REHEARSAL_FAULT=f"ignore-term@{command},hang@{command}")
    batch = engine.start(*(stories or (FIRST,)))
    until(lambda: [r for r in engine.runs("prompt") if r["pid"] in _pids(engine, command)])
    return batch


def _pids(engine: Engine, command: str) -> set[int]:
    return {run["pid"] for run in engine.runs() if run["command"] == command}


# stop


def test_stop_ends_the_tree_and_commits_nothing_and_the_next_start_is_free(make: Make) -> None:
    engine = make(READY)
    agent_script(
        engine.home, f'[ "$SPRINTRUNNER_COMMAND" = dev-story ] && echo x > windowsill/half.py\n{REHEARSE}'
    )
    head = git(engine.root, "rev-parse", "HEAD")
    batch = hanging(engine)
    assert engine.submit("stop") == {"status": "stopping"}
    row = engine.wait(batch, 10)
    assert row.status == BatchStatus.STOPPED
    assert engine.leftovers(batch) == []
    (dev,) = engine.commands(batch)
    assert (dev.status, dev.counted) == (CommandStatus.STOPPED, 0)
    assert git(engine.root, "rev-parse", "HEAD") == head
    assert (engine.root / "windowsill/half.py").exists()
    assert engine.raw_status(FIRST) == "in-progress"
    assert [p["status"] for p in engine.payloads(batch, "batch:end")] == ["stopped"]
    assert "windowsill/half.py" in row.left_paths

    # What lies in the tree is ours: the next batch goes on with it and commits it.
    again = engine.run(FIRST)
    assert again.status == BatchStatus.ALL_DONE, again.reason
    assert engine.raw_status(FIRST) == "done"
    assert engine.dirty() == []
    assert "windowsill/half.py" in git(engine.root, "show", "--format=", "--name-only", "HEAD")


def test_stop_may_be_asked_twice_and_ends_once(make: Make) -> None:
    engine = make(READY)
    batch = hanging(engine)
    assert engine.submit("stop") == engine.submit("stop") == {"status": "stopping"}
    engine.wait(batch, 10)
    assert len(engine.events(batch, "batch:end")) == 1
    with pytest.raises(Conflict, match="Nothing is running"):
        engine.submit("stop")


def test_stop_after_the_story_finishes_it_and_commits_it_alone(make: Make) -> None:
    engine = make(BOTH)
    gate = engine.home / "gate"
    agent_script(engine.home, f"while [ ! -e {gate} ]; do sleep 0.02; done\n{REHEARSE}")
    gate.touch()
    engine.live  # noqa: B018 - opened before the gate closes
    gate.unlink()
    engine.env(REHEARSAL_FAULT="")
    done: list[int] = []
    thread = threading.Thread(target=lambda: done.append(engine.start(FIRST, SECOND)))
    gate.touch()
    thread.start()
    thread.join(10)
    gate.unlink()
    batch = done[0]
    assert engine.submit("stop", after_story=True) == {"status": "stopping"}
    gate.touch()
    row = engine.wait(batch)
    assert row.status == BatchStatus.STOPPED
    assert engine.raw_status(FIRST) == "done"
    assert engine.raw_status(SECOND) == "ready-for-dev"
    assert engine.trailers() == [f"Sprint-Batch: {batch}", f"Sprint-Story: {FIRST}"]
    assert row.cycles_completed == 0


def test_stop_now_overtakes_stop_after_the_story(make: Make) -> None:
    engine = make(READY)
    batch = hanging(engine)
    engine.submit("stop", after_story=True)
    assert engine.live.store.batch(batch).status == BatchStatus.RUNNING  # type: ignore[union-attr]
    engine.submit("stop")
    assert engine.wait(batch, 10).status == BatchStatus.STOPPED


def test_a_stop_during_the_checks_of_a_start_holds_and_no_agent_runs(make: Make) -> None:
    engine = make(READY)
    asked, go = engine.home / "asked", engine.home / "go"
    wait = f"touch {asked}; while [ ! -e {go} ]; do sleep 0.02; done"
    agent_script(engine.home, f"case $1 in --version) {wait};; esac\n{REHEARSE}")
    engine.live  # noqa: B018
    batches: list[int] = []
    thread = threading.Thread(target=lambda: batches.append(engine.start(FIRST)))
    thread.start()
    until(asked.exists)
    assert engine.submit("stop") == {"status": "stopping"}
    go.touch()
    thread.join(10)
    assert engine.wait(batches[0]).status == BatchStatus.STOPPED
    assert engine.runs() == []


def test_a_stop_in_the_middle_of_verify_ends_it(make: Make) -> None:
    engine = make(READY, toml='verify = ["test $SPRINTRUNNER_COMMAND_ID = 0 || exec sleep 600"]\n')
    engine.env(REHEARSAL_FAULT="")
    agent_script(engine.home, f"export SPRINTRUNNER_COMMAND_ID=0\n{REHEARSE}")
    batch = engine.start(FIRST)
    until(lambda: any(p["task_id"] == "verify" for p in engine.payloads(batch, "command:progress")))
    engine.submit("stop")
    assert engine.wait(batch, 10).status == BatchStatus.STOPPED
    (dev,) = engine.commands(batch)
    assert dev.status == CommandStatus.STOPPED


def test_a_stopped_command_is_an_attempt_and_the_story_goes_on(make: Make) -> None:
    engine = make(READY)
    engine.env(REHEARSAL_FAULT="hang@dev-story:1")
    batch = engine.start(FIRST)
    until(lambda: engine.ran("dev-story"))
    (running,) = [r for r in engine.commands(batch) if r.status == CommandStatus.RUNNING]
    assert engine.submit("stop_command", id=running.id)["status"] == "stopping"
    engine.wait(batch)
    assert [str(r.status) for r in engine.commands(batch, "dev-story")] == ["stopped", "succeeded"]
    assert engine.raw_status(FIRST) == "done"
    with pytest.raises(Conflict):
        engine.submit("stop_command", id=running.id)
    for unknown in (0, -1, 10**30, "x", None):
        with pytest.raises(NotFound):
            engine.submit("stop_command", id=unknown)


# start


def test_of_twenty_starts_at_once_one_wins(make: Make) -> None:
    engine = make(READY)
    engine.env(REHEARSAL_FAULT="hang@dev-story")
    engine.live  # noqa: B018
    barrier, answers = threading.Barrier(20), []

    def ask() -> None:
        barrier.wait()
        try:
            answers.append(engine.submit("start", batch_size=None, stories=None)["status"])
        except Conflict:
            answers.append("409")

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(answers) == ["409"] * 19 + ["started"]
    assert engine.live.store.count_batches() == 1
    with pytest.raises(Conflict, match="already running"):
        engine.start()
    engine.submit("stop")


@pytest.mark.parametrize("size", [0, -1, 999, True, 1.0, "2", 10**30])
def test_a_size_that_is_no_number_of_cycles_is_refused(make: Make, size: Any) -> None:
    engine = make(READY)
    with pytest.raises(Refused, match="batch_size"):
        engine.submit("start", batch_size=size, stories=None)
    assert engine.live.store.latest_batch() is None


def test_unknown_stories_are_refused_by_name(make: Make) -> None:
    engine = make(READY)
    with pytest.raises(Refused, match="There is no story 9-9-x"):
        engine.start(FIRST, "9-9-x")
    for odd in ([1], [None], {"a": 1}, 7):
        with pytest.raises(Refused):
            engine.submit("start", batch_size=None, stories=odd)


def test_only_the_asked_stories_are_done_one_cycle_at_a_time_and_in_order_of_status(make: Make) -> None:
    engine = make(
        statuses(first="ready-for-dev", second="review", third="review", fourth="review", fifth="done")
    )
    engine.env(SPRINTRUNNER_ORDER="status", SPRINTRUNNER_PAIR_STORIES="false")
    row = engine.run(FIRST, THIRD, size=1)
    assert (row.status, row.cycles_completed) == (BatchStatus.COMPLETED, 1)
    assert engine.payloads(row.id, "cycle:start")[0]["story_keys"] == [THIRD]
    assert engine.payloads(row.id, "batch:start")[0]["max_cycles"] == 1
    assert [engine.raw_status(k) for k in (FIRST, SECOND, THIRD, FOURTH, FIFTH)] == [
        "ready-for-dev",
        "review",
        "done",
        "review",
        "done",
    ]


def test_two_cycles_of_pairs_end_completed(make: Make) -> None:
    engine = make(statuses(first="review", second="review", third="review", fourth="review"))
    row = engine.run(size=1)
    assert (row.status, row.cycles_completed) == (BatchStatus.COMPLETED, 1)
    assert engine.payloads(row.id, "cycle:end")[0]["completed_stories"] == [FIRST, SECOND]
    assert engine.raw_status(THIRD) == "review"


# the tree before a start


def test_a_dirty_tree_is_refused_by_name_and_with_allow_never_committed(make: Make) -> None:
    engine = make(READY)
    (engine.root / "README.md").write_text("a person is writing\n")
    (engine.root / "notes.txt").write_text("private\n")
    with pytest.raises(Refused, match=r"2 changed files \(README\.md, notes\.txt\)"):
        engine.start(FIRST)
    engine.env(SPRINTRUNNER_DIRTY_TREE="allow")
    row = engine.run(FIRST)
    assert engine.raw_status(FIRST) == "done", row.reason
    assert engine.dirty() == ["README.md", "notes.txt"]
    assert (engine.root / "notes.txt").read_text() == "private\n"


def test_a_dirty_status_file_is_refused_even_with_allow(make: Make) -> None:
    engine = make(READY)
    engine.env(SPRINTRUNNER_DIRTY_TREE="allow")
    set_status(engine.root, SECOND, "backlog")
    with pytest.raises(Refused, match=r"sprint-status\.yaml has changes"):
        engine.start(FIRST)
    assert engine.live.store.latest_batch() is None


def test_a_project_outside_git_is_refused_with_one_sentence(make: Make) -> None:
    engine = make(READY)
    subprocess.run(["rm", "-rf", str(engine.root / ".git")], check=True)
    with pytest.raises(Refused, match="is not a git repository"):
        engine.start(FIRST)


def test_a_status_file_that_cannot_be_edited_safely_refuses_the_start(make: Make) -> None:
    engine = make(READY)
    path = engine.root / STATUS
    path.write_text("development_status: {1-1-a: backlog}\n")
    git(engine.root, "commit", "-qam", "Flow style")
    with pytest.raises(Refused, match=r"Line 1: .* flow style"):
        engine.start()
    assert path.read_text() == "development_status: {1-1-a: backlog}\n"


def test_a_key_that_stands_twice_is_never_started_and_the_rest_is_done(make: Make) -> None:
    engine = make(statuses(first="ready-for-dev", second="review"))
    path = engine.root / STATUS
    path.write_text(path.read_text().replace("  epic-2:", f"  {FIRST}: backlog\n  epic-2:"))
    git(engine.root, "commit", "-qam", "Twice")
    row = engine.run()
    assert {r.story_keys for r in engine.commands(row.id)} == {SECOND}
    assert f"  {FIRST}: ready-for-dev\n" in path.read_text()
    assert f"  {FIRST}: backlog\n" in path.read_text()


# a person's word


def test_done_is_a_persons_word_in_file_and_record(make: Make) -> None:
    engine = make(statuses(first="review", second="backlog"))
    engine.run(FIRST, fault="review-crash")
    assert engine.submit("done", key=FIRST)["status"] == "done"
    assert engine.raw_status(FIRST) == "done"
    story = engine.story(FIRST)
    assert (story.status, story.reason) == ("done", None)
    assert story.evidence["marked"] == "marked by a person"
    with pytest.raises(NotFound):
        engine.submit("done", key="9-9-x")
    # The line we set is ours: it does not stand in the way of the next start.
    assert engine.run(SECOND).status == BatchStatus.ALL_DONE


def test_done_is_refused_while_the_story_is_worked_on_and_skips_one_that_waits(make: Make) -> None:
    engine = make(BOTH)
    engine.env(REHEARSAL_FAULT=f"hang@dev-story:1#{FIRST}")
    batch = engine.start(FIRST, SECOND)
    until(lambda: engine.ran("dev-story"))
    for action in ("done", "retry"):
        with pytest.raises(Conflict, match="running"):
            engine.submit(action, key=FIRST, phase=None)
    assert engine.submit("done", key=SECOND)["status"] == "done"
    (running,) = [r for r in engine.commands(batch) if r.status == CommandStatus.RUNNING]
    engine.submit("stop_command", id=running.id)
    engine.wait(batch)
    assert {engine.raw_status(FIRST), engine.raw_status(SECOND)} == {"done"}
    assert not [r for r in engine.commands(batch) if SECOND in r.story_keys]


def test_skip_keeps_a_blocked_story_blocked_and_silent(make: Make) -> None:
    engine = make(statuses(first="review", second="review"))
    engine.run(FIRST, fault="review-crash")
    assert not engine.story(FIRST).acknowledged
    assert engine.submit("skip", key=FIRST)["status"] == "blocked"
    assert engine.story(FIRST).acknowledged
    assert engine.raw_status(FIRST) == "blocked"
    with pytest.raises(Conflict):
        engine.submit("skip", key=SECOND)
    with pytest.raises(NotFound):
        engine.submit("skip", key="epic-1")


def test_retry_refuses_what_is_put_aside_unknown_or_no_phase(make: Make) -> None:
    engine = make(READY)
    with pytest.raises(Conflict, match="on-hold"):
        engine.submit("retry", key=SECOND, phase=None)
    with pytest.raises(NotFound):
        engine.submit("retry", key="9-9-x", phase=None)
    with pytest.raises(Refused, match="phase must be one of"):
        engine.submit("retry", key=FIRST, phase="banana")


def test_a_done_story_retried_in_a_running_batch_is_next_alone_uncounted_and_committed_anew(
    make: Make,
) -> None:
    engine = make(statuses(first="review", fourth="review"))
    engine.env(REHEARSAL_FAULT=f"hang@code-review:1#{FOURTH}")
    batch = engine.start(size=2)
    until(lambda: [r for r in engine.runs() if r["keys"] == [FOURTH]])
    first_commit = engine.story(FIRST).commit_sha
    assert engine.submit("retry", key=FIRST, phase="dev-story")["batch_id"] == batch
    assert engine.submit("retry", key=FIRST, phase="dev-story")["batch_id"] == batch
    more = '[ "$SPRINTRUNNER_COMMAND" = dev-story ] && echo "# more" >> windowsill/diary.py'
    agent_script(engine.home, f"{more}\n{REHEARSE}")
    (running,) = [r for r in engine.commands(batch) if r.status == CommandStatus.RUNNING]
    engine.submit("stop_command", id=running.id)
    row = engine.wait(batch)
    assert [p["story_keys"] for p in engine.payloads(batch, "cycle:start")] == [[FIRST], [FOURTH], [FIRST]]
    assert row.cycles_completed == 2
    assert engine.raw_status(FIRST) == "done"
    assert engine.story(FIRST).commit_sha != first_commit
    assert engine.dirty() == []
    assert "# more" in git(engine.root, "show", "HEAD:windowsill/diary.py")
    assert [r.attempt for r in engine.commands(batch, "code-review") if r.story_keys == FIRST][-1] > 1


def test_a_story_blocked_in_the_record_alone_stays_so_for_later_batches(make: Make) -> None:
    engine = make(statuses(first="review"))
    engine.env(SPRINTRUNNER_BLOCKED_IN_STATUS_FILE="false")
    engine.run(FIRST, fault="review-crash")
    assert engine.raw_status(FIRST) == "review"
    row = engine.run(FIRST)
    assert engine.commands(row.id) == []
    again = engine.wait(engine.submit("retry", key=FIRST, phase=None)["batch_id"])
    assert engine.raw_status(FIRST) == "done", again.reason


# tasks and the control socket


def test_an_agent_reports_its_tasks_by_the_real_command(make: Make) -> None:
    engine = make(statuses(first="review"))
    report = {"epic_id": "1", "story_id": FIRST, "command": "code-review", "task_id": "analyze"}
    report |= {"status": "start", "message": "looking <b>closely</b>"}
    program, said = Path(sys.executable).with_name("sprintrunner"), engine.home / "said"
    log = f"'{program}' log '{json.dumps(report)}' > {said} 2>&1"
    agent_script(engine.home, f'[ "$SPRINTRUNNER_COMMAND" = code-review ] && {log}\n{REHEARSE}')
    row = engine.run(FIRST)
    expected = f',1,{FIRST},code-review,analyze,start,"looking <b>closely</b>"\n'
    assert said.read_text().endswith(expected), said.read_text()
    told = [p for p in engine.payloads(row.id, "command:progress") if p["task_id"] == "analyze"]
    assert told[0]["message"] == "looking <b>closely</b>"
    assert (told[0]["story_key"], told[0]["status"]) == (FIRST, "start")


def test_a_report_from_elsewhere_is_refused_and_nothing_recorded(make: Make) -> None:
    engine = make(READY)
    batch = hanging(engine)
    report = {"epic_id": "1", "story_id": FIRST, "command": "dev-story", "task_id": "t", "status": "start"}
    before = engine.live.store.last_event_id()
    for run_id in ("", "guess", None):
        with pytest.raises(Refused):
            control.request(engine.state, "log", {**report, "run_id": run_id}, 5)
    assert engine.live.store.last_event_id() == before
    assert control.request(engine.state, "status", {}, 5)["batch_id"] == batch
    assert control.request(engine.state, "stop", {}, 5) == {"status": "stopping"}
    engine.wait(batch, 10)


# the life of the server


def test_an_ordered_end_interrupts_and_resume_goes_on_without_repeating(make: Make) -> None:
    engine = make(BOTH)
    engine.env(REHEARSAL_FAULT=f"hang@code-review:1#{FIRST}")
    batch = engine.start(FIRST, SECOND)
    until(lambda: engine.ran("code-review"))
    engine.live.stop("the server ends")
    engine.runtime = None
    engine.env(REHEARSAL_FAULT="")
    assert engine.open() is engine.live
    row = engine.live.store.batch(batch)
    assert row is not None and row.status == BatchStatus.INTERRUPTED
    assert [str(r.status) for r in engine.commands(batch)] == ["succeeded", "interrupted"]
    assert engine.leftovers(batch) == []
    assert engine.submit("status")["status"] == "idle"
    engine.close()

    engine.open(resume=True)
    row = engine.wait(batch)
    assert row.status == BatchStatus.ALL_DONE, row.reason
    assert {engine.raw_status(FIRST), engine.raw_status(SECOND)} == {"done"}
    assert sorted(r.story_keys for r in engine.commands(batch, "dev-story")) == [FIRST, SECOND]
    assert engine.dirty() == []
    assert len(engine.payloads(batch, "batch:start")) == 1


def test_resume_by_a_person_continues_and_refuses_when_there_is_nothing(make: Make) -> None:
    engine = make(READY)
    with pytest.raises(Conflict):
        engine.submit("resume")
    batch = hanging(engine)
    with pytest.raises(Conflict, match="nothing to resume"):
        engine.submit("resume")
    engine.close()
    engine.env(REHEARSAL_FAULT="")
    engine.open()
    assert engine.submit("resume") == {"status": "started", "batch_id": batch}
    engine.wait(batch)
    assert engine.raw_status(FIRST) == "done"


def test_resume_refuses_when_the_branch_or_head_moved(make: Make) -> None:
    engine = make(READY)
    batch = hanging(engine)
    engine.close()
    git(engine.root, "stash", "-q", "-u")
    git(engine.root, "commit", "-q", "--allow-empty", "-m", "A person goes on")
    engine.env(REHEARSAL_FAULT="")
    engine.open()
    with pytest.raises(Conflict, match="HEAD"):
        engine.submit("resume")
    git(engine.root, "checkout", "-q", "-b", "side")
    with pytest.raises(Conflict, match="side"):
        engine.submit("resume")
    row = engine.live.store.batch(batch)
    assert row is not None and row.status == BatchStatus.INTERRUPTED


def test_settings_an_agent_edited_are_not_obeyed_when_its_batch_goes_on(make: Make) -> None:
    engine = make(READY)
    edit = "echo 'verify = [\"false\"]' > sprintrunner.toml"
    agent_script(engine.home, f'[ "$SPRINTRUNNER_COMMAND" = dev-story ] && {edit}\n{REHEARSE}')
    batch = hanging(engine)
    engine.close()
    engine.env(REHEARSAL_FAULT="")
    engine.open(resume=True)
    row = engine.wait(batch)
    assert engine.raw_status(FIRST) == "done", row.reason


@pytest.mark.parametrize("status", ["done", "blocked"])
def test_a_batch_goes_on_whatever_its_storys_line_says_by_then(make: Make, status: str) -> None:
    engine = make(READY)
    batch = hanging(engine)
    engine.close()
    set_status(engine.root, FIRST, status)
    engine.env(REHEARSAL_FAULT="")
    engine.open(resume=True)
    row = engine.wait(batch)
    assert row.status == BatchStatus.ALL_DONE, row.reason
    assert engine.story(FIRST).status == "done"
    assert engine.raw_status(FIRST) == "done"


def test_a_second_owner_is_refused_by_name_through_a_link_too(make: Make) -> None:
    engine = make(READY)
    engine.open(where="the first server")
    link = engine.home / "link"
    link.symlink_to(engine.root)
    for root in (engine.root, link):
        second = Runtime.open(root)
        with pytest.raises(Conflict, match="the first server"):
            second.start("the second")
        second.store.close()
    assert engine.run(FIRST).status == BatchStatus.ALL_DONE


def test_two_projects_run_at_once(make: Make, tmp_path: Path) -> None:
    engine = make(READY)
    with engine_in(tmp_path / "other", statuses=READY) as other:
        other.live  # noqa: B018
        engine.env(SPRINTRUNNER_STATE_DIR=str(engine.state))
        engine.live  # noqa: B018
        one, two = engine.start(FIRST), other.start(FIRST)
        assert engine.wait(one).status == other.wait(two).status == BatchStatus.ALL_DONE
    assert engine.raw_status(FIRST) == "done"
    assert (engine.root / ARTEFACTS / f"{FIRST}.md").exists()
