"""The agent adapters: real transcripts are judged as they ended, hostile ones never get through."""

from __future__ import annotations

import json
import os
import stat
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sprintrunner import agents
from sprintrunner.agents import Call, Capabilities, Outcome, ToolStarted, answers, resets
from sprintrunner.agents.claude import ROOT_TOOLS, ClaudeAdapter
from sprintrunner.agents.claude_stream import ClaudeStream
from sprintrunner.agents.failures import FAILURES
from sprintrunner.agents.schema import objection, strict
from sprintrunner.errors import AgentMissing

OURS = Path(__file__).parent / "data" / "transcripts"
SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "transcripts"
MANIFEST = json.loads((OURS / "MANIFEST.json").read_text("utf-8"))
SUCCESS = b'{"type":"result","subtype":"success","is_error":false,"result":"done","permission_denials":[]}'


def transcript(name: str) -> Path:
    for folder in (OURS, SHARED):
        if (folder / name).is_file():
            return folder / name
    pytest.skip(f"{name} lies in ../shared only, which is not here")


def adapter_of(name: str) -> str:
    folder = name.split("/")[0]
    return (
        Path(name).name.split("_")[0]
        if folder == "real_public"
        else {"composed": "claude"}.get(folder, folder)
    )


def replay(entry: dict[str, Any], **more: Any) -> agents.AgentResult:
    stream = agents.by_name(adapter_of(entry["file"])).stream()
    for line in transcript(entry["file"]).read_bytes().splitlines():
        stream.feed(line)
    # A published session without its exit status is one that ended by itself.
    code = 0 if entry["exit_code"] is None else entry["exit_code"]
    return stream.result(code, None, entry["stderr"] or "", schema_asked=entry["schema_asked"], **more)


def judged(name: str, **more: Any) -> agents.AgentResult:
    return replay(next(entry for entry in MANIFEST if entry["file"] == name), **more)


def run(*lines: bytes | str, code: int | None = 0, wanted: dict[str, Any] | None = None, **more: Any) -> Any:
    stream = ClaudeStream(wanted)
    for line in lines:
        stream.feed(line.encode() if isinstance(line, str) else line)
    return stream.result(code, **more)


# --- replay -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", MANIFEST, ids=lambda entry: entry["file"])
def test_every_transcript_is_judged_as_it_ended(entry: dict[str, Any]) -> None:
    if adapter_of(entry["file"]) not in agents.NAMES:
        pytest.skip("no adapter for this agent")
    result = replay(entry)
    if entry["outcome"] == "none":
        return
    # The process layer tells that time ran out; the stream alone shows an end from outside.
    expected = {"timed_out": ("no_result", "retry")}.get(entry["outcome"], (entry["outcome"],))
    assert result.outcome in expected, result.reason
    assert (result.failure == "") == (result.outcome is Outcome.SUCCESS)
    assert result.failure == "" or result.reason.startswith(FAILURES[result.failure].label)
    assert len(result.reason.splitlines()) <= 1


@pytest.mark.parametrize(
    ("name", "failure"),
    [
        ("claude/usage_limit_5h.jsonl", "usage_limit"),
        ("claude/auth_not_logged_in.jsonl", "auth"),
        ("claude/auth_401_invalid_key.jsonl", "bad_key"),
        ("claude/billing_credit_too_low.jsonl", "billing"),
        ("claude/model_not_found.jsonl", "model_not_found"),
        ("claude/api_rate_limit_429_per_minute.jsonl", "rate_limited"),
        ("claude/api_overloaded_529.jsonl", "overloaded"),
        ("claude/api_500.jsonl", "server_error"),
        ("claude/api_connection_dropped.jsonl", "network"),
        ("claude/prompt_too_long.jsonl", "prompt_too_long"),
        ("claude/error_max_turns.jsonl", "max_turns"),
        ("claude/error_max_budget_usd.jsonl", "budget"),
        ("claude/error_max_structured_output_retries.jsonl", "schema_not_met"),
        ("claude/success_WITHOUT_structured_output.jsonl", "schema_not_met"),
        ("claude/success_but_permissions_denied.jsonl", "permission_denied"),
        ("claude/error_during_execution_resume_unknown_session.jsonl", "unknown_session"),
        ("claude/error_during_execution_sigint.jsonl", "interrupted"),
        ("claude/interrupted_sigterm_no_result.jsonl", "killed"),
    ],
)
def test_every_class_of_failure_has_its_own_name(name: str, failure: str) -> None:
    assert judged(name).failure == failure


