"""How one setting is declared: default, bounds and words together, for the model, the form and refusals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field, StringConstraints

#: The groups of the settings form, in their order.
BATCH = "Batch"
LIMITS = "Limits and budgets"
WATCH = "Watchdogs and agent"
REVIEWS = "Reviews"
CONTEXT = "Context"
FILES = "Files and git"
SERVER = "Server"
GROUPS = (BATCH, LIMITS, WATCH, REVIEWS, CONTEXT, FILES, SERVER)

Line = Annotated[
    str, StringConstraints(strict=True, pattern=r"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f]+[^\x00-\x1f\x7f]*$")
]
Host = Annotated[str, StringConstraints(strict=True, max_length=253, pattern=r"^[A-Za-z0-9.:\[\]_-]+$")]
EnvName = Annotated[str, StringConstraints(strict=True, max_length=200, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
#: Starts with a letter or digit, so that it is never taken for an option of the agent's command line.
ModelName = Annotated[
    str, StringConstraints(strict=True, max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/@\[\]-]*$")
]


@dataclass(frozen=True, slots=True)
class FieldInfo:
    """One setting, for the form. ``kind`` is int, number, bool, choice, text or list.

    ``bounds`` are the lowest and highest value; ``open_low`` tells that the lowest itself is too low.
    ``choices`` maps each value to its words. ``wants`` completes the sentence "<name> …".
    """

    name: str
    label: str
    help: str
    group: str
    kind: str
    default: Any
    unit: str = ""
    bounds: tuple[float, float] | None = None
    open_low: bool = False
    choices: Mapping[str, str] = field(default_factory=dict)
    optional: bool = False
    editable_over_http: bool = True
    needs_restart: bool = False
    wants: str = ""

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return f"SPRINTRUNNER_{self.name.upper()}"


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(value)


def _range(kind: str, low: float, high: float, open_low: bool) -> str:
    noun = "a whole number" if kind == "int" else "a number"
    if open_low:
        return f"must be {noun} above {_number(low)} and at most {_number(high)}"
    return f"must be {noun} between {_number(low)} and {_number(high)}"


def _declared(default: Any, words: tuple[str, str], extra: dict[str, Any], **rules: Any) -> Any:
    label, told = words
    return Field(default=default, title=label, description=told, json_schema_extra=extra, **rules)


def ranged(
    kind: str, default: float | None, low: float, high: float, group: str, label: str, told: str, **extra: Any
) -> Any:
    """Declare a number of ``kind`` int or number; a default of None makes it optional."""
    open_low = bool(extra.get("open_low"))
    rules: dict[str, Any] = {"le": high, ("gt" if open_low else "ge"): low}
    wants = _range(kind, low, high, open_low) + (", or null for none" if default is None else "")
    extra |= {
        "kind": kind,
        "group": group,
        "bounds": (low, high),
        "wants": wants,
        "optional": default is None,
    }
    return _declared(default, (label, told), extra, **rules)


def whole(default: int | None, low: int, high: int, group: str, label: str, told: str, **extra: Any) -> Any:
    """Declare a whole number."""
    return ranged("int", default, low, high, group, label, told, **extra)


def number(
    default: float | None, low: float, high: float, group: str, label: str, told: str, **extra: Any
) -> Any:
    """Declare a number that may be a fraction."""
    return ranged("number", default, low, high, group, label, told, **extra)


def switch(default: bool, group: str, label: str, told: str) -> Any:
    """Declare a yes-or-no."""
    return _declared(
        default, (label, told), {"kind": "bool", "group": group, "wants": "must be true or false"}
    )


def choice(default: str, choices: Mapping[str, str], group: str, label: str, told: str, **extra: Any) -> Any:
    """Declare one of a few values; ``choices`` maps each to its words."""
    wants = f"must be one of {', '.join(choices)}"
    extra |= {"kind": "choice", "group": group, "choices": dict(choices), "wants": wants}
    return _declared(default, (label, told), extra)


def text(default: str | None, wants: str, group: str, label: str, told: str, **extra: Any) -> Any:
    """Declare an optional text."""
    extra |= {"kind": "text", "group": group, "wants": f"{wants}, or null for none", "optional": True}
    return _declared(default, (label, told), extra)


def several(default: tuple[str, ...], wants: str, group: str, label: str, told: str, **extra: Any) -> Any:
    """Declare a list of texts."""
    extra |= {"kind": "list", "group": group, "wants": wants}
    return _declared(default, (label, told), extra)
