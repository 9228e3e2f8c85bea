"""Reads the stream-json output of Claude Code and judges how the run ended."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from . import lines, resets
from .base import (
    AgentEvent,
    AgentResult,
    Denied,
    LimitHit,
    Retrying,
    SessionStarted,
    Text,
    Thinking,
    Tokens,
    ToolFinished,
    ToolStarted,
    TurnFinished,
    Usage,
)
from .failures import from_http, from_words
from .stream import PREVIEW_CHARS, TEXT_CHARS, LineStream

#: A denied call of one of these means that the work was not done as asked.
WORK_TOOLS = frozenset({"Bash", "Edit", "Write", "MultiEdit", "NotebookEdit"})
#: Statuses that no repetition cures; with an API key the CLI would still repeat for minutes.
_HOPELESS = frozenset({401, 403})
#: With a login its first repeat of a 401 comes after it has renewed the access token, and mostly succeeds; by
#: this one the login itself is refused. It gives up soon after.
_HOPELESS_WITH_LOGIN = 2
#: How long a session id, a model or a tool's name may be.
_NAME_CHARS = 200

_BY_SUBTYPE: Mapping[str, str] = {
    "error_max_turns": "max_turns",
    "error_max_budget_usd": "budget",
    "error_max_structured_output_retries": "schema_not_met",
}
_BY_TERMINAL_REASON: Mapping[str, str] = {
    "max_turns": "max_turns",
    "budget_exhausted": "budget",
    "structured_output_retry_exhausted": "schema_not_met",
    "prompt_too_long": "prompt_too_long",
    "blocking_limit": "usage_limit",
    "aborted_streaming": "interrupted",
    "aborted_tools": "interrupted",
}
_BY_API_ERROR: Mapping[str, str] = {
    "usage_limit_reached": "usage_limit",
    "connection_failed": "network",
    "max_output_tokens": "max_output_tokens",
}
# The `error` of a synthetic message. rate_limit and server_error are left to the HTTP status, which is finer.
_BY_ERROR: Mapping[str, str] = {
    "authentication_failed": "auth",
    "oauth_org_not_allowed": "account",
    "account_on_hold": "account",
    "verification_required": "account",
    "cloud_credential_error": "auth",
    "billing_error": "billing",
    "model_not_found": "model_not_found",
    "overloaded": "overloaded",
    "max_output_tokens": "max_output_tokens",
}
_FALLBACK_BY_ERROR: Mapping[str, str] = {
    "rate_limit": "rate_limited",
    "server_error": "server_error",
    "invalid_request": "invalid_request",
}
_EXIT_CODE = re.compile(r"Exit code (\d{1,3})\b")
#: Kinds of line that say nothing a supervisor needs; the longest part of a stream with partial messages.
_SKIPPED = (b'{"type":"stream_event"', b'{"type":"keep_alive"')


class ClaudeStream(LineStream):
    """One run of `claude -p --output-format stream-json`. Only the last result line counts."""

    cumulative = True
    work_tools = WORK_TOOLS
    version_field = "claude_code_version"

    def __init__(self, wanted: Mapping[str, Any] | None = None) -> None:
        super().__init__(wanted)
        self._result: Mapping[str, Any] = {}
        #: The last main-loop message if the CLI itself wrote it, not the model.
        self._own_message: Mapping[str, Any] = {}
        self._limit_rejected = False
        #: What each message told of its tokens, by id: all that is known of a run that is cut off.
        self._heard: dict[str, Tokens] = {}
        self._refused = ""
        #: Whether it pays by a login (a subscription), not by an API key.
        self._login = False

    def skips(self, line: bytes) -> bool:
        """Token deltas and heartbeats are not parsed."""
        return line.startswith(_SKIPPED)

    def take(self, value: dict[str, Any]) -> list[AgentEvent]:
        """Dispatch on the type; unknown types are ignored, no type at all is a bad line."""
        kind = value.get("type")
        if not isinstance(kind, str):
            raise lines.BadLine("an object without a type")
        handler = _HANDLERS.get(kind)
        return handler(self, value) if handler else []

    def _system(self, value: dict[str, Any]) -> list[AgentEvent]:
        subtype = value.get("subtype")
        if subtype == "init":
            return [self._init(value)]
        if subtype == "api_retry":
            return [self._retrying(value)]
        if subtype == "permission_denied":
            return [Denied(lines.text_of(value.get("tool_name"), _NAME_CHARS))]
        if subtype == "model_refusal_no_fallback":
            self._refused = lines.text_of(value.get("original_model"), _NAME_CHARS) or "the model"
        return []

    def _init(self, value: dict[str, Any]) -> SessionStarted:
        self.session_id = lines.text_of(value.get("session_id"), _NAME_CHARS) or self.session_id
        self.model = lines.text_of(value.get("model"), _NAME_CHARS) or self.model
        self._login = value.get("apiKeySource") == "none"
        servers = value.get("mcp_servers")
        mcp = {
            lines.text_of(server.get("name"), _NAME_CHARS): lines.text_of(server.get("status"), _NAME_CHARS)
            for server in (servers if isinstance(servers, list) else [])[:100]
            if isinstance(server, dict)
        }
        version = lines.text_of(value.get(self.version_field), _NAME_CHARS)
        return SessionStarted(self.session_id, self.model, version, mcp)

    def _retrying(self, value: dict[str, Any]) -> Retrying:
        status = lines.status_of(value.get("error_status"))
        early = self._login and lines.count_of(value.get("attempt")) < _HOPELESS_WITH_LOGIN
        hopeless = status in _HOPELESS and not early
        reason = lines.text_of(value.get("error"), _NAME_CHARS)
        if hopeless:
            # Remembered, because the run will be ended before the CLI gives up by itself.
            self.trouble = self._slug_by_status(status)
            self.complaint = f"{reason} ({status})"
        delay = lines.money_of(value.get("retry_delay_ms")) or 0.0
        return Retrying(reason, delay / 1000, status, hopeless)

    def _rate_limit(self, value: dict[str, Any]) -> list[AgentEvent]:
        info = lines.mapping_of(value.get("rate_limit_info"))
        status = lines.text_of(info.get("status"), _NAME_CHARS)
        kind = lines.text_of(info.get("rateLimitType"), _NAME_CHARS) or None
        resets_at = resets.from_epoch(info.get("resetsAt"))
        if status == "rejected":
            self._limit_rejected, self.limit_kind, self.resets_at = True, kind, resets_at
        elif status.startswith("allowed"):
            self._limit_rejected = False
        return [LimitHit(status, kind, resets_at)]

    def _assistant(self, value: dict[str, Any]) -> list[AgentEvent]:
        message = lines.mapping_of(value.get("message"))
        parent = lines.text_of(value.get("parent_tool_use_id"), _NAME_CHARS) or None
        own = message.get("model") == "<synthetic>" or isinstance(value.get("error"), str)
        texts, events = self._blocks(message.get("content"), parent, "agent")
        if isinstance(message.get("usage"), dict):
            self._heard[lines.text_of(message.get("id"), _NAME_CHARS)] = _main_loop(message["usage"])
        if parent is None:
            self._own_message = {**value, "text": texts} if own else {}
        return events

    def _user(self, value: dict[str, Any]) -> list[AgentEvent]:
        message = lines.mapping_of(value.get("message"))
        parent = lines.text_of(value.get("parent_tool_use_id"), _NAME_CHARS) or None
        return self._blocks(message.get("content"), parent, "user")[1]

    def _blocks(self, content: Any, parent: str | None, role: str) -> tuple[str, list[AgentEvent]]:
        if isinstance(content, str):
            text = lines.text_of(content, TEXT_CHARS)
            return text, [Text(text, False, parent, role)]
        if not isinstance(content, list):
            raise lines.BadLine(f"message.content is a {type(content).__name__}")
        texts: list[str] = []
        events: list[AgentEvent] = []
        for block in content:
            event = self._block(block, parent, role)
            if isinstance(event, Text):
                texts.append(event.text)
            if event is not None:
                events.append(event)
        return "\n".join(texts), events

    def _block(self, block: Any, parent: str | None, role: str) -> AgentEvent | None:
        if not isinstance(block, dict):
            self.counted_raw += 1
            return None
        kind = block.get("type")
        if kind == "text":
            return Text(lines.text_of(block.get("text"), TEXT_CHARS), False, parent, role)
        if kind == "thinking":
            return Thinking(lines.text_of(block.get("thinking"), TEXT_CHARS), parent)
        if kind == "tool_use":
            given = lines.mapping_of(block.get("input"))
            name = lines.text_of(block.get("name"), _NAME_CHARS)
            return ToolStarted(lines.text_of(block.get("id"), _NAME_CHARS), name, given, parent)
        return _tool_result(block) if kind == "tool_result" else None

    def _take_result(self, value: dict[str, Any]) -> list[AgentEvent]:
        self._result, self.finished = value, True
        self.session_id = lines.text_of(value.get("session_id"), _NAME_CHARS) or self.session_id
        self.text = lines.text_of(value.get("result"), TEXT_CHARS)
        self.structured = value.get("structured_output")
        self._spend(value)
        denials = value.get("permission_denials")
        for denial in denials if isinstance(denials, list) else []:
            self.deny(lines.text_of(lines.mapping_of(denial).get("tool_name"), _NAME_CHARS))
        ok = value.get("is_error") is False and value.get("subtype") == "success"
        reason = lines.text_of(value.get("terminal_reason"), _NAME_CHARS)
        spent = Usage(self.tokens, self.cost_usd, self.cumulative)
        return [spent, TurnFinished(ok, self.text, self.structured, reason)]

    def _spend(self, value: dict[str, Any]) -> None:
        cost = lines.money_of(value.get("total_cost_usd"))
        self.cost_usd = self.cost_usd if cost is None else cost
        models = [
            item for item in lines.mapping_of(value.get("modelUsage")).values() if isinstance(item, dict)
        ]
        if models:
            self.tokens = _sum_tokens(map(_of_model, models))
        elif self.tokens is None and isinstance(value.get("usage"), dict):
            self.tokens = _main_loop(value["usage"])

    def judge(self, exit_code: int | None, schema_asked: bool) -> AgentResult:
        """Success as the reference defines it; every other end gets its class."""
        if not self._claims_success():
            return self._failed()
        # Older versions end a run that met its limit as a success, with the limit as the last message.
        if (own_limit := self._limit_in_own_words()) is not None:
            return self._limited(own_limit)
        refused = sorted(self.work_tools.intersection(self.denials))
        if refused:
            return self.fail("permission_denied", f"{', '.join(refused)} refused by the permission rules")
        if not isinstance(self._result.get("permission_denials") or [], list):
            return self.fail("unreadable", "permission_denials has an unknown form")
        if self._refused:
            return self.fail("refused", f"{self._refused} stopped for safety")
        return self.succeed(exit_code, schema_asked)

    def _claims_success(self) -> bool:
        return self._result.get("is_error") is False and self._result.get("subtype") == "success"

    def _failed(self) -> AgentResult:
        slug = self._slug() or "agent_error"
        detail = self._complaint()
        if slug == "usage_limit":
            return self._limited(detail)
        if slug == "interrupted":
            return self.fail(slug, "the agent was interrupted")
        return self.fail(slug, detail)

    def _limited(self, words: str) -> AgentResult:
        if self.resets_at is None:
            self.resets_at = resets.from_words(words)
        self.limit_kind = self.limit_kind or resets.kind_from_words(words)
        return self.fail("usage_limit", words)

    def _own_words(self) -> str:
        """What the CLI itself said last: an error result's text, else its last own message."""
        # The text of a result that is no error is the model's, and may say anything.
        said = self.text if self._result.get("is_error") is True else ""
        return said or lines.text_of(self._own_message.get("text"))

    def _limit_in_own_words(self) -> str | None:
        words = self._own_words()
        return words if from_words(words) == "usage_limit" else None

    def _complaint(self) -> str:
        errors = self._result.get("errors")
        listed = [lines.text_of(item) for item in errors[:3]] if isinstance(errors, list) else []
        said = self._own_words() or "; ".join(filter(None, listed))
        return said or lines.text_of(self._result.get("subtype"), _NAME_CHARS)

    def _slug(self) -> str:
        """The class of an error result: its own fields first, words last."""
        result, own = self._result, self._own_message
        subtype = _look(_BY_SUBTYPE, result.get("subtype"))
        reason = _look(_BY_TERMINAL_REASON, result.get("terminal_reason"))
        api = _look(_BY_API_ERROR, result.get("api_error")) or _look(_BY_API_ERROR, own.get("api_error"))
        status = lines.status_of(result.get("api_error_status")) or lines.status_of(
            own.get("api_error_status")
        )
        if subtype or reason or api:
            return subtype or reason or api
        if self._limit_in_own_words() is not None or (status == 429 and self._limit_rejected):
            return "usage_limit"
        return (
            self._slug_by_error(own, status)
            or from_words(self._complaint())
            or _look(_FALLBACK_BY_ERROR, own.get("error"))
            or ("refused" if self._refused else "")
        )

    def _slug_by_error(self, own: Mapping[str, Any], status: int | None) -> str:
        error = _look(_BY_ERROR, own.get("error"))
        # 401 and 403 both say authentication_failed; the status tells a bad key from a missing login.
        return error if error and not (error == "auth" and status) else self._slug_by_status(status) or error

    def _slug_by_status(self, status: int | None) -> str:
        # Someone with a login has no key to correct.
        return "auth" if status == 401 and self._login else from_http(status)

    def result(
        self,
        exit_code: int | None,
        signal: int | None = None,
        stderr_tail: str = "",
        schema_asked: bool = False,
        stop_asked: bool = False,
        ended_after_result: bool = False,
    ) -> AgentResult:
        """Judge the run; without a result line the CLI's last own message tells why."""
        if not self.finished and self._heard:
            # Of this run alone, also where it went on with a session; the last words of each are missing.
            self.tokens, self.cumulative = _sum_tokens(self._heard.values()), False
        if not self.finished and not self.trouble:
            own = lines.text_of(self._own_message.get("text"))
            slug = self._slug() if self._own_message else ""
            if self._limit_rejected or slug == "usage_limit":
                judged = self._limited(own or "the limit was reached")
                return self.fail("interrupted", "stopped on request") if stop_asked else judged
            self.trouble, self.complaint = slug, own
        return super().result(exit_code, signal, stderr_tail, schema_asked, stop_asked, ended_after_result)


