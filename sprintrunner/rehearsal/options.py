"""The command line of the agent: the flags of the real CLI, and its own words when it refuses them."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

VERSION = "2.1.331 (Claude Code)"
OLD_VERSION = "0.2.9 (Claude Code)"


def _flags(text: str) -> frozenset[str]:
    return frozenset(text.split())


SWITCHES = _flags(
    "--print --verbose --version --help --continue --bare --debug --fork-session --ide --chrome --no-chrome"
    " --dangerously-skip-permissions --allow-dangerously-skip-permissions --disable-slash-commands"
    " --forward-subagent-text --include-hook-events --include-partial-messages --mcp-debug"
    " --no-session-persistence --replay-user-messages --strict-mcp-config"
)
VALUES = _flags(
    "--agent --agents --append-system-prompt --append-system-prompt-file --debug-file --effort"
    " --fallback-model --input-format --json-schema --max-budget-usd --max-turns --model --name"
    " --output-format --permission-mode --permission-prompts --permission-prompt-tool --resume --session-id"
    " --setting-sources --settings --speed --system-prompt --system-prompt-file --system-prompt-snapshot"
)
#: These swallow what follows up to the next flag, a positional prompt included, as the real ones do.
VARIADIC = _flags("--add-dir --allowedTools --betas --disallowedTools --mcp-config --plugin-dir --tools")
SHORT = {
    "-p": "--print",
    "-v": "--version",
    "-h": "--help",
    "-c": "--continue",
    "-r": "--resume",
    "-d": "--debug",
}
SPELLINGS = {"--allowed-tools": "--allowedTools", "--disallowed-tools": "--disallowedTools", "-n": "--name"}

UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
PERMISSION_MODES = ("acceptEdits", "auto", "bypassPermissions", "default", "dontAsk", "manual", "plan")


class Refusal(Exception):
    """The command line cannot be used: one line on stderr, exit status 1."""


class Options(NamedTuple):
    """The parsed command line; ``lists`` holds the variadic flags split at commas and blanks."""

    switches: frozenset[str]
    values: dict[str, str]
    lists: dict[str, tuple[str, ...]]
    prompt: str | None

    def has(self, flag: str) -> bool:
        return flag in self.switches

    def get(self, flag: str, default: str | None = None) -> str | None:
        return self.values.get(flag, default)

    @property
    def permission_mode(self) -> str:
        if self.has("--dangerously-skip-permissions"):
            return "bypassPermissions"
        return self.values.get("--permission-mode", "default")


def parse(argv: list[str]) -> Options:
    """Split ``argv`` into flags and prompt; raise Refusal for what the real CLI does not know."""
    switches: set[str] = set()
    values: dict[str, str] = {}
    lists: dict[str, tuple[str, ...]] = {}
    prompt: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-") or word == "-":
            prompt.append(word)
            continue
        flag, inline = _split(word)
        if flag in SWITCHES:
            switches.add(flag)
        elif flag in VALUES:
            values[flag] = _value(flag, inline, rest)
        elif flag in VARIADIC:
            lists[flag] = lists.get(flag, ()) + _many(inline, rest)
        else:
            raise Refusal(f"error: unknown option '{word}'")
    return Options(frozenset(switches), values, lists, " ".join(prompt) or None)


def _split(word: str) -> tuple[str, str | None]:
    name, equals, value = word.partition("=")
    name = SHORT.get(name, SPELLINGS.get(name, name))
    return name, value if equals else None


def _value(flag: str, inline: str | None, rest: list[str]) -> str:
    if inline is not None:
        return inline
    if not rest:
        raise Refusal(f"error: option '{flag} <value>' argument missing")
    return rest.pop(0)


def _many(inline: str | None, rest: list[str]) -> tuple[str, ...]:
    words = [inline] if inline is not None else []
    while inline is None and rest and not rest[0].startswith("-"):
        words.append(rest.pop(0))
    return tuple(part for word in words for part in re.split(r"[,\s]+", word) if part)


def check(options: Options) -> None:
    """Raise Refusal with the real CLI's sentence where it refuses before it starts."""
    if options.get("--output-format") == "stream-json" and not options.has("--verbose"):
        raise Refusal("Error: When using --print, --output-format=stream-json requires --verbose")
    if options.permission_mode not in PERMISSION_MODES:
        raise Refusal(
            f"error: option '--permission-mode <mode>' argument '{options.permission_mode}' is invalid."
        )
    if (
        options.permission_mode == "bypassPermissions"
        and os.geteuid() == 0
        and not os.environ.get("IS_SANDBOX")
    ):
        raise Refusal(
            "--dangerously-skip-permissions cannot be used with root/sudo privileges for security reasons"
        )
    session = options.get("--session-id")
    if session is not None and not UUID.fullmatch(session):
        raise Refusal("Error: Invalid session ID. Must be a valid UUID.")


def help_text() -> str:
    """The list of flags, for programs that look whether one exists."""
    flags = sorted(SWITCHES | VALUES | VARIADIC)
    return "Usage: claude [options] [prompt]\n\nOptions:\n" + "".join(f"  {flag}\n" for flag in flags)
