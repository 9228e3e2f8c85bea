"""The places settings come from: sprintrunner.toml, the saved file, the environment."""

from __future__ import annotations

import json
import os
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import SettingsInvalid
from . import checking
from .fields import FieldInfo
from .model import FIELDS
from .sections import AGENTS, COMMANDS, AgentConfig, CommandConfig

FILE_NAME = "sprintrunner.toml"
SAVED_NAME = "settings.json"
_LARGEST_FILE = 1 << 20

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True, slots=True)
class FileLayer:
    """What ``sprintrunner.toml`` says."""

    values: Mapping[str, Any] = field(default_factory=dict)
    agents: Mapping[str, AgentConfig] = field(default_factory=dict)
    commands: Mapping[str, CommandConfig] = field(default_factory=dict)


def _read(path: Path) -> str | None:
    """The text of a file, None where there is none; SettingsInvalid for what cannot be read."""
    try:
        # Without O_NONBLOCK a named pipe in its place would hang the server.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SettingsInvalid({path.name: f"cannot be read: {error.strerror}"}, str(path)) from error
    try:
        return _decoded(_content(descriptor, path), path)
    finally:
        os.close(descriptor)


def _content(descriptor: int, path: Path) -> bytes:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise SettingsInvalid({path.name: "is not a regular file"}, str(path))
    if found.st_size > _LARGEST_FILE:
        raise SettingsInvalid({path.name: "is larger than 1 MiB"}, str(path))
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        return file.read(_LARGEST_FILE)


def _decoded(raw: bytes, path: Path) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise SettingsInvalid({f"line {line}": "is not UTF-8"}, str(path)) from error


def _line_of(name: str, text: str) -> int:
    """The line of a dotted name in TOML text, counted from 1; the parser itself does not tell."""
    best, depth, table = 1, 0, ""
    parts = name.split(".")
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.split("#")[0].strip()
        if bare.startswith("["):
            table = _plain(bare.strip("[]"))
            here = table
        elif "=" in bare:
            key = _plain(bare.split("=")[0])
            here = f"{table}.{key}" if table else key
        else:
            continue
        shared = _shared(here.split("."), parts)
        if shared > depth:
            best, depth = number, shared
    return best


def _plain(name: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in name.split("."))


def _shared(here: list[str], parts: list[str]) -> int:
    """How many parts of the wanted name this line's name starts with; 0 when it leads elsewhere."""
    return len(here) if here == parts[: len(here)] else 0


def _parsed(text: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        message, _, place = str(error).partition(" (at ")
        line = place.split(",")[0].rstrip(")") if place.startswith("line") else _end(place, text)
        raise SettingsInvalid({line: message}, str(path)) from error


def _end(place: str, text: str) -> str:
    return f"line {text.count(chr(10)) + 1}" if place.startswith("end") else "line 1"


def _file_problems(found: Mapping[str, Any]) -> dict[str, str]:
    plain = {name: value for name, value in found.items() if name not in checking.SECTIONS}
    wrong = checking.problems(plain, alone=True)
    wrong |= checking.section_problems("agents", found.get("agents", {}), AGENTS)
    wrong |= checking.section_problems("commands", found.get("commands", {}), COMMANDS)
    return wrong


def read_file(project_root: Path) -> FileLayer:
    """Read ``sprintrunner.toml``; SettingsInvalid names the file and the line of each fault."""
    path = project_root / FILE_NAME
    text = _read(path)
    if text is None:
        return FileLayer()
    found = _parsed(text, path)
    wrong = _file_problems(found)
    if wrong:
        told = {name: f"{why} (line {_line_of(name, text)})" for name, why in wrong.items()}
        raise SettingsInvalid(told, str(path))
    agents = {name: AgentConfig.model_validate(table) for name, table in found.pop("agents", {}).items()}
    commands = {
        name: CommandConfig.model_validate(table) for name, table in found.pop("commands", {}).items()
    }
    return FileLayer(found, agents, commands)


def read_saved(state_dir: Path) -> dict[str, Any]:
    """Read what the settings form saved; SettingsInvalid names the file, and the line where it can."""
    path = state_dir / SAVED_NAME
    text = _read(path)
    if text is None:
        return {}
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise SettingsInvalid({f"line {error.lineno}": error.msg}, str(path)) from error
    except (ValueError, RecursionError) as error:
        raise SettingsInvalid({path.name: "is not the JSON that Sprint Runner writes"}, str(path)) from error
    if not isinstance(found, dict):
        raise SettingsInvalid({"line 1": "must be an object"}, str(path))
    _check_saved(found, path)
    return found


def _check_saved(found: Mapping[str, Any], path: Path) -> None:
    # The state folder is not the owner's by-hand file: what the form may not set is not taken from here.
    wrong = {name: why for name in found if (why := checking.not_over_http(name))}
    wrong = checking.problems(found, alone=True) | wrong
    if wrong:
        raise SettingsInvalid(wrong, str(path))


def read_environment(env: Mapping[str, str]) -> dict[str, Any]:
    """The settings that ``SPRINTRUNNER_<NAME>`` variables give; others of that prefix are not ours to judge.

    SettingsInvalid names the variable.
    """
    values: dict[str, Any] = {}
    wrong: dict[str, str] = {}
    for info in FIELDS:
        told = env.get(info.variable)
        if told is None:
            continue
        value = parse(info, told)
        if checking.problems({info.name: value}, alone=True):
            wrong[info.variable] = f"{info.wants}, not {checking.shown(told)}"
        values[info.name] = value
    if wrong:
        raise SettingsInvalid(wrong, "environment")
    return values


def parse(info: FieldInfo, told: str) -> Any:
    """The value a text stands for; the text itself where it stands for none, to be refused by the model."""
    bare = told.strip()
    if info.optional and bare.lower() in ("", "none", "null"):
        return None
    if info.kind == "list":
        return _list(bare)
    if info.kind == "bool":
        return True if bare.lower() in _TRUE else False if bare.lower() in _FALSE else told
    try:
        return {"int": int, "number": float}.get(info.kind, str)(bare)
    except ValueError:
        return told


def _list(told: str) -> Any:
    if told.startswith("["):
        try:
            return json.loads(told)
        except (ValueError, RecursionError):
            return told
    return [part for part in (piece.strip() for piece in told.split(",")) if part]
