"""Knows where projects keep their status file and picks the one that is meant."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from .. import files
from ..errors import ProjectError
from . import config as bmad

NAMES = ("sprint-status.yaml", "sprint-status.yml")

#: Folders below the project's root, the most common first (counted over public repositories).
FOLDERS = (
    "_bmad-output/implementation-artifacts",
    "docs/sprint-artifacts",
    "docs",
    "docs/implementation-artifacts",
    "_bmad-output",
    ".",
    "_bmad-output/planning-artifacts",
    "docs/stories",
    ".bmad",
    ".bmad-ephemeral",
    "bmad",
    "_bmad-output/sprint-artifacts",
    "docs/bmad/implementation-artifacts",
    "implementation-artifacts",
    "_bmad-output/stories",
    "_bmad-output/implementation-artifacts/stories",
    "bmad-output/implementation-artifacts",
    "docs/bmad",
    "output/implementation-artifacts",
    "_bmad/implementation-artifacts",
    "docs/sprint_artifacts",
    "docs/sprints",
    "docs/_bmad-output/implementation-artifacts",
    "docs/_bmad-output",
    "docs/planning-artifacts",
    "docs/sprint-artifacts/stories",
    "docs/implementation-artifacts/stories",
    ".bmad-ephemeral/stories",
)
#: Settings that name the folder, the newest name first.
_SETTINGS = ("implementation_artifacts", "sprint_artifacts", "dev_ephemeral_location", "output_folder")

_NEVER = re.compile(r"archive|backup|playground|generated|example|sample|template|fixture|node_modules|^old$")
_LIMIT = 2_000_000


def _in_folder(folder: Path) -> Path | None:
    """Return the status file of a folder. Existing is enough: what it is gets said when it is read."""
    return next((folder / name for name in NAMES if os.path.lexists(folder / name)), None)


def known(root: Path) -> Iterator[Path]:
    """Yield the status files in the known folders of ``root``, in the order of the table."""
    for name in FOLDERS:
        found = _in_folder(root / name)
        if found:
            yield found


def _in_applications(root: Path) -> Iterator[Path]:
    """Yield those of a project kept one folder down, in a repository of several."""
    for folder in sorted(root.glob("*/_bmad-output/implementation-artifacts")):
        found = _in_folder(folder)
        if found and not _NEVER.search(folder.relative_to(root).parts[0].lower()):
            yield found


def _distinct(paths: Iterable[Path], root: Path) -> list[Path]:
    """Drop files that are the same as, or a copy of, an earlier one."""
    seen: set[object] = set()
    result: list[Path] = []
    for path in paths:
        try:
            mark: object = files.read_regular(path, _LIMIT, root, ProjectError)[0]
        except ProjectError:
            mark = os.path.realpath(path)
        if mark not in seen:
            seen.add(mark)
            result.append(path)
    return result


def _configured(root: Path, config: Mapping[str, str]) -> Path | None:
    for name in _SETTINGS:
        folder = bmad.inside(root, config.get(name, ""))
        found = _in_folder(folder) if folder else None
        if found:
            return found
    return None


def locate(root: Path, config: Mapping[str, str]) -> Path:
    """Return the project's status file: where the configuration says, else the only one in a known folder.

    Raises ProjectError with one sentence when there is none, or when several differ.
    """
    configured = _configured(root, config)
    if configured:
        return configured
    found = _distinct(known(root), root) or _distinct(_in_applications(root), root)
    if not found:
        raise ProjectError(
            f"There is no sprint-status.yaml in {root}; create one with BMAD's sprint-planning workflow."
        )
    if len(found) > 1:
        names = ", ".join(str(path.relative_to(root)) for path in found)
        raise ProjectError(
            f"There are several different status files ({names}); say which one is meant by"
            " implementation_artifacts in BMAD's configuration, or remove the others."
        )
    return found[0]