def _look(table: Mapping[str, str], key: Any) -> str:
    """A lookup that takes any JSON value as key."""
    return table.get(key, "") if isinstance(key, str) else ""


def _tool_result(block: Mapping[str, Any]) -> ToolFinished:
    content = block.get("content")
    if isinstance(content, list):
        content = "\n".join(
            lines.text_of(part.get("text"), PREVIEW_CHARS) for part in content if isinstance(part, dict)
        )
    output = lines.text_of(content, PREVIEW_CHARS)
    is_error = block.get("is_error") is True
    code = _EXIT_CODE.match(output) if is_error else None
    tool_id = lines.text_of(block.get("tool_use_id"), _NAME_CHARS)
    return ToolFinished(tool_id, is_error, output, int(code[1]) if code else None)


def _of_model(usage: Mapping[str, Any]) -> Tokens:
    return Tokens(
        lines.count_of(usage.get("inputTokens")),
        lines.count_of(usage.get("outputTokens")),
        lines.count_of(usage.get("cacheReadInputTokens")),
        lines.count_of(usage.get("cacheCreationInputTokens")),
    )


def _sum_tokens(found: Iterable[Tokens]) -> Tokens:
    every = list(found)
    return Tokens(
        sum(tokens.input for tokens in every),
        sum(tokens.output for tokens in every),
        sum(tokens.cache_read for tokens in every),
        sum(tokens.cache_write for tokens in every),
    )


def _main_loop(usage: Mapping[str, Any]) -> Tokens:
    return Tokens(
        lines.count_of(usage.get("input_tokens")),
        lines.count_of(usage.get("output_tokens")),
        lines.count_of(usage.get("cache_read_input_tokens")),
        lines.count_of(usage.get("cache_creation_input_tokens")),
    )


_HANDLERS: Mapping[str, Callable[[ClaudeStream, dict[str, Any]], list[AgentEvent]]] = {
    "system": ClaudeStream._system,
    "assistant": ClaudeStream._assistant,
    "user": ClaudeStream._user,
    "rate_limit_event": ClaudeStream._rate_limit,
    "result": ClaudeStream._take_result,
}
