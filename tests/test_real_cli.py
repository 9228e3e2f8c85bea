"""The real Claude Code, driven by the real engine, its model scripted: what the adapter assumes, holds."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from realcli import bench, install, model
from realcli.mock_api import BAD_TOKEN, OVERLOADED, MockApi, Model, Reply, Silence, Use, usage_limit

# The first test also waits for the download of the CLI.
pytestmark = [pytest.mark.realcli, pytest.mark.timeout(install.PATIENCE + 120)]

AS_ROOT = os.geteuid() == 0
Make = Callable[[Model], bench.Bench]


@pytest.fixture(scope="session")
def claude() -> Path:
    """The pinned CLI; without it the tests are skipped, or fail where REQUIRE_REAL_CLI=1."""
    try:
        return install.program()
    except install.Unavailable as error:
        if os.environ.get("REQUIRE_REAL_CLI") == "1":
            pytest.fail(f"REQUIRE_REAL_CLI=1, but Claude Code {install.VERSION} could not be had: {error}")
        pytest.skip(f"Claude Code {install.VERSION} could not be had: {error}")


@pytest.fixture
def make(claude: Path, tmp_path: Path) -> Iterator[Make]:
    """Makes the bench for a model. At the end nothing runs, and nothing had tried to leave the machine."""
    made: list[bench.Bench] = []

    def one(script: Model) -> bench.Bench:
        api = MockApi(script)
        api.__enter__()
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(bench.make(folder, api, claude))
        return made[-1]

    yield one
    left = [process.name() for each in made for process in each.processes()]
    for each in made:
        each.clean_up()
        each.api.__exit__(None, None, None)
    for each in made:
        assert each.api.faults == []
        assert each.api.strays == []
        assert {credential for credential, _ in each.api.credentials} <= {"Bearer a-token-for-tests"}
    assert left == []


def refused_tools(made: bench.Bench) -> list[str]:
    """The tool results that were errors."""
    results = itertools.chain.from_iterable(request.results for request in made.api.requests)
    return [text for is_error, text in results if is_error]


def test_one_story_goes_from_the_backlog_to_a_commit(make: Make) -> None:
    made = make(model.works)
    ended = made.run(ANTHROPIC_API_KEY="sk-ant-not-to-be-used", budget_usd_per_story=5)
    assert (ended.status, ended.stderr) == (0, "")
    rows = made.commands()
    ran = [(row.command, str(row.status)) for row in rows if row.agent == "claude"]
    ran[1:3] = sorted(ran[1:3])  # started together: either may be first
    assert ran == [
        ("generate-project-context", "succeeded"),
        ("create-story", "succeeded"),
        ("create-story-discovery", "succeeded"),
        ("story-review", "succeeded"),
        ("dev-story", "succeeded"),
        ("code-review", "succeeded"),
        ("code-review", "succeeded"),
    ]
    assert refused_tools(made) == []
    # Settings, context and key reached the CLI as meant.
    assert made.init(rows[0].id)["claude_code_version"] == install.VERSION
    assert made.init(rows[0].id)["permissionMode"] == ("acceptEdits" if AS_ROOT else "bypassPermissions")
    assert "haiku" in made.api.requests[-1].model and "haiku" not in made.api.requests[0].model
    developing = next(request for request in made.api.requests if request.command == "dev-story")
    assert model.CONTEXT.strip() in developing.system and "1.2: Thirst schedule" in developing.system
    assert {key for _, key in made.api.credentials} == {None}
    # The agent's own report came through its shell, and money and tokens were told.
    assert "tests" in {payload["task_id"] for payload in ended.payloads("command:progress")}
    assert all(row.cost_usd and row.tokens_in and row.session_id for row in rows if row.agent == "claude")
    # And all of it is one commit.
    assert made.story_status() == "done"
    assert made.git("status", "--porcelain") == ""
    assert not (made.root / ".claude").exists()
    assert "Sprint-Story: 1-2-thirst-schedule" in made.git("log", "-1", "--format=%B")
    assert "Whole days until" in made.git("show", "HEAD:windowsill/thirst.py")


def test_in_a_sandbox_all_is_allowed_and_what_is_left_running_is_ended(make: Make) -> None:
    daemon = model.bash("nohup setsid sleep 600 > /dev/null 2>&1 & echo $! > left.txt; disown")
    made = make(model.Trouble(lambda: daemon))
    made.enter("review")
    ended = made.run(IS_SANDBOX="1")
    assert (ended.status, ended.stderr) == (0, "")
    assert made.init(made.commands()[0].id)["permissionMode"] == "bypassPermissions"
    assert refused_tools(made) == []
    assert not psutil.pid_exists(int((made.root / "left.txt").read_text("utf-8")))


def test_a_usage_limit_is_slept_out_and_the_agent_session_goes_on(make: Make) -> None:
    made = make(model.Trouble(lambda: usage_limit(2)))
    made.enter("review")
    ended = made.run()
    assert (ended.status, ended.stderr) == (0, "")
    limited, resumed = made.commands()[:2]
    assert (str(limited.status), limited.outcome, limited.counted) == ("limited", "usage_limit", 0)
    assert "5-hour limit" in (limited.reason or "")
    assert (str(resumed.status), resumed.session_id) == ("succeeded", limited.session_id)
    asleep = next(payload for payload in ended.payloads("batch:warning") if payload.get("resumes_at"))
    assert asleep["limit_kind"] == "five_hour"
    assert resumed.started_at >= asleep["resumes_at"]
    # The same conversation went on, and its total cost is counted once.
    assert made.api.requests[-1].turns_before == 1
    total = made.lines(resumed.id)[-1]["total_cost_usd"]
    assert (limited.cost_usd or 0) + (resumed.cost_usd or 0) == pytest.approx(total)


def test_overload_is_retried_first_by_the_cli_and_then_by_us(make: Make) -> None:
    made = make(model.Trouble(lambda: OVERLOADED, times=3))
    made.enter("review")
    # One retry a process: the first run gives up, the second one gets through.
    ended = made.run(CLAUDE_CODE_MAX_RETRIES="1")
    assert (ended.status, ended.stderr) == (0, "")
    first, second = made.commands()[:2]
    assert (str(first.status), first.outcome, first.counted) == ("failed", "overloaded", 0)
    assert "Overloaded" in (first.reason or "")
    assert (str(second.status), second.counted) == ("succeeded", 1)


def test_an_access_token_that_ran_out_once_is_no_reason_to_stop(make: Make) -> None:
    made = make(model.Trouble(lambda: BAD_TOKEN))
    made.enter("review")
    ended = made.run()
    assert (ended.status, ended.stderr) == (0, "")
    assert [(row.command, str(row.status)) for row in made.commands()] == [
        ("code-review", "succeeded"),
        ("commit", "succeeded"),
    ]


@pytest.mark.parametrize("token", ["a-token-for-tests", ""], ids=["refused", "missing"])
def test_without_a_login_the_batch_stops_and_the_story_keeps_its_status(make: Make, token: str) -> None:
    made = make(model.Trouble(lambda: BAD_TOKEN, times=99))
    made.enter("review")
    ended = made.run(CLAUDE_CODE_OAUTH_TOKEN=token)
    assert ended.status == 1
    end = ended.payloads("batch:end")[-1]
    assert end["status"] == "failed"
    assert "log in with the agent program" in end["reason"]
    (only,) = made.commands()
    assert (str(only.status), only.outcome, only.counted) == ("failed", "auth", 0)
    assert made.story_status() == "review"


def test_a_review_without_a_verdict_is_no_review(make: Make) -> None:
    # Twice, because the CLI itself asks for the verdict once more.
    made = make(model.Trouble(lambda: Reply(text="HIGHEST SEVERITY: NONE"), times=2))
    made.enter("review")
    ended = made.run()
    assert (ended.status, ended.stderr) == (0, "")
    first, *_, review, _commit = made.commands()
    assert (str(first.status), first.outcome) == ("failed", "schema_not_met")
    assert (str(review.status), review.verdict["highest_severity"]) == ("succeeded", "NONE")


def test_a_refused_tool_fails_the_attempt_by_name(make: Make) -> None:
    # Not even a mode that accepts edits lets it write a hook.
    write = Use("Write", {"file_path": ".git/hooks/pre-commit", "content": "exit 1"})
    made = make(model.Trouble(lambda: Reply([write]), turn=0, otherwise=model.approves_at_once))
    made.enter("review")
    ended = made.run(permission_mode="acceptEdits")
    assert (ended.status, ended.stderr) == (0, "")
    refused, fine = made.commands()[:2]
    assert (str(refused.status), refused.outcome) == ("failed", "permission_denied")
    assert "Write" in (refused.reason or "")
    assert str(fine.status) == "succeeded"


def test_silence_and_endless_work_are_ended_and_the_agent_session_goes_on(make: Make) -> None:
    # The second one is never silent: it uses the processor. Side by side, because both take their time.
    silent = make(model.Trouble(Silence))
    busy = make(model.Trouble(lambda: model.bash("while :; do :; done")))
    running = []
    for each, minutes in ((silent, 1.0), (busy, 0.1)):
        each.enter("review")
        running.append(each.start(silence_timeout_minutes=0.05, command_timeout_minutes=minutes))
    for each, process, how in zip((silent, busy), running, ("idle", "wall"), strict=True):
        ended = each.finish(process)
        assert (ended.status, ended.stderr) == (0, "")
        cut_off, fine, _commit = each.commands()
        assert (str(cut_off.status), cut_off.ended_by) == ("timed_out", how)
        assert (str(fine.status), fine.session_id) == ("succeeded", cut_off.session_id)
        assert each.api.requests[-1].turns_before > 0


def test_sigterm_leaves_no_process_and_no_commit(make: Make) -> None:
    daemon = "nohup setsid sleep 600 > /dev/null 2>&1 & disown; echo started > left.txt; sleep 600"
    made = make(model.Trouble(lambda: model.bash(daemon), times=99))
    made.enter("review")
    before = made.git("rev-parse", "HEAD")
    process = made.start()
    bench.awaited((made.root / "left.txt").exists)
    # A shell that has just forked still bears its own name.
    bench.awaited(lambda: {"claude", "sleep"} <= {each.name() for each in made.processes()})
    os.killpg(process.pid, signal.SIGTERM)
    ended = made.finish(process)
    assert ended.status == 3
    assert ended.payloads("batch:end")[-1]["status"] == "stopped"
    assert made.processes() == []
    assert [str(row.status) for row in made.commands()] == ["stopped"]
    assert (made.story_status(), made.git("rev-parse", "HEAD")) == ("review", before)
    assert (made.root / "left.txt").exists()


def test_after_kill_9_nothing_is_left_and_the_next_run_goes_on(make: Make) -> None:
    made = make(model.Trouble(lambda: model.bash("echo started > left.txt; sleep 600")))
    made.enter("review")
    process = made.start()
    bench.awaited((made.root / "left.txt").exists)
    process.kill()
    process.communicate()
    bench.awaited(lambda: made.processes() == [])
    ended = made.run()
    assert (ended.status, ended.payloads("batch:end")[-1]["status"]) == (0, "all_done")
    killed, resumed, _commit = made.commands()
    assert str(killed.status) == "interrupted"
    assert (str(resumed.status), resumed.session_id) == ("succeeded", killed.session_id)
    assert made.api.requests[-1].turns_before > 0
    assert made.story_status() == "done"
