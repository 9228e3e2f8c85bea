"""Finds a BMAD project, its folders and its documents, and reads nothing outside of it."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import MappingProxyType

from .. import files
from ..errors import ProjectError
from ..sprint import is_startable_key
from . import config as bmad
from . import markdown, places, stories, story_status
from .markdown import Outline, story_outline

__all__ = [
    "Outline",
    "Project",
    "artefact",
    "context_file",
    "descriptions",
    "epic_text",
    "epic_titles",
    "find_root",
    "load",
    "read_inside",
    "set_story_line",
    "state_dir",
    "story_file",
    "story_lines",
    "story_outline",
]

_ARTEFACTS = {"story": "{}.md", "discovery": "{}-discovery.md", "tech-spec": "tech-spec-{}.md"}
_EPICS = re.compile(r"(?!.*retro).*epic.*\.md", re.IGNORECASE)
_DOCUMENT_LIMIT = 2_000_000
#: The most files looked into for epics.
_MOST_DOCUMENTS = 200


@dataclass(frozen=True)
class Project:
    """A project: ``root`` is its real path, ``config`` BMAD's settings with the names in them expanded.

    ``status_path``, ``planning`` and ``implementation`` are absolute and lie inside ``root``; ``era`` is one
    of alpha-7, alpha-17, alpha-23, 6.0, 6.2, 6.11 (what holds until or from there), another version, or none.
    """

    root: Path
    name: str
    status_path: Path
    planning: Path
    implementation: Path
    config: Mapping[str, str]
    era: str


def find_root(start: Path) -> Path:
    """Return the nearest folder at or above ``start`` that holds a project.

    That is one with BMAD installed, or a git repository with a status file in a known place; failing that,
    any folder with a status file in a known place. Raises ProjectError when there is none.
    """
    here = Path(os.path.realpath(start))
    for folder in (here, *here.parents):
        if bmad.install_folder(folder) or ((folder / ".git").exists() and any(places.known(folder))):
            return folder
    # Without git the places overlap: in "docs/stories" both the root and "docs" have a file in a known place.
    candidates = [folder for folder in (here, *here.parents) if any(places.known(folder))]
    if not candidates:
        raise ProjectError(f"No BMAD project was found in {start} or above it; use --project DIR.")
    return candidates[0]


def load(root: Path) -> Project:
    """Read the configuration and find the status file of the project at ``root``.

    Raises ProjectError with one sentence when there is no status file, or several that differ.
    """
    root = Path(os.path.realpath(root))
    if not root.is_dir():
        raise ProjectError(f"{root} is not a folder.")
    config = bmad.read(root)
    status_path = places.locate(root, config)
    config.update(_story_location(root, status_path, config))
    implementation = _folder(root, config, "implementation_artifacts", "sprint_artifacts")
    return Project(
        root=root,
        name=config.get("project_name") or root.name,
        status_path=status_path,
        planning=_planning(root, config),
        implementation=implementation or status_path.parent,
        config=MappingProxyType(config),
        era=bmad.era(root),
    )


def _folder(root: Path, config: Mapping[str, str], *names: str) -> Path | None:
    """Return the first of the named settings that is a folder inside the project."""
    found = (bmad.inside(root, config.get(name, "")) for name in names)
    return next((folder for folder in found if folder), None)


def _planning(root: Path, config: Mapping[str, str]) -> Path:
    configured = _folder(root, config, "planning_artifacts")
    if configured:
        return configured
    output = _folder(root, config, "output_folder")
    tried = [output / "planning-artifacts"] if output else []
    tried += [root / "_bmad-output/planning-artifacts", root / "docs/planning-artifacts"]
    return next((folder for folder in tried if folder.is_dir()), output or root / "docs")


def _story_location(root: Path, status_path: Path, config: Mapping[str, str]) -> dict[str, str]:
    """Return the status file's own word on where stories are, when it is a folder of this project."""
    try:
        text = read_inside(root, status_path, _DOCUMENT_LIMIT)
    except ProjectError:
        return {}
    value = bmad.expand(bmad.yaml_scalars(text).get("story_location", ""), config, root)
    folder = bmad.inside(root, value)
    return {"story_location": str(folder)} if folder and folder.is_dir() else {}


