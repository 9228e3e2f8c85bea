"""The rehearsal agent and its sample project, run for real as a child process."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sprintrunner import agents, prompts
from sprintrunner.agents.schema import objection
from sprintrunner.rehearsal import faults, install_launcher, sample

TRANSCRIPTS = Path(__file__).resolve().parents[2] / "shared" / "transcripts" / "claude"
ARTEFACTS = "_bmad-output/implementation-artifacts"
KEYS = [
    "1-1-watering-diary",
    "1-2-thirst-schedule",
    "1-3-todays-round",
    "2-1-save-and-load",
    "2-2-note-for-the-neighbour",
]
SCHEMA = json.dumps(
    {"type": "object", "properties": {"summary": {"type": "string"}}, "required": ["summary"]}
)
STREAM = ("-p", "--output-format", "stream-json", "--verbose")
MODE = ("--permission-mode", "acceptEdits", "--allowedTools=Bash,Edit,Write,Read,Glob,Grep,Task")


class Ran:
    """What one run of the agent left: exit status, raw output, the lines that are JSON objects."""

    def __init__(self, done: subprocess.CompletedProcess[bytes]):
        self.code, self.raw, self.errors = done.returncode, done.stdout, done.stderr.decode()
        self.lines = []
        for line in done.stdout.split(b"\n"):
            with contextlib.suppress(ValueError, RecursionError):
                value = json.loads(line)
                self.lines += [value] if isinstance(value, dict) else []

    @property
    def result(self):
        return [line for line in self.lines if line["type"] == "result"][-1]

    @property
    def verdict(self):
        return self.result["structured_output"]

    def tools(self, name):
        blocks = [b for line in self.lines if line["type"] == "assistant" for b in line["message"]["content"]]
        return [b["input"] for b in blocks if isinstance(b, dict) and b.get("name") == name]

    def answers(self):
        users = [line["message"]["content"] for line in self.lines if line["type"] == "user"]
        return [
            b for content in users if isinstance(content, list) for b in content if b["type"] == "tool_result"
        ]


class House:
    """A sample project with the agent on its PATH."""

    def __init__(self, folder: Path):
        self.root = sample.create(folder / "the windowsill")
        self.claude = install_launcher(folder / "bin")
        self.log = folder / "runs.jsonl"
        self.env = {
            "PATH": f"{self.claude.parent}:/usr/local/bin:/usr/bin:/bin:{Path(sys.executable).parent}",
            "HOME": "/nonexistent",
            "LANG": "C.UTF-8",
            "REHEARSAL_SPEED": "0",
            "REHEARSAL_LOG": str(self.log),
            "REHEARSAL_SESSIONS": str(folder / "sessions"),
            "SPRINTRUNNER_BATCH_ID": "7",
        }

    def prompt(self, command, *keys, attempt=1, **more):
        facts = {
            "command": command,
            "attempt": attempt,
            "stories": [{"key": key} for key in keys],
            "project": {"name": "Windowsill"},
            "open_findings": [],
            "failure": "",
            "verify": ["python3 -m unittest"],
            **more,
        }
        lines = "".join(f"{name}: {json.dumps(value)}\n" for name, value in facts.items())
        return f"Work alone.\n\n<facts>\n{lines}</facts>\n"

    def start(self, *words, **env):
        return subprocess.Popen(
            [self.claude, *words],
            cwd=self.root,
            env={**self.env, **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def claude_run(self, *words, stdin="", **env):
        with self.start(*words, **env) as agent:
            out, err = agent.communicate(stdin.encode(), timeout=60)
        return Ran(subprocess.CompletedProcess([], agent.returncode, out, err))

    def run(self, command, *keys, flags=(), env=None, schema=SCHEMA, **facts):
        flags = (*STREAM, *MODE, *(("--json-schema", schema) if schema else ()), *flags)
        return self.claude_run(*flags, stdin=self.prompt(command, *keys, **facts), **(env or {}))

    def fault(self, mode, command="dev-story", key=KEYS[0], env=None, **more):
        env = {"REHEARSAL_FAULT": mode, "REHEARSAL_SCALE": "0.001", **(env or {})}
        return self.run(command, key, env=env, **more)

    def tests_pass(self):
        done = subprocess.run(["python3", "-m", "unittest"], cwd=self.root, env=self.env, capture_output=True)
        return done.returncode == 0

    def git(self, *words):
        done = subprocess.run(["git", *words], cwd=self.root, env=self.env, capture_output=True, check=True)
        return done.stdout.decode().strip()

    def story(self, key):
        return (self.root / ARTEFACTS / f"{key}.md").read_text()

    def runs(self):
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def leftovers(self):
        return [run["pid"] for run in self.runs() if run["event"] == "leftover"] if self.log.exists() else []


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition, what, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited in vain for: {what}"
        time.sleep(0.01)


@pytest.fixture
def house(tmp_path):
    made = House(tmp_path)
    yield made
    for pid in made.leftovers():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


# the sample project


def test_the_sample_is_one_commit_on_main_whose_tests_pass_without_a_home(house):
    assert house.git("rev-list", "--count", "main") == "1"
    assert house.git("status", "--porcelain") == ""
    assert house.git("log", "-1", "--format=%ae") == "robin@windowsill.example"
    assert house.tests_pass()
    assert house.git("status", "--porcelain") == ""


def test_the_sample_has_five_stories_in_two_epics_all_in_the_epics_file(house):
    status = (house.root / ARTEFACTS / "sprint-status.yaml").read_text()
    assert re.findall(r"^  (\d-\d-[\w-]+): backlog", status, re.M) == KEYS
    assert re.findall(r"^  (epic-\d): backlog", status, re.M) == ["epic-1", "epic-2"]
    assert re.search(r"^last_updated: \d\d-\d\d-\d{4} \d\d:\d\d$", status, re.M)
    epics = (house.root / "_bmad-output/planning-artifacts/epics.md").read_text()
    assert re.findall(r"^### Story (\d\.\d):", epics, re.M) == ["1.1", "1.2", "1.3", "2.1", "2.2"]
    assert 'verify = ["python3 -m unittest"]' in (house.root / "sprintrunner.toml").read_text()


def test_the_sample_refuses_a_folder_that_holds_something(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="not empty"):
        sample.create(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_the_launcher_can_be_written_again_over_itself(tmp_path):
    folder = tmp_path / "it's a bin"
    assert install_launcher(folder) == install_launcher(folder)
    said = subprocess.run([folder / "claude", "--version"], capture_output=True, check=True, env={})
    assert said.stdout.decode().strip().endswith("(Claude Code)")
    assert [path.name for path in folder.iterdir()] == ["claude"]


# the command line of the real CLI


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("-p", "--output-format", "stream-json"), "requires --verbose"),
        ((*STREAM, "--no-such-flag"), "unknown option '--no-such-flag'"),
        ((*STREAM, "--session-id", "7"), "Must be a valid UUID"),
        ((*STREAM, "--json-schema", "{"), "not valid JSON"),
        ((*STREAM, "--append-system-prompt-file", "/nowhere"), "not found: /nowhere"),
        (STREAM, "Input must be provided"),
    ],
)
def test_a_wrong_command_line_is_one_line_on_stderr_and_exit_1(house, words, sentence):
    ran = house.claude_run(*words, stdin="" if words is STREAM else "hi")
    assert (ran.code, ran.raw) == (1, b"")
    assert sentence in ran.errors and ran.errors.count("\n") == 1


def test_root_may_not_bypass_permissions_outside_a_sandbox(house):
    words = (*STREAM, "--permission-mode", "bypassPermissions")
    ran = house.claude_run(*words, stdin="hi")
    assert ran.code == (1 if os.geteuid() == 0 else 0)
    assert house.claude_run(*words, stdin="hi", IS_SANDBOX="1").code == 0


def test_an_unknown_fault_is_refused_by_name(house):
    ran = house.fault("no-such-mode")
    assert ran.code == 1 and "'no-such-mode'" in ran.errors


def test_the_prompt_is_read_to_its_end_before_anything_is_said(house):
    with house.start(*STREAM, *MODE) as agent:
        prompt = house.prompt("story-review", KEYS[0]).encode()
        agent.stdin.write(prompt[:-20])
        agent.stdin.flush()
        assert select.select([agent.stdout], [], [], 0.3)[0] == []
        out, _ = agent.communicate(prompt[-20:], timeout=20)
    assert out.startswith(b'{"type":"system","subtype":"init"')


def test_a_question_without_a_command_is_answered(house):
    ran = house.claude_run("-p", stdin="hi")
    assert ran.code == 0 and ran.raw.startswith(b"Hello!")


# the stream


def keys_of(lines, kind):
    return [
        set(line)
        for line in lines
        if line["type"] == kind and line.get("subtype") in (None, "init", "success")
    ]


def test_every_line_has_the_keys_of_the_real_ones(house):
    real_file = TRANSCRIPTS / "success_bash_csv.jsonl"
    if not real_file.exists():
        pytest.skip("the recorded transcripts are not beside this checkout")
    real = [json.loads(line) for line in real_file.read_text().splitlines()]
    mine = house.run("generate-project-context", schema=None).lines
    for kind in ("system", "assistant", "user", "result"):
        known = set.union(*keys_of(real, kind))
        for keys in keys_of(mine, kind):
            assert keys <= known, f"{kind} lines have no {keys - known}"
    usage = {"usage", "modelUsage", "total_cost_usd", "permission_denials", "terminal_reason", "num_turns"}
    assert usage <= set(mine[-1])
    (real_model,), (my_model,) = (list(lines[-1]["modelUsage"].values()) for lines in (real, mine))
    assert set(my_model) <= set(real_model)


def test_each_tool_call_is_announced_before_it_is_answered(house):
    ran = house.run("dev-story", KEYS[0])
    asked = []
    for line in ran.lines:
        for block in line.get("message", {}).get("content", []):
            if block["type"] == "tool_use":
                asked.append(block["id"])
            if block["type"] == "tool_result":
                assert block["tool_use_id"] == asked[-1]
    assert len(asked) == len(ran.answers()) > 6
    assert {line["session_id"] for line in ran.lines} == {ran.result["session_id"]}


def test_the_schema_decides_what_is_in_the_structured_output(house):
    schema = {
        "type": "object",
        "additionalProperties": False,
        "required": ["summary", "mood"],
        "properties": {"summary": {"type": "string"}, "mood": {"enum": ["good", "calm"]}},
    }
    ran = house.run("code-review", KEYS[0], schema=json.dumps(schema))
    assert set(ran.verdict) == {"summary", "mood"} and ran.verdict["mood"] == "calm"
    assert ran.tools("StructuredOutput") == [ran.verdict]
    assert json.loads(ran.result["result"]) == ran.verdict


def test_without_a_schema_the_last_line_is_the_marker(house):
    create = house.run("create-story", *KEYS[3:], schema=None).result
    assert "structured_output" not in create
    assert create["result"].splitlines()[-1] == (
        f"{KEYS[3]} [TECH-SPEC-DECISION: REQUIRED] {KEYS[4]} [TECH-SPEC-DECISION: SKIP]"
    )
    house.run("dev-story", KEYS[3])
    assert (
        house.run("code-review", KEYS[3], schema=None).result["result"].endswith("\nHIGHEST SEVERITY: HIGH")
    )


def test_a_cheap_model_costs_less_and_is_named(house):
    dear = house.run("create-story-discovery", KEYS[0]).result
    cheap = house.run("create-story-discovery", KEYS[0], flags=("--model", "haiku")).result
    assert 0 < cheap["total_cost_usd"] < dear["total_cost_usd"] / 3
    assert list(cheap["modelUsage"]) == ["claude-haiku-5-5"]
    assert house.run("dev-story", KEYS[0], flags=("--model", "gpt-4")).result["api_error_status"] == 404


def test_the_context_file_counts_as_input_and_may_hold_the_facts(house, tmp_path):
    context = tmp_path / "context.md"
    context.write_text(house.prompt("generate-project-context") + "x" * 400_000)
    words = (*STREAM, *MODE, "--append-system-prompt-file", str(context))
    ran = house.claude_run(*words, stdin="Do what the context says.")
    assert (house.root / "_bmad-output/planning-artifacts/project-context.md").exists()
    assert ran.result["usage"]["cache_creation_input_tokens"] > 100_000
    told = next(run for run in house.runs() if run["event"] == "prompt")
    assert told["context_bytes"] == context.stat().st_size


# the life of a story


def test_a_story_lives_from_the_epic_to_green_tests(house):
    key = "1-2-thirst-schedule"
    assert house.run("create-story", key).verdict["stories"] == [{"key": key, "tech_spec": "SKIP"}]
    assert "\n2. **Given**" in house.story(key) and "\n3. **Given**" not in house.story(key)
    house.run("create-story-discovery", key)
    assert "windowsill/plant.py" in house.story(f"{key}-discovery")
    first, second = (house.run("story-review", key, attempt=n).verdict for n in (1, 2))
    assert first["critical_issues"] and first["findings"][0]["status"] == "fixed"
    assert not second["critical_issues"] and not second["findings"]
    assert "\n3. **Given** a plant that was never watered" in house.story(key)
    house.run("dev-story", key)
    assert "- [ ]" not in house.story(key) and "- windowsill/schedule.py" in house.story(key)
    assert house.tests_pass()


def test_the_first_code_review_shows_a_bug_with_a_failing_test_and_mends_it(house):
    house.run("create-story", KEYS[0])
    house.run("dev-story", KEYS[0])
    before = (house.root / "windowsill/diary.py").read_text().splitlines()
    ran = house.run("code-review", KEYS[0])
    failed = [answer["content"] for answer in ran.answers() if answer.get("is_error")]
    assert len(failed) == 1 and "FAIL: test_a_watering_that_is_written_down_late" in failed[0]
    (finding,) = ran.verdict["findings"]
    assert (ran.verdict["highest_severity"], finding["severity"], finding["status"]) == (
        "HIGH",
        "HIGH",
        "fixed",
    )
    assert finding["file"] == "windowsill/diary.py" and "days[-1]" in before[finding["line"] - 1]
    assert house.tests_pass()
    again = house.run("code-review", KEYS[0], attempt=2).verdict
    assert (again["highest_severity"], again["findings"]) == ("NONE", [])


def test_all_five_stories_are_done_in_pairs_and_exactly_one_needs_a_tech_spec(house):
    decisions, critical = {}, 0
    for pair in (KEYS[:2], KEYS[2:3], KEYS[3:]):
        for one in house.run("create-story", *pair).verdict["stories"]:
            decisions[one["key"]] = one["tech_spec"]
        critical += len(house.run("story-review", *pair).verdict["findings"])
        for key in pair:
            if decisions[key] == "REQUIRED":
                house.run("create-tech-spec", key)
                assert not house.run("tech-spec-review", key).verdict["critical_issues"]
            house.run("dev-story", key)
            assert house.tests_pass(), key
            assert house.run("code-review", key).verdict["highest_severity"] == "HIGH", key
            assert house.run("code-review", key, attempt=2).verdict["highest_severity"] == "NONE", key
    assert list(decisions) == KEYS and list(decisions.values()).count("REQUIRED") == 1
    assert critical == 1
    assert house.tests_pass()
    house.run("commit", *KEYS[3:], flags=())
    assert house.git("log", "-1", "--format=%s") == f"feat(2): implement stories {', '.join(KEYS[3:])}"
    assert house.git("log", "-1", "--format=%(trailers:key=Sprint-Story,valueonly)").split() == KEYS[3:]
    assert house.git("status", "--porcelain") == ""


@pytest.mark.parametrize(
    "key", ["2-3-export-report", "2a-10-class", "7-1", "3-1-plant", 'x"><img src=x onerror=alert(1)>']
)
def test_a_story_added_by_hand_is_done_too(house, key):
    story_file = {"story_file": f"{ARTEFACTS}/added.md", "title": 'A "quoted" \\ title'}
    stories = [{"key": key, **story_file}]
    for command in ("create-story", "story-review", "dev-story"):
        assert house.run(command, key, stories=stories).code == 0
    text = (house.root / ARTEFACTS / "added.md").read_text()
    assert "1. **Given**" in text and "- [x]" in text and "- [ ]" not in text
    assert house.git("status", "--porcelain", "windowsill").startswith("?? windowsill/")
    assert house.tests_pass()
    assert house.run("code-review", key, stories=stories).verdict["highest_severity"] == "HIGH"
    assert house.run("code-review", key, stories=stories).verdict["highest_severity"] == "NONE"
    assert house.tests_pass()


def test_a_story_added_to_the_epics_gets_its_criteria_from_there(house):
    epics = house.root / "_bmad-output/planning-artifacts/epics.md"
    added = "\n### Story 2.3: Export report\n\nAs a gardener, I want a report, so that I can show it.\n\n"
    epics.write_text(
        f"{epics.read_text()}{added}**Acceptance Criteria:**\n\n1. It is short\n2. It is plain\n"
    )
    house.run("create-story", "2-3-export-report")
    story = house.story("2-3-export-report")
    assert "# Story 2.3: Export report" in story and "As a gardener" in story
    assert "\n1. It is short\n2. It is plain\n" in story


def test_two_stories_with_one_slug_do_not_share_a_module(house):
    for key in ("3-1-setup", "4-1-setup"):
        house.run("dev-story", key)
    assert (house.root / "windowsill/setup.py").exists() and (house.root / "windowsill/setup_4_1.py").exists()


def test_a_project_without_a_python_package_gets_one(house):
    house.git("rm", "-rq", "windowsill", "tests")
    house.run("dev-story", KEYS[0])
    assert (house.root / "rehearsal/watering_diary.py").exists()
    assert house.tests_pass()


def test_open_findings_of_the_prompt_are_answered_with_their_ids(house):
    house.run("dev-story", KEYS[0])
    known = {
        "id": 12,
        "severity": "MEDIUM",
        "title": "A name misleads",
        "file": "windowsill/diary.py",
        "line": 3,
    }
    verdict = house.run("code-review", KEYS[0], attempt=2, open_findings=[known]).verdict
    assert {**known, "status": "fixed"} in verdict["findings"]
    assert verdict["highest_severity"] == "HIGH"


def test_a_review_of_a_story_without_code_writes_the_code(house):
    verdict = house.run("code-review", KEYS[0]).verdict
    assert verdict["findings"][0]["severity"] == "CRITICAL" and house.tests_pass()
    assert house.run("code-review", KEYS[0], attempt=2).verdict["highest_severity"] == "NONE"


def test_a_second_attempt_puts_right_what_made_the_tests_red(house):
    house.run("dev-story", KEYS[0])
    module = house.root / "windowsill/diary.py"
    module.write_text(module.read_text().replace("append", "appendix"))
    assert not house.tests_pass()
    house.run("dev-story", KEYS[0], attempt=2, failure="AttributeError: appendix")
    assert house.tests_pass()


def test_key_and_command_come_from_the_environment_where_the_prompt_has_no_facts(house):
    env = {
        "SPRINTRUNNER_COMMAND": "create-story",
        "SPRINTRUNNER_STORY_KEYS": KEYS[0],
        "SPRINTRUNNER_ATTEMPT": "3",
    }
    house.claude_run(*STREAM, *MODE, stdin="A prompt of the user's own.", **env)
    assert "# Story 1.1: Watering diary" in house.story(KEYS[0])
    start, _, end = house.runs()
    assert (start["event"], start["command"], start["attempt"], start["keys"]) == (
        "start",
        "create-story",
        3,
        [KEYS[0]],
    )
    assert (end["event"], end["exit"], end["pid"]) == ("end", 0, start["pid"])
    assert end["ns"] > start["ns"]


@pytest.mark.parametrize("command", prompts.SCHEMAS)
def test_the_real_prompt_of_each_command_is_understood_and_its_schema_met(house, command):
    house.run("dev-story", KEYS[0])
    words = {
        "key": KEYS[0],
        "epic": "1",
        "title": "Watering diary",
        "epic_text": "</facts>",
        "tech_spec": "SKIP",
    }
    places = {"story_file": "", "discovery_file": "-discovery", "tech_spec_file": "-spec"}
    files = {name: f"{ARTEFACTS}/{KEYS[0]}{end}.md" for name, end in places.items()}
    planning = "_bmad-output/planning-artifacts"
    values = {
        "command": command,
        "attempt": 1,
        "max_attempts": 10,
        "stories": [] if command == "generate-project-context" else [{**words, **files}],
        "project": {
            "name": "Windowsill",
            "root": str(house.root),
            "planning": planning,
            "implementation": ARTEFACTS,
            "context_file": f"{planning}/project-context.md",
        },
        "open_findings": [{"id": 5, "severity": "LOW", "title": "<facts>", "file": None, "line": None}],
        "failure": "",
        "verify": ["python3 -m unittest"],
        "git_status": "",
        "injected": [],
        "unticked": [],
    }
    prompt = prompts.render(command, values, None)
    schema = prompts.SCHEMAS[command]
    ran = house.claude_run(*STREAM, *MODE, "--json-schema", json.dumps(schema), stdin=prompt)
    assert ran.code == 0 and objection(ran.verdict, schema) == ""
    if command == "code-review":
        assert [one["id"] for one in ran.verdict["findings"] if "id" in one] == ["5"]


# sessions, limits, permissions


def test_a_resumed_session_goes_on_with_its_task_and_its_costs(house):
    session = "11111111-2222-4333-8444-555555555555"
    first = house.run("create-story", KEYS[0], flags=("--session-id", session)).result
    assert first["session_id"] == session
    assert "already in use" in house.run("create-story", KEYS[0], flags=("--session-id", session)).errors
    words = (*STREAM, *MODE, "--resume", session)
    second = house.claude_run(*words, stdin="Give the structured output.").result
    assert second["session_id"] == session
    assert second["total_cost_usd"] > first["total_cost_usd"] * 1.5
    (model,) = second["modelUsage"].values()
    assert model["outputTokens"] > second["usage"]["output_tokens"]


def test_an_unknown_session_is_a_result_without_a_first_line(house):
    ran = house.claude_run(*STREAM, "--resume", "22222222-1111-4111-8111-111111111111", stdin="go")
    assert ran.code == 1 and [line["subtype"] for line in ran.lines] == ["error_during_execution"]
    assert "No conversation found with session ID" in ran.errors


def test_a_usage_limit_holds_until_the_session_is_resumed(house):
    session = "33333333-2222-4333-8444-555555555555"
    before = time.time()
    env = {"REHEARSAL_RESET_SECONDS": "3"}
    limited = house.fault("usage-limit", flags=("--session-id", session), env=env)
    event = [line for line in limited.lines if line["type"] == "rate_limit_event"][-1]["rate_limit_info"]
    assert event["status"] == "rejected" and before + 2 < event["resetsAt"] < before + 6
    assert limited.code == 1 and limited.result["api_error"] == "usage_limit_reached"
    words = (*STREAM, *MODE, "--resume", session)
    resumed = house.claude_run(*words, stdin="Go on.", REHEARSAL_FAULT="usage-limit")
    assert resumed.code == 0 and not resumed.result["is_error"]
    assert house.tests_pass() and (house.root / "windowsill/diary.py").exists()


@pytest.mark.parametrize(
    ("flag", "value", "subtype"),
    [("--max-budget-usd", "0.01", "error_max_budget_usd"), ("--max-turns", "2", "error_max_turns")],
)
def test_limits_given_by_flags_are_kept(house, flag, value, subtype):
    ran = house.run("dev-story", KEYS[0], flags=(flag, value))
    assert (ran.code, ran.result["subtype"], ran.result["is_error"]) == (1, subtype, True)


def test_the_default_permission_mode_denies_and_still_ends_as_a_success(house):
    ran = house.claude_run(*STREAM, stdin=house.prompt("create-story", KEYS[0]))
    assert (ran.code, ran.result["subtype"], ran.result["is_error"]) == (0, "success", False)
    assert [one["tool_name"] for one in ran.result["permission_denials"]] == ["Write"]
    assert any(line.get("subtype") == "permission_denied" for line in ran.lines)
    assert not (house.root / ARTEFACTS / f"{KEYS[0]}.md").exists()


# named tasks


def reporter(house, body):
    program = house.claude.parent / "sprintrunner"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)


def test_named_tasks_are_reported_through_the_program_on_the_path(house, tmp_path):
    reporter(house, f'printf "%s\\n" "$2" >> {shlex.quote(str(tmp_path / "tasks"))}; echo recorded')
    ran = house.run("dev-story", KEYS[0], attempt=2, env={"REHEARSAL_TASKS": "all"})
    told = [json.loads(line) for line in (tmp_path / "tasks").read_text().splitlines()]
    names = ["setup", "implement", "tests", "lint", "validate"]
    assert [one["task_id"] for one in told if one["status"] == "start"] == names
    assert [one["task_id"] for one in told if one["status"] == "end"] == names
    assert told[0] == {
        "epic_id": "1",
        "story_id": KEYS[0],
        "command": "dev-story",
        "task_id": "setup",
        "status": "start",
        "message": "Reading the story",
        "attempt": 2,
    }
    assert any("recorded" in answer["content"] for answer in ran.answers())


def test_a_reporter_that_fails_is_asked_once_and_the_work_goes_on(house):
    reporter(house, "echo 'not this run' >&2; exit 2")
    ran = house.run("dev-story", KEYS[0], env={"REHEARSAL_TASKS": "all"})
    assert ran.code == 0 and not ran.result["is_error"]
    assert len([call for call in ran.tools("Bash") if "sprintrunner log" in call["command"]]) == 1


# signals


def start_with_a_long_bash_call(house, **env):
    agent = house.start(*STREAM, *MODE, **env)
    prompt = house.prompt("dev-story", KEYS[0], verify=["echo $$ > ../bash.pid; sleep 60"])
    agent.stdin.write(prompt.encode())
    agent.stdin.close()
    agent.stdin = None
    place = house.root.parent / "bash.pid"
    wait_for(lambda: place.exists() and place.read_text().strip(), "the Bash call runs")
    return agent, int(place.read_text())


def test_sigterm_ends_the_agent_and_its_bash_call_without_a_result(house):
    agent, child = start_with_a_long_bash_call(house)
    with agent:
        agent.terminate()
        out, _ = agent.communicate(timeout=5)
    assert agent.returncode == 143 and b'"type":"result"' not in out
    wait_for(lambda: not is_alive(child), "the Bash call is gone")
    assert house.runs()[-1]["exit"] == 143


def test_sigint_during_a_bash_call_is_an_aborted_result_and_exit_0(house):
    agent, child = start_with_a_long_bash_call(house)
    with agent:
        agent.send_signal(signal.SIGINT)
        out, _ = agent.communicate(timeout=5)
    result = json.loads(out.splitlines()[-1])
    assert (agent.returncode, result["subtype"]) == (0, "error_during_execution")
    assert result["terminal_reason"] == "aborted_tools"
    wait_for(lambda: not is_alive(child), "the Bash call is gone")


def test_a_closed_stdout_does_not_stop_the_work(house):
    with house.start(*STREAM, *MODE) as agent:
        agent.stdout.close()
        agent.stdin.write(house.prompt("dev-story", KEYS[0]).encode())
        agent.stdin.close()
        assert agent.wait(20) == 0
    assert (house.root / "windowsill/diary.py").exists()


# speed


def test_the_speed_is_a_factor_of_the_time_a_command_takes(house):
    instant = house.run("story-review", KEYS[0]).result["duration_ms"]
    paced = house.run("story-review", KEYS[0], env={"REHEARSAL_SPEED": "1.2"}).result["duration_ms"]
    by_flag = house.run("story-review", KEYS[0], flags=("--speed", "0.3")).result["duration_ms"]
    # A busy machine makes all of them longer, none of them shorter.
    assert by_flag > 200
    assert paced > 800
    assert instant < paced


# faults: what is said


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("overloaded", {"api_error_status": 529, "result": "API Error: Repeated 529 Overloaded errors"}),
        ("server-error", {"api_error_status": 500, "result": "API Error: 500 Internal server error"}),
        (
            "network",
            {"api_error": "connection_failed", "result": "API Error: Connection dropped (ECONNRESET)"},
        ),
        ("rate-limited", {"api_error_status": 429, "result": "API Error: Request rejected (429)"}),
        ("auth", {"api_error_status": None, "result": "Not logged in"}),
        ("bad-key", {"api_error_status": 401, "result": "Invalid API key"}),
        ("billing", {"api_error_status": 400, "result": "Credit balance is too low"}),
        ("model-not-found", {"api_error_status": 404, "result": "There's an issue with the selected model"}),
        ("prompt-too-long", {"terminal_reason": "prompt_too_long", "result": "Prompt is too long"}),
    ],
)
def test_a_refused_request_looks_like_the_real_one(house, mode, expected):
    ran = house.fault(mode)
    assert ran.code == 1 and ran.result["is_error"] and ran.result["subtype"] == "success"
    said = expected.pop("result")
    assert ran.result["result"].startswith(said)
    assert {name: ran.result[name] for name in expected} == expected
    synthetic = [line for line in ran.lines if line.get("is_api_error_message")]
    assert synthetic[0]["message"]["model"] == "<synthetic>" and synthetic[0]["error"]
    retries = [line for line in ran.lines if line.get("subtype") == "api_retry"]
    assert len(retries) == (
        2 if mode in ("overloaded", "server-error", "network", "rate-limited", "bad-key") else 0
    )


@pytest.mark.parametrize(
    ("mode", "code", "subtype"),
    [
        ("max-turns", 1, "error_max_turns"),
        ("budget", 1, "error_max_budget_usd"),
        ("schema-retries", 1, "error_max_structured_output_retries"),
        ("success-with-is_error", 0, "success"),
    ],
)
def test_a_run_that_is_cut_short_says_so_in_its_result(house, mode, code, subtype):
    ran = house.fault(mode)
    assert (ran.code, ran.result["subtype"], ran.result["is_error"]) == (code, subtype, True)


def test_a_missing_structured_output_is_a_success_without_it(house):
    ran = house.fault("no-schema")
    assert ran.code == 0 and not ran.result["is_error"] and "structured_output" not in ran.result
    assert any(line.get("isSynthetic") for line in ran.lines)


def test_retries_before_a_success_are_told(house):
    ran = house.fault("retries")
    assert [line["attempt"] for line in ran.lines if line.get("subtype") == "api_retry"] == [1, 2]
    assert ran.verdict["summary"]


def test_a_denied_tool_ends_the_run_by_name(house):
    ran = house.fault("permission-denied")
    assert ran.code == 0 and ran.result["permission_denials"][0]["tool_name"] == "Write"


@pytest.mark.parametrize(
    ("mode", "sign"),
    [
        ("long-line", b"x" * 100_000),
        ("million-lines", b'{"type":"keep_alive"}\n' * 1_000),
        ("not-utf8", b"\xff\xfe\xc3\x28"),
        ("number-line", b"\n123\n"),
        ("list-line", b"\n[]\n"),
        ("null-line", b"\nnull\n"),
        ("string-content", b'"content":"This content is a string."'),
        ("deep-json", b"[" * 100),
        ("huge-integer", b"9" * 5_000),
        ("nan", b":NaN}\n"),
        ("lone-surrogate", b'"\\ud800 is half'),
        ("nul-text", b"before\\u0000after"),
    ],
)
def test_rubbish_in_the_stream_is_followed_by_good_work(house, mode, sign):
    ran = house.fault(mode)
    assert sign in ran.raw and b"\0" not in ran.raw
    assert ran.code == 0 and ran.verdict["summary"] and house.tests_pass()


def test_the_sizes_of_the_floods_are_those_of_the_checks(house):
    ran = house.fault("stderr-flood,million-lines,deep-json", env={"REHEARSAL_SCALE": "1"})
    assert len(ran.errors) > 10_000_000 and ran.errors.endswith("the last words on stderr\n")
    assert ran.raw.count(b"\n") > 1_000_000
    assert b"[" * 100_000 + b"]" * 100_000 in ran.raw
    assert ran.result["subtype"] == "success"


def test_half_a_line_and_no_line_at_all_end_without_a_result(house):
    half, nothing = house.fault("half-line"), house.fault("no-output")
    assert half.code == 0 and not half.raw.endswith(b"\n") and b'"type":"result"' not in half.raw
    assert (nothing.code, nothing.raw) == (0, b"")


def test_exit_1_can_follow_a_success(house):
    ran = house.fault("exit-1-after-success")
    assert ran.code == 1 and ran.result["subtype"] == "success" and not ran.result["is_error"]


def test_a_crash_has_no_result(house):
    for mode, command in (("crash", "dev-story"), ("review-crash", "code-review")):
        ran = house.fault(mode, command)
        assert ran.code == 1 and b'"type":"result"' not in ran.raw and "rehearsal" in ran.errors
    assert house.fault("review-crash", "dev-story").code == 0


def test_an_old_version_can_be_claimed(house):
    assert house.claude_run("--version", REHEARSAL_FAULT="A29").raw.startswith(b"0.")


@pytest.mark.parametrize(
    ("mode", "outcome", "failure"),
    [
        ("usage-limit", "usage_limit", "usage_limit"),
        ("overloaded", "retry", "overloaded"),
        ("network", "retry", "network"),
        ("auth", "stop_batch", "auth"),
        ("billing", "stop_batch", "billing"),
        ("model-not-found", "stop_batch", "model_not_found"),
        ("no-schema", "failed", "schema_not_met"),
        ("permission-denied", "failed", "permission_denied"),
        ("retries", "success", ""),
    ],
)
def test_our_own_adapter_sees_the_class_of_the_failure(house, mode, outcome, failure):
    ran = house.fault(mode)
    stream = agents.by_name("claude").stream()
    for line in ran.raw.splitlines():
        stream.feed(line)
    seen = stream.result(ran.code, None, ran.errors, True, False)
    assert (str(seen.outcome), seen.failure) == (outcome, failure)


# faults: verdicts


@pytest.mark.parametrize(
    ("mode", "highest", "severity", "status"),
    [
        ("review-critical", "CRITICAL", "CRITICAL", "open"),
        ("review-medium", "MEDIUM", "MEDIUM", "fixed"),
        ("same-finding", "HIGH", "HIGH", "open"),
        ("quoted-zero-issues", "HIGH", "HIGH", "open"),
        ("low-claim", "NONE", "HIGH", "open"),
    ],
)
def test_a_review_can_be_made_to_find_what_a_check_needs(house, mode, highest, severity, status):
    house.run("dev-story", KEYS[0])
    ran = house.fault(mode, "code-review")
    (finding,) = ran.verdict["findings"]
    assert (ran.verdict["highest_severity"], finding["severity"], finding["status"]) == (
        highest,
        severity,
        status,
    )


def test_a_quoted_clean_verdict_stands_in_the_text_alone(house):
    ran = house.fault("A17", "code-review")
    assert "ZERO ISSUES" in ran.verdict["summary"] and "HIGHEST SEVERITY: NONE" in ran.verdict["summary"]
    words = house.fault("A17", "code-review", schema=None).result["result"]
    assert "ZERO ISSUES" in words and words.endswith("\nHIGHEST SEVERITY: HIGH")


def test_the_same_finding_comes_back_under_its_id(house):
    first = house.fault("same-finding", "code-review").verdict["findings"][0]
    again = house.fault("same-finding", "code-review", attempt=2, open_findings=[{**first, "id": "f-3"}])
    assert again.verdict["findings"] == [{**first, "id": "f-3"}]


def test_reviews_can_crash_find_and_crash(house):
    house.run("dev-story", KEYS[0])
    codes = [house.fault("A18", "code-review", attempt=n).code for n in (1, 2, 3)]
    assert codes == [1, 0, 1]


def test_create_story_can_forget_decisions_and_files(house):
    ran = house.run("create-story", *KEYS[:2], env={"REHEARSAL_FAULT": "no-decision,forget-second"})
    assert ran.verdict["stories"] == []
    assert [key for key in KEYS if (house.root / ARTEFACTS / f"{key}.md").exists()] == KEYS[:1]


# faults: the repository


def test_dev_story_can_succeed_without_a_change(house):
    assert house.fault("no-change").verdict["summary"]
    assert house.git("status", "--porcelain") == ""


def test_the_agent_can_commit_by_itself(house):
    house.fault("self-commit")
    assert house.git("rev-list", "--count", "HEAD") == "2" and house.git("status", "--porcelain") == ""


def test_the_agent_can_edit_the_status_file(house):
    house.fault("touches-status-file")
    status = (house.root / ARTEFACTS / "sprint-status.yaml").read_text()
    assert f"\n  {KEYS[0]}: done\n" in status and status.endswith("# seen by the agent\n")
    assert status.count("backlog  #") == 1


def test_the_agent_can_put_its_own_story_aside(house):
    house.fault("defers-itself")
    status = (house.root / ARTEFACTS / "sprint-status.yaml").read_text()
    assert f"\n  {KEYS[0]}: deferred\n" in status


def test_the_agent_can_clean_the_tree_and_still_resume(house):
    house.fault("git-clean")
    assert house.git("status", "--porcelain", "--ignored") == ""


def test_the_agent_can_change_branch_and_settings(house):
    house.fault("switch-branch,edits-settings")
    assert house.git("branch", "--show-current") == "rehearsal-branch"
    assert "# the agent was here" in (house.root / "sprintrunner.toml").read_text()


# faults: processes


def launched(house, mode, command="dev-story", **env):
    agent = house.start(*STREAM, *MODE, REHEARSAL_FAULT=mode, REHEARSAL_SCALE="0.05", **env)
    with contextlib.suppress(BrokenPipeError):
        agent.stdin.write(house.prompt(command, KEYS[0]).encode())
        agent.stdin.close()
    agent.stdin = None
    return agent


def killed(agent):
    agent.kill()
    return agent.communicate(timeout=5)[0]


def test_a_hanging_agent_is_silent_after_its_first_line_and_obeys_sigterm(house):
    with launched(house, "hang") as agent:
        assert b'"init"' in agent.stdout.readline()
        assert select.select([agent.stdout], [], [], 0.3)[0] == []
        agent.terminate()
        assert agent.wait(5) == 143


def test_a_talking_agent_does_not_stop_talking(house):
    with launched(house, "talk") as agent:
        lines = [agent.stdout.readline() for _ in range(4)]
        killed(agent)
    assert all(b"a little more" in line for line in lines[1:])


def test_an_agent_that_ignores_sigterm_must_be_killed(house):
    with launched(house, "A23") as agent:
        agent.stdout.readline()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            agent.send_signal(number)
        with pytest.raises(subprocess.TimeoutExpired):
            agent.wait(0.3)
        killed(agent)
    assert agent.returncode == -signal.SIGKILL


def status_of(pid):
    return Path(f"/proc/{pid}/status").read_text()


def test_an_agent_can_stop_itself(house):
    with launched(house, "stop-self") as agent:
        wait_for(lambda: "State:\tT" in status_of(agent.pid), "the agent is stopped")
        agent.send_signal(signal.SIGCONT)
        assert b'"type":"result"' in agent.communicate(timeout=20)[0]


def test_an_agent_can_stay_after_its_result(house):
    with launched(house, "hang-after-result") as agent:
        while b'"type":"result"' not in agent.stdout.readline():
            pass
        assert agent.poll() is None
        killed(agent)


def test_an_agent_can_leave_its_prompt_unread(house):
    with house.start(*STREAM, *MODE, REHEARSAL_FAULT="A28") as agent:
        wait_for(lambda: house.log.exists(), "the agent runs")
        os.set_blocking(agent.stdin.fileno(), False)
        written = agent.stdin.raw.write(b"x" * 1_000_000)
        assert written is None or written < 1_000_000
        assert select.select([agent.stdout], [], [], 0.2)[0] == []
        agent.kill()
        agent.wait(5)
        with contextlib.suppress(OSError):
            agent.stdin.close()
        agent.stdin = None


@pytest.mark.parametrize(("mode", "marked"), [("daemon", True), ("env-daemon", False)])
def test_an_agent_can_leave_a_daemon_of_another_session(house, mode, marked):
    ran = house.fault(mode, env={"SPRINTRUNNER_RUN_ID": "run-4711"})
    assert ran.code == 0 and ran.verdict["summary"]
    (pid,) = house.leftovers()
    assert is_alive(pid)
    wait_for(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n", "the daemon is what it will be")
    assert (b"run-4711" in Path(f"/proc/{pid}/environ").read_bytes()) is marked
    assert os.getsid(pid) not in (os.getsid(0), pid)
    os.kill(pid, signal.SIGTERM)
    if marked:
        assert is_alive(pid)
    else:
        wait_for(lambda: not is_alive(pid), "it obeys SIGTERM")


def test_an_agent_can_leave_many_children(house):
    with launched(house, "A27") as agent:
        wait_for(lambda: len(house.leftovers()) == 10, "200 children, here a twentieth of them")
        assert all(is_alive(pid) for pid in house.leftovers())
        killed(agent)


def test_a_grandchild_can_hold_stdout_after_the_agent_has_gone(house):
    with launched(house, "holds-stdout") as agent:
        assert agent.wait(20) == 0
        wait_for(lambda: house.leftovers(), "the grandchild runs")
        (pid,) = house.leftovers()
        with pytest.raises(subprocess.TimeoutExpired):
            agent.communicate(timeout=0.3)
        os.kill(pid, signal.SIGKILL)
        assert b'"type":"result"' in agent.communicate(timeout=5)[0]


# the table of faults


def test_every_check_of_an_agents_behaviour_has_a_mode():
    assert list(faults.CHECKS) == [f"A{number}" for number in range(1, 30)]
    for check in faults.CHECKS:
        assert {fault.mode for fault in faults.parse(check)} <= set(faults.MODES)


def test_a_selector_limits_a_mode_to_a_command_an_attempt_and_a_story():
    told = faults.parse("hang@dev-story:2#1-1-a, A16@commit ,crash")
    assert faults.active(told, "dev-story", 2, ["1-1-a"]) == {"hang", "crash"}
    assert faults.active(told, "dev-story", 1, ["1-1-a"]) == {"crash"}
    assert faults.active(told, "dev-story", 2, ["1-2-b"]) == {"crash"}
    assert faults.active(told, "commit", 5, []) == {"exit-1-after-success", "crash"}


def test_every_mode_is_tried_here():
    tried = Path(__file__).read_text()
    expanded = {fault.mode for check in re.findall(r'"(A\d+)"', tried) for fault in faults.parse(check)}
    assert {mode for mode in faults.MODES if not re.search(rf'[",]{mode}[",@]', tried)} <= expanded
