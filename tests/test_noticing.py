"""What is noticed beside the work: a stale index.lock, a filling disk, edited settings, agents' requests."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine import FIRST, Engine, agent_script, engine_in, git, statuses

from sprintrunner import gitlock, peers
from sprintrunner.orchestrator import diskwatch, frozen


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with engine_in(tmp_path, statuses=statuses(first="ready-for-dev")) as made:
        yield made


# .git/index.lock


def old_lock(folder: Path) -> Path:
    lock = folder / "index.lock"
    lock.touch()
    then = time.time() - 60
    os.utime(lock, (then, then))
    return lock


def test_a_lock_that_nobody_holds_is_removed_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gitlock, "git_processes", lambda *folders: [])
    lock = old_lock(tmp_path)
    assert "was removed" in gitlock.clear(lock, tmp_path)
    assert not lock.exists()
    assert gitlock.clear(lock, tmp_path) == ""


def test_a_young_lock_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gitlock, "git_processes", lambda *folders: [])
    lock = tmp_path / "index.lock"
    lock.touch()
    assert "left alone" in gitlock.clear(lock, tmp_path, patience=0)
    assert lock.exists()


def test_a_git_at_work_in_the_repository_keeps_its_lock(engine: Engine) -> None:
    lock = old_lock(engine.root / ".git")
    with subprocess.Popen(["git", "cat-file", "--batch"], cwd=engine.root, stdin=subprocess.PIPE) as working:
        assert working.pid in gitlock.git_processes(engine.root)
        assert "at work here" in gitlock.clear(lock, engine.root, patience=0)
        assert lock.exists()
        assert working.stdin is not None
        working.stdin.close()


def test_a_git_led_there_by_its_environment_counts_and_one_elsewhere_does_not(
    engine: Engine, tmp_path: Path
) -> None:
    away = tmp_path / "away"
    away.mkdir()
    git(away, "init", "-q")
    led = {**os.environ, "GIT_DIR": str(engine.root / ".git")}
    words = ["git", "cat-file", "--batch"]
    pipe = subprocess.PIPE
    with (
        subprocess.Popen(words, cwd="/", env=led, stdin=pipe) as here,
        subprocess.Popen(words, cwd=away, stdin=pipe) as elsewhere,
    ):
        found = gitlock.git_processes(engine.root)
        assert here.pid in found
        assert elsewhere.pid not in found
        for one in (here, elsewhere):
            assert one.stdin is not None
            one.stdin.close()


def test_a_batch_removes_a_stale_lock_and_goes_on(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gitlock, "git_processes", lambda *folders: [])
    lock = old_lock(engine.root / ".git")
    row = engine.run(FIRST)
    assert "no git process is alive" in engine.warnings(row.id)
    assert not lock.exists()
    assert engine.raw_status(FIRST) == "done"


def test_commits_on_a_detached_head_are_kept_by_a_ref(engine: Engine) -> None:
    git(engine.root, "checkout", "-q", "--detach")
    row = engine.run(FIRST)
    sha = engine.story(FIRST).commit_sha
    assert f"refs/sprintrunner/{row.id}/commits" in engine.warnings(row.id)
    git(engine.root, "checkout", "-q", "main")
    assert git(engine.root, "rev-parse", f"refs/sprintrunner/{row.id}/commits") == sha


# the disk


def test_what_was_written_and_what_is_left_are_said_once_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [50_000_000_000]
    monkeypatch.setattr(diskwatch.shutil, "disk_usage", lambda folder: type("U", (), {"free": free[0]}))
    watch = diskwatch.DiskWatch([tmp_path, tmp_path / "nothing"])
    assert watch.look() == []
    free[0] = 39_000_000_000
    assert [text.partition(";")[0] for text in watch.look()] == ["11.0 GB were written since the batch began"]
    assert watch.look() == []
    free[0] = 1_000_000_000
    assert "nearly full: 1.0 GB are left" in watch.look()[0]
    assert watch.look() == []


# settings and prompts


def test_edited_new_and_lost_settings_and_prompts_are_named(tmp_path: Path) -> None:
    root, copy = tmp_path / "project", tmp_path / "copy"
    prompts = root / ".sprintrunner" / "prompts"
    prompts.mkdir(parents=True)
    (root / "sprintrunner.toml").write_text("")
    (prompts / "dev-story.md").write_text("work")
    frozen.freeze(root, copy)
    assert frozen.changed(root, copy) == []
    (root / "sprintrunner.toml").write_text("agent = 'codex'\n")
    (prompts / "dev-story.md").unlink()
    (prompts / "code-review.md").write_text("pass")
    names = ["code-review.md", "dev-story.md"]
    assert frozen.changed(root, copy) == [
        *(f".sprintrunner/prompts/{name}" for name in names),
        "sprintrunner.toml",
    ]


def test_a_batch_says_once_that_its_settings_were_edited(engine: Engine) -> None:
    row = engine.run(FIRST, fault="edits-settings@dev-story")
    assert engine.warnings(row.id).count("not obeyed before the next one: sprintrunner.toml") == 1


# requests of agents


def test_the_process_behind_a_connection_is_found_by_its_marker() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        program = f"import socket; s = socket.create_connection(('127.0.0.1', {port})); s.recv(1)"
        env = {**os.environ, "SPRINTRUNNER_RUN_ID": "a-run-of-this-test"}
        client = subprocess.Popen([sys.executable, "-I", "-c", program], env=env)
        connection, address = server.accept()
        with connection:
            runs = ["another-run", "a-run-of-this-test"]
            assert peers.run_of_client(address[1], port, runs) == "a-run-of-this-test"
            assert peers.run_of_client(address[1], port, ["another-run"]) is None
            assert peers.run_of_client(1, port, runs) is None
        client.wait(10)


def test_what_agents_send_is_counted_and_said_at_powers_of_ten(engine: Engine) -> None:
    agent_script(engine.home, 'exec claude-rehearsal "$@"')
    engine.env(REHEARSAL_FAULT="hang@dev-story")
    batch_id = engine.start(FIRST)
    for _ in range(12):
        engine.submit("visited", what="POST /api/orchestrator/stop", by="dev-story of 1-1")
    said = [text for text in engine.warnings(batch_id).splitlines() if "sent POST" in text]
    assert [text.rpartition("(")[2] for text in said] == ["1 so far).", "10 so far)."]
    engine.submit("stop")
    engine.wait(batch_id)
