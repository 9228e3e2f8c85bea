"""An agent that talks: 200 lines of Claude's stream a second, now and then a tool call with its moment.

``python talker.py SECONDS NUMBER``; standard library only, started like any agent.
"""

from __future__ import annotations

import json
import os
import sys
import time

LINES_PER_SECOND = 200
#: One tool call in so many lines: each 0.485 s, so that the four agents drift apart.
TOOL_EVERY = 97


def say(line: dict[str, object]) -> None:
    """One line in one write, as the CLI does."""
    os.write(1, (json.dumps(line) + "\n").encode())


def words(number: int) -> dict[str, object]:
    """A line of ordinary output, about 700 bytes."""
    block = {"type": "text", "text": f"Line {number}: " + "the leaf turns to the light and " * 15}
    return {"type": "assistant", "message": {"id": f"m{number}", "role": "assistant", "content": [block]}}


def tool(number: int, agent: str) -> dict[str, object]:
    """A tool call that carries the monotonic time in ns and the wall clock in ms."""
    command = f"grow {agent} at={time.monotonic_ns()} wall={time.time() * 1000:.1f}"
    block = {"type": "tool_use", "id": f"t{number}", "name": "Bash", "input": {"command": command}}
    return {"type": "assistant", "message": {"id": f"m{number}", "role": "assistant", "content": [block]}}


def main(seconds: float, agent: str) -> None:
    """Talk for so long, then give a result."""
    say({"type": "system", "subtype": "init", "session_id": f"bench-{agent}", "model": "bench", "tools": []})
    began, number = time.monotonic(), int(agent) * (TOOL_EVERY // 4)
    due = began
    while time.monotonic() - began < seconds:
        number += 1
        say(tool(number, agent) if number % TOOL_EVERY == 0 else words(number))
        due += 1 / LINES_PER_SECOND
        time.sleep(max(0.0, due - time.monotonic()))
    say({"type": "result", "subtype": "success", "is_error": False, "result": "done", "session_id": "bench"})


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2])
