"""One line of an agent's output to a JSON object, safely, whatever the line holds."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

#: Longest excerpt of a bad line that leaves the parser, in characters.
EXCERPT_CHARS = 400
#: Longest integer taken, in characters: what a signed 64-bit column holds for sure.
_INT_CHARS = 18
#: Nesting beyond which a value is cut; real events stay below 12.
_DEPTH = 40
# C0 without tab and newlines, DEL, C1, and the bidirectional controls that can disguise text.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_UNSAFE = re.compile("[\x00\ud800-\udfff]")
# Escapes that may come out as a surrogate or NUL; only then a parsed object is walked.
_SUSPECT = re.compile(rb"\\u(?:[dD][89a-fA-F]|0000)")

# Our own supervisor's word on what the transcript's cap left out: the agent never said it.
_NOTE = re.compile(rb"\[sprintrunner: \d+ bytes of output left out here\]")


class BadLine(ValueError):
    """The line is not a JSON object of an acceptable form; the message says why."""


def _int(digits: str) -> int:
    if len(digits) > _INT_CHARS:
        raise BadLine("an integer is too long")
    return int(digits)


def _float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise BadLine("a number is not finite")
    return number


def _constant(name: str) -> float:
    raise BadLine(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_int=_int, parse_float=_float, parse_constant=_constant)


def load(text: str) -> Any:
    """Parse JSON strictly (no NaN, no giant integers, no endless nesting); raise BadLine."""
    try:
        return _DECODER.decode(text)
    except BadLine:
        raise
    except RecursionError:
        raise BadLine("nested too deep") from None
    except ValueError:
        raise BadLine("not JSON") from None


def is_note(line: bytes) -> bool:
    """Whether a line is the note that stands in a transcript for output over the cap."""
    return _NOTE.fullmatch(line) is not None


def parse(line: bytes) -> tuple[dict[str, Any], bool]:
    """The object of a line, and whether characters that cannot be stored were taken out of it.

    Raises BadLine.
    """
    if not line.startswith(b"{"):
        raise BadLine("not a JSON object")
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        raise BadLine("not UTF-8") from None
    value = load(text)
    if not isinstance(value, dict):
        raise BadLine("not a JSON object")
    if _SUSPECT.search(line):
        cleaned = clean(value)
        # repr shows surrogates and NUL as escapes, so it never fails where comparing might.
        return cleaned, cleaned != value
    return value, False


def clean(value: Any, depth: int = 0) -> Any:
    """A copy of a JSON value without lone surrogates and NUL, cut below 40 levels."""
    if isinstance(value, str):
        return scrub(value)
    if depth > _DEPTH:
        return None
    if isinstance(value, list):
        return [clean(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {scrub(key): clean(item, depth + 1) for key, item in value.items()}
    return value


def scrub(text: str) -> str:
    """The text with lone surrogates and NUL replaced, so that it can be stored and sent."""
    return _UNSAFE.sub("\ufffd", text)


def one_line(text: str, limit: int) -> str:
    """The text on one line without control characters, at most ``limit`` characters."""
    # Cut first: the rest of a megabyte need not be looked at to show 150 characters.
    words = scrub(_CONTROL.sub("", text[: limit * 4])).split()
    flat = " ".join(words)
    return flat if len(flat) <= limit else flat[: limit - 1].rstrip() + "…"


def excerpt(line: bytes) -> str:
    """The beginning of a bad line, fit to be shown."""
    return _CONTROL.sub("\ufffd", line[: EXCERPT_CHARS * 4].decode("utf-8", "replace"))[:EXCERPT_CHARS]


def text_of(value: Any, limit: int = 1 << 20) -> str:
    """``value`` if it is text, cut to ``limit`` characters, else ""."""
    return scrub(value[:limit]) if isinstance(value, str) else ""


def mapping_of(value: Any) -> Mapping[str, Any]:
    """``value`` if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def count_of(value: Any) -> int:
    """``value`` if it is a whole number that can be counted, else 0."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def money_of(value: Any) -> float | None:
    """``value`` as dollars, None when it is no sensible amount."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        return None
    return float(value)


def status_of(value: Any) -> int | None:
    """``value`` as an HTTP status, else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 100 <= value < 600 else None