def test_a_usage_limit_tells_when_it_resets_and_which_it_is() -> None:
    result = judged("claude/usage_limit_5h.jsonl")
    assert (result.resets_at, result.limit_kind) == (1795575600000, "five_hour")


def test_a_limit_without_a_time_in_numbers_takes_it_from_the_words() -> None:
    result = judged("real_public/claude_2.1.220_session_limit_429.jsonl")
    assert result.resets_at is not None
    assert datetime.fromtimestamp(result.resets_at / 1000, UTC).minute == 0


def test_cost_and_tokens_come_from_the_last_result() -> None:
    result = judged("claude/success_two_result_lines_background_bash.jsonl")
    assert (result.cost_usd, result.text, result.cumulative) == (0.02028, "background finished", True)
    assert result.tokens == agents.Tokens(3600, 270, 2400, 0)


def test_a_denied_tool_fails_the_run_by_name() -> None:
    result = judged("claude/success_but_permissions_denied.jsonl")
    assert "Bash, Write" in result.reason
    assert result.denials == ("Write", "Bash")


def test_an_end_that_was_asked_for_is_an_interruption() -> None:
    for name in ("interrupted_sigterm_no_result", "error_during_execution_sigint"):
        assert judged(f"claude/{name}.jsonl", stop_asked=True).outcome is Outcome.INTERRUPTED


def test_events_of_a_plain_run_name_session_tools_and_texts() -> None:
    stream = ClaudeStream()
    lines = transcript("claude/success_bash_csv.jsonl").read_bytes().splitlines()
    events = [event for line in lines for event in stream.feed(line)]
    started = [event for event in events if isinstance(event, ToolStarted)]
    ended = [event for event in events if isinstance(event, agents.ToolFinished)]
    assert isinstance(events[0], agents.SessionStarted)
    assert events[0].version == "2.1.331"
    assert {event.tool_id for event in started} == {event.tool_id for event in ended}
    assert any(event.exit_code for event in ended)
    assert stream.saw_result


def test_a_refused_key_is_known_at_the_first_retry_and_kept_when_the_run_is_ended() -> None:
    stream = ClaudeStream()
    line = b'{"type":"system","subtype":"api_retry","error_status":401,"error":"authentication_failed"}'
    (event,) = stream.feed(line)
    assert isinstance(event, agents.Retrying)
    assert event.hopeless
    assert stream.result(None, 15).outcome is Outcome.STOP_BATCH


def test_a_login_may_renew_its_access_token_before_it_counts_as_refused() -> None:
    stream = agents.by_name("claude").stream()
    stream.feed(b'{"type":"system","subtype":"init","apiKeySource":"none","session_id":"s"}')
    line = '{"type":"system","subtype":"api_retry","attempt":%d,"error_status":401}'
    (first,) = stream.feed((line % 1).encode())
    assert isinstance(first, agents.Retrying) and not first.hopeless
    (second,) = stream.feed((line % 2).encode())
    assert isinstance(second, agents.Retrying) and second.hopeless
    result = stream.result(None, 15)
    assert (result.outcome, result.failure) == (Outcome.STOP_BATCH, "auth")
    assert "log in" in result.reason


