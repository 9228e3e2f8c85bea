"""Takes secrets out of text before it is stored or shown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

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
    (("sk-",), re.compile(r"\bsk-(?:ant-|proj-|svcacct-|admin-|or-)?[A-Za-z0-9_-]{16,512}"), MARK),
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
        text = text.replace(value, MARK)
        # Transcripts are JSON lines, in which quotes and backslashes stand escaped.
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        if escaped != value:
            text = text.replace(escaped, MARK)
    if _BEGIN in text:
        text = _without_keys(text)
    for literals, pattern, mark in _SHAPES:
        if any(literal in text for literal in literals):
            text = pattern.sub(mark, text)
    return _ASSIGNED.sub(rf"\1{MARK}", text) if "=" in text else text


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
