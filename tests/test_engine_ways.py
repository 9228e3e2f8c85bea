"""Other ways through the workflow: settings, places, and reviews that run beside the work."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from engine import (
    ARTEFACTS,
    CONTEXT,
    FIRST,
    READY,
    REHEARSE,
    SECOND,
    Engine,
    Make,
    agent_script,
    engine_in,
    git,
    hook,
    make_project,
    statuses,
    until,
)

from sprintrunner.process import find_marked
from sprintrunner.sprint import BatchStatus, CommandStatus

# who commits


def test_with_commit_off_the_story_is_done_and_its_work_stays_uncommitted(make: Make) -> None:
    engine = make(READY)
    engine.env(SPRINTRUNNER_COMMIT="off")
    head = git(engine.root, "rev-parse", "HEAD")
    row = engine.run(FIRST)
    assert (engine.raw_status(FIRST), engine.story(FIRST).commit_sha) == ("done", None)
    assert git(engine.root, "rev-parse", "HEAD") == head
    assert "windowsill/diary.py" in row.left_paths
    assert not engine.commands(row.id, "commit")


def test_an_agent_may_commit_and_the_trailers_come_on_top(make: Make) -> None:
    engine = make(READY)
    engine.env(SPRINTRUNNER_COMMIT="agent")
    row = engine.run(FIRST)
    (commit,) = engine.commands(row.id, "commit")
    assert (commit.agent, commit.status) == ("claude", CommandStatus.SUCCEEDED)
    assert engine.raw_status(FIRST) == "done"
    assert engine.trailers() == [f"Sprint-Batch: {row.id}", f"Sprint-Story: {FIRST}"]
    assert engine.dirty() == []


def test_a_commit_agent_that_fails_blocks_the_story_with_its_reason(make: Make) -> None:
    engine = make(READY)
    engine.env(SPRINTRUNNER_COMMIT="agent")
    engine.run(FIRST, fault="crash@commit")
    assert engine.raw_status(FIRST) == "blocked"
    assert "the commit agent failed" in str(engine.story(FIRST).reason)


def test_the_archive_takes_the_documents_of_finished_stories(make: Make) -> None:
    engine = make(READY)
    engine.env(SPRINTRUNNER_ARCHIVE="true")
    engine.run(FIRST)
    assert (engine.root / ARTEFACTS / "archived-artifacts" / f"{FIRST}.md").is_file()
    assert not (engine.root / ARTEFACTS / f"{FIRST}.md").exists()


def test_stop_does_not_wait_for_a_hook_that_takes_its_time(make: Make) -> None:
    engine = make(READY)
    begun = engine.home / "begun"
    hook(engine.root, f"touch {begun}; sleep 300")
    engine.env(REHEARSAL_FAULT="")
    batch = engine.start(FIRST)
    until(begun.exists)
    asked = time.monotonic()
    engine.submit("stop")
    row = engine.wait(batch, 10)
    assert time.monotonic() - asked < 5
    assert row.status == BatchStatus.STOPPED
    assert engine.raw_status(FIRST) == "review"
    assert "Sprint-Story" not in git(engine.root, "log", "--format=%B")
    hook(engine.root, "exit 0")
    assert engine.run(FIRST).status == BatchStatus.ALL_DONE
    assert engine.raw_status(FIRST) == "done"
    assert engine.dirty() == []


# the project context


def test_an_old_context_is_renewed_beside_the_work(make: Make) -> None:
    engine = make(READY)
    old = time.time() - 25 * 3600
    os.utime(engine.root / CONTEXT, (old, old))
    row = engine.run(FIRST)
    assert [p["status"] for p in engine.payloads(row.id, "context:refresh")] == ["start"]
    assert [p["status"] for p in engine.payloads(row.id, "context:complete")] == ["complete"]
    (renewed,) = engine.commands(row.id, "generate-project-context")
    assert renewed.background
    assert engine.raw_status(FIRST) == "done"


# places


def test_a_path_with_spaces_quotes_and_a_newline_works(tmp_path: Path) -> None:
    odd = tmp_path / "a 'b' \"c\"\nd $(touch x)"
    with engine_in(odd, statuses=READY) as engine:
        row = engine.run(FIRST)
        assert engine.raw_status(FIRST) == "done", row.reason
        assert engine.dirty() == []


def test_a_project_in_a_folder_of_a_larger_repository_works(tmp_path: Path) -> None:
    top = tmp_path / "mono"
    inner = make_project(
        top / "apps" / "web", statuses=statuses(first="ready-for-dev", second="ready-for-dev")
    )
    shutil.move(inner / ".git", top / ".git")
    (top / "other").write_text("somebody else's\n")
    git(top, "add", "-A")
    git(top, "commit", "-qm", "All in one")
    toml = 'verify = ["test ! -e windowsill/diary.py"]\n'
    (inner / "sprintrunner.toml").write_text(toml)
    git(top, "commit", "-qam", "Verify")
    (top / "other").write_text("being edited\n")
    with engine_in(tmp_path, root=inner) as engine:
        row = engine.run(FIRST, SECOND)
        assert engine.raw_status(FIRST) == "blocked", row.reason
        assert engine.raw_status(SECOND) == "done"
        assert not (inner / "windowsill/diary.py").exists()
        names = git(top, "show", "--format=", "--name-only", "HEAD").splitlines()
        assert names and all(name.startswith("apps/web/") for name in names)
        assert (top / "other").read_text() == "being edited\n"


def test_a_detached_head_is_said_and_its_commits_are_reachable(make: Make) -> None:
    engine = make(READY)
    git(engine.root, "checkout", "-q", "--detach")
    row = engine.run(FIRST)
    assert "HEAD is detached" in engine.warnings(row.id)
    assert engine.raw_status(FIRST) == "done"
    assert engine.story(FIRST).commit_sha == git(engine.root, "rev-parse", "HEAD")


def test_a_story_in_review_without_a_file_is_reviewed_against_the_epic(make: Make) -> None:
    engine = make(statuses(first="review"))
    git(engine.root, "rm", "-q", str(ARTEFACTS / f"{FIRST}.md"))
    git(engine.root, "commit", "-qm", "No file")
    row = engine.run(FIRST)
    assert {r.command for r in engine.commands(row.id)} == {"code-review", "commit"}
    prompt = engine.state / "runs" / str(engine.commands(row.id)[0].id) / "prompt.md"
    assert "As someone who forgets" in prompt.read_text() or "diary" in prompt.read_text()
    assert engine.raw_status(FIRST) == "done"


# reviews beside the work

_BESIDE = """
case "$SPRINTRUNNER_COMMAND:$SPRINTRUNNER_ATTEMPT" in
  story-review:2)
    copy="$SPRINTRUNNER_STATE_DIR/batches/$SPRINTRUNNER_BATCH_ID/background"/story-review-*-2/{key}.md
    sed -i 's/^## Dev Notes.*/## Dev Notes, reviewed/' $copy
    while [ ! -e {gate} ]; do sleep 0.02; done;;
  dev-story:*)
    [ -n "{own}" ] && sed -i 's/^## Dev Notes.*/## Dev Notes, {own}/' {path}
    touch {gate};;
