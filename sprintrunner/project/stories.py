"""Finds the file of a story by its whole key, never by a part of it."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from ..sprint import is_startable_key

_PREFIX = re.compile(r"(?:story[-_ ]?|sprint-)?", re.IGNORECASE)
_NUMBER = re.compile(r"\d+[a-z]?(?:[-.]\d+[a-z]?)+(?=[-_. ]|$)", re.IGNORECASE)
_COMPANION = re.compile(
    r"[-_.](discovery(-story)?|review|plan|context|tech-spec|retro\S*|validation\S*|completion\S*|summary)$",
    re.IGNORECASE,
)
#: A folder with more files than this is not one of stories.
_MOST = 20_000


def _markdown(folder: Path) -> Iterator[tuple[str, Path]]:
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for _, entry in zip(range(_MOST), entries, strict=False)]
    except OSError:
        return
    for name in sorted(names):
        if name.lower().endswith(".md"):
            yield name[:-3], folder / name


def _epic_folders(folder: Path) -> Iterator[Path]:
    try:
        with os.scandir(folder) as entries:
            names = sorted(e.name for e in entries if e.name.lower().startswith("epic") and e.is_dir())
    except OSError:
        return
    yield from (folder / name for name in names)


def story_folders(root: Path, folders: Iterable[Path]) -> list[Path]:
    """List the folders and the sub-folders BMAD projects use, nearest first; none outside of ``root``."""
    places: list[Path] = []
    for folder in folders:
        for place in (folder, folder / "stories"):
            places.extend([place, *_epic_folders(place)])
    places += [root / "docs/stories", root / "docs/archive/stories"]
    return [place for place in dict.fromkeys(places) if _is_inside(root, place)]


def _is_inside(root: Path, path: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def short_id(text: str) -> str | None:
    """Return the number a key or file name begins with: ``1-2``, ``2a-1``, dots as dashes; None without."""
    prefix = _PREFIX.match(text)
    match = _NUMBER.match(text, prefix.end() if prefix else 0)
    return match.group().replace(".", "-").lower() if match else None


class Finder:
    """Matches the keys of one status file with the Markdown files that lie in a project's story folders."""

    def __init__(self, root: Path, folders: Iterable[Path], keys: Collection[str]) -> None:
        self._root = root
        self._keys = frozenset(keys)
        self._numbers = Counter(short_id(key) for key in self._keys)
        self._named: dict[str, Path] = {}
        self._numbered: dict[str, list[Path]] = {}
        for stem, path in (found for folder in folders for found in _markdown(folder)):
            self._named.setdefault(stem, path)
            self._numbered.setdefault(short_id(stem) or "", []).append(path)

    def find(self, key: str) -> Path | None:
        """Return the file of a story; None when there is none, or when it is not certain which.

        In order: ``<key>.md``, ``story-<key>.md``, then the one file that begins with the key's number, where
        no other key has that number.
        """
        if not is_startable_key(key):
            return None
        found = self._named.get(key) or self._named.get(f"story-{key}") or self._by_number(key)
        return found if found and _is_inside(self._root, found) else None

    def _by_number(self, key: str) -> Path | None:
        number = short_id(key)
        shared = self._numbers[number] - (key in self._keys)
        if number is None or shared:
            return None
        fitting = [path for path in self._numbered.get(number, []) if self._is_free(path.stem)]
        return fitting[0] if len(fitting) == 1 else None

    def _is_free(self, stem: str) -> bool:
        """Tell whether a file is neither a companion nor named after a key of its own."""
        if _COMPANION.search(stem):
            return False
        bare = _PREFIX.sub("", stem, count=1)
        runs = (bare[: mark.start()] for mark in re.finditer(r"[-.]|$", bare))
        return not any(run in self._keys for run in runs)
