"""The settings in force: default < sprintrunner.toml < saved < environment < command line."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import files
from ..errors import Refused, SettingsInvalid, SettingsStale
from . import checking, sources
from .model import BY_NAME, FIELDS, Settings
from .sections import AgentConfig, CommandConfig


class SettingsNotSaved(Refused):
    """The settings could not be saved."""

    http_status = 503


@dataclass(frozen=True, slots=True)
class Layers:
    """The settings in force and where each comes from.

    ``sources``: name → "default", "file", "saved", "environment" or "command line". ``etag`` changes
    whenever the saved layer or a value in force does. ``saved`` is what the form saved, in force or not.
    """

    values: Settings
    sources: Mapping[str, str]
    etag: str
    agents: Mapping[str, AgentConfig]
    commands: Mapping[str, CommandConfig]
    saved: Mapping[str, Any]


def _etag(values: Settings, saved: Mapping[str, Any]) -> str:
    facts = json.dumps([values.model_dump(mode="json"), dict(saved)], sort_keys=True)
    return hashlib.sha256(facts.encode("utf-8", "backslashreplace")).hexdigest()[:20]


def _merged(layers: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Any], dict[str, str]]:
    values: dict[str, Any] = {}
    origins = {field.name: "default" for field in FIELDS}
    for source, layer in layers.items():
        for name, value in layer.items():
            values[name], origins[name] = value, source
    return values, origins


def _combined(
    file: sources.FileLayer, saved: Mapping[str, Any], env: Mapping[str, str], overrides: Mapping[str, Any]
) -> Layers:
    layers = {
        "file": file.values,
        "saved": saved,
        "environment": sources.read_environment(env),
        "command line": overrides,
    }
    values, origins = _merged(layers)
    settings = checking.validated(values)
    return Layers(settings, origins, _etag(settings, saved), file.agents, file.commands, dict(saved))


def load(
    project_root: Path,
    state_dir: Path,
    env: Mapping[str, str] = os.environ,
    overrides: Mapping[str, Any] | None = None,
) -> Layers:
    """Read all layers; SettingsInvalid names the file and line, the variable or the setting at fault."""
    return _combined(
        sources.read_file(project_root), sources.read_saved(state_dir), env, dict(overrides or {})
    )


def over_http(layers: Layers) -> dict[str, Any]:
    """The settings that may be seen and changed over HTTP, ready for JSON."""
    values = layers.values.model_dump(mode="json")
    return {info.name: _tidy(values[info.name]) for info in FIELDS if info.editable_over_http}


def _tidy(value: Any) -> Any:
    """15 instead of 15.0: what was typed as a whole number is shown as one."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


@contextmanager
def _locked(state_dir: Path) -> Iterator[None]:
    descriptor = os.open(state_dir / "settings.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(state_dir: Path, saved: Mapping[str, Any]) -> None:
    text = json.dumps(saved, indent=2, sort_keys=True) + "\n"
    files.keep(state_dir / sources.SAVED_NAME, text.encode())


@contextmanager
def _saving(state_dir: Path) -> Iterator[None]:
    try:
        with _locked(state_dir):
            yield
    except OSError as error:
        raise SettingsNotSaved(
            f"The settings could not be saved in {state_dir}: {error.strerror}."
        ) from error


def _check_fresh(if_match: str | None, etag: str) -> None:
    if if_match is None or if_match.strip() == "*":
        return
    given = {tag.strip().removeprefix("W/").strip('"') for tag in if_match.split(",")}
    if etag not in given:
        raise SettingsStale()


def _refuse_names(changes: Mapping[str, Any]) -> dict[str, str]:
    return {str(name): why for name in changes if (why := checking.not_over_http(str(name)))}


def _news(changes: Mapping[str, Any], present: Layers) -> dict[str, Any]:
    """The changes that change something: a form sends all fields, those left alone are not saved."""
    now = over_http(present)
    return {name: value for name, value in changes.items() if name in present.saved or value != now[name]}


def save(
    project_root: Path,
    state_dir: Path,
    changes: Mapping[str, Any],
    if_match: str | None = None,
    env: Mapping[str, str] = os.environ,
) -> Layers:
    """Save all of ``changes`` or nothing, and return what is in force then.

    Raises SettingsInvalid with each name at fault, SettingsStale when ``if_match`` is not the present
    etag, SettingsNotSaved when the disk refuses. A value that is in force already is not saved anew.
    """
    with _saving(state_dir):
        file, saved = sources.read_file(project_root), sources.read_saved(state_dir)
        present = _combined(file, saved, env, {})
        _check_fresh(if_match, present.etag)
        wrong = _refuse_names(changes)
        wrong |= checking.problems({name: changes[name] for name in changes if name not in wrong}, alone=True)
        if wrong:
            raise SettingsInvalid(wrong)
        merged = {**saved, **_news(changes, present)}
        fresh = _combined(file, merged, env, {})
        _write(state_dir, merged)
        return fresh


def forget(project_root: Path, state_dir: Path, key: str, env: Mapping[str, str] = os.environ) -> Layers:
    """Forget the saved value of one setting; SettingsInvalid for an unknown name."""
    why = checking.not_over_http(key)
    if why and key not in BY_NAME:
        raise SettingsInvalid({key: why})
    with _saving(state_dir):
        file, saved = sources.read_file(project_root), sources.read_saved(state_dir)
        left = {name: value for name, value in saved.items() if name != key}
        fresh = _combined(file, left, env, {})
        if left != saved:
            _write(state_dir, left)
        return fresh