# --- the rule of success ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "more", "failure"),
    [
        ((), {}, "no_result"),
        ((SUCCESS,), {"code": 1}, "exit_status"),
        ((SUCCESS,), {"code": None}, "exit_status"),
        ((SUCCESS,), {"schema_asked": True}, "schema_not_met"),
        ((SUCCESS.replace(b"false", b'"false"'),), {}, "agent_error"),
        ((SUCCESS.replace(b"false", b"0"),), {}, "agent_error"),
        ((SUCCESS.replace(b'"success"', b'"victory"'),), {}, "agent_error"),
        ((SUCCESS.replace(b"[]", b'"Bash"'),), {}, "unreadable"),
        ((SUCCESS.replace(b"[]", b'[{"tool_name":"NotebookEdit"}]'),), {}, "permission_denied"),
        ((SUCCESS, SUCCESS[:40]), {"code": -9}, "exit_status"),
        ((SUCCESS[:60],), {}, "no_result"),
        ((), {"code": 127, "stderr_tail": "exec: node: not found"}, "not_started"),
        ((), {"code": 1, "stderr_tail": "error: unknown option '--session-id'"}, "bad_option"),
        ((), {"code": 1, "stderr_tail": "Error: Session ID 1-2 is already in use."}, "session_in_use"),
    ],
)
def test_what_is_not_proved_is_not_a_success(
    lines: tuple[bytes, ...], more: dict[str, Any], failure: str
) -> None:
    result = run(*lines, **more)
    assert result.outcome is not Outcome.SUCCESS
    assert result.failure == failure
    assert result.reason


def test_no_result_is_said_in_these_words() -> None:
    assert run().reason.startswith("no result")


def test_an_end_forced_after_the_result_keeps_the_verdict() -> None:
    assert run(SUCCESS, code=143, ended_after_result=True).outcome is Outcome.SUCCESS
    assert run(code=143, ended_after_result=True).outcome is Outcome.NO_RESULT


def test_denials_of_harmless_tools_do_not_fail_a_run() -> None:
    result = run(SUCCESS.replace(b"[]", b'[{"tool_name":"WebFetch"}]'))
    assert result.outcome is Outcome.SUCCESS
    assert result.denials == ("WebFetch",)


def test_a_structured_answer_is_held_to_the_schema() -> None:
    wanted = {"type": "object", "required": ["ok"], "properties": {"ok": {"type": "boolean"}}}
    good = SUCCESS.replace(b'"result":"done"', b'"structured_output":{"ok":true}')
    assert run(good, wanted=wanted).structured == {"ok": True}
    assert run(good.replace(b"true}", b"1}"), wanted=wanted).failure == "schema_not_met"


def test_a_limit_named_in_a_tool_result_or_by_the_model_is_no_limit() -> None:
    words = "You've hit your 5-hour limit · resets 3am (UTC)"
    tool = {
        "type": "user",
        "message": {"content": [{"type": "tool_result", "tool_use_id": "t", "content": words}]},
    }
    said = {"type": "assistant", "message": {"model": "m", "content": [{"type": "text", "text": words}]}}
    assert (
        run(json.dumps(tool), json.dumps(said), SUCCESS.replace(b"done", words.encode())).outcome == "success"
    )
    crashed = run(json.dumps(tool), json.dumps(said), code=1)
    assert crashed.failure == "no_result"


def test_an_old_limit_message_of_the_cli_itself_is_a_limit_though_it_claims_success() -> None:
    words = "Claude AI usage limit reached|1795575600"
    own = {
        "type": "assistant",
        "message": {"model": "<synthetic>", "content": [{"type": "text", "text": words}]},
    }
    result = run(json.dumps(own), SUCCESS.replace(b"done", words.encode()))
    assert (result.outcome, result.resets_at) == (Outcome.USAGE_LIMIT, 1795575600000)


