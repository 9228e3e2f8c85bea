"""Text that others wrote, made safe to print on a terminal (pure)."""

from __future__ import annotations

import unicodedata

#: Bidirectional overrides and isolates: harmless bytes, but they reorder what a reader sees.
_REORDERING = frozenset("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_UNSAFE_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})


def printable(text: object, limit: int | None = None) -> str:
    """Return ``text`` on one line without control characters; cut to ``limit`` characters with an ellipsis.

    Escape sequences lose their introducer, so the terminal shows their remains as plain letters.
    """
    clean = " ".join("".join(map(_safe, str(text))).split())
    if limit is not None and len(clean) > limit:
        return clean[: limit - 1] + "…"
    return clean


def _safe(character: str) -> str:
    if character in _REORDERING:
        return ""
    if unicodedata.category(character) in _UNSAFE_CATEGORIES:
        return " " if character.isspace() else "\ufffd"
    return character


def duration(seconds: float) -> str:
    """Return a length of time as people say it: ``8 s``, ``3 min 05 s``, ``2 h 07 min``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def count(number: int, noun: str, plural: str | None = None) -> str:
    """Return ``1 story``, ``3 stories``: the number with the form of the noun it asks for."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def dollars(amount: float | None) -> str:
    """Return an amount of dollars, or ``unknown`` where the agent could not tell it."""
    return "unknown" if amount is None else f"${amount:,.2f}"
