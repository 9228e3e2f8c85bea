"""Runs that the service refuses: the lines and exit statuses of the real CLI for each reason."""

from __future__ import annotations

import os
import time
from typing import Any, NamedTuple

from .desk import Desk
from .stream import text_block, tool_ids, tool_use


class Refusal(NamedTuple):
    """Words and classes of a kind of failed request; ``retried`` is (status, error) of the retries before."""

    text: str
    error: str
    status: int | None
    kind: str | None
    retried: tuple[int | None, str] | None = None
    api_error: str | None = None
    terminal: str = "api_error"


REFUSALS = {
    "overloaded": Refusal(
        "API Error: Repeated 529 Overloaded errors. The API is at capacity — this is usually temporary."
        " Try again in a moment.",
        "server_error",
        529,
        "overloaded_error",
        (529, "overloaded"),
    ),
    "server-error": Refusal(
        "API Error: 500 Internal server error. This is a server-side issue, usually temporary —"
        " try again in a moment.",
        "server_error",
        500,
        "api_error",
        (500, "server_error"),
    ),
    "network": Refusal(
        "API Error: Connection dropped (ECONNRESET). Check your connection, then try again.",
        "server_error",
        None,
        None,
        (None, "unknown"),
        "connection_failed",
    ),
    "rate-limited": Refusal(
        "API Error: Request rejected (429) · This request would exceed the rate limit",
        "rate_limit",
        429,
        "rate_limit_error",
        (429, "rate_limit"),
    ),
    "auth": Refusal("Not logged in · Please run /login", "authentication_failed", None, None),
    "bad-key": Refusal(
        "Invalid API key · Fix external API key",
        "authentication_failed",
        401,
        "authentication_error",
        (401, "authentication_failed"),
    ),
    "billing": Refusal("Credit balance is too low", "billing_error", 400, "invalid_request_error"),
    "model-not-found": Refusal(
        "There's an issue with the selected model ({model}). It may not exist or you may not have"
        " access to it. Run --model to pick a different model.",
        "model_not_found",
        404,
        "not_found_error",
    ),
    "prompt-too-long": Refusal(
        "Prompt is too long · the request is ~215000 tokens (limit 200000)",
        "invalid_request",
        400,
        "invalid_request_error",
        terminal="prompt_too_long",
    ),
}
SPECIAL = ("usage-limit", "max-turns", "budget", "success-with-is_error", "schema-retries")


def perform(desk: Desk, mode: str) -> int:
    """Send the lines of a refused run; returns its exit status."""
    if mode in REFUSALS:
        return _refuse(desk, REFUSALS[mode])
    if mode == "usage-limit":
        return _limit(desk)
    if mode == "schema-retries":
        return _schema_retries(desk)
    desk.say("I'll have a look around first.")
    desk.bash("ls", "List the files")
    if mode == "success-with-is_error":
        desk.stream.result(is_error=True, result="Something went wrong on the way.")
        return 0
    return over_limit(desk, {"max-turns": "error_max_turns", "budget": "error_max_budget_usd"}[mode])


def over_limit(desk: Desk, subtype: str) -> int:
    """End a run that reached its limit of turns or cost."""
    turns = desk.options.get("--max-turns", "2")
    budget = desk.options.get("--max-budget-usd", "0.01")
    reasons = {
        "error_max_turns": ("max_turns", f"Reached maximum number of turns ({turns})"),
        "error_max_budget_usd": ("budget_exhausted", f"Reached maximum budget (${budget})"),
    }
    terminal, words = reasons[subtype]
    desk.stream.result(
        subtype=subtype, is_error=True, terminal_reason=terminal, errors=[words], stop_reason="tool_use"
    )
    return 1


def report_retries(desk: Desk, status: int | None, error: str) -> None:
    """The lines of two requests that failed and were tried again."""
    for attempt, delay in ((1, 502), (2, 1126)):
        values = {"attempt": attempt, "max_retries": 2, "retry_delay_ms": delay}
        desk.stream.system("api_retry", **values, error_status=status, error=error)
        desk.pace.wait()


def _refuse(desk: Desk, refusal: Refusal) -> int:
    if refusal.retried:
        report_retries(desk, *refusal.retried)
    text = refusal.text.format(model=desk.stream.model)
    extra: dict[str, Any] = {"api_error_status": refusal.status} if refusal.status else {}
    if refusal.kind:
        extra["api_error_type"] = refusal.kind
    if refusal.api_error:
        extra["api_error"] = refusal.api_error
    _fail(desk, text, refusal.error, extra, refusal.terminal)
    return 1


def _fail(desk: Desk, text: str, error: str, extra: dict[str, Any], terminal: str) -> None:
    desk.stream.turns += 1
    desk.stream.api_error(text, error, extra)
    desk.stream.result(
        is_error=True, terminal_reason=terminal, result=text, stop_reason="stop_sequence", **extra
    )


def _limit(desk: Desk) -> int:
    """Some work, a warning, then the 5-hour limit of a subscription."""
    resets = int(time.time() + float(os.environ.get("REHEARSAL_RESET_SECONDS", "5")) + 0.999)
    desk.say("I'll look at the project first.")
    desk.bash("ls", "List the files")
    _limit_line(
        desk, {"status": "allowed_warning", "utilization": 0.92, "surpassedThreshold": 0.9}, resets, 0.92
    )
    info = _limit_line(desk, {"status": "rejected"}, resets, 1)
    hour = time.strftime("%H:%M:%S", time.gmtime(resets))
    extra = {
        "api_error_status": 429,
        "api_error_type": "rate_limit_error",
        "api_error": "usage_limit_reached",
    }
    text = f"You've hit your 5-hour limit · resets {hour} (UTC)"
    desk.stream.turns += 1
    desk.stream.api_error(text, "rate_limit", {**extra, "api_error_params": {"rate_limit_info": info}})
    desk.stream.result(
        is_error=True, terminal_reason="api_error", result=text, stop_reason="stop_sequence", **extra
    )
    return 1


def _limit_line(desk: Desk, status: dict[str, Any], resets: int, used: float) -> dict[str, Any]:
    info = {
        **status,
        "resetsAt": resets,
        "rateLimitType": "five_hour",
        "overageStatus": "rejected",
        "overageDisabledReason": "org_level_disabled",
        "isUsingOverage": False,
    }
    window = {"utilization": used, "resetsAt": resets, "status": status["status"]}
    week = {"utilization": 0.4, "resetsAt": resets + 400_000, "status": "allowed"}
    both = {**info, "unifiedWindows": {"five_hour": window, "seven_day": week}}
    desk.stream.emit(
        {"type": "rate_limit_event", "rate_limit_info": both, "session_id": desk.stream.session_id}
    )
    return info


def _schema_retries(desk: Desk) -> int:
    words = "Output does not match required schema: /: must have required properties"
    for _ in range(5):
        desk.stream.new_turn(40)
        tool_id = tool_ids(1)[0]
        desk.stream.assistant(
            text_block("Done."), tool_use(tool_id, "StructuredOutput", {"verdict": "banana"})
        )
        desk.stream.tool_result(tool_id, words, f"Error: {words}", is_error=True)
    desk.stream.result(
        is_error=True,
        subtype="error_max_structured_output_retries",
        terminal_reason="structured_output_retry_exhausted",
        stop_reason="tool_use",
        errors=[f"Failed to provide valid structured output after 5 attempts — last error: {words}"],
    )
    return 1
