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

#: The order is the order of the cascade layers that tokens.css declares first.
STYLES = (
    "tokens.css",
    "reset.css",
    "base.css",
    "layout.css",
    "verdict.css",
    "cards.css",
    "grid.css",
    "glyphs.css",
    "pages.css",
    "utilities.css",
)


_COMMENT = re.compile(rb"/\*.*?\*/", re.DOTALL)
_INDENT = re.compile(rb"\n\s*")


@cache
def stylesheet() -> bytes:
    """Return all sources of ``static/css/`` as one file, read once in the life of the process.

    Comments and indentation stay behind: a third of the bytes.
    """
    joined = b"\n".join((STATIC / "css" / name).read_bytes() for name in STYLES)
    return _INDENT.sub(b"\n", _COMMENT.sub(b"", joined)).strip()


@cache
def version(name: str) -> str:
    """Return eight digits that change with the content of ``static/<name>`` (or the joined ``app.css``)."""
    content = stylesheet() if name == "app.css" else (STATIC / name).read_bytes()
    return hashlib.sha256(content).hexdigest()[:8]


def asset(name: str) -> str:
    """Return the address of a static file; the version in it makes an old copy in a cache harmless."""
    return f"/static/{name}?v={version(name)}"