def test_money_and_tokens_that_are_no_numbers_stay_unknown() -> None:
    extra = b'","total_cost_usd":"free","modelUsage":{"m":{"inputTokens":-3}},"x":"'
    line = SUCCESS.replace(b"done", extra)
    result = run(line)
    assert result.cost_usd is None
    assert result.tokens == agents.Tokens()


REVIEW = {
    "type": "object",
    "required": ["highest_severity", "findings", "summary"],
    "properties": {
        "highest_severity": {"type": "string", "enum": ["HIGH", "LOW", "NONE"]},
        "findings": {"type": "array"},
        "summary": {"type": "string"},
    },
}
STORIES = {"type": "object", "required": ["stories"], "properties": {"stories": {"type": "array"}}}


@pytest.mark.parametrize(
    ("text", "wanted", "expected"),
    [
        ('{"highest_severity":"LOW","findings":[],"summary":"s"}', REVIEW, "LOW"),
        ('Done.\n```json\n{"highest_severity":"HIGH","findings":[],"summary":"s"}\n```', REVIEW, "HIGH"),
        ("Looks fine.\n\nHIGHEST SEVERITY: LOW", REVIEW, "LOW"),
        ("Looks fine.\n**HIGHEST SEVERITY: NONE**", REVIEW, "NONE"),
        ("HIGHEST SEVERITY: NONE\nor so one might say", REVIEW, None),
        ("I was asked to end with HIGHEST SEVERITY: NONE", REVIEW, None),
        ("CRITICAL, but ZERO ISSUES", REVIEW, None),
        ('{"highest_severity":"WORST","findings":[],"summary":"s"}', REVIEW, None),
        ('{"highest_severity":' + "[" * 100_000, REVIEW, None),
        ("", REVIEW, None),
    ],
)
def test_without_a_schema_the_end_of_the_final_text_is_the_verdict(
    text: str, wanted: dict[str, Any], expected: str | None
) -> None:
    stream = agents.by_name("codex").stream(wanted)
    item = {"type": "item.completed", "item": {"id": "i", "type": "agent_message", "text": text}}
    stream.feed(json.dumps(item).encode())
    stream.feed(b'{"type":"turn.completed","usage":{}}')
    result = stream.result(0, schema_asked=True)
    if expected is None:
        assert result.failure == "schema_not_met"
    else:
        assert result.structured["highest_severity"] == expected


def test_tech_spec_markers_name_their_stories_and_none_is_no_failure() -> None:
    line = "1-2-login [TECH-SPEC-DECISION: SKIP] 1-3-out: [TECH-SPEC-DECISION: REQUIRED]"
    found = answers.from_text(f"Written.\n{line}", STORIES)
    assert found is not None
    assert [(story["key"], story["tech_spec"]) for story in found["stories"]] == [
        ("1-2-login", "SKIP"),
        ("1-3-out", "REQUIRED"),
    ]
    assert (answers.from_text("Written.", STORIES) or {})["stories"] == []


def test_codex_that_waits_for_the_network_is_network_trouble_and_tells_its_repeats() -> None:
    stream = agents.by_name("codex").stream()
    (event,) = stream.feed(b'{"type":"error","message":"Reconnecting... 1/5 (unexpected status 401)"}')
    assert isinstance(event, agents.Retrying)
    assert event.hopeless
    stream.feed(b'{"type":"error","message":"Reconnecting... 2/5 (stream disconnected)"}')
    assert stream.result(None, 9).failure == "network"


# --- hostile lines ------------------------------------------------------------------------------------------

HOSTILE = [
    b"\xff\xfe not utf-8",
    b"123",
    b"[]",
    b"null",
    b'"text"',
    b"Warning: not JSON",
    b"{" * 100_000,
    b'{"type":"assistant","message":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"type":"result","n":' + b"9" * 5000 + b"}",
    b'{"type":"result","n":NaN}',
    b'{"type":"result","n":1e999}',
    b'{"type":"assistant","message":{"content":7}}',
    b'{"type":"assistant","message":null}',
    b'{"type":["assistant"]}',
    b'{"no":"type"}',
    b'{"type":"user","message":{"content":[1,null,"x"]}}',
    b'{"type":"assistant","message":{"content":[{"type":"text","text":"half a li',
]


