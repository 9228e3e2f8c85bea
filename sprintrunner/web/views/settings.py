"""The settings form: each field with its value, where that comes from, and why it may not be changed here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ...settings import FIELDS, GROUPS, FieldInfo, Layers, parse
from . import words


@dataclass(frozen=True, slots=True)
class Field:
    """One row of the form: ``value`` as its control shows it, ``fixed`` = why it cannot be edited here.

    ``first``: the first of the fields to correct, which gets the focus.
    """

    info: FieldInfo
    value: str
    source: str
    fixed: str
    error: str
    resettable: bool
    first: bool = False

    @property
    def values(self) -> tuple[str, ...]:
        """What is shown where it cannot be edited: a list has one box an entry."""
        return tuple(filter(None, self.value.split(", ") if self.info.kind == "list" else (self.value,)))

    @property
    def described_by(self) -> str:
        """Ids of what explains the control, the error first."""
        error = f"{self.info.name}-error " if self.error else ""
        return f"{error}{self.info.name}-help"


@dataclass(frozen=True, slots=True)
class Group:
    """Fields under one heading."""

    name: str
    slot: str
    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class Form:
    """The form; ``message`` one sentence about the last save, ``wrong`` the fields it named."""

    groups: tuple[Group, ...]
    etag: str
    message: str = ""
    saved: bool = False
    wrong: tuple[tuple[str, str], ...] = field(default=())


def form(
    layers: Layers,
    typed: Mapping[str, str] | None = None,
    errors: Mapping[str, str] | None = None,
    message: str = "",
    saved: bool = False,
) -> Form:
    """Make the form; ``typed`` are the values a person sent, shown again beside ``errors``."""
    errors = errors or {}
    fields = [_field(layers, info, typed, errors.get(info.name, "")) for info in FIELDS]
    wanted = next((one.info.name for one in fields if one.error), "")
    fields = [replace(one, first=one.info.name == wanted) for one in fields]
    groups = tuple(
        Group(name, words.slot("group", name), tuple(f for f in fields if f.info.group == name))
        for name in GROUPS
    )
    wrong = tuple((info.name, info.label) for info in FIELDS if info.name in errors)
    return Form(groups, layers.etag, message, saved, wrong)


def _field(layers: Layers, info: FieldInfo, typed: Mapping[str, str] | None, error: str) -> Field:
    source = layers.sources[info.name]
    fixed = _fixed(info, source)
    now = value = as_text(info, getattr(layers.values, info.name))
    if typed is not None and not fixed:
        value = typed.get(info.name, "" if info.kind == "bool" else value)
        source = source if value == now else "changed"
    return Field(info, value, source, fixed, error, info.name in layers.saved and not fixed)


def _fixed(info: FieldInfo, source: str) -> str:
    if source == "environment":
        return f"Set by {info.variable}, which wins over what is saved here."
    if source == "command line":
        return "Set on the command line, which wins over what is saved here."
    if not info.editable_over_http:
        return "Only in sprintrunner.toml or the environment, never from the browser."
    return ""


def as_text(info: FieldInfo, value: Any) -> str:
    """A value as its control shows it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else ""
    if isinstance(value, float):
        return f"{value:.10g}"
    if info.kind == "list":
        return ", ".join(map(str, value))
    return str(value)


def changes(layers: Layers, sent: Mapping[str, str]) -> dict[str, Any]:
    """The values a sent form stands for, of the fields that may be changed here and were changed.

    A box that is not ticked is not sent: in a whole form, which carries its etag, its absence is its value.
    """
    found: dict[str, Any] = {}
    unticked = "" if "etag" in sent else None
    for info in FIELDS:
        if _fixed(info, layers.sources[info.name]):
            continue
        told = sent.get(info.name, unticked if info.kind == "bool" else None)
        if told is None or told == as_text(info, getattr(layers.values, info.name)):
            continue
        found[info.name] = bool(told) if info.kind == "bool" else parse(info, told)
    return found
