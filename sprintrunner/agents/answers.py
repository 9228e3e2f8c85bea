"""The verdict in an agent's last message, for CLIs that enforce no schema."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from . import lines

_FENCED = re.compile(r"```(?:json)?\s*\n(\{.*\})\s*\n```\s*\Z", re.DOTALL)
_CRITICAL = re.compile(r"\[CRITICAL-ISSUES-FOUND: (YES|NO)\]")
_SEVERITY = re.compile(r"\W*HIGHEST SEVERITY: (CRITICAL|HIGH|MEDIUM|LOW|NONE)\W*")
_DECISION = re.compile(r"([\w.-]+)\s*:?\s*\[TECH-SPEC-DECISION: (REQUIRED|SKIP)\]")
_SUMMARY_CHARS = 2_000


def from_text(text: str, wanted: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The structured answer in the final text: its JSON, else the markers of its last line.

    Only the final text is ever given here: what tools print or prompts quote never counts. None without text.
    """
    said = text.strip()
    if not said:
        return None
    answer = _json(said)
    if answer is None:
        answer = {**_markers(said.splitlines()[-1]), "summary": said[:_SUMMARY_CHARS]}
    # No decision on a tech spec is no failure: what is not decided counts as required.
    if wanted is not None and "stories" in wanted.get("properties", {}):
        answer.setdefault("stories", [])
    return answer


def _json(said: str) -> dict[str, Any] | None:
    fenced = _FENCED.search(said) if said.endswith("```") else None
    body = fenced[1] if fenced else said
    if not body.startswith("{"):
        return None
    try:
        value = lines.clean(lines.load(body))
    except lines.BadLine:
        return None
    # A strict schema makes the agent give null for what it would leave out.
    return _without_nulls(value) if isinstance(value, dict) else None


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _markers(line: str) -> dict[str, Any]:
    if severity := _SEVERITY.fullmatch(line.strip()):
        return {"highest_severity": severity[1], "findings": []}
    if critical := _CRITICAL.fullmatch(line.strip()):
        return {"critical_issues": critical[1] == "YES", "findings": []}
    decisions = _DECISION.findall(line)
    return {"stories": [{"key": key, "tech_spec": spec} for key, spec in decisions]} if decisions else {}