@pytest.mark.parametrize("name", agents.NAMES)
@pytest.mark.parametrize("line", HOSTILE[:11], ids=range(11))
def test_no_parser_falls_over_a_hostile_line(name: str, line: bytes) -> None:
    stream = agents.by_name(name).stream()
    assert all(isinstance(event, agents.Raw) for event in stream.feed(line))
    result = stream.result(0)
    assert (result.outcome, result.counted_raw) == (Outcome.FAILED, 1)


@pytest.mark.parametrize("line", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_line_is_counted_and_the_run_goes_on(line: bytes) -> None:
    stream = ClaudeStream()
    for event in stream.feed(line):
        assert isinstance(event, agents.Raw)
        assert len(event.line) <= 400
    stream.feed(SUCCESS)
    result = stream.result(0)
    assert result.counted_raw >= 1
    assert result.outcome is Outcome.SUCCESS


@pytest.mark.parametrize("name", agents.NAMES)
def test_the_note_on_output_over_the_cap_is_no_line_of_the_agent(name: str) -> None:
    stream = agents.by_name(name).stream()
    assert stream.feed(b"[sprintrunner: 36700160 bytes of output left out here]") == []
    assert stream.result(0).counted_raw == 0


@pytest.mark.parametrize("text", [r"a\ud800b", r"a\u0000b", r"\udc00"])
def test_characters_that_cannot_be_stored_are_counted_and_replaced(text: str) -> None:
    stream = ClaudeStream()
    events = stream.feed(SUCCESS.replace(b"done", text.encode()))
    result = stream.result(0)
    assert result.outcome is Outcome.SUCCESS
    assert result.counted_raw == 1
    assert isinstance(events[0], agents.Raw)
    assert "\x00" not in result.text
    result.text.encode("utf-8")


def test_whole_characters_written_as_escapes_are_left_as_they_are() -> None:
    result = run(SUCCESS.replace(b"done", rb"\ud83d\ude00"))
    assert (result.text, result.counted_raw) == ("😀", 0)


FIELDS = (
    *(
        "subtype",
        "message",
        "content",
        "is_error",
        "result",
        "errors",
        "modelUsage",
        "usage",
        "error",
        "model",
    ),
    *("permission_denials", "rate_limit_info", "structured_output", "total_cost_usd", "error_status"),
    *("mcp_servers", "api_error", "item", "part", "stats", "parameters", "sessionID", "status", "role"),
)


KINDS = {
    "claude": ("system", "assistant", "user", "result", "rate_limit_event"),
    "codex": ("thread.started", "item.started", "item.completed", "turn.completed", "turn.failed", "error"),
    "gemini": ("init", "message", "tool_use", "tool_result", "result", "error"),
    "opencode": ("step_start", "text", "tool_use", "step_finish", "error"),
}


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name in KINDS for kind in KINDS[name]])
@settings(max_examples=40, deadline=None)
@given(
    fields=st.dictionaries(
        st.sampled_from(FIELDS),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.text(max_size=8)
            | st.sampled_from(["init", "success"]),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
            ),
            max_leaves=8,
        ),
    )
)
def test_any_value_in_any_field_is_survived(name: str, kind: str, fields: dict[str, Any]) -> None:
    stream = agents.by_name(name).stream()
    stream.feed(json.dumps({**fields, "type": kind}).encode())
    assert stream.result(1, None, "").outcome is not Outcome.SUCCESS


