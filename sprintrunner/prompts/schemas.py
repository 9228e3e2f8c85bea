"""The schema of each command's structured answer (contract section 6)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SUMMARY: dict[str, Any] = {
    "type": "string",
    "description": "What was done and what a person should know, in at most five sentences.",
}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _optional(schema: dict[str, Any], *names: str) -> dict[str, Any]:
    return {**schema, "required": [name for name in schema["required"] if name not in names]}


_SEVERITIES = ["CRITICAL", "HIGH", "MEDIUM", "LOW"]

_FINDING = _optional(
    _object(
        id={
            "type": "string",
            "description": "The id of a finding that was given as open; leave out for a new one.",
        },
        severity={"type": "string", "enum": _SEVERITIES},
        title={"type": "string", "description": "One line that names the fault."},
        file={"type": "string", "description": "Path relative to the project."},
        line={"type": "integer"},
        status={"type": "string", "enum": ["fixed", "open"]},
    ),
    "id",
    "file",
    "line",
)

_DOCUMENT_FINDING = _optional(
    _object(
        severity={"type": "string", "enum": _SEVERITIES},
        title={"type": "string", "description": "One line that names the fault."},
        status={"type": "string", "enum": ["fixed", "open"]},
    ),
    "severity",
    "status",
)

_DONE = _object(summary=_SUMMARY)
_DOCUMENT_REVIEW = _object(
    critical_issues={
        "type": "boolean",
        "description": "Whether this review found an issue, fixed or not, that would make the work go wrong.",
    },
    findings={"type": "array", "items": _DOCUMENT_FINDING},
    summary=_SUMMARY,
)
_STORIES = _object(
    stories={
        "type": "array",
        "items": _object(
            key={"type": "string", "description": "The full key of the story."},
            tech_spec={"type": "string", "enum": ["REQUIRED", "SKIP"]},
        ),
    },
    summary=_SUMMARY,
)
_CODE_REVIEW = _object(
    highest_severity={
        "type": "string",
        "enum": [*_SEVERITIES, "NONE"],
        "description": "The highest severity this review found, fixed or left open; NONE for nothing.",
    },
    findings={"type": "array", "items": _FINDING},
    summary=_SUMMARY,
)

SCHEMAS: Mapping[str, dict[str, Any]] = {
    "generate-project-context": _DONE,
    "create-story": _STORIES,
    "create-story-discovery": _DONE,
    "story-review": _DOCUMENT_REVIEW,
    "create-tech-spec": _DONE,
    "tech-spec-review": _DOCUMENT_REVIEW,
    "dev-story": _DONE,
    "code-review": _CODE_REVIEW,
    "commit": _DONE,
}
