"""What a command answers: its words, its structured form, and how that is made to fit a schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

SEVERITIES = ("CRITICAL", "HIGH", "MEDIUM", "LOW", "NONE")


class Verdict(NamedTuple):
    """``marker`` is the last line for whoever asked for no schema."""

    words: str
    structured: dict[str, Any]
    marker: str = ""

    @property
    def text(self) -> str:
        return f"{self.words}\n\n{self.marker}" if self.marker else self.words


def plain(words: str) -> Verdict:
    """The answer of a command that decides nothing."""
    return Verdict(words, {"summary": words})


def document_review(words: str, findings: list[dict[str, Any]]) -> Verdict:
    """The answer of story-review and tech-spec-review."""
    critical = any(finding["severity"] == "CRITICAL" for finding in findings)
    structured = {"critical_issues": critical, "findings": findings, "summary": words}
    return Verdict(words, structured, f"[CRITICAL-ISSUES-FOUND: {'YES' if critical else 'NO'}]")


def code_review(words: str, findings: list[dict[str, Any]], highest: str | None = None) -> Verdict:
    """The answer of code-review; the highest severity is that of the findings unless claimed otherwise."""
    found = [str(finding["severity"]) for finding in findings if finding["severity"] in SEVERITIES]
    worst = highest or min(found, key=SEVERITIES.index, default="NONE")
    structured = {"highest_severity": worst, "findings": findings, "summary": words}
    return Verdict(words, structured, f"HIGHEST SEVERITY: {worst}")


def fit(value: Any, schema: Mapping[str, Any]) -> Any:
    """``value`` as a model would give it that has read the schema: nothing unknown, nothing missing."""
    if isinstance(value, dict) and isinstance(schema.get("properties"), dict):
        properties: Mapping[str, Any] = schema["properties"]
        closed = schema.get("additionalProperties") is False
        fitted = {
            name: fit(one, properties.get(name, {}))
            for name, one in value.items()
            if name in properties or not closed
        }
        missing = [name for name in schema.get("required", ()) if name not in fitted]
        return {**fitted, **{name: _least(properties.get(name, {})) for name in missing}}
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        return [fit(one, schema["items"]) for one in value]
    if schema.get("type") == "string" and isinstance(value, int):
        return str(value)
    return value


def _least(schema: Mapping[str, Any]) -> Any:
    """The smallest value that a schema allows."""
    if schema.get("enum"):
        return schema["enum"][-1]
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    empty: dict[str, Any] = {
        "string": "",
        "array": [],
        "boolean": False,
        "integer": 0,
        "number": 0,
        "null": None,
    }
    return fit({}, schema) if kind == "object" else empty.get(str(kind))
