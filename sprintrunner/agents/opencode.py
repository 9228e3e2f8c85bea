"""OpenCode: its command line, and the reading of its JSON events."""

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
from .failures import from_http
from .plain import PlainAdapter
from .stream import PREVIEW_CHARS, TEXT_CHARS
from .text_stream import TextStream

_NAME_CHARS = 200
_MESSAGE_CHARS = 4_000


class OpencodeAdapter(PlainAdapter):
    """The `opencode` program. It tells tokens and cost of each step."""

    name = program = "opencode"
    tells_cost = True
    resumes = True

    def argv(self, program: str, call: Call) -> list[str]:
        """The command line; standard input is the message."""
        argv = [program, "run", "--format", "json", "--auto"]
        if call.model:
            argv += ["--model", call.model]
        if call.resume:
            argv += ["--session", call.resume]
        return [*argv, *call.extra_args]

    def stream(self, schema: Mapping[str, Any] | None = None) -> OpencodeStream:
        """A parser for one run."""
        return OpencodeStream(schema)


class OpencodeStream(TextStream):
    """One run of `opencode run --format json`. It has no final event: a step that stops is the end."""

    def take(self, value: dict[str, Any]) -> list[AgentEvent]:
        """Dispatch on the type; unknown types are ignored."""
        kind = value.get("type")
        if not isinstance(kind, str):
            raise lines.BadLine("an object without a type")
        session = lines.text_of(value.get("sessionID"), _NAME_CHARS)
        started: list[AgentEvent] = []
        if session and session != self.session_id:
            self.session_id = session
            started.append(SessionStarted(session, "", ""))
        handler = _HANDLERS.get(kind)
        return [*started, *handler(self, value)] if handler else started

    def _step_start(self, value: dict[str, Any]) -> list[AgentEvent]:
        self.finished = False
        return []

    def _text(self, value: dict[str, Any]) -> list[AgentEvent]:
        self.text = lines.text_of(lines.mapping_of(value.get("part")).get("text"), TEXT_CHARS)
        return [Text(self.text)]

    def _tool_use(self, value: dict[str, Any]) -> list[AgentEvent]:
        part = lines.mapping_of(value.get("part"))
        state = lines.mapping_of(part.get("state"))
        tool_id, name = (lines.text_of(part.get(key), _NAME_CHARS) for key in ("callID", "tool"))
        code = lines.mapping_of(state.get("metadata")).get("exit")
        number = code if isinstance(code, int) and not isinstance(code, bool) else None
        failed = state.get("status") != "completed" or bool(number)
        output = lines.text_of(state.get("output"), PREVIEW_CHARS)
        # Told once, when it is over.
        return [
            ToolStarted(tool_id, name, lines.mapping_of(state.get("input"))),
            ToolFinished(tool_id, failed, output, number),
        ]

    def _step_finish(self, value: dict[str, Any]) -> list[AgentEvent]:
        part = lines.mapping_of(value.get("part"))
        self._spend(part)
        events: list[AgentEvent] = [Usage(self.tokens, self.cost_usd, False)]
        if part.get("reason") == "stop":
            self.finished = True
            events.append(TurnFinished(True, self.text, None, "stop"))
        return events

    def _spend(self, part: Mapping[str, Any]) -> None:
        told = lines.mapping_of(part.get("tokens"))
        cache = lines.mapping_of(told.get("cache"))
        before = self.tokens or Tokens()
        self.tokens = Tokens(
            before.input + lines.count_of(told.get("input")),
            before.output + lines.count_of(told.get("output")) + lines.count_of(told.get("reasoning")),
            before.cache_read + lines.count_of(cache.get("read")),
            before.cache_write + lines.count_of(cache.get("write")),
        )
        cost = lines.money_of(part.get("cost"))
        self.cost_usd = self.cost_usd if cost is None else (self.cost_usd or 0.0) + cost

    def _error(self, value: dict[str, Any]) -> list[AgentEvent]:
        error = lines.mapping_of(value.get("error"))
        data = lines.mapping_of(error.get("data"))
        said = data.get("message") or error.get("message") or error.get("name")
        message = lines.text_of(said, _MESSAGE_CHARS)
        self.complain(message, from_http(lines.status_of(data.get("statusCode"))))
        self.finished = True
        return [TurnFinished(False, "", None, self.trouble)]


_HANDLERS: Mapping[str, Callable[[OpencodeStream, dict[str, Any]], list[AgentEvent]]] = {
    "step_start": OpencodeStream._step_start,
    "text": OpencodeStream._text,
    "tool_use": OpencodeStream._tool_use,
    "step_finish": OpencodeStream._step_finish,
    "error": OpencodeStream._error,
}
