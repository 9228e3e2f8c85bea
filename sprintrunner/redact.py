"""Takes secrets out of text before it is stored or shown."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

#: What stands where a secret was.
MARK = "[redacted]"
#: Shorter values occur by chance in ordinary text and are left alone, in characters.
_SHORTEST = 8
#: Longest private key that is looked for an end, in characters.
_KEY_BLOCK = 16_384

_SECRET_NAME = re.compile(
    r"TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL|API_?KEY|PRIVATE_?KEY|ACCESS_?KEY|AUTH|_PAT$|_KEY$"
)
# These name a place or a kind, not a secret.
_PLAIN_NAME = re.compile(
    r"_(?:SOCK|PATH|FILE|DIR|HOME|TYPE|METHOD|PROVIDER|USER|NAME|ID|TOKENS|MODE|TTL_MS)$"
)
_PLAIN_VALUE = re.compile(r"(?:true|false|yes|no|none|null|[\d.]+|/[\w./-]+)", re.IGNORECASE)

# Each pattern with the literals one of which its match must contain: a substring search is far cheaper, and
# most text has none of them. All repetitions are bounded, so that no text makes them slow.
_SHAPES: tuple[tuple[tuple[str, ...], re.Pattern[str], str], ...] = (
    (
        ("sk-",),
        # Words joined by hyphens are no key: "sk-translations-of-the-site" names a story.
        re.compile(
            r"\bsk-(?:ant-[A-Za-z0-9_-]{16,512}|[A-Za-z0-9]{20,512}[A-Za-z0-9_-]{0,512}"
            r"|(?=[A-Za-z0-9_-]{0,64}[A-Z])(?=[A-Za-z0-9_-]{0,64}[0-9])[A-Za-z0-9_-]{16,512})"
        ),
        MARK,
    ),
    (("gh", "github_pat_"), re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{20,255}|github_pat_\w{22,255})"), MARK),
    (("glpat-",), re.compile(r"\bglpat-[\w-]{16,255}"), MARK),
    (("AKIA", "ASIA"), re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), MARK),
    (
        ("aws_secret", "AWS_SECRET"),
        re.compile(r"(?i)(aws_secret_access_key[\"']?\s{0,4}[=:]\s{0,4}[\"']?)[A-Za-z0-9/+=]{30,64}"),
        rf"\1{MARK}",
    ),
    (("xox", "xapp-"), re.compile(r"\b(?:xox[abeoprs]|xapp)-[\w-]{10,255}"), MARK),
    (
        ("hooks.slack.com",),
        re.compile(r"(hooks\.slack\.com/(?:services|workflows)/)[\w/-]{10,255}"),
        rf"\1{MARK}",
    ),
    (("AIza",), re.compile(r"\bAIza[\w-]{30,60}"), MARK),
    (("ya29.", "GOCSPX-"), re.compile(r"\b(?:ya29\.|GOCSPX-)[\w-]{16,2048}"), MARK),
    (
        ("npm_", "pypi-", "hf_"),
        re.compile(r"\b(?:npm_[A-Za-z0-9]{30,64}|pypi-[\w-]{30,512}|hf_[A-Za-z]{30,64})"),
        MARK,
    ),
    (("eyJ",), re.compile(r"\beyJ[\w-]{8,8192}\.eyJ[\w-]{4,8192}\.[\w-]{0,8192}"), MARK),
    (
        ("earer", "EARER", "asic", "BASIC"),
        # "Basic authentication" is no secret: words have no digit, no = and no capital after a small letter.
        re.compile(
            r"\b((?:[Bb]earer|BEARER|[Bb]asic|BASIC)\s{1,4})"
            r"(?=[A-Za-z._~+/-]{0,512}(?:[0-9=]|[a-z][A-Z]))[A-Za-z0-9._~+/=-]{12,8192}"
        ),
        rf"\1{MARK}",
    ),
    (
        ("-key", "-Key", "-KEY"),
        re.compile(r"(?i)(x-(?:goog-)?api-key[\"']?\s{0,4}[:=]\s{0,4}[\"']?)[^\s\"',]{8,512}"),
        rf"\1{MARK}",
    ),
    (("://",), re.compile(r"(://[^\s/:@\"'<>\\]{0,256}:)[^\s/@\"'<>\\]{1,512}@"), rf"\1{MARK}@"),
)
_ASSIGNED = re.compile(
    r"\b([A-Z][A-Z0-9_]{0,60}(?:TOKEN|SECRET|PASSWORD|API_?KEY|PRIVATE_KEY)=[\"']?)[^\s\"'\\$(){}]{8,512}"
)
#: An escape that a writer of JSON may choose and need not.
_ESCAPED = re.compile(r"\\u00[2-7]|\\/")
_BEGIN = "-----BEGIN "
_BEGIN_KEY = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_END_KEY = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")


def secret_values(env: Mapping[str, str]) -> tuple[str, ...]:
    """The values of the variables whose names say that they are secret, longest first."""
    found = {
        value
        for name, value in env.items()
        if len(value) >= _SHORTEST
        and _SECRET_NAME.search(name.upper())
        and not _PLAIN_NAME.search(name.upper())
        and not _PLAIN_VALUE.fullmatch(value)
    }
    return tuple(sorted(found, key=len, reverse=True))


def redact(text: str, env_values: Iterable[str] = ()) -> str:
    """The text with known token shapes, private keys, passwords in URLs and ``env_values`` replaced."""
    for value in sorted(env_values, key=len, reverse=True):
        if len(value) < _SHORTEST:
            continue
        for form in _forms(value):
            text = text.replace(form, MARK)
        text = _without_edges(text, value)
    if _BEGIN in text:
        text = _without_keys(text)
    for literals, pattern, mark in _SHAPES:
        if any(literal in text for literal in literals):
            text = pattern.sub(mark, text)
    return _ASSIGNED.sub(rf"\1{MARK}", text) if "=" in text else text


def redact_lines(text: str, env_values: Iterable[str] = ()) -> str:
    """The same for JSON lines, in which a secret may stand escaped in ways that no pattern expects."""
    values = tuple(env_values)
    return "".join(_redact_line(line, values) for line in text.splitlines(keepends=True))


def _redact_line(line: str, values: tuple[str, ...]) -> str:
    line = redact(line, values)
    if not _ESCAPED.search(line):
        return line
    try:
        made = json.loads(line)
        clean = redact_json(made, values)
    except (ValueError, RecursionError):
        return line
    # As it was, wherever nothing is hidden in it.
    return line if clean == made else json.dumps(clean, ensure_ascii=False) + "\n"


def redact_json(value: Any, env_values: Iterable[str] = ()) -> Any:
    """A decoded JSON value with every text and name in it redacted; RecursionError for a very deep one."""
    if isinstance(value, str):
        return redact(value, env_values)
    if isinstance(value, dict):
        return {redact(str(key), env_values): redact_json(item, env_values) for key, item in value.items()}
    return [redact_json(item, env_values) for item in value] if isinstance(value, list) else value


class CleanFormatter(logging.Formatter):
    """Writes lines of a log without secrets, those of a traceback too."""

    def __init__(self, env_values: Iterable[str]) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._values = tuple(env_values)

    def format(self, record: logging.LogRecord) -> str:
        """The line, redacted."""
        return redact(super().format(record), self._values)


@lru_cache(maxsize=256)
def _forms(value: str) -> tuple[str, ...]:
    """A value as it is, and as JSON of several makers and CSV write it; the longest first."""
    written = (json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1])
    forms = {value, value.replace('"', '""'), *written, *(form.replace("/", "\\/") for form in written)}
    return tuple(sorted(forms, key=len, reverse=True))


def _without_edges(text: str, value: str) -> str:
    """The text without the part of a value that was left where something cut it: at its ends."""
    size = len(value)
    tail = text[-size:]
    at = tail.rfind(value[:_SHORTEST])
    if at >= 0 and value.startswith(tail[at:].rstrip("…")):
        text = text[: len(text) - len(tail) + at] + MARK
    head = text[:size]
    at = head.find(value[-_SHORTEST:]) + _SHORTEST
    if at >= _SHORTEST and value.endswith(head[:at].lstrip("…")):
        text = MARK + text[at:]
    return text


def _without_keys(text: str) -> str:
    """Private key blocks replaced; one whose end was cut off goes as far as a key can reach."""
    pieces: list[str] = []
    at = 0
    while begin := _BEGIN_KEY.search(text, at):
        pieces += [text[at : begin.start()], MARK]
        limit = begin.end() + _KEY_BLOCK
        end = _END_KEY.search(text, begin.end(), limit)
        at = end.end() if end else _end_of_base64(text, begin.end(), limit)
    return "".join([*pieces, text[at:]])


def _end_of_base64(text: str, start: int, limit: int) -> int:
    body = re.compile(r"[A-Za-z0-9+/=\s\\]*").match(text, start, limit)
    return body.end() if body else start
