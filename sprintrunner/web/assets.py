"""Where templates and static files lie, and the one stylesheet joined from its small sources."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]

#: In an installed wheel the two folders travel inside the package; in a checkout they stand at its top.
_ROOT = _PACKAGE / "_web" if (_PACKAGE / "_web").is_dir() else _PACKAGE.parent

TEMPLATES: Path = _ROOT / "templates"
STATIC: Path = _ROOT / "static"

#: The sources of each joined stylesheet; the order is that of the cascade layers tokens.css declares first.
#: The dashboard is the page that is open all night and loads the first alone; other pages need both.
STYLES = {
    "app.css": (
        "tokens.css",
        "reset.css",
        "base.css",
        "layout.css",
        "verdict.css",
        "cards.css",
        "grid.css",
        "glyphs.css",
        "top-search.css",
        "utilities.css",
    ),
    "pages.css": ("pages.css", "story.css", "settings.css", "parts.css", "time.css", "history.css"),
}


_COMMENT = re.compile(rb"/\*.*?\*/", re.DOTALL)
#: Spaces round these signs mean nothing in CSS; a space before a colon does, in a selector.
_SPACES = re.compile(rb"\s*([{};,>])\s*|(?<=:)\s+|\s*\n\s*")


@cache
def stylesheet(name: str = "app.css") -> bytes:
    """Return the sources of one stylesheet in ``static/css/`` as one file, read once a process.

    Comments and what only people need stay behind: two fifths of the bytes.
    """
    joined = b"\n".join((STATIC / "css" / source).read_bytes() for source in STYLES[name])
    return _SPACES.sub(rb"\1", _COMMENT.sub(b"", joined)).strip()


@cache
def version(name: str) -> str:
    """Return eight digits that change with the content of ``static/<name>`` (or of a joined stylesheet)."""
    content = stylesheet(name) if name in STYLES else (STATIC / name).read_bytes()
    return hashlib.sha256(content).hexdigest()[:8]


def asset(name: str) -> str:
    """Return the address of a static file; the version in it makes an old copy in a cache harmless."""
    return f"/static/{name}?v={version(name)}"
