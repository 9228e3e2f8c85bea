"""The ways the agent can be told to misbehave (REHEARSAL_FAULT), by name and by number of the check."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

#: Name of a mode -> what the agent then does. All others of the run are done as usual.
MODES = {
    # output
    "stderr-flood": "writes 10 MB to stderr, then works as usual",
    "long-line": "writes 100 MB on one line, then works as usual",
    "million-lines": "writes a million short lines, then works as usual",
    "not-utf8": "writes a line that is not UTF-8, then works as usual",
    "number-line": "writes the line 123, then works as usual",
    "list-line": "writes the line [], then works as usual",
    "null-line": "writes the line null, then works as usual",
    "string-content": "writes messages whose content is a string or a number, then works as usual",
    "deep-json": "writes JSON nested 100,000 deep, then works as usual",
    "huge-integer": "writes an integer of 5,000 digits, then works as usual",
    "nan": "writes the number NaN, then works as usual",
    "lone-surrogate": "says a lone surrogate, then works as usual",
    "nul-text": "says a NUL, then works as usual",
    "half-line": "writes half a line and exits 0",
    "no-output": "writes nothing and exits 0",
    "retries": "reports two retries of an overloaded server, then works as usual",
    # process
    "exit-1-after-success": "exits 1 after a success result",
    "crash": "dies in the middle of its work, exit 1, no result",
    "review-crash": "the same, in code reviews only",
    "holds-stdout": "exits while a grandchild holds its stdout",
    "hang-after-result": "never exits after its result",
    "hang": "is silent for ever after its first line",
    "talk": "talks for ever",
    "ignore-term": "ignores SIGTERM, SIGINT and SIGHUP",
    "stop-self": "sends itself SIGSTOP",
    "daemon": "leaves a double-forked setsid daemon that ignores SIGTERM",
    "env-daemon": "leaves a daemon of its own session with an empty environment",
    "children": "starts 200 children and leaves them",
    "never-read-stdin": "never reads its prompt and never ends",
    "old-version": "answers --version with a version too old to use",
    # refusals of the service
    "usage-limit": "hits the 5-hour limit, which resets in REHEARSAL_RESET_SECONDS (5); works when resumed",
    "overloaded": "529 until it gives up",
    "server-error": "500 until it gives up",
    "network": "connection reset until it gives up",
    "rate-limited": "429 per minute until it gives up",
    "auth": "not logged in",
    "bad-key": "401, invalid key",
    "billing": "credit balance too low",
    "model-not-found": "404, no such model",
    "prompt-too-long": "the prompt does not fit",
    "max-turns": "reaches the limit of turns",
    "budget": "reaches the limit of cost",
    "success-with-is_error": "subtype success with is_error true, exit 0",
    "no-schema": "success without the structured output that was asked for",
    "schema-retries": "five structured outputs that do not fit the schema",
    "permission-denied": "its first Bash, Edit or Write is denied",
    # verdicts
    "review-critical": "each code review leaves another CRITICAL finding open",
    "review-medium": "each code review fixes another MEDIUM finding",
    "same-finding": "each code review leaves the same HIGH finding open",
    "quoted-zero-issues": "the text quotes a clean verdict, the structured one says HIGH",
    "low-claim": "claims NONE beside an open HIGH finding",
    "no-decision": "create-story decides nothing about tech specs",
    "forget-second": "create-story leaves out the file of the second story",
    # repository
    "no-change": "dev-story reports success without any change",
    "self-commit": "commits everything itself",
    "touches-status-file": "edits the status file: its own story to done, a comment at the end",
    "defers-itself": "edits the status file: its own story to deferred",
    "git-clean": "runs git clean -fdx at the end",
    "switch-branch": "leaves another branch checked out",
    "edits-settings": "appends a comment to sprintrunner.toml",
}

#: The checks of an agent's behaviour, by their number.
CHECKS: dict[str, tuple[str, ...]] = {
    "A1": ("stderr-flood",),
    "A2": ("long-line",),
    "A3": ("million-lines",),
    "A4": ("not-utf8",),
    "A5": ("number-line",),
    "A6": ("list-line",),
    "A7": ("null-line",),
    "A8": ("string-content",),
    "A9": ("deep-json",),
    "A10": ("huge-integer",),
    "A11": ("nan",),
    "A12": ("lone-surrogate",),
    "A13": ("nul-text",),
    "A14": ("half-line",),
    "A15": ("no-output",),
    "A16": ("exit-1-after-success",),
    "A17": ("quoted-zero-issues@code-review",),
    "A18": ("crash@code-review:1", "same-finding@code-review:2", "crash@code-review:3"),
    "A19": ("holds-stdout",),
    "A20": ("hang-after-result",),
    "A21": ("hang",),
    "A22": ("talk",),
    "A23": ("ignore-term", "hang"),
    "A24": ("stop-self",),
    "A25": ("daemon",),
    "A26": ("env-daemon",),
    "A27": ("children", "hang"),
    "A28": ("never-read-stdin",),
    "A29": ("old-version",),
}


class UnknownMode(ValueError):
    """REHEARSAL_FAULT names no mode."""


class Fault(NamedTuple):
    """A mode and the runs it is limited to; "" and 0 stand for all."""

    mode: str
    command: str = ""
    attempt: int = 0
    key: str = ""

    def meets(self, command: str, attempt: int, keys: Sequence[str]) -> bool:
        wanted = "code-review" if self.mode == "review-crash" else self.command
        return wanted in ("", command) and self.attempt in (0, attempt) and (not self.key or self.key in keys)


def parse(text: str) -> list[Fault]:
    """The faults of ``<mode>[@<command>[:<attempt>][#<story key>]]``, several separated by commas.

    A mode is a name of MODES or a number of CHECKS; a check's own limits hold beside those written after it.
    Raises UnknownMode.
    """
    return [fault for part in text.split(",") if part.strip() for fault in _expand(part.strip())]


def _expand(part: str) -> list[Fault]:
    mode, at, selector = part.partition("@")
    if mode in CHECKS:
        selected = [one if "@" in one or not at else f"{one}@{selector}" for one in CHECKS[mode]]
        return [fault for one in selected for fault in _expand(one)]
    if mode not in MODES:
        raise UnknownMode(f"REHEARSAL_FAULT: there is no mode {mode!r}; known are {', '.join(MODES)}")
    rest, _, key = selector.partition("#")
    command, _, attempt = rest.partition(":")
    if attempt and not attempt.isdecimal():
        raise UnknownMode(f"REHEARSAL_FAULT: {attempt!r} is no attempt number")
    return [Fault(mode, command, int(attempt or 0), key)]


def active(faults: Sequence[Fault], command: str, attempt: int, keys: Sequence[str]) -> frozenset[str]:
    """The modes that hold for this run."""
    return frozenset(fault.mode for fault in faults if fault.meets(command, attempt, keys))
