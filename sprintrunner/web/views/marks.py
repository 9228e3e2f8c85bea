"""The mark of three slanted bars in the colour of a state, as the favicon's address (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from urllib.parse import quote

#: One colour for both themes: a browser's tab bar does not tell which it has.
_FILLS: Mapping[str, str] = {
    "neutral": "#858e9f",
    "running": "#2b6be4",
    "done": "#2b9a57",
    "blocked": "#c8342b",
    "attention": "#c07c00",
    "asleep": "#7c54d6",
}

_BARS = ("M7.4 3h7.8l-1 3H6.4z", "M4.6 7.2h7.8l-1 3H3.6z", "M1.8 11.4h5.8l-1 3H.8z")


@cache
def favicon(hue: str, last: str = "") -> str:
    """Return a ``data:`` address; ``last`` colours the lowest bar apart (running, and it needs you)."""
    fills = (_FILLS[hue], _FILLS[hue], _FILLS[last or hue])
    paths = "".join(f"<path fill='{fill}' d='{bar}'/>" for fill, bar in zip(fills, _BARS, strict=True))
    svg = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 1 16 15'>{paths}</svg>"
    return "data:image/svg+xml," + quote(svg, safe=" ='/:")
