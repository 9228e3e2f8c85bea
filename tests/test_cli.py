"""The command line as a person or a script uses it: real processes, the real program, a rehearsal agent."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from sprintrunner import __version__
from sprintrunner.rehearsal import install_launcher, sample

PROGRAM = [sys.executable, "-P", "-m", "sprintrunner"]
#: Longest wait for something that takes a moment, in seconds.
PATIENCE = 60


@dataclass
class Bench:
    """A project of its own, a rehearsal agent first on PATH, a state folder; and what was started there."""

    root: Path
    state: Path
    env: dict[str, str]
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def call(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [*PROGRAM, *arguments],
            cwd=self.root,
            env=self.env | env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        """Start a command as the leader of a group of its own, as a shell does."""
        process = subprocess.Popen(
            [*PROGRAM, *arguments],
            cwd=self.root,
            env=self.env | env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def agents(self) -> list[psutil.Process]:
        """The processes of this bench that an agent's environment marks."""
        return [process for process in psutil.process_iter() if _state_of(process) == str(self.state)]


def _state_of(process: psutil.Process) -> str | None:
    try:
        environment = process.environ()
    except psutil.Error:
        return None
    return environment.get("SPRINTRUNNER_STATE_DIR") if "SPRINTRUNNER_RUN_ID" in environment else None


