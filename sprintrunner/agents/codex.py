"""Codex: its command line, and the reading of its JSON events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from . import lines, schema
from .base import (
    AgentEvent,
    Call,
    SessionStarted,
    Text,
    Thinking,
    Tokens,
    ToolFinished,
    ToolStarted,
    TurnFinished,
    Usage,
)
from .plain import PlainAdapter
from .stream import PREVIEW_CHARS, TEXT_CHARS
from .text_stream import TextStream

_NAME_CHARS = 200
#: Tool calls remembered as started, so that one reported only at its end still gets a start.
_OPEN_CALLS = 1_000
_MESSAGE_CHARS = 4_000


class CodexAdapter(PlainAdapter):
    """The `codex` program in exec mode. It tells tokens but no cost, and takes a schema as a file."""

    name = program = "codex"
    takes_schema = True
    resumes = True

    def argv(self, program: str, call: Call) -> list[str]:
        """The command line; the final ``-`` makes it read the prompt from standard input."""
        argv = [program, "exec", "--json", "--skip-git-repo-check"]
        bypass = (call.permission_mode or "bypassPermissions") == "bypassPermissions"
        argv += ["--dangerously-bypass-approvals-and-sandbox"] if bypass else ["--sandbox", "workspace-write"]
        if call.model:
            argv += ["--model", call.model]
        if call.schema_path is not None:
            argv += ["--output-schema", str(call.schema_path)]
        argv += call.extra_args
        return [*argv, "resume", call.resume, "-"] if call.resume else [*argv, "-"]

    def schema_document(self, wanted: Mapping[str, Any]) -> Mapping[str, Any]:
        """The schema in the strict dialect that this CLI's service demands."""
        return schema.strict(wanted)

    def stream(self, schema: Mapping[str, Any] | None = None) -> CodexStream:
        """A parser for one run."""
        return CodexStream(schema)


class CodexStream(TextStream):
    """One run of `codex exec --json`. The last agent message is the answer."""

    def __init__(self, wanted: Mapping[str, Any] | None = None) -> None:
        super().__init__(wanted)
        self._started: set[str] = set()

    def take(self, value: dict[str, Any]) -> list[AgentEvent]:
        """Dispatch on the type; unknown types are ignored."""
        kind = value.get("type")
        if not isinstance(kind, str):
            raise lines.BadLine("an object without a type")
        handler = _HANDLERS.get(kind)
        return handler(self, value) if handler else []

    def _thread(self, value: dict[str, Any]) -> list[AgentEvent]:
        self.session_id = lines.text_of(value.get("thread_id"), _NAME_CHARS)
        return [SessionStarted(self.session_id, "", "")]

    def _error(self, value: dict[str, Any]) -> list[AgentEvent]:
        message = lines.text_of(value.get("message"), _MESSAGE_CHARS)
        if message.startswith("Reconnecting"):
            return [self.repeats(message)]
        self.complain(message)
        return []

    def _completed(self, value: dict[str, Any]) -> list[AgentEvent]:
        # An error that the turn outlived is none.
        self.finished, self.trouble, self._pending = True, "", ""
        usage = lines.mapping_of(value.get("usage"))
        cached = lines.count_of(usage.get("cached_input_tokens"))
        written = lines.count_of(usage.get("cache_write_input_tokens"))
        # The input it tells includes what came from the cache and what went into it.
        fresh = max(0, lines.count_of(usage.get("input_tokens")) - cached - written)
        self.tokens = Tokens(fresh, lines.count_of(usage.get("output_tokens")), cached, written)
        return [Usage(self.tokens, None, False), TurnFinished(True, self.text, None, "completed")]

    def _failed(self, value: dict[str, Any]) -> list[AgentEvent]:
        self.finished = True
        self.complain(lines.text_of(lines.mapping_of(value.get("error")).get("message"), _MESSAGE_CHARS))
        return [TurnFinished(False, "", None, self.trouble)]

    def _item(self, value: dict[str, Any]) -> list[AgentEvent]:
        item = lines.mapping_of(value.get("item"))
        kind = lines.text_of(item.get("type"), _NAME_CHARS)
        done = value.get("type") == "item.completed"
        if kind == "agent_message":
            self.text = lines.text_of(item.get("text"), TEXT_CHARS)
            return [Text(self.text)] if done else []
        if kind == "reasoning":
            return [Thinking(lines.text_of(item.get("text"), TEXT_CHARS))] if done else []
        return self._tool(kind, item, done) if kind in _TOOLS else []

    def _tool(self, kind: str, item: Mapping[str, Any], done: bool) -> list[AgentEvent]:
        tool_id = lines.text_of(item.get("id"), _NAME_CHARS)
        events: list[AgentEvent] = []
        if tool_id not in self._started and len(self._started) < _OPEN_CALLS:
            self._started.add(tool_id)
            name, given = _TOOLS[kind](item)
            events.append(ToolStarted(tool_id, name, given))
        if done:
            self._started.discard(tool_id)
            code = item.get("exit_code")
            number = code if isinstance(code, int) and not isinstance(code, bool) else None
            failed = item.get("status") == "failed" or bool(number)
            output = lines.text_of(item.get("aggregated_output"), PREVIEW_CHARS)
            events.append(ToolFinished(tool_id, failed, output, number))
        return events


def _command(item: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    return "command_execution", {"command": lines.text_of(item.get("command"), PREVIEW_CHARS)}


def _change(item: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    changes = item.get("changes")
    first = changes[0] if isinstance(changes, list) and changes else {}
    return "file_change", {"path": lines.text_of(lines.mapping_of(first).get("path"), PREVIEW_CHARS)}


def _mcp(item: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    server, tool = (lines.text_of(item.get(key), _NAME_CHARS) for key in ("server", "tool"))
    return f"mcp__{server}__{tool}", {}


def _search(item: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    return "web_search", {"query": lines.text_of(item.get("query"), PREVIEW_CHARS)}


def _plan(item: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    return "todo_list", {}


_TOOLS: Mapping[str, Callable[[Mapping[str, Any]], tuple[str, Mapping[str, Any]]]] = {
    "command_execution": _command,
    "file_change": _change,
    "mcp_tool_call": _mcp,
    "web_search": _search,
    "todo_list": _plan,
}
_HANDLERS: Mapping[str, Callable[[CodexStream, dict[str, Any]], list[AgentEvent]]] = {
    "thread.started": CodexStream._thread,
    "error": CodexStream._error,
    "turn.completed": CodexStream._completed,
    "turn.failed": CodexStream._failed,
    "item.started": CodexStream._item,
    "item.updated": CodexStream._item,
    "item.completed": CodexStream._item,
}
