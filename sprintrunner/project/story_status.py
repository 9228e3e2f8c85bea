"""The status line of story files: read for all stories at once, and set on one of them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from .. import files
from ..errors import ProjectError
from .markdown import status_line

#: The line stands at the top of the file; 4 KB hold the fifteen lines it is looked for in.
_HEAD = 4096
_LIMIT = 1_000_000
_LINE = re.compile(rb"(?im)^(?P<name>[ \t]*(?:[-*>][ \t]+)*\**status\**[ \t]*:\**[ \t]*)(?P<value>[^\r\n]*)")


@lru_cache(maxsize=4096)
def _line_of(path: Path, _mtime: int, _size: int) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return status_line(os.read(descriptor, _HEAD).decode("utf-8-sig", "replace"))
    finally:
        os.close(descriptor)


def lines_of(paths: Iterable[tuple[str, Path]]) -> dict[str, tuple[str, int]]:
    """Map keys to what the status line of their file says and when the file was changed (ms).

    Files without the line, and those that cannot be read, are left out; a file is read anew when it changed.
    """
    found: dict[str, tuple[str, int]] = {}
    for key, path in paths:
        try:
            stat = path.stat()
            line = _line_of(path, stat.st_mtime_ns, stat.st_size) if path.is_file() else ""
        except OSError:
            continue
        if line:
            found[key] = (line, stat.st_mtime_ns // 1_000_000)
    return found


def set_line(root: Path, path: Path, value: str) -> None:
    """Set the value of the first status line of a file inside ``root``; nothing else of it changes.

    Raises ProjectError with one sentence.
    """
    raw, found = files.read_regular(path, _LIMIT, root, ProjectError)
    match = _LINE.search(raw, 0, _HEAD)
    if match is None:
        raise ProjectError(f"{path.name} has no status line any more.")
    if match["value"].strip() == value.encode():
        return
    changed = raw[: match.start("value")] + value.encode() + raw[match.end("value") :]
    real = files.real_path(path, root, ProjectError)

    def unchanged() -> bool:
        return files.read_regular(real, _LIMIT, root, ProjectError)[0] == raw

    try:
        written = files.replace(real, changed, found, unchanged)
    except OSError as problem:
        raise ProjectError(f"{path.name} {files.why(problem)}; nothing was written.") from None
    if not written:
        raise ProjectError(f"{path.name} was changed by another program just now; try again.")
