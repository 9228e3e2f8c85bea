"""The doctor finds what would spoil a night, and says what to do about it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from bmad_skills import auto, classic, skill

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


def _home(tmp_path: Path, env: Mapping[str, str]) -> dict[str, str]:
    """The environment with an empty HOME and nothing that stands for a login."""
    (tmp_path / "home").mkdir(exist_ok=True)
    kept = {key: value for key, value in env.items() if not key.startswith(("ANTHROPIC", "CLAUDE"))}
    return kept | {"HOME": str(tmp_path / "home")}


def _program(tmp_path: Path, text: str, name: str = "claude") -> None:
    path = tmp_path / "bin" / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_the_agent_tells_version_and_options(root: Path, env: dict[str, str]) -> None:
    check = _look(root, env, "agent")
    assert check.status is Status.OK and "options known" in check.message


def test_an_agent_without_an_option_that_is_needed_fails(
    root: Path, env: dict[str, str], tmp_path: Path
) -> None:
    says = 'case "$1" in --version) echo "1.0.2 (Claude Code)";; --help) echo "  --output-format";; esac'
    _program(tmp_path, says)
    check = _look(root, env, "agent")
    assert check.status is Status.FAIL and "--" in check.message


def test_an_agent_of_one_command_is_checked_too(root: Path, env: dict[str, str]) -> None:
    (root / "sprintrunner.toml").write_text('[commands.code-review]\nagent = "codex"\n')
    check = _look(root, env | {"PATH": f"{env['PATH'].split(os.pathsep)[0]}:/usr/bin:/bin"}, "agent codex")
    assert check.status is Status.FAIL and "codex" in check.message


def test_a_login_is_found_in_its_file_without_opening_it(
    root: Path, env: dict[str, str], tmp_path: Path
) -> None:
    bare = _home(tmp_path, env)
    assert _look(root, bare, "login").status is Status.WARN
    kept = tmp_path / "home/.claude/.credentials.json"
    kept.parent.mkdir()
    kept.write_text("secret")
    check = _look(root, bare, "login")
    assert check.status is Status.OK and "secret" not in check.message


def test_a_key_that_is_dropped_is_no_login(root: Path, env: dict[str, str], tmp_path: Path) -> None:
    bare = _home(tmp_path, env) | {"ANTHROPIC_API_KEY": "sk-ant-something"}
    check = _look(root, bare, "login")
    assert check.status is Status.WARN and "env_drop" in check.remedy
    (root / "sprintrunner.toml").write_text("env_drop = []\n")
    check = _look(root, bare, "login")
    assert check.status is Status.OK and "sk-ant" not in check.message


@pytest.mark.parametrize(("code", "status"), [(0, Status.OK), (1, Status.FAIL)])
def test_the_agent_is_asked_only_where_it_has_a_command_for_that(
    root: Path, env: dict[str, str], tmp_path: Path, code: int, status: Status
) -> None:
    asked = tmp_path / "asked"
    says = f'echo "$@" >> {asked}; case "$1" in --help) echo "  --verbose"; {{}};; auth) exit {code};; esac'
    _program(tmp_path, says.replace("{}", 'echo "  auth   Manage authentication"'))
    assert _look(root, _home(tmp_path, env), "login").status is status
    assert "auth status" in asked.read_text()
    asked.unlink()
    _program(tmp_path, says.replace("{}", ":"))
    assert _look(root, _home(tmp_path, env), "login").status is Status.WARN
    assert "auth" not in asked.read_text()


def test_the_doctor_never_gives_an_agent_a_prompt(root: Path, env: dict[str, str], tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    _program(tmp_path, f'echo "$1" >> {seen}; case "$1" in --version) echo "2.1.331 (Claude Code)";; esac')
    doctor.examine(root, _home(tmp_path, env))
    assert set(seen.read_text().splitlines()) <= {"--version", "--help"}


def test_the_pipeline_tells_era_and_skills(root: Path, env: dict[str, str]) -> None:
    check = _look(root, env, "pipeline")
    assert check.status is Status.OK and check.message.startswith("builtin (BMAD ")


def test_a_pipeline_without_its_skills_fails_and_with_them_names_them(
    root: Path, env: dict[str, str]
) -> None:
    (root / "sprintrunner.toml").write_text('pipeline = "bmad"\n')
    check = _look(root, env, "pipeline")
    assert check.status is Status.FAIL and "set pipeline to builtin" in check.message
    auto(root)
    check = _look(root, env, "pipeline")
    assert check.status is Status.OK and "bmad build-auto" in check.message
    assert "/bmad-build-auto, " in check.message or "/bmad-build-auto)" in check.message
    classic(root)
    check = _look(root, env, "pipeline")
    assert check.status is Status.WARN and "sprintrunner_pipeline" in check.remedy


def test_skills_that_need_uv_are_a_warning_without_it(root: Path, env: dict[str, str]) -> None:
    (root / "sprintrunner.toml").write_text('pipeline = "bmad"\n')
    skill(root, "build-auto").write_text("Run `uv run render.py` first.")
    without = env | {"PATH": f"{env['PATH'].split(os.pathsep)[0]}:/usr/bin:/bin"}
    check = _look(root, without, "pipeline")
    assert check.status is Status.WARN and "uv" in check.message


def test_a_clock_that_is_behind_the_last_commit_is_a_warning(root: Path, env: dict[str, str]) -> None:
    assert _look(root, env, "clock").status is Status.OK
    late = env | {"GIT_COMMITTER_DATE": "2099-01-01T00:00:00Z"}
    subprocess.run(["git", "commit", "-q", "--allow-empty", "-m", "x"], cwd=root, env=late, check=True)
    check = _look(root, env, "clock")
    assert check.status is Status.WARN and "2099" in check.message


def test_a_machine_that_may_fall_asleep_is_a_warning(root: Path, env: dict[str, str], tmp_path: Path) -> None:
    for tool in ("git", "env", "sh", "python3"):
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool) or "/bin/false")
    bare = env | {"PATH": str(tmp_path / "bin")}
    assert _look(root, bare, "sleep").status is Status.WARN
    _program(tmp_path, "exec cat", "systemd-inhibit")
    assert _look(root, bare, "sleep").status is Status.OK


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_status_file_that_cannot_be_written_fails(root: Path, env: dict[str, str]) -> None:
    _status_file(root).parent.chmod(0o555)
    try:
        assert _look(root, env, "status file").status is Status.FAIL
    finally:
        _status_file(root).parent.chmod(0o755)
