"""What a tool call was given and what it answered, as text fit to be read (pure)."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

#: Longest output shown, in characters; its end matters most, so that the middle is left out.
_OUTPUT = 6_000
#: Longest diff shown, in lines, and longest text that is compared, in characters.
_DIFF_LINES, _DIFF_CHARS = 80, 40_000
#: The adapters cut an output here; a shorter one is whole.
_PREVIEW = 2_000
_DEEP = 12
_MOMENT = re.compile(rb'"timestamp"\s?:\s?"([0-9T:.+Z-]{19,35})"')


@dataclass(frozen=True, slots=True)
class Body:
    """What unfolds. ``diff`` are lines with their sign; ``lines`` counts those of the whole output."""

    text: str = ""
    output: str = ""
    diff: tuple[tuple[str, str], ...] = ()
    lines: int = 0
    added: int = 0
    removed: int = 0

    @property
    def texts(self) -> tuple[str, ...]:
        """All of it as plain texts."""
        return (self.text, "\n".join(line for _, line in self.diff), self.output)

    def cleaned(self, clean: Callable[[str], str]) -> Body:
        """The same with ``clean`` applied to each text."""
        diff = tuple((sign, clean(line)) for sign, line in self.diff)
        return replace(self, text=clean(self.text), output=clean(self.output), diff=diff)

    def __bool__(self) -> bool:
        return bool(self.text or self.output or self.diff)


def shortened(text: str, most: int = _OUTPUT) -> str:
    """The text, or its beginning and end with a line that says how much is missing between them."""
    if len(text) <= most:
        return text
    head, tail = text[: most // 3], text[-(most - most // 3) :]
    missing = len(text) - len(head) - len(tail)
    return f"{head}\n… {missing:,} characters left out, they are in the raw text …\n{tail}"


def moment_of(line: bytes) -> int | None:
    """When the agent wrote a line, in ms UTC, where it says so."""
    found = _MOMENT.search(line)
    if not found:
        return None
    try:
        return int(datetime.fromisoformat(found[1].decode("ascii")).timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        return None


def whole_output(preview: str, line: bytes) -> str:
    """The output that an adapter cut to ``preview``, found again in its line; else the preview."""
    if len(preview) < _PREVIEW:
        return preview
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return preview
    start = preview[:500]
    found = (text for text in _texts(value, 0) if len(text) > len(preview) and text.startswith(start))
    return next(found, preview)


def _texts(value: Any, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif depth < _DEEP and isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item, depth + 1)


def body_of(title: str, given: Mapping[str, Any]) -> Body:
    """What a call was given, in the form that suits it: a diff, a command, or its arguments."""
    if title == "Edit" and (made := _edit(given)):
        return made
    if title == "Write" and isinstance(given.get("content"), str):
        return _diff("", given["content"])
    if title == "Run":
        command = given.get("command") or given.get("cmd")
        text = command if isinstance(command, str) else ""
        return Body(text=shortened(text) if "\n" in text or len(text) > 120 else "")
    if title in ("Read", "List"):
        return Body()
    return Body(text=shortened(_arguments(given)))


def _arguments(given: Mapping[str, Any]) -> str:
    """Arguments as ``name: value``; long texts keep their line ends."""
    told = []
    for name, value in list(given.items())[:40]:
        text = value if isinstance(value, str) else _json(value)
        told.append(f"{name}: {text}")
    return "\n".join(told)


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return "…"


def _edit(given: Mapping[str, Any]) -> Body | None:
    edits = given.get("edits")
    pairs = [item for item in edits[:50] if isinstance(item, dict)] if isinstance(edits, list) else [given]
    made = [_diff(old, new) for pair in pairs if (sides := _sides(pair)) for old, new in [sides]]
    if not made:
        return None
    lines = tuple(line for one in made for line in one.diff)
    added, removed = sum(one.added for one in made), sum(one.removed for one in made)
    return Body(diff=_some(lines), added=added, removed=removed)


def _sides(pair: Mapping[str, Any]) -> tuple[str, str] | None:
    old, new = pair.get("old_string", ""), pair.get("new_string")
    return (old, new) if isinstance(old, str) and isinstance(new, str) else None


def _diff(old: str, new: str) -> Body:
    """The lines that differ; unchanged ones only beside them."""
    before, after = old[:_DIFF_CHARS].splitlines(), new[:_DIFF_CHARS].splitlines()
    if not before:
        lines = [("+", line) for line in after]
    elif len(before) * len(after) > 250_000:
        lines = [("-", line) for line in before] + [("+", line) for line in after]
    else:
        told = list(difflib.unified_diff(before, after, lineterm="", n=1))[2:]
        lines = [(line[:1], line[1:]) for line in told if not line.startswith("@@")]
    added = sum(sign == "+" for sign, _ in lines)
    return Body(diff=_some(tuple(lines)), added=added, removed=sum(sign == "-" for sign, _ in lines))


def _some(lines: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    if len(lines) <= _DIFF_LINES:
        return lines
    return (*lines[:_DIFF_LINES], ("…", f"{len(lines) - _DIFF_LINES} more lines, they are in the raw text"))
