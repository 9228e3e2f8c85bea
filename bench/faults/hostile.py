"""Stands before the fake agent as ``claude``: says, calls, names and returns hostile text of every kind.

A program of its own (standard library only); its arguments are the agent's program, the file that holds the
payload as JSON, and what the agent is given.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

#: A story whose key ends so fails with an error that is hostile.
FAILS = "-fails"


def main() -> int:
    """Run the agent and pass its lines on, with others between them; returns its exit status."""
    program, file, *arguments = sys.argv[1:]
    payload = json.loads(Path(file).read_text())
    words = [sys.executable, "-I", "-S", program, *arguments]
    if "--version" in arguments or "--help" in arguments:
        return subprocess.run(words, check=False).returncode
    if os.environ.get("SPRINTRUNNER_COMMAND") == "dev-story":
        Path(file_name(payload)).write_text("hostile name\n")
    agent = subprocess.Popen(words, stdout=subprocess.PIPE)
    assert agent.stdout is not None
    for line in agent.stdout:
        for told in _twisted(line, payload):
            sys.stdout.write(json.dumps(told) + "\n")
            sys.stdout.flush()
    return agent.wait()


def file_name(payload: str) -> str:
    """A name of a file as much like the payload as one can be."""
    return f"FILE:{payload}".replace("/", "").replace("\0", "")[:60]


def _twisted(line: bytes, payload: str) -> list[dict[str, Any]]:
    told = json.loads(line)
    if told.get("type") == "system" and told.get("subtype") == "init":
        return [told, *_said(told["session_id"], payload)]
    if told.get("type") == "result":
        return [_result(told, payload)]
    return [told]


def _said(session: str, payload: str) -> list[dict[str, Any]]:
    """Text, two tool calls and their results."""
    blocks = [
        {"type": "text", "text": f"SAID:{payload}"},
        _call("t1", "Bash", {"command": f"BASH:{payload}", "description": f"WHY:{payload}"}),
        _call(
            "t2",
            "Edit",
            {"file_path": str(Path.cwd() / f"EDIT:{payload}"), "old_string": "", "new_string": ""},
        ),
        _call("t3", f"TOOL:{payload}"[:100], {"x": f"INPUT:{payload}"}),
    ]
    lines = [_line(session, "assistant", block) for block in blocks]
    for name in ("t1", "t2", "t3"):
        result = {"type": "tool_result", "tool_use_id": name, "content": f"OUTPUT:{payload}"}
        lines.append(_line(session, "user", result))
    return lines


def _call(name: str, tool: str, given: dict[str, Any]) -> dict[str, Any]:
    return {"type": "tool_use", "id": name, "name": tool, "input": given}


def _line(session: str, role: str, block: dict[str, Any]) -> dict[str, Any]:
    message = {"id": "m1", "type": "message", "role": role, "model": "claude-opus-5-5", "content": [block]}
    return {"type": role, "message": message, "session_id": session, "parent_tool_use_id": None}


def _result(told: dict[str, Any], payload: str) -> dict[str, Any]:
    if FAILS in os.environ.get("SPRINTRUNNER_STORY_KEYS", ""):
        failed = {"is_error": True, "subtype": "error_during_execution", "errors": [f"ERROR:{payload}"]}
        told.pop("structured_output", None)
        return {**told, **failed, "result": f"ERROR:{payload}"}
    answer = told.get("structured_output")
    if isinstance(answer, dict):
        answer["summary"] = f"SUMMARY:{payload}"
        if "highest_severity" in answer:
            answer["findings"] = [*answer.get("findings", []), _finding(payload)]
            if answer["highest_severity"] == "NONE":
                answer["highest_severity"] = "LOW"
        told["result"] = json.dumps(answer)
    return told


def _finding(payload: str) -> dict[str, Any]:
    place = {"file": f"PLACE:{payload}", "line": 1}
    return {"severity": "LOW", "title": f"FINDING:{payload}", "status": "fixed", **place}


if __name__ == "__main__":
    sys.exit(main())
