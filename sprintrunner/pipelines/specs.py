"""The spec files that Build Auto writes: which belongs to a story, and what its frontmatter says."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .. import project as projects
from ..errors import ProjectError
from ..project import Project
from ..project.stories import short_id

STATUSES = ("draft", "ready-for-dev", "in-progress", "in-review", "done", "blocked")
_FRONTMATTER = re.compile(r"\A\ufeff?---[ \t]*\n(.*?)^---[ \t]*$", re.DOTALL | re.MULTILINE)
_CONDITION = re.compile(
    r"^[ \t>*_-]*Blocking condition[*_]*:[*_]*[ \t]*(\S.*)$", re.IGNORECASE | re.MULTILINE
)
_FALLBACK = re.compile(r"bmad-(?:build|dev)-auto-result-.*\.md")
_SUFFIX = re.compile(r"-\d{1,3}")
_LIMIT = 1_000_000
_MOST = 20_000
_MOST_DEFERRED = 50


@dataclass(frozen=True, slots=True)
class Spec:
    """One spec, or the result file Build Auto leaves without one. ``status`` is "" where it tells none.

    ``path`` is relative to the project; ``mtime`` in ms. ``follow_up`` is None where the spec does not say.
    """

    path: str
    status: str
    mtime: int
    condition: str = ""
    baseline: str = ""
    follow_up: bool | None = None
    deferred: tuple[Mapping[str, Any], ...] = field(default=())


def find(project: Project, key: str, keys: Collection[str]) -> Spec | None:
    """The newest spec of a story: named after its key, or after a number no other story has."""
    number = short_id(key)
    alone = number is not None and Counter(short_id(other) for other in {*keys, key})[number] == 1
    mine = [path for path in _files(project) if _belongs(path.name, key, number if alone else None)]
    return max(_readable(project, mine), key=lambda spec: spec.mtime, default=None)


def result_since(project: Project, since: int) -> Spec | None:
    """The newest result file without a spec, written at or after ``since`` (ms)."""
    files = [path for path in _files(project) if _FALLBACK.fullmatch(path.name)]
    fresh = [spec for spec in _readable(project, files) if spec.mtime >= since]
    return max(fresh, key=lambda spec: spec.mtime, default=None)


def _files(project: Project) -> Iterator[Path]:
    try:
        with os.scandir(project.implementation) as entries:
            names = sorted(entry.name for _, entry in zip(range(_MOST), entries, strict=False))
    except OSError:
        return
    yield from (project.implementation / name for name in names if name.endswith(".md"))


def _belongs(name: str, key: str, number: str | None) -> bool:
    if not name.startswith("spec-"):
        return False
    stem = name.removeprefix("spec-").removesuffix(".md")
    if stem == key or (stem.startswith(key) and _SUFFIX.fullmatch(stem[len(key) :])):
        return True
    return number is not None and short_id(stem) == number


def _readable(project: Project, paths: list[Path]) -> Iterator[Spec]:
    for path in paths:
        try:
            text = projects.read_inside(project.root, path, _LIMIT)
            mtime = path.stat().st_mtime_ns // 1_000_000
        except (ProjectError, OSError):
            continue
        yield _parse(path.relative_to(project.root).as_posix(), text, mtime)


def _parse(path: str, text: str, mtime: int) -> Spec:
    head = _head(text)
    status = str(head.get("status") or "").strip().lower()
    told = _CONDITION.findall(text)
    flag = head.get("followup_review_recommended")
    listed = head.get("deferred")
    return Spec(
        path,
        status if status in STATUSES else "",
        mtime,
        condition=" ".join(told[-1].split())[:500] if told else "",
        baseline=str(head.get("baseline_revision") or "").strip()[:100],
        follow_up=flag if isinstance(flag, bool) else None,
        deferred=tuple(_items(listed)),
    )


def _head(text: str) -> Mapping[str, Any]:
    """The frontmatter as a map; what cannot be parsed tells nothing, and nothing is no success."""
    match = _FRONTMATTER.match(text.replace("\r\n", "\n"))
    try:
        # Strings only where it matters: a revision of digits must not become a number.
        head = yaml.load(match[1], Loader=_Loader) if match else None  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, RecursionError, ValueError):
        return {}
    return head if isinstance(head, Mapping) else {}


class _Loader(yaml.SafeLoader):
    """YAML with booleans but without numbers and dates: ``1234567`` and ``12e4567`` are revisions."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith((":bool", ":null", ":merge"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _items(listed: Any) -> Iterator[Mapping[str, Any]]:
    """The deferred findings as plain short text: they are evidence, shown and never acted on."""
    for item in listed[:_MOST_DEFERRED] if isinstance(listed, list) else ():
        if isinstance(item, Mapping):
            names = ("summary", "evidence", "location", "severity")
            yield {name: str(item[name]).strip()[:500] for name in names if item.get(name) is not None}
