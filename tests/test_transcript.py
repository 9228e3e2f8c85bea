"""A transcript becomes parts: numbered by line, results joined to their calls, whatever the lines hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sprintrunner import transcript
from sprintrunner.redact import MARK, redact
from sprintrunner.transcript import Part, Window

ROOT = Path("/home/dev/project")
SECRET = "sk-ant-api03-" + "a" * 60


def line(kind: str, *content: Any, **more: Any) -> str:
    return json.dumps({"type": kind, "message": {"content": list(content)}, **more})


def use(tool: str, name: str, **given: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": tool, "name": name, "input": given}


def got(tool: str, text: str, error: bool = False) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": tool, "content": text, "is_error": error}


def write(folder: Path, *lines: str) -> Path:
    path = folder / "1.jsonl"
    path.write_text("".join(f"{one}\n" for one in lines))
    return path


def read(path: Path, **more: Any) -> Window:
    return transcript.read(path, "claude", ROOT, clean=redact, **more)


def told(part: Part) -> tuple[int, str, str, str]:
    return part.line, part.title, part.what, part.state


def test_each_part_has_the_number_of_its_line_and_a_result_joins_its_call(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        line("assistant", {"type": "thinking", "thinking": "three words here"}),
        line(
            "assistant",
            use("a", "Read", file_path="/home/dev/project/src/a.py"),
            use("b", "Bash", command="ls"),
        ),
        line("user", got("b", "Exit code 2\nnot found", True), timestamp="2026-09-16T02:00:01.500Z"),
        line("user", got("a", "1\n2\n3")),
        "this is no JSON",
    )
    parts = read(path).parts
    assert [told(part) for part in parts] == [
        (1, "Thinking", "3 words", ""),
        (2, "Read", "src/a.py", "passed"),
        (2, "Run", "ls", "failed"),
        (5, "No event", "not a JSON object", ""),
    ]
    assert [part.slot for part in parts] == ["L1", "L2", "L2-2", "L5"]
    assert parts[1].body.lines == 3 and parts[2].exit_code == 2
    assert parts[2].ended == 1_789_524_001_500


def test_an_edit_is_a_diff_and_counts_its_lines(tmp_path: Path) -> None:
    old, new = "a = 1\nb = 2\nc = 3\n", "a = 1\nb = 20\nd = 4\nc = 3\n"
    given = use("a", "Edit", file_path="x.py", old_string=old, new_string=new)
    body = read(write(tmp_path, line("assistant", given))).parts[0].body
    assert (body.added, body.removed) == (2, 1)
    assert ("-", "b = 2") in body.diff and ("+", "b = 20") in body.diff and (" ", "a = 1") in body.diff


def test_a_long_output_keeps_its_end_where_the_reason_stands(tmp_path: Path) -> None:
    output = "start\n" + "x" * 50_000 + "\n1 failed: test_totals"
    path = write(
        tmp_path,
        line("assistant", use("a", "Bash", command="pytest")),
        line("user", got("a", output, True)),
    )
    shown = read(path).parts[0].body.output
    assert shown.startswith("start") and shown.endswith("1 failed: test_totals")
    assert "characters left out" in shown and len(shown) < 7_000


def test_secrets_are_gone_before_a_part_is_made(tmp_path: Path) -> None:
    given = use("a", "Bash", command=f"curl -H {SECRET}\nls")
    path = write(tmp_path, line("assistant", given), line("user", got("a", f"token {SECRET}")))
    (part,) = read(path).parts
    assert SECRET not in part.text and part.text.count(MARK) == 3


def test_the_result_tells_its_summary_and_what_it_cost(tmp_path: Path) -> None:
    ended = {
        "type": "result",
        "subtype": "success",
        "is_error": False,
        "result": "done",
        "structured_output": {"summary": "9 of 9 tasks ticked"},
        "total_cost_usd": 0.61,
        "usage": {"input_tokens": 5, "output_tokens": 7},
    }
    (part,) = read(write(tmp_path, json.dumps(ended))).parts
    assert (part.title, part.what, part.state) == ("Result: success", "9 of 9 tasks ticked", "passed")
    assert part.cost_usd == 0.61 and part.tokens is not None and part.tokens.output == 7


def test_a_call_without_result_runs_while_the_command_does(tmp_path: Path) -> None:
    path = write(tmp_path, line("assistant", use("a", "Bash", command="sleep 9")))
    assert read(path, live=True).parts[0].state == "running"
    assert read(path).parts[0].state == "unknown"


def test_a_long_transcript_is_read_in_windows_that_lose_no_result(tmp_path: Path) -> None:
    lines = []
    for number in range(1_000):
        lines.append(line("assistant", use(f"t{number}", "Bash", command=f"step {number}")))
        lines.append(line("user", got(f"t{number}", "ok")))
    path = write(tmp_path, *lines)
    newest = read(path, size=300)
    assert (newest.first, newest.last, newest.total) == (1701, 2000, 2000)
    middle = read(path, size=299, first=1)
    assert middle.parts[-1].what == "step 149" and middle.parts[-1].state == "passed", (
        "its result lies outside"
    )
    assert [part.line for part in middle.parts] == list(range(1, 300, 2))


def test_lines_that_are_no_part_widen_the_window(tmp_path: Path) -> None:
    noise = ['{"type":"stream_event","event":{}}'] * 3_000
    path = write(tmp_path, line("assistant", {"type": "text", "text": "first words"}), *noise)
    assert read(path, size=100).parts[0].body.text == "first words"


def test_reading_on_ends_where_no_call_waits(tmp_path: Path) -> None:
    first = line("assistant", use("a", "Bash", command="one"))
    path = write(tmp_path, line("assistant", {"type": "text", "text": "hello"}), first)
    (portion,) = _portions(path, 0, 0, final=False)
    assert [part.title for part in portion.parts] == [""] and portion.line == 1
    with path.open("a") as file:
        file.write(line("user", got("a", "answer")) + "\n" + '{"type":"assist')
    (rest,) = _portions(path, portion.offset, portion.line, final=False)
    assert [(part.what, part.body.output) for part in rest.parts] == [("one", "answer")]
    assert rest.line == 3, "the line that is still being written is left for later"


def _portions(path: Path, offset: int, number: int, final: bool) -> list[transcript.Portion]:
    read_on = transcript.portions(path, "claude", ROOT, clean=redact, offset=offset, line=number, final=final)
    return list(read_on)


@pytest.mark.parametrize("agent", ["claude", "codex", "gemini", "opencode", "qwen", "never-heard-of"])
def test_any_agents_transcript_is_shown(tmp_path: Path, agent: str) -> None:
    path = write(tmp_path, line("assistant", {"type": "text", "text": "words"}), "rubbish", "")
    window = transcript.read(path, agent, ROOT, clean=redact)
    assert window.total == 3 and any(part.kind == "raw" for part in window.parts)


def test_every_recorded_transcript_of_a_real_agent_becomes_parts(repository: Path) -> None:
    for path in sorted((repository / "tests/data/transcripts/claude").glob("*.jsonl")):
        window = read(path)
        assert window.parts, path.name
        assert all(part.line <= window.total for part in window.parts)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=400))
def test_no_bytes_break_it(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(data)
    window = read(path)
    assert window.total == data.count(b"\n") + bool(data and not data.endswith(b"\n"))


def test_an_empty_transcript_has_no_parts(tmp_path: Path) -> None:
    assert read(write(tmp_path)) == Window((), 1, 0, 0)


def test_lines_of_a_growing_file_are_counted_and_found_over_many_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transcript, "_CHUNK", 64)
    path, written = tmp_path / "7.jsonl", b""
    for size in (0, 1, 30, 62, 63, 64, 65, 200, 0, 5):
        written += b"x" * size + b"\n"
        path.write_bytes(written + b"unfinished")
        with path.open("rb") as file:
            lines = written.split(b"\n")[:-1]
            assert transcript._count(file, live=True) == len(lines)
            assert transcript._count(file, live=False) == len(lines) + 1
            for number in range(1, len(lines) + 2):
                transcript._seek(file, number)
                assert file.tell() == sum(len(line) + 1 for line in lines[: number - 1])
        path.write_bytes(written)


def test_a_file_made_anew_under_its_name_is_counted_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transcript, "_CHUNK", 64)
    path = tmp_path / "8.jsonl"
    for text, lines in ((b"a\n" * 300, 300), (b"long line\n" * 4, 4)):
        path.write_bytes(text)
        with path.open("rb") as file:
            assert transcript._count(file, live=False) == lines
