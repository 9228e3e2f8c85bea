"""Checks an agent's structured answer against one of our flat JSON schemas."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "null": type(None),
}


def objection(value: Any, schema: Mapping[str, Any], path: str = "") -> str:
    """Why ``value`` does not meet ``schema`` in a few words, or "".

    Knows type, enum, required, properties and items, which is all that the verdict schemas use. An optional
    property may be null: strict dialects cannot leave one out.
    """
    where = path or "the answer"
    wanted = schema.get("type")
    if isinstance(wanted, str) and not _is_type(value, wanted):
        return f"{where} is not of type {wanted}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{where} is none of {', '.join(map(str, schema['enum']))}"
    if isinstance(value, dict):
        return _object_objection(value, schema, path)
    if isinstance(value, list) and "items" in schema:
        checks = (objection(item, schema["items"], f"{path}[{at}]") for at, item in enumerate(value))
        return next((why for why in checks if why), "")
    return ""


def _is_type(value: Any, wanted: str) -> bool:
    # bool is an int in Python, but not in JSON.
    if isinstance(value, bool):
        return wanted == "boolean"
    return isinstance(value, _TYPES.get(wanted, object))


def _object_objection(value: Mapping[str, Any], schema: Mapping[str, Any], path: str) -> str:
    required = schema.get("required", ())
    missing = [name for name in required if name not in value]
    if missing:
        return f"{path + '.' if path else ''}{missing[0]} is missing"
    for name, rule in schema.get("properties", {}).items():
        if name not in value or (value[name] is None and name not in required):
            continue
        if why := objection(value[name], rule, f"{path}.{name}" if path else name):
            return why
    return ""


def strict(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema in the strict dialect: every property required, optional ones nullable, no others."""
    copy = json.loads(json.dumps(schema))
    _make_strict(copy)
    return dict(copy)


def _make_strict(schema: dict[str, Any]) -> None:
    required = set(schema.get("required", ()))
    for name, rule in schema.get("properties", {}).items():
        _make_strict(rule)
        if name not in required and isinstance(rule.get("type"), str):
            rule["type"] = [rule["type"], "null"]
    if schema.get("type") == "object":
        schema["required"] = list(schema.get("properties", {}))
        schema["additionalProperties"] = False
    if isinstance(schema.get("items"), dict):
        _make_strict(schema["items"])