esac
"""


def beside(engine: Engine, own: str) -> str:
    """Run a story whose second review works beside its development; return its file afterwards."""
    path = engine.root / ARTEFACTS / f"{SECOND}.md"
    script = _BESIDE.format(key=SECOND, gate=engine.home / "gate", own=own, path=path)
    agent_script(engine.home, f"{script}\n{REHEARSE}")
    row = engine.run(SECOND)
    assert [r.command for r in engine.commands(row.id) if r.background] == ["story-review"]
    assert engine.raw_status(SECOND) == "done", row.reason
    assert engine.dirty() == []
    return path.read_text()


def test_what_a_background_review_wrote_is_merged_with_the_work_and_committed(make: Make) -> None:
    engine = make(statuses(second="backlog"))
    text = beside(engine, "")
    assert "## Dev Notes, reviewed\n" in text
    assert "- [x] Task 1" in text
    assert "reviewed" in git(engine.root, "show", f"HEAD:{ARTEFACTS}/{SECOND}.md")


def test_where_both_changed_a_line_the_projects_text_stays_and_it_is_said(make: Make) -> None:
    engine = make(statuses(second="backlog"))
    text = beside(engine, "developed")
    assert "## Dev Notes, developed\n" in text
    assert "<<<<" not in text
    assert "conflict with newer ones; the file was kept" in engine.warnings(1)


# verify


def test_what_verify_leaves_running_carries_the_mark_of_its_command(make: Make) -> None:
    seen = "cat /proc/self/environ > $HOME/environ; ls -l /proc/self/fd > $HOME/fds"
    engine = make(READY, toml=f'verify = ["{seen}"]\n')
    row = engine.run(FIRST)
    marks = (engine.home / "environ").read_text().split("\0")
    review = engine.commands(row.id, "code-review")[-1]
    assert f"SPRINTRUNNER_RUN_ID={review.run_id}" in marks
    assert f"SPRINTRUNNER_COMMAND_ID={review.id}" in marks
    assert find_marked(str(review.run_id)) == []
