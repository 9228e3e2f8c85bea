"""Gemini CLI: its command line, and the reading of its stream of events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from . import lines
from .base import (
    AgentEvent,
    Call,
    SessionStarted,
    Text,
    Tokens,
    ToolFinished,
    ToolStarted,
    TurnFinished,
    Usage,
)
from .failures import from_words
from .plain import PlainAdapter
from .stream import PREVIEW_CHARS, TEXT_CHARS
from .text_stream import TextStream

_NAME_CHARS = 200
_MESSAGE_CHARS = 4_000


class GeminiAdapter(PlainAdapter):
    """The `gemini` program. It tells tokens but no cost, and knows no schema."""

    name = program = "gemini"

    def argv(self, program: str, call: Call) -> list[str]:
        """The command line; without a prompt argument standard input is the prompt."""
        # An untrusted folder would silently turn the approval mode off.
        argv = [program, "--output-format", "stream-json", "--approval-mode", "yolo", "--skip-trust"]
        if call.model:
            argv += ["--model", call.model]
        return [*argv, *call.extra_args]

    def stream(self, schema: Mapping[str, Any] | None = None) -> GeminiStream:
        """A parser for one run."""
        return GeminiStream(schema)


class GeminiStream(TextStream):
    """One run of `gemini --output-format stream-json`. The words since the last tool call are the answer."""

    def take(self, value: dict[str, Any]) -> list[AgentEvent]:
        """Dispatch on the type; unknown types are ignored."""
        kind = value.get("type")
        if not isinstance(kind, str):
            raise lines.BadLine("an object without a type")
        handler = _HANDLERS.get(kind)
        return handler(self, value) if handler else []

    def _init(self, value: dict[str, Any]) -> list[AgentEvent]:
        self.session_id = lines.text_of(value.get("session_id"), _NAME_CHARS)
        self.model = lines.text_of(value.get("model"), _NAME_CHARS)
        return [SessionStarted(self.session_id, self.model, "")]

    def _message(self, value: dict[str, Any]) -> list[AgentEvent]:
        if value.get("role") != "assistant":
            return []
        text = lines.text_of(value.get("content"), TEXT_CHARS)
        self.text = (self.text + text if value.get("delta") is True else text)[-TEXT_CHARS:]
        return [Text(text)]

    def _tool_use(self, value: dict[str, Any]) -> list[AgentEvent]:
        self.text = ""
        name = lines.text_of(value.get("tool_name"), _NAME_CHARS)
        tool_id = lines.text_of(value.get("tool_id"), _NAME_CHARS)
        return [ToolStarted(tool_id, name, lines.mapping_of(value.get("parameters")))]

    def _tool_result(self, value: dict[str, Any]) -> list[AgentEvent]:
        tool_id = lines.text_of(value.get("tool_id"), _NAME_CHARS)
        output = lines.text_of(value.get("output"), PREVIEW_CHARS)
        return [ToolFinished(tool_id, value.get("status") != "success", output)]

    def _error(self, value: dict[str, Any]) -> list[AgentEvent]:
        # A warning unless the result says so too; kept in case there is none.
        self.complaint = lines.text_of(value.get("message"), _MESSAGE_CHARS)
        self._pending = from_words(self.complaint)
        return []

    def _result(self, value: dict[str, Any]) -> list[AgentEvent]:
        self.finished = True
        stats = lines.mapping_of(value.get("stats"))
        cached = lines.count_of(stats.get("cached"))
        fresh = max(0, lines.count_of(stats.get("input_tokens")) - cached)
        self.tokens = Tokens(fresh, lines.count_of(stats.get("output_tokens")), cached, 0)
        ok = value.get("status") == "success"
        if not ok:
            self._fail(lines.mapping_of(value.get("error")))
        return [Usage(self.tokens, None, False), TurnFinished(ok, self.text, None, self.trouble)]

    def _fail(self, error: Mapping[str, Any]) -> None:
        message = lines.text_of(error.get("message"), _MESSAGE_CHARS)
        # Of type "unknown" is whatever its service answered, passed on as text: only a limit is sure enough
        # to be taken from the words, the rest may pass.
        vague = error.get("type") == "unknown" and from_words(message) != "usage_limit"
        self.complain(message, "server_error" if vague else "")


_HANDLERS: Mapping[str, Callable[[GeminiStream, dict[str, Any]], list[AgentEvent]]] = {
    "init": GeminiStream._init,
    "message": GeminiStream._message,
    "tool_use": GeminiStream._tool_use,
    "tool_result": GeminiStream._tool_result,
    "error": GeminiStream._error,
    "result": GeminiStream._result,
}
