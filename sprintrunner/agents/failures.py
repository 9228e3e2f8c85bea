"""The classes of failure an agent CLI can report: what each means for the batch, and its sentence."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from .base import Outcome
from .lines import one_line

#: Longest detail from the CLI in a sentence, in characters.
_DETAIL_CHARS = 240


@dataclass(frozen=True, slots=True)
class Failure:
    """One class. ``label`` opens the sentence, ``remedy`` closes it where a person must act."""

    slug: str
    outcome: Outcome
    label: str
    remedy: str = ""

    def sentence(self, detail: str = "") -> str:
        """The class, what the CLI said about it, and what to do."""
        said = one_line(detail, _DETAIL_CHARS)
        head = f"{self.label}: {said}" if said and said.lower() != self.label.lower() else self.label
        return f"{head}; {self.remedy}" if self.remedy else head


_ALL = (
    Failure("usage_limit", Outcome.USAGE_LIMIT, "usage limit"),
    Failure("rate_limited", Outcome.RETRY, "rate limited"),
    Failure("overloaded", Outcome.RETRY, "service overloaded"),
    Failure("server_error", Outcome.RETRY, "server error"),
    Failure("network", Outcome.RETRY, "network trouble"),
    Failure("cut_off", Outcome.RETRY, "answer cut off"),
    Failure("auth", Outcome.STOP_BATCH, "not logged in", "log in with the agent program, then resume"),
    Failure("bad_key", Outcome.STOP_BATCH, "key refused", "correct or remove the API key, then resume"),
    Failure("forbidden", Outcome.STOP_BATCH, "access denied", "check the account's rights, then resume"),
    Failure("account", Outcome.STOP_BATCH, "account problem", "settle it with the provider, then resume"),
    Failure("billing", Outcome.STOP_BATCH, "no credit", "add credit or change the account, then resume"),
    Failure("model_not_found", Outcome.STOP_BATCH, "unknown model", "correct the model in the settings"),
    Failure("bad_option", Outcome.STOP_BATCH, "unusable version or arguments", "update the agent program"),
    Failure("not_started", Outcome.STOP_BATCH, "agent program could not be run", "check its installation"),
    Failure("root_refused", Outcome.STOP_BATCH, "permission mode refused as root", "run as another user"),
    Failure("prompt_too_long", Outcome.FAILED, "prompt too long"),
    Failure("max_output_tokens", Outcome.FAILED, "output limit of the model reached"),
    Failure("refused", Outcome.FAILED, "the model refused"),
    Failure("invalid_request", Outcome.FAILED, "request not accepted"),
    Failure("max_turns", Outcome.FAILED, "turn limit reached"),
    Failure("budget", Outcome.FAILED, "budget of the command used up"),
    Failure("schema_not_met", Outcome.FAILED, "no valid verdict"),
    Failure("permission_denied", Outcome.FAILED, "permission denied"),
    Failure("unknown_session", Outcome.FAILED, "agent session not found"),
    Failure("session_in_use", Outcome.FAILED, "agent session already in use"),
    Failure("exit_status", Outcome.FAILED, "result and exit status disagree"),
    Failure("unreadable", Outcome.FAILED, "result not understood"),
    Failure("no_result", Outcome.FAILED, "no result"),
    Failure("killed", Outcome.NO_RESULT, "no result"),
    Failure("interrupted", Outcome.INTERRUPTED, "interrupted"),
    Failure("agent_error", Outcome.FAILED, "agent error"),
)

FAILURES: Mapping[str, Failure] = {failure.slug: failure for failure in _ALL}

# Words a CLI uses about itself, first match wins. Only ever put to a CLI's own error messages and its
# stderr, never to tool results or the model's words, which may say anything.
_WORDS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (slug, re.compile(pattern, re.IGNORECASE))
    for slug, pattern in (
        (
            "usage_limit",
            r"hit your (?!.{0,30}rate limit).{0,40}\blimit\b|usage limit (?:reached|exceeded)|"
            r"out of usage credits|usage_limit_reached",
        ),
        ("root_refused", r"cannot be used with root"),
        ("auth", r"not logged in|please run /login|log ?in (?:required|again)|token (?:has )?expired"),
        (
            "bad_key",
            r"invalid api key|incorrect api key|invalid_api_key|invalid authentication|unauthorized|\b401\b",
        ),
        ("billing", r"credit balance|billing|insufficient_quota|quota exceeded|payment required"),
        (
            "model_not_found",
            r"issue with the selected model|model .{0,80}(?:not found|does not exist)|unknown model",
        ),
        ("prompt_too_long", r"prompt is too long|context (?:length|window)|input is too long"),
        ("unknown_session", r"no conversation found|session .{0,60}not found|no rollout found"),
        ("session_in_use", r"session id .{0,60}already in use"),
        ("overloaded", r"\b529\b|overloaded|high demand|at capacity"),
        ("rate_limited", r"\b429\b|too many requests|rate.?limit|resource.?exhausted"),
        (
            "network",
            r"connection (?:dropped|failed|error|refused|reset)|econn|enotfound|etimedout|fetch failed|"
            r"network|stream disconnected|lookup address",
        ),
        ("cut_off", r"cut off mid-stream|mid-response"),
        ("server_error", r"\b50[0-4]\b|internal server error|server.?error|service unavailable|bad gateway"),
        ("forbidden", r"\b403\b|failed to authenticate|permission_error"),
        ("refused", r"safeguards flagged|content policy|refus(?:al|ed by)"),
        (
            "bad_option",
            r"unknown (?:option|argument|command)|unexpected argument|"
            r"unrecognized (?:option|argument)|requires --verbose",
        ),
    )
)


def from_words(text: str) -> str:
    """The slug of the class that a CLI's own error message names, or ""."""
    head = text[:4000]
    return next((slug for slug, pattern in _WORDS if pattern.search(head)), "")


def from_http(status: int | None) -> str:
    """The slug for an HTTP status of the provider, or ""."""
    if status is None:
        return ""
    known = {401: "bad_key", 402: "billing", 403: "forbidden", 429: "rate_limited", 529: "overloaded"}
    return known.get(status, "server_error" if 500 <= status < 600 else "")
