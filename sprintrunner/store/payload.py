"""Text and JSON made fit to be stored: no NUL, no lone surrogate, not too long (pure)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from .schema import PAYLOAD_LIMIT

_UNFIT = re.compile("[\x00\ud800-\udfff]")
_DEEPEST = 32
_WHOLE = 1 << 62

#: Longest text and longest list that survive, tried in this order until the payload is small enough.
_ROUNDS = ((16_384, 10_000), (4_096, 2_000), (1_024, 400), (256, 60), (64, 12))


def clean(text: str) -> str:
    """Replace what UTF-8 or the database cannot hold by U+FFFD."""
    return _UNFIT.sub("\ufffd", text) if _UNFIT.search(text) else text


def _fit(text: str, longest: int) -> str:
    cleaned = clean(text)
    if len(cleaned) <= longest:
        return cleaned
    return f"{cleaned[:longest]}… [{len(cleaned) - longest} characters cut]"


def _fit_mapping(value: Mapping[Any, Any], longest: int, most: int, depth: int) -> dict[str, Any]:
    fitted = {}
    for name, item in list(value.items())[:most]:
        fitted[_fit(str(name), 200)] = plain(item, longest, most, depth + 1)
    return fitted


def plain(value: Any, longest: int = _WHOLE, most: int = _WHOLE, depth: int = 0) -> Any:
    """Reduce ``value`` to what JSON knows; texts keep ``longest`` characters, lists ``most`` items."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return _fit(str(value), longest)
    if isinstance(value, float):
        # JSON has no NaN and no infinity; a browser would choke on them.
        return value if math.isfinite(value) else None
    if depth >= _DEEPEST:
        return "…"
    if isinstance(value, Mapping):
        return _fit_mapping(value, longest, most, depth)
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item, longest, most, depth + 1) for item in list(value)[:most]]
    return _fit(str(value), longest)


def scrubbed(value: Any, scrub: Callable[[str], str]) -> Any:
    """``value``, reduced to what JSON knows, with ``scrub`` applied to every text and name in it."""
    return _scrub(plain(value), scrub)


def _scrub(value: Any, scrub: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, dict):
        return {scrub(name): _scrub(item, scrub) for name, item in value.items()}
    return [_scrub(item, scrub) for item in value] if isinstance(value, list) else value


def encode(value: Any) -> str:
    """The JSON text of ``value``, whatever it holds."""
    return json.dumps(plain(value), ensure_ascii=False, separators=(",", ":"))


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _fits(text: str) -> bool:
    # A character has at most four bytes: most payloads are judged without encoding them.
    return len(text) * 4 <= PAYLOAD_LIMIT or len(text.encode()) <= PAYLOAD_LIMIT


def encode_capped(payload: Mapping[str, Any], keep: frozenset[str]) -> str:
    """The JSON of an event's payload in at most PAYLOAD_LIMIT bytes.

    Long texts are cut with a marker, then long lists; ``truncated`` tells that something is missing. When
    even that is too much only the keys in ``keep`` stay.
    """
    text = encode(payload)
    if _fits(text):
        return text
    for longest, most in _ROUNDS:
        text = _dump({**plain(payload, longest, most), "truncated": True})
        if _fits(text):
            return text
    kept = {name: _least(value) for name, value in payload.items() if name in keep}
    return _dump({**kept, "truncated": True})


def _least(value: Any) -> Any:
    """A value as it is where that takes little room, else the beginning of its JSON as text."""
    small = plain(value, 64, 12)
    text = _dump(small)
    return small if len(text) <= 1_000 else _fit(text, 1_000)
