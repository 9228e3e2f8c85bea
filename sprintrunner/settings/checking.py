"""Values against the model: every refusal names the setting, what it must be, and what it was (pure)."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from ..errors import SettingsInvalid
from .model import BY_NAME, Settings
from .sections import AgentConfig, CommandConfig

_LONGEST = 60
#: By setting, the sections of sprintrunner.toml that are no settings.
SECTIONS = ("agents", "commands")

_AGENT_WANTS = {"path": "must be an absolute path", "args": "must be a list of texts"}
_COMMAND_WANTS = {
    "agent": BY_NAME["agent"].wants,
    "model": BY_NAME["model"].wants,
    "timeout_minutes": BY_NAME["command_timeout_minutes"].wants,
}


def shown(value: Any) -> str:
    """A value in a sentence: as JSON writes it, and short."""
    words = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return words[value]
    try:
        told = repr(value)
    except ValueError:
        # Python refuses to write out numbers of thousands of digits.
        return "a number far too large"
    return told if len(told) <= _LONGEST else told[:_LONGEST] + "…"


def unknown(name: str) -> str:
    """Why a name is refused, with the one that was probably meant."""
    close = difflib.get_close_matches(str(name)[:100], BY_NAME, n=1, cutoff=0.75)
    return "is not a setting" + (f"; did you mean {close[0]}?" if close else "")


def _cross_rule(values: Mapping[str, Any]) -> dict[str, str]:
    error = values.get("injection_error_kb", BY_NAME["injection_error_kb"].default)
    warning = values.get("injection_warning_kb", BY_NAME["injection_warning_kb"].default)
    return {
        "injection_warning_kb": f"must not be larger than injection_error_kb ({warning} is more than {error})"
    }


def problems(values: Mapping[str, Any], alone: bool = False) -> dict[str, str]:
    """By name, why the values cannot be the settings; empty when they can.

    ``alone``: each value for itself. A rule over two settings can only be judged once all layers are known.
    """
    try:
        Settings.model_validate(dict(values))
    except ValidationError as error:
        found: dict[str, str] = {}
        for told in error.errors(include_url=False, include_input=False, include_context=False):
            if told["loc"]:
                name = str(told["loc"][0])
                found.setdefault(name, _why(told["type"], name, values))
        # The model judges the rule over two settings last, only when each value is right.
        return found if found or alone else _cross_rule(values)
    return {}


def _why(kind: str, name: str, values: Mapping[str, Any]) -> str:
    if kind == "extra_forbidden" or name not in BY_NAME:
        return unknown(name)
    return f"{BY_NAME[name].wants}, not {shown(values[name])}"


def validated(values: Mapping[str, Any]) -> Settings:
    """The settings of these values; SettingsInvalid names each that is wrong."""
    found = problems(values)
    if found:
        raise SettingsInvalid(found)
    return Settings.model_validate(dict(values))


def not_over_http(name: str) -> str | None:
    """Why a name may not be changed over HTTP, or None when it may."""
    if name in SECTIONS:
        return "cannot be set over HTTP; it belongs in sprintrunner.toml"
    if name not in BY_NAME:
        return unknown(name)
    if not BY_NAME[name].editable_over_http:
        return "cannot be set over HTTP; set it in sprintrunner.toml or the environment"
    return None


def _section_problems(
    form: type[BaseModel], wants: Mapping[str, str], where: str, table: Any
) -> dict[str, str]:
    if not isinstance(table, Mapping):
        return {where: "must be a table"}
    try:
        form.model_validate(dict(table))
    except ValidationError as error:
        found = {}
        for told in error.errors(include_url=False, include_input=False, include_context=False):
            name = str(told["loc"][0])
            why = f"{wants[name]}, not {shown(table[name])}" if name in wants else "is not known here"
            found[f"{where}.{name}"] = why
        return found
    return {}


def section_problems(section: str, tables: Any, names: tuple[str, ...]) -> dict[str, str]:
    """Why ``[agents.*]`` or ``[commands.*]`` is refused, by dotted name."""
    if not isinstance(tables, Mapping):
        return {section: "must be a table"}
    form, wants = (AgentConfig, _AGENT_WANTS) if section == "agents" else (CommandConfig, _COMMAND_WANTS)
    found: dict[str, str] = {}
    for name, table in tables.items():
        where = f"{section}.{name}"
        if name not in names:
            found[where] = f"is not known; it must be one of {', '.join(names)}"
        else:
            found |= _section_problems(form, wants, where, table)
    return found