def awaited(condition: Callable[[], Any]) -> Any:
    """Return the first true answer of the condition; fail when none comes in time."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if answer := condition():
            return answer
        time.sleep(0.02)
    raise AssertionError("it never happened")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    programs = tmp_path / "bin"
    install_launcher(programs)
    root = sample.create(tmp_path / "a project")
    env = dict(os.environ) | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "SPRINTRUNNER_STATE_DIR": str(tmp_path / "state"),
        "SPRINTRUNNER_STOP_GRACE_SECONDS": "1",
        "REHEARSAL_SPEED": "0",
    }
    made = Bench(root, tmp_path / "state", env)
    yield made
    for process in made.started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def hanging(bench: Bench) -> subprocess.Popen[str]:
    """A run whose dev-story hangs; returned once that agent runs."""
    process = bench.start("run", "1", "--json", REHEARSAL_FAULT="hang@dev-story")
    awaited(lambda: [agent for agent in bench.agents() if _command_of(agent) == "dev-story"])
    return process


def _command_of(process: psutil.Process) -> str | None:
    """The command an agent carries out; None for a verify command, which belongs to no recorded one."""
    try:
        environment = process.environ()
    except psutil.Error:
        return None
    return (
        environment.get("SPRINTRUNNER_COMMAND") if environment.get("SPRINTRUNNER_COMMAND_ID") != "0" else None
    )


def _events(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def _statuses(root: Path) -> dict[str, str]:
    text = next(root.rglob("sprint-status.yaml")).read_text("utf-8")
    pairs = (line.split("#")[0].split(":") for line in text.splitlines() if line.startswith("  "))
    return {pair[0].strip(): pair[1].strip() for pair in pairs if len(pair) == 2}


def _is_one_sentence(text: str) -> bool:
    return len(text.strip().splitlines()) == 1 and "Traceback" not in text


# Before anything has run


def test_help_and_version_load_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "from sprintrunner.cli import main\n"
        "try: main([sys.argv[1]])\n"
        "finally: print(*sys.modules, file=sys.stderr)\n"
    )
    for option in ("--help", "--version"):
        ended = subprocess.run(
            [sys.executable, "-c", program, option], capture_output=True, text=True, check=True
        )
        heavy = {"flask", "sqlalchemy", "pydantic", "rich", "yaml", "gunicorn", "psutil", "jinja2"}
        assert not heavy & set(ended.stderr.split())
    assert ended.stdout == f"sprintrunner {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["frob"],
        ["run", "0"],
        ["run", "999"],
        ["run", "many"],
        ["run", "--story"],
        ["serve", "--port", "70000"],
        ["report", "--batch", "none"],
        ["log"],
        ["--project", "/does/not/exist", "status"],
    ],
)
def test_a_wrong_call_is_answered_in_one_sentence(bench: Bench, arguments: list[str]) -> None:
    ended = bench.call(*arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert _is_one_sentence(ended.stderr)


@pytest.mark.parametrize("command", ["serve", "run", "stop", "status", "report"])
def test_outside_a_project_one_sentence_says_so(bench: Bench, tmp_path: Path, command: str) -> None:
    ended = bench.call("--project", str(tmp_path), command)
    assert ended.returncode == 2
    assert "No BMAD project was found" in ended.stderr
    assert _is_one_sentence(ended.stderr)


def test_with_nothing_running_there_is_nothing_to_stop_or_report(bench: Bench) -> None:
    for command in ("stop", "report"):
        ended = bench.call(command)
        assert ended.returncode == 2
        assert _is_one_sentence(ended.stderr)
    assert bench.call("status").stdout == "Nothing is running.\n"
    assert json.loads(bench.call("status", "--json").stdout) == {
        "status": "idle",
        "batch_id": None,
        "cycles_completed": 0,
        "max_cycles": None,
        "current_stories": [],
    }


def test_questions_create_no_database(bench: Bench) -> None:
    for command in ("status", "report", "stop"):
        bench.call(command)
    assert not list(bench.state.glob("*.db"))


def test_the_project_is_found_from_a_folder_inside_it(bench: Bench) -> None:
    assert bench.call("--project", str(bench.root / "tests"), "status").returncode == 0


def test_an_answer_that_nobody_reads_is_no_complaint(bench: Bench) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        [*PROGRAM, "status"], cwd=bench.root, env=bench.env, stdout=writer, stderr=subprocess.PIPE
    )
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (1, b"")


# Whole batches


def test_run_all_carries_every_story_to_a_commit(bench: Bench) -> None:
    ended = bench.call("run", "all", "--json")
    events = _events(ended.stdout)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert (events[0]["type"], events[-1]["type"]) == ("batch:start", "batch:end")
    assert events[-1]["payload"]["status"] == "all_done"
    assert [event["id"] for event in events] == sorted({event["id"] for event in events})
    stories = {key: value for key, value in _statuses(bench.root).items() if not key.startswith("epic-")}
    assert set(stories.values()) == {"done"} and len(stories) == 5

    told = json.loads(bench.call("report", "--json").stdout)
    assert {story["status"] for story in told["stories"]} == {"done"}
    assert told["commits"] and told["needs_you"] == []
    said = bench.call("report").stdout
    assert "5 of 5 stories done" in said and "Nothing needs you." in said


def test_one_named_story_in_plain_lines(bench: Bench) -> None:
    ended = bench.call("run", "--story", "1-2-thirst-schedule")
    assert ended.returncode == 0, ended.stderr
    assert "1-2-thirst-schedule  review → done" in ended.stdout
    assert "1 of 1 story done" in ended.stdout
    assert "\x1b" not in ended.stdout
    assert _statuses(bench.root)["1-1-watering-diary"] == "backlog"


def test_an_unknown_story_is_refused(bench: Bench) -> None:
    ended = bench.call("run", "--story", "9-9-nothing")
    assert ended.returncode == 2
    assert "9-9-nothing" in ended.stderr and _is_one_sentence(ended.stderr)


def test_an_unknown_agent_is_refused(bench: Bench) -> None:
    ended = bench.call("run", "--agent", "hal")
    assert ended.returncode == 2
    assert "agent" in ended.stderr and _is_one_sentence(ended.stderr)


def test_a_blocked_story_is_exit_status_4(bench: Bench) -> None:
    ended = bench.call("run", "1", REHEARSAL_FAULT="no-change@dev-story")
    assert ended.returncode == 4, ended.stderr
    assert "Needs you:" in ended.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_group_stops_in_order(
    bench: Bench, hanging: subprocess.Popen[str], number: signal.Signals
) -> None:
    os.killpg(hanging.pid, number)
    output, _ = hanging.communicate(timeout=PATIENCE)
    assert hanging.returncode == 3
    assert _events(output)[-1]["payload"]["status"] == "stopped"
    assert bench.agents() == []
    assert bench.call("status").stdout == "Nothing is running.\n"


def test_a_reader_that_goes_away_stops_the_run(bench: Bench) -> None:
    process = bench.start("run", "1", "--json", REHEARSAL_FAULT="talk@dev-story")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(PATIENCE) == 3
    assert process.stderr is not None and "Traceback" not in process.stderr.read()
    assert bench.agents() == []


# While a batch runs


def test_a_running_batch_is_seen_and_stopped_from_another_shell(
    bench: Bench, hanging: subprocess.Popen[str]
) -> None:
    told = json.loads(bench.call("status", "--json").stdout)
    assert (told["status"], told["max_cycles"]) == ("running", 1)
    assert "dev-story" in bench.call("status").stdout

    second = bench.call("run", "1")
    assert second.returncode == 2 and _is_one_sentence(second.stderr)

    stopped = bench.call("stop")
    assert (stopped.returncode, stopped.stdout) == (0, "Stopping.\n")
    hanging.communicate(timeout=PATIENCE)
    assert hanging.returncode == 3


def test_an_agent_reports_a_task(bench: Bench, hanging: subprocess.Popen[str]) -> None:
    agent = next(agent for agent in bench.agents() if _command_of(agent) == "dev-story")
    own = {key: value for key, value in agent.environ().items() if key.startswith("SPRINTRUNNER_")}
    report = {
        "epic_id": own["SPRINTRUNNER_EPIC_ID"],
        "story_id": own["SPRINTRUNNER_STORY_KEYS"],
        "command": own["SPRINTRUNNER_COMMAND"],
        "task_id": "implement",
        "status": "start",
        "message": "the first, with care",
    }
    said = bench.call("log", json.dumps(report), **own)
    assert (said.returncode, said.stderr) == (0, "")
    seconds, rest = said.stdout.strip().split(",", 1)
    assert abs(int(seconds) - time.time()) < PATIENCE
    assert rest == f'1,{report["story_id"]},dev-story,implement,start,"the first, with care"'

    for arguments, env in (
        ("{", own),
        (json.dumps(report | {"status": "perhaps"}), own),
        (json.dumps({key: report[key] for key in report if key != "task_id"}), own),
        (json.dumps(report), own | {"SPRINTRUNNER_RUN_ID": "0" * 32}),
        (json.dumps(report), {"SPRINTRUNNER_STATE_DIR": str(bench.state)}),
    ):
        refused = bench.call("log", arguments, **env)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert _is_one_sentence(refused.stderr)
    assert _recorded_tasks(bench, hanging) == 1


def _recorded_tasks(bench: Bench, running: subprocess.Popen[str]) -> int:
    """How often the named task stands in the events of the run, which is stopped to read them all."""
    running.send_signal(signal.SIGTERM)
    output, _ = running.communicate(timeout=PATIENCE)
    return sum(event["payload"].get("task_id") == "implement" for event in _events(output))


def test_log_without_a_server_records_nothing(bench: Bench) -> None:
    report = dict.fromkeys(("epic_id", "story_id", "command", "task_id"), "x") | {"status": "end"}
    ended = bench.call("log", json.dumps(report), SPRINTRUNNER_RUN_ID="1" * 32)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert _is_one_sentence(ended.stderr)


# On a terminal


def test_a_terminal_shows_a_live_picture_and_the_report(bench: Bench) -> None:
    output, status = _on_a_terminal(["run", "1"], bench.root, bench.env | {"REHEARSAL_SPEED": "0.1"})
    assert status == 0
    for words in ("cycles 0/1", "1-1-watering-diary", "running", "dev-story", "stories done"):
        assert words in output
    assert output.count("\x1b[?25l") == output.count("\x1b[?25h"), "the cursor was not given back"


def _on_a_terminal(arguments: list[str], folder: Path, env: Mapping[str, str]) -> tuple[str, int]:
    """What a command writes to a terminal of its own, and its exit status."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(folder)
        os.execvpe(
            PROGRAM[0],
            [*PROGRAM, *arguments],
            {**env, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"},
        )
    written = bytearray()
    try:
        while chunk := os.read(terminal, 65536):
            written += chunk
    except OSError:
        # Linux answers EIO once the last process has left the terminal.
        pass
    finally:
        os.close(terminal)
    _, ended = os.waitpid(child, 0)
    return written.decode("utf-8", "replace"), os.waitstatus_to_exitcode(ended)
