"""Reads what a BMAD installation of any era says about the folders of a project."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import files
from ..errors import ProjectError

#: Where BMAD was installed, newest first.
INSTALL_FOLDERS = ("_bmad", ".bmad", "bmad")
_INSTALL_PARTS = ("bmm", "core", "_config", "_cfg", "config.toml", "config.yaml", "custom")

#: The first that names a key wins: the module's own file is newer than the shared one.
_YAML_FILES = ("bmm/config.yaml", "core/config.yaml", "config.yaml")
#: Since 6.11; later layers win.
_TOML_FILES = ("config.toml", "config.user.toml", "custom/config.toml", "custom/config.user.toml")
_TOML_TABLES = (("core",), ("modules", "core"), ("bmm",), ("modules", "bmm"))

_LIMIT = 200_000
_EXPANSIONS = 5


def install_folder(root: Path) -> Path | None:
    """Return the folder BMAD is installed in below ``root``; one plainly named ``bmad`` must look like it."""
    for name in INSTALL_FOLDERS:
        folder = root / name
        if folder.is_dir() and (name != "bmad" or any((folder / part).exists() for part in _INSTALL_PARTS)):
            return folder
    return None


def _text(path: Path, root: Path) -> str:
    """Return the text of a configuration file, empty where there is none that may be read."""
    try:
        raw, _ = files.read_regular(path, _LIMIT, root, ProjectError)
    except ProjectError:
        return ""
    return raw.decode("utf-8-sig", "replace")


def yaml_scalars(text: str) -> dict[str, str]:
    """Return the top-level ``key: value`` lines of a YAML file.

    Read by line, as an unquoted ``{project-root}/…`` is common and no YAML parser takes it.
    """
    found: dict[str, str] = {}
    for line in text.splitlines():
        match = re.match(r"([A-Za-z_][\w-]*):[ \t]+(\"[^\"]*\"|'[^']*'|[^\s#].*?)[ \t]*(?:[ \t]#.*)?$", line)
        if match:
            found.setdefault(match[1], match[2].strip("\"'").strip())
    return found


def _toml_scalars(text: str, name: Path) -> dict[str, str]:
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        raise ProjectError(f"{name} is not valid TOML: {problem}") from None
    found = {key: value for key, value in data.items() if isinstance(value, str)}
    for path in _TOML_TABLES:
        found.update(_strings(data, path))
    return found


def _strings(data: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, str]:
    table: Any = data
    for name in path:
        table = table.get(name) if isinstance(table, Mapping) else None
    if not isinstance(table, Mapping):
        return {}
    return {key: value for key, value in table.items() if isinstance(value, str)}


def read(root: Path) -> dict[str, str]:
    """Return the settings of the installation, expanded; empty without one. ProjectError for broken TOML."""
    folder = install_folder(root)
    if folder is None:
        return {}
    found: dict[str, str] = {}
    for name in _YAML_FILES:
        for key, value in yaml_scalars(_text(folder / name, root)).items():
            found.setdefault(key, value)
    for name in _TOML_FILES:
        found.update(_toml_scalars(_text(folder / name, root), folder / name))
    return {key: expand(value, found, root) for key, value in found.items()}


def expand(value: str, config: Mapping[str, str], root: Path) -> str:
    """Replace ``{project-root}`` and the names of other settings, nested up to five deep."""
    known = {**config, "project-root": str(root), "project_root": str(root)}
    for _ in range(_EXPANSIONS):
        new = re.sub(r"\{+([\w-]+)\}+", lambda match: known.get(match[1], match[0]), value)
        if new == value:
            break
        value = new
    return value


def inside(root: Path, text: str) -> Path | None:
    """Return the folder a setting names when it lies inside ``root``, else None.

    Settings travel between machines: absolute paths of another one and unexpanded names are of no use.
    """
    if not text or "{" in text or "\0" in text or re.match(r"[A-Za-z]:[\\/]|\\|~", text):
        return None
    path = Path(os.path.normpath(root / text))
    real = Path(os.path.realpath(path))
    return path if path.is_relative_to(root) and real.is_relative_to(os.path.realpath(root)) else None


def era(root: Path) -> str:
    """Name the generation of the installation: its version where the manifest tells, else the folder's."""
    folder = install_folder(root)
    if folder is None:
        return "none"
    for name in ("_config", "_cfg"):
        match = re.search(
            r"^\s*version:\s*['\"]?([^\s'\"]+)", _text(folder / name / "manifest.yaml", root), re.M
        )
        if match:
            return _era_of(match[1])
    if (folder / "config.toml").is_file():
        return "6.11"
    return {"bmad": "alpha-7", ".bmad": "alpha-17"}.get(folder.name, "6.0")


def _era_of(version: str) -> str:
    """Map a version to the first or last of its generation: the form of skills and places changed there."""
    alpha = re.match(r"6\.0\.0-alpha\.(\d+)", version, re.IGNORECASE)
    if alpha:
        number = int(alpha[1][:6])
        return "alpha-7" if number <= 7 else "alpha-17" if number <= 17 else "alpha-23"
    minor = re.match(r"6\.(\d+)", version)
    if not minor:
        return version
    number = int(minor[1][:6])
    return "6.0" if number < 2 else "6.2" if number < 11 else "6.11"
