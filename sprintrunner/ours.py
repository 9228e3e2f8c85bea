"""Which changed paths of the tree are our own doing: a batch left them, or we changed them for a person."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from . import files

#: In the state folder: path relative to the project's root → hash, of what was changed outside a batch.
_NAME = "ours.json"


def file_hash(path: Path) -> str:
    """The sha256 of a file's bytes, of a link's target, or empty for what is not there."""
    try:
        if path.is_symlink():
            return hashlib.sha256(str(path.readlink()).encode("utf-8", "surrogateescape")).hexdigest()
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    except OSError:
        return ""


def foreign(
    root: Path, state_dir: Path, dirty: Iterable[str], left: Mapping[str, str] | None
) -> tuple[str, ...]:
    """Those of the changed paths that are not as we left them: a person's.

    ``left`` is what the newest batch recorded at its end (path to hash).
    """
    known, own = left or {}, _read(state_dir)
    return tuple(p for p in dirty if file_hash(root / p) not in (known.get(p), own.get(p)))


def remember(root: Path, state_dir: Path, path: Path) -> None:
    """Note that we changed one file outside a batch: it must not refuse the next start as a person's.

    For a file that was clean or ours before. Raises OSError when the state folder takes nothing.
    """
    if path.is_relative_to(root):
        name = path.relative_to(root).as_posix()
        noted = {**_read(state_dir), name: file_hash(path)}
        files.keep(state_dir / _NAME, json.dumps(noted).encode())


def _read(state_dir: Path) -> dict[str, str]:
    try:
        found = json.loads((state_dir / _NAME).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
