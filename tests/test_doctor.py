"""The doctor finds what would spoil a night, and says what to do about it."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from sprintrunner import doctor
from sprintrunner.doctor import Check, Status
from sprintrunner.rehearsal import install_launcher, sample


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return sample.create(tmp_path / "project")


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    programs = tmp_path / "bin"
    install_launcher(programs)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return dict(os.environ) | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "SPRINTRUNNER_STATE_DIR": str(tmp_path / "state"),
        "SPRINTRUNNER_SERVER_PORT": str(port),
    }


def _look(root: Path, env: Mapping[str, str], name: str) -> Check:
    return next(check for check in doctor.examine(root, env) if check.name == name)


def _status_file(root: Path) -> Path:
    return next(root.rglob("sprint-status.yaml"))


def test_a_sound_project_passes(root: Path, env: dict[str, str]) -> None:
    checks = doctor.examine(root, env)
    assert doctor.is_healthy(checks), doctor.lines(checks)
    assert doctor.lines(checks)[-1].startswith("Ready for the night.")


def test_it_changes_nothing_in_the_project(root: Path, env: dict[str, str]) -> None:
    doctor.examine(root, env)
    left = subprocess.run(
        ["git", "status", "--porcelain", "--ignored"], cwd=root, capture_output=True, check=True
    )
    assert left.stdout == b""


def test_outside_a_project_it_says_where_to_run(tmp_path: Path) -> None:
    checks = doctor.examine(tmp_path, {})
    assert checks[0].status is Status.FAIL and "--project" in checks[0].remedy


def test_a_missing_agent_fails(root: Path, env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "bin" / "claude").unlink()
    only_system = {"PATH": f"{tmp_path / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin"}
    check = _look(root, env | only_system, "agent")
    assert check.status is Status.FAIL and "claude" in check.message


def test_an_agent_that_cannot_start_fails(root: Path, env: dict[str, str], tmp_path: Path) -> None:
    agent = tmp_path / "bin" / "claude"
    agent.write_text("#!/bin/sh\nexit 3\n")
    check = _look(root, env, "agent")
    assert check.status is Status.FAIL and str(agent) in check.message


def test_an_invalid_setting_fails_by_name_and_the_other_checks_still_speak(
    root: Path, env: dict[str, str]
) -> None:
    (root / "sprintrunner.toml").write_text("max_dev_attempts = 99\n")
    checks = doctor.examine(root, env)
    configuration = next(check for check in checks if check.name == "configuration")
    assert configuration.status is Status.FAIL and "max_dev_attempts" in configuration.message
    assert _look(root, env, "git").status is Status.OK


def test_a_status_file_that_cannot_be_edited_fails(root: Path, env: dict[str, str]) -> None:
    _status_file(root).write_text("development_status: {1-1-a: backlog}\n")
    assert _look(root, env, "status file").status is Status.FAIL


def test_uncommitted_work_is_a_warning_with_the_path(root: Path, env: dict[str, str]) -> None:
    (root / "notes.txt").write_text("mine")
    check = _look(root, env, "working tree")
    assert check.status is Status.WARN and "notes.txt" in check.message


def test_a_repository_without_identity_fails(root: Path, env: dict[str, str]) -> None:
    for name in ("user.name", "user.email"):
        subprocess.run(["git", "config", "--unset", name], cwd=root, check=True)
    assert _look(root, env, "git identity").status is Status.FAIL


def test_no_repository_fails(root: Path, env: dict[str, str]) -> None:
    (root / ".git").rename(root.parent / "gone")
    assert _look(root, env, "git").status is Status.FAIL


@pytest.mark.parametrize(
    ("verify", "status"),
    [
        ([], Status.WARN),
        (["no-such-program-here --fast"], Status.FAIL),
        (["./missing.sh"], Status.FAIL),
        (["cd tests && python3 -m unittest"], Status.OK),
        (["FAST=1 python3 -m unittest"], Status.OK),
    ],
)
def test_verify_commands_are_looked_for(
    root: Path, env: dict[str, str], verify: list[str], status: Status
) -> None:
    (root / "sprintrunner.toml").write_text(f"verify = {verify!r}\n")
    assert _look(root, env, "verify").status is status


def test_a_taken_port_is_a_warning(root: Path, env: dict[str, str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = {"SPRINTRUNNER_SERVER_PORT": str(other.getsockname()[1])}
        assert _look(root, env | taken, "port").status is Status.WARN


def test_a_damaged_database_fails(root: Path, env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state" / "sprint-runner.db").write_bytes(b"this is no database" * 100)
    assert _look(root, env, "database").status is Status.FAIL


def test_no_line_can_steer_the_terminal() -> None:
    checks = [Check("git", Status.FAIL, "\x1b[2Jbad", "\x9b1m do this")]
    assert all(line.isprintable() for line in doctor.lines(checks))