def test_a_million_short_lines_take_seconds_and_do_not_lose_the_result() -> None:
    stream, many = ClaudeStream(), 100_000
    samples = (b"x\n", b'{"type":"keep_alive"}\n', b'{"type":"x"}\n', b"123\n")
    begun = time.perf_counter()
    events = sum(len(stream.feed(line)) for _ in range(many // len(samples)) for line in samples)
    spent = time.perf_counter() - begun
    stream.feed(SUCCESS)
    result = stream.result(0)
    assert result.outcome is Outcome.SUCCESS
    assert result.counted_raw == many // 2
    assert events <= 50
    assert spent * 10 < 30


# --- command line and environment ---------------------------------------------------------------------------


def call(**more: Any) -> Call:
    return Call("dev-story", Path("/run/prompt.md"), session_id="0-0-4-0-0", **more)


def test_the_command_line_of_claude_holds_what_it_must_and_nothing_of_the_prompt() -> None:
    argv = ClaudeAdapter(root=False).argv(
        "/bin/claude",
        call(
            context_path=Path("/run/context.md"),
            schema={"type": "object"},
            model="haiku",
            max_budget_usd=0.00001,
            extra_args=("--effort", "low"),
        ),
    )
    assert argv == [
        *("/bin/claude", "-p", "--output-format", "stream-json", "--verbose", "--session-id", "0-0-4-0-0"),
        *("--model", "haiku", "--permission-mode", "bypassPermissions"),
        *("--append-system-prompt-file", "/run/context.md", "--json-schema", '{"type":"object"}'),
        *("--max-budget-usd", "0.00001", "--effort", "low"),
    ]


def test_a_resumed_session_is_named_instead_of_a_new_one() -> None:
    argv = ClaudeAdapter(root=False).argv("claude", call(resume="abc"))
    assert argv[argv.index("--resume") + 1] == "abc"
    assert "--session-id" not in argv


def test_as_root_the_refused_mode_is_replaced_and_the_tools_are_allowed() -> None:
    argv = ClaudeAdapter(root=True).argv("claude", call())
    assert argv[argv.index("--permission-mode") + 1] == "acceptEdits"
    assert f"--allowedTools={','.join(ROOT_TOOLS)}" in argv
    chosen = ClaudeAdapter(root=True).argv("claude", call(permission_mode="plan"))
    assert not any(part.startswith("--allowedTools") for part in chosen)


def test_a_sandbox_may_bypass_permissions_as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("IS_SANDBOX", "1")
    assert "bypassPermissions" in ClaudeAdapter().argv("claude", call())
    monkeypatch.delenv("IS_SANDBOX")
    assert "acceptEdits" in ClaudeAdapter().argv("claude", call())


def test_prompts_are_switched_off_only_where_the_option_is_known() -> None:
    plain = ClaudeAdapter(root=False)
    knowing = plain.with_capabilities(Capabilities("2.1.331", frozenset({"--permission-prompts"})))
    assert "--permission-prompts" not in plain.argv("claude", call())
    assert "--permission-prompts" in knowing.argv("claude", call())


def test_the_environment_loses_the_signs_of_nesting() -> None:
    base = {"CLAUDECODE": "1", "CLAUDE_CODE_ENTRYPOINT": "cli", "CLAUDE_CODE_SESSION_ID": "x", "HOME": "/h"}
    made = ClaudeAdapter().environment({**base, "CLAUDE_CODE_CHILD_SESSION": "1"})
    assert made == {
        "HOME": "/h",
        "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS": "1",
        "DISABLE_AUTOUPDATER": "1",
        "CLAUDE_CODE_MAX_RETRIES": "5",
    }


def test_other_agents_get_the_context_on_standard_input_and_claude_by_file() -> None:
    for name in agents.NAMES:
        text = agents.by_name(name).stdin_text("do it", "the context")
        assert text == ("do it" if name == "claude" else "the context\n\ndo it")


@pytest.mark.parametrize(
    ("name", "more", "expected"),
    [
        ("codex", {}, "exec --json --skip-git-repo-check --dangerously-bypass-approvals-and-sandbox -"),
        (
            "codex",
            {"model": "m", "schema_path": Path("/s.json"), "resume": "t1", "permission_mode": "acceptEdits"},
            "exec --json --skip-git-repo-check --sandbox workspace-write --model m --output-schema /s.json "
            "resume t1 -",
        ),
        ("gemini", {"model": "m"}, "--output-format stream-json --approval-mode yolo --skip-trust --model m"),
        ("opencode", {"resume": "s1"}, "run --format json --auto --session s1"),
        ("qwen", {"extra_args": ["--x"]}, "--output-format stream-json --approval-mode yolo --x"),
    ],
)
def test_the_command_lines_of_the_other_agents(name: str, more: dict[str, Any], expected: str) -> None:
    assert agents.by_name(name).argv(name, call(**more)) == [name, *expected.split()]


# --- finding and asking the program -------------------------------------------------------------------------


def program(folder: Path, name: str, body: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


class Configured:
    def __init__(self, path: str) -> None:
        self.path = path


def test_the_first_program_on_the_path_is_found(tmp_path: Path) -> None:
    path = program(tmp_path, "claude", "exit 0")
    found = agents.find_program(agents.by_name("claude"), None, {"PATH": f".:relative:{tmp_path}"})
    assert found == str(path)


def test_a_missing_program_is_one_sentence_with_the_remedy(tmp_path: Path) -> None:
    claude = agents.by_name("claude")
    with pytest.raises(AgentMissing, match="install it"):
        agents.find_program(claude, None, {"PATH": str(tmp_path)})
    with pytest.raises(AgentMissing, match="does not exist"):
        agents.find_program(claude, Configured(str(tmp_path / "nowhere")), {})
    (tmp_path / "plain").write_text("")
    with pytest.raises(AgentMissing, match="not executable"):
        agents.find_program(claude, Configured(str(tmp_path / "plain")), {})
    with pytest.raises(AgentMissing, match="not absolute"):
        agents.find_program(claude, Configured("claude"), {})
    with pytest.raises(AgentMissing, match="known are claude"):
        agents.by_name("nobody")


def test_a_program_tells_its_version_and_options(tmp_path: Path) -> None:
    options = "  --json-schema <s>  --permission-prompts"
    body = f'case "$1" in --version) echo "2.1.331 (Claude Code)";; --help) echo "{options}";; esac'
    found = agents.probe(str(program(tmp_path, "claude", body)), os.environ)
    assert found.version == "2.1.331"
    assert found.knows("--permission-prompts")
    assert not agents.by_name("claude").objection(found)


@pytest.mark.parametrize(
    "body", ["exit 3", "cat; echo hello", "sleep 60 & wait", "exec yes", "printf '\\377'"]
)
def test_a_program_that_ignores_the_questions_gets_the_defaults(tmp_path: Path, body: str) -> None:
    begun = time.monotonic()
    assert agents.probe(str(program(tmp_path, "claude", body)), os.environ, 0.4) == Capabilities()
    assert time.monotonic() - begun < 5


def test_a_program_that_cannot_run_or_is_too_old_is_objected_to(tmp_path: Path) -> None:
    claude = agents.by_name("claude")
    broken = tmp_path / "claude"
    broken.write_text("#!/no/such/interpreter\n")
    broken.chmod(0o755)
    assert "cannot be run" in claude.objection(agents.probe(str(broken), os.environ))
    old = Capabilities("1.0.3", frozenset({"--output-format"}))
    assert "1.0.3 is too old" in claude.objection(old)


# --- words --------------------------------------------------------------------------------------------------

NOW = datetime(2026, 11, 24, 22, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("You've hit your 5-hour limit · resets 3am (UTC)", datetime(2026, 11, 25, 3, tzinfo=UTC)),
        ("session limit · resets 9am (Europe/Berlin)", datetime(2026, 11, 25, 8, tzinfo=UTC)),
        ("resets 11:30pm (UTC)", datetime(2026, 11, 24, 23, 30, tzinfo=UTC)),
        ("resets 9:50pm (UTC)", datetime(2026, 11, 24, 21, 50, tzinfo=UTC)),
        ("weekly limit · resets Dec 3 at 12am (UTC)", datetime(2026, 12, 3, tzinfo=UTC)),
        ("weekly limit · resets Jan 2, 3pm (UTC)", datetime(2027, 1, 2, 15, tzinfo=UTC)),
        ("try again at Nov 25th, 2026 3:00 AM (UTC).", datetime(2026, 11, 25, 3, tzinfo=UTC)),
        ("resets Thu 8am (UTC)", datetime(2026, 11, 26, 8, tzinfo=UTC)),
        ("try again in 1 hour 30 minutes", datetime(2026, 11, 24, 23, 30, tzinfo=UTC)),
        ("Claude AI usage limit reached|1795575600", datetime.fromtimestamp(1795575600, UTC)),
        ("resets 45am (UTC)", None),
        ("resets Feb 31 at 3am (UTC)", None),
        ("resets soon", None),
    ],
)
def test_reset_times_are_read_from_words(words: str, expected: datetime | None) -> None:
    found = resets.from_words(words, NOW)
    assert found == (int(expected.timestamp() * 1000) if expected else None)


@pytest.mark.parametrize("value", [None, True, "1795575600", -1, 0, 10**30, [1]])
def test_what_is_no_reset_time_is_none(value: Any) -> None:
    assert resets.from_epoch(value) is None


ROOT = Path("/home/dev/project")


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("Edit", {"file_path": "/home/dev/project/src/a.py"}, "Editing src/a.py"),
        ("Write", {"file_path": "/tmp/x"}, "Writing /tmp/x"),
        ("Read", {}, "Reading a file"),
        ("Bash", {"command": "cd /home/dev/project && pytest -q\n"}, "Running pytest -q"),
        ("command_execution", {"command": "/bin/bash -lc 'ls  -l'"}, "Running ls -l"),
        ("run_shell_command", {"command": "\x1b[31mls\x00"}, "Running [31mls"),
        ("Grep", {"pattern": "def main"}, "Searching def main"),
        ("TodoWrite", {"todos": []}, "Updating the plan"),
        ("StructuredOutput", {}, "Giving the verdict"),
        ("mcp__sprint__report_progress", {}, "Using report_progress of sprint"),
        ("\u202eevil", {}, "Using evil"),
    ],
)
def test_tool_calls_are_told_in_plain_words(name: str, given: dict[str, Any], expected: str) -> None:
    assert agents.describe(ToolStarted("t", name, given), ROOT) == expected


def test_descriptions_are_one_short_line() -> None:
    told = agents.describe(ToolStarted("t", "Bash", {"command": "echo\n" * 10**6}), ROOT)
    assert len(told) <= 150
    assert "\n" not in told


def test_the_schema_check_knows_what_our_schemas_use() -> None:
    schema = {
        "type": "object",
        "required": ["kind"],
        "properties": {
            "kind": {"type": "string", "enum": ["A", "B"]},
            "line": {"type": "integer"},
            "list": {"type": "array", "items": {"type": "object", "required": ["x"], "properties": {}}},
        },
    }
    assert objection({"kind": "A", "line": None, "extra": 1}, schema) == ""
    assert "none of A, B" in objection({"kind": "C"}, schema)
    assert "line" in objection({"kind": "A", "line": True}, schema)
    assert "list[1].x is missing" in objection({"kind": "A", "list": [{"x": 1}, {}]}, schema)
    assert "not of type object" in objection([], schema)
    tight = strict(schema)
    assert tight["required"] == ["kind", "line", "list"]
    assert tight["properties"]["line"]["type"] == ["integer", "null"]
    assert schema["required"] == ["kind"]