def state_dir(root: Path, env: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of what Sprint Runner remembers about this project, made with mode 0700.

    ``SPRINTRUNNER_STATE_DIR`` names it; else it lies in ``$XDG_STATE_HOME/sprintrunner`` under the project's
    name and a hash of its real path. Raises ProjectError when it would lie inside the project.
    """
    root = Path(os.path.realpath(root))
    given = env.get("SPRINTRUNNER_STATE_DIR", "")
    folder = Path(os.path.realpath(Path(given).expanduser() if given else _default_state(root, env)))
    if folder.is_relative_to(root):
        raise ProjectError(f"The state folder {folder} lies inside the project; set SPRINTRUNNER_STATE_DIR.")
    try:
        _make_private(folder, ours=not given)
    except OSError as problem:
        raise ProjectError(f"The state folder {folder} {files.why(problem)}.") from None
    return folder


def _default_state(root: Path, env: Mapping[str, str]) -> Path:
    # The XDG specification tells to ignore relative paths.
    base = Path(env.get("XDG_STATE_HOME", ""))
    if not base.is_absolute():
        base = Path(env.get("HOME") or Path.home()) / ".local/state"
    name = re.sub(r"[^\w.-]+", "-", root.name).strip(".-")[:60] or "project"
    return base / "sprintrunner" / f"{name}-{hashlib.sha256(os.fsencode(root)).hexdigest()[:12]}"


def _make_private(folder: Path, ours: bool) -> None:
    """Make the folder with mode 0700. A folder somebody named keeps the mode it has: it may be /tmp."""
    if not folder.is_dir():
        folder.mkdir(mode=0o700, parents=True)
    elif ours and stat.S_IMODE(folder.stat().st_mode) != 0o700:
        folder.chmod(0o700)


def read_inside(root: Path, path: Path, limit: int = 1_000_000) -> str:
    """Return the text of a regular file inside ``root``, what is not UTF-8 replaced.

    Raises ProjectError with one sentence for a missing file, a link out of the project, a FIFO, a folder, no
    permission, or more than ``limit`` bytes. Never blocks.
    """
    raw, _ = files.read_regular(path, limit, root, ProjectError)
    return raw.decode("utf-8-sig", "replace")


def artefact(project: Project, key: str, kind: str) -> Path:
    """Return where a document of a story is written; ``kind`` is story, discovery or tech-spec.

    Raises ProjectError for a key that is not fit for a file name.
    """
    if not is_startable_key(key):
        raise ProjectError(f"The key {key[:60]!r} cannot be used as a file name.")
    return project.implementation / _ARTEFACTS[kind].format(key)


def context_file(project: Project) -> Path:
    """Return where the project context is kept."""
    return project.planning / "project-context.md"


def _finder(project: Project, keys: Collection[str]) -> stories.Finder:
    location = project.config.get("story_location")
    folders = [project.implementation, project.status_path.parent, *([Path(location)] if location else [])]
    return stories.Finder(project.root, stories.story_folders(project.root, folders), keys)


def story_file(project: Project, key: str, all_keys: Collection[str]) -> Path | None:
    """Return the file of a story, matched by its whole key; None when there is none or it is not certain.

    ``all_keys`` are the keys of the status file: a file that begins with a number two of them share belongs
    to neither.
    """
    return _finder(project, all_keys).find(key)


def story_lines(project: Project, keys: Collection[str]) -> dict[str, tuple[str, int]]:
    """Map each key whose file has a status line to what that says, and when the file was changed (ms)."""
    finder = _finder(project, keys)
    return story_status.lines_of((key, path) for key in keys if (path := finder.find(key)))


def set_story_line(project: Project, key: str, keys: Collection[str], value: str) -> Path:
    """Set the status line of a story's file to ``value``, which the status file says, and return the file.

    Only the word on that line changes. Raises ProjectError with one sentence.
    """
    path = story_file(project, key, keys)
    if path is None:
        raise ProjectError(f"{key} has no story file.")
    story_status.set_line(project.root, path, value)
    return path


def _epic_documents(project: Project) -> Iterator[Path]:
    """Yield the documents that may describe epics: ``epics.md`` first, then others, then sharded ones."""
    folders = [project.planning, project.planning / "epics", project.root / "docs"]
    folders += [project.root / "docs/epics", project.status_path.parent, project.implementation]
    for folder in dict.fromkeys(folders):
        with suppress(OSError):
            fitting = [path for path in folder.iterdir() if _EPICS.fullmatch(path.name)]
            yield from sorted(fitting, key=lambda path: (path.name.lower() != "epics.md", path.name))


def _epic_texts(project: Project) -> Iterator[tuple[Path, str]]:
    for path in islice(_epic_documents(project), _MOST_DOCUMENTS):
        with suppress(ProjectError):
            yield path, read_inside(project.root, path, _DOCUMENT_LIMIT)


def epic_text(project: Project, epic_id: str) -> str | None:
    """Return the epic's own section of the planning documents, None when there is none.

    The first document with it counts; in it the longest section, as a list of epics often stands above. A
    document without that heading counts when it is named after the epic.
    """
    by_name: str | None = None
    for path, text in _epic_texts(project):
        numbered = markdown.numbered(text, "epic")
        found = [section.text for number, _, section in numbered if markdown.same_id(number, epic_id)]
        if found:
            return max(found, key=len)
        if re.fullmatch(rf"epic-{re.escape(epic_id)}(-\D.*)?\.md", path.name, re.IGNORECASE):
            by_name = by_name or text
    return by_name


def epic_titles(project: Project) -> dict[str, str]:
    """Map the ids of the described epics (``2a``, ``3-5`` for 3.5) to their titles."""
    titles: dict[str, str] = {}
    for _, text in _epic_texts(project):
        for number, title, _ in markdown.numbered(text, "epic"):
            if title:
                titles.setdefault(number, title)
    return titles


def descriptions(project: Project, keys: Collection[str]) -> dict[str, str]:
    """Map each key to the first lines of its story: from its file, else from the epics documents."""
    finder = _finder(project, keys)
    planned = _planned(project)
    result: dict[str, str] = {}
    for key in keys:
        text = _described(project.root, finder.find(key)) or planned.get(stories.short_id(key) or "", "")
        if text:
            result[key] = text
    return result


def _described(root: Path, path: Path | None) -> str:
    if path is None:
        return ""
    try:
        outline = story_outline(read_inside(root, path))
    except ProjectError:
        return ""
    return outline.description or outline.title


def _planned(project: Project) -> dict[str, str]:
    """Map story numbers to the first lines of their section in the epics documents."""
    found: dict[str, str] = {}
    for _, text in _epic_texts(project):
        for number, title, section in markdown.numbered(text, "story"):
            found.setdefault(number, markdown.description(section) or title)
    return found
