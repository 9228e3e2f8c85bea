"""The lines of Claude Code's stream-json: their shape, their figures, and nothing about what is done."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from .usage import Meter

TOOLS = ["Task", "Bash", "Edit", "Glob", "Grep", "Read", "Skill", "WebFetch", "WebSearch", "Write"]
CLI_VERSION = "2.1.331"


def identifier() -> str:
    """A random UUID 4, made by hand because importing ``uuid`` would double the start-up time."""
    raw = bytearray(os.urandom(16))
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte; a reader that went away is not an error, the real CLI runs on as well."""
    view = memoryview(data)
    with contextlib.suppress(BrokenPipeError):
        while view:
            view = view[os.write(descriptor, view) :]


class Stream:
    """One run's stdout. ``quiet`` keeps the lines back (the text and json output formats)."""

    def __init__(self, session_id: str, model: str, meter: Meter, quiet: bool = False) -> None:
        self.session_id = session_id
        self.model = model
        self.meter = meter
        self.quiet = quiet
        self.started = time.monotonic()
        self.first_token: float | None = None
        self.turns = 0
        self.denials: list[dict[str, Any]] = []
        self._message = ""

    def emit(self, line: Mapping[str, Any]) -> None:
        """Send one line as it is, compact and in one write."""
        if not self.quiet:
            write_all(1, (json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n").encode())

    def raw(self, data: bytes) -> None:
        """Send bytes that need not be a line at all."""
        write_all(1, data)

    def _signed(self, line: dict[str, Any]) -> dict[str, Any]:
        return {**line, "session_id": self.session_id, "uuid": identifier()}

    def init(self, permission_mode: str) -> None:
        """The first line of a turn."""
        line = {
            "type": "system",
            "subtype": "init",
            "cwd": os.getcwd(),  # noqa: PTH109
            "session_id": self.session_id,
            "tools": TOOLS,
            "mcp_servers": [],
            "model": self.model,
            "permissionMode": permission_mode,
            "slash_commands": ["clear", "compact", "context", "cost"],
            "apiKeySource": "none",
            "claude_code_version": CLI_VERSION,
            "output_style": "default",
            "agents": ["general-purpose"],
            "skills": [],
            "plugins": [],
        }
        self.emit({**line, "uuid": identifier()})

    def system(self, subtype: str, **values: Any) -> None:
        self.emit(self._signed({"type": "system", "subtype": subtype, **values}))

    def new_turn(self, written: int) -> None:
        """Begin an answer of the model with ``written`` characters of output."""
        self.turns += 1
        self._message = f"msg_rehearsal{os.urandom(8).hex()}"
        self.meter.turn(written)
        self.first_token = self.first_token or time.monotonic() - self.started

    def assistant(self, *content: Mapping[str, Any]) -> None:
        """One finished content block per line; lines of one answer share the message id."""
        for block in content:
            message = {
                "id": self._message,
                "type": "message",
                "role": "assistant",
                "model": self.model,
                "content": [block],
                "stop_reason": None,
                "stop_sequence": None,
                "usage": self.meter.last_turn(),
                "context_management": None,
            }
            self.emit(self._spoken({"type": "assistant", "message": message}))

    def _spoken(self, line: dict[str, Any]) -> dict[str, Any]:
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
        return {**self._signed({**line, "parent_tool_use_id": None}), "timestamp": stamp}

    def tool_result(self, tool_id: str, content: str, detail: Any, *, is_error: bool | None) -> None:
        """The user line that answers a tool call; Write and Read answer without ``is_error``."""
        block: dict[str, Any] = {"tool_use_id": tool_id, "type": "tool_result", "content": content}
        if is_error is not None:
            block["is_error"] = is_error
        line = self._spoken({"type": "user", "message": {"role": "user", "content": [block]}})
        self.meter.heard(len(content))
        self.emit({**line, "tool_use_result": detail})

    def user_text(self, text: str, *, synthetic: bool = False) -> None:
        line = self._spoken(
            {"type": "user", "message": {"role": "user", "content": [{"type": "text", "text": text}]}}
        )
        self.emit({**line, "isSynthetic": True} if synthetic else line)

    def api_error(self, text: str, error: str, extra: Mapping[str, Any]) -> None:
        """The synthetic assistant line of a failed request."""
        message = {
            "id": identifier(),
            "model": "<synthetic>",
            "role": "assistant",
            "stop_reason": "stop_sequence",
            "stop_sequence": "",
            "type": "message",
            "usage": self.meter.nothing(),
            "content": [{"type": "text", "text": text}],
            "context_management": None,
        }
        line = self._spoken({"type": "assistant", "message": message})
        self.emit({**line, "error": error, "is_api_error_message": True, **extra})

    def result(self, **values: Any) -> dict[str, Any]:
        """The last line; ``values`` are what differs from a plain success. Returns what was sent."""
        elapsed = int((time.monotonic() - self.started) * 1000)
        line: dict[str, Any] = {
            "duration_api_ms": int(elapsed * 0.8),
            "stop_reason": "end_turn",
            "session_id": self.session_id,
            "total_cost_usd": self.meter.total_cost(),
            "usage": self.meter.main_loop(),
            "modelUsage": self.meter.models(),
            "permission_denials": self.denials,
            "terminal_reason": "completed",
            "fast_mode_state": "off",
            "is_error": False,
            "num_turns": self.turns,
            "subtype": "success",
            "api_error_status": None,
            **values,
            "type": "result",
            "duration_ms": elapsed,
            "uuid": identifier(),
            "queued_turn_count": 0,
            "result_index": 0,
        }
        if self.first_token is not None:
            line["ttft_ms"] = int(self.first_token * 1000)
        self.emit(line)
        return line


def tool_use(tool_id: str, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The content block of a tool call."""
    return {"type": "tool_use", "id": tool_id, "name": name, "input": dict(arguments)}


def text_block(text: str) -> dict[str, Any]:
    """The content block of spoken text."""
    return {"type": "text", "text": text}


def tool_ids(count: int) -> Sequence[str]:
    """Fresh ids of tool calls."""
    return [f"toolu_rehearsal{os.urandom(8).hex()}" for _ in range(count)]
