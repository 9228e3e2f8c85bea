"""Turns the bytes of a status file into entries, warnings and the reason why it must not be written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import takewhile

from ..sprint import (
    Entry,
    EntryKind,
    StatusClass,
    assign_epics,
    is_startable_key,
    kind_of,
    normalise,
    slug_title,
)
from .opinion import Opinion, ask
from .scan import MAP_KEY, Row, Scan, scan

_FOREIGN = {
    "sprints": "a list of sprints with their stories",
    "stories": "a list of stories",
    "epics": "a list of epics",
}
#: How much of a key or status a sentence shows.
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Content:
    """What one version of the file says; ``scan`` knows where each value stands."""

    scan: Scan
    opinion: Opinion
    entries: tuple[Entry, ...]
    warnings: tuple[str, ...]
    refusal: str | None
    shape: str


@lru_cache(maxsize=16)
def analyse(raw: bytes) -> Content:
    """Read the bytes of a status file; never raises. Cached: every page asks for the same bytes again."""
    text, problem = _decode(raw)
    found = scan(text)
    opinion = ask(text)
    if problem:
        found.refusal = problem
    shape, foreign = _shape(found)
    found.refuse_from(opinion.refusal, foreign, _disagreement(found, opinion))
    entries = _entries(found)
    return Content(found, opinion, entries, tuple(_warnings(found, opinion, entries)), found.refusal, shape)


def _decode(raw: bytes) -> tuple[str, str | None]:
    """Return the text, without BOM, and why it must not be written back as UTF-8."""
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16", "replace"), "The file is UTF-16; save it as UTF-8."
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        return raw.decode(errors="replace"), f"Line {line} is not UTF-8."
    text = text.removeprefix("\ufeff")
    control = re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", text)
    if control is None:
        return text, None
    line = text.count("\n", 0, control.start()) + 1
    name = "a NUL" if control.group() == "\0" else f"the control character \\x{ord(control.group()):02x}"
    return text, f"Line {line} holds {name}."


def _shape(found: Scan) -> tuple[str, str | None]:
    """Return the shape and, for a file without our map, the sentence that names what it is instead."""
    if any(pair.key == MAP_KEY for pair in found.top):
        return found.shape, None
    if not found.top:
        return "empty", "The file is empty or holds only comments; it may be half written."
    keys = [pair.key for pair in found.top]
    for key in keys:
        if key in _FOREIGN:
            return "foreign", f"The file holds {_FOREIGN[key]} ({key}:) and no {MAP_KEY} map: another format."
        if re.fullmatch(r"epic[-_]?\d+", key):
            return "foreign", f"The file lists epics at the top ({key}:) and has no {MAP_KEY} map."
        if re.sub(r"[\W_]", "", key).lower() == "developmentstatus":
            return "none", f"The file has the key {key!r} where {MAP_KEY} is expected."
    return "none", f"The file has no {MAP_KEY} map and so no stories."


def _disagreement(found: Scan, opinion: Opinion) -> str | None:
    """Say where the parser reads another key or status than the line scan."""
    if found.refusal or opinion.error or not found.rows:
        return None
    # An empty value has no place of its own.
    ours = [(row.key, row.value, row.value_line if row.value else 0) for row in found.rows]
    theirs = [(seen.key, seen.value, seen.line if seen.value else 0) for seen in opinion.entries or []]
    if ours == theirs:
        return None
    agreed = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(ours, theirs, strict=False)))
    line = found.rows[min(agreed, len(ours) - 1)].line
    return f"A YAML parser reads the map differently from line {line} on."


def _entry(row: Row, unique: bool, comment_title: str) -> Entry:
    kind = kind_of(row.key)
    status, status_class = normalise(row.value, kind)
    title = row.title or (slug_title(row.key) if kind is EntryKind.STORY else "")
    if kind is EntryKind.EPIC:
        title = title or comment_title
    return Entry(
        key=row.key,
        kind=kind,
        epic=None,
        raw_status=row.value,
        status=status,
        status_class=status_class,
        line=row.value_line,
        comment=row.pair.comment if row.pair else "",
        title=title,
        # A status that could not be written back must not be acted on either.
        startable=unique and is_startable_key(row.key),
    )


def _lines_of(rows: Iterable[Row]) -> dict[str, list[int]]:
    lines: dict[str, list[int]] = {}
    for row in rows:
        lines.setdefault(row.key, []).append(row.value_line)
    return lines


def _entries(found: Scan) -> tuple[Entry, ...]:
    """Return one entry a key: the place of the first, the status of the last, as YAML readers have it."""
    lines = _lines_of(found.rows)
    titles = _epic_titles(found)
    rows = (_entry(row, len(lines[row.key]) == 1, titles.get(row.line, "")) for row in found.rows)
    unique: dict[str, Entry] = {}
    for entry in assign_epics(rows):
        first = unique.get(entry.key)
        unique[entry.key] = replace(entry, epic=first.epic) if first else entry
    return tuple(unique.values())


def _epic_titles(found: Scan) -> dict[int, str]:
    """Map the line of an epic's entry to the title in the comment above it: ``# Epic 1: Title``."""
    titles: dict[int, str] = {}
    title = ""
    for number, line in enumerate(found.lines, start=1):
        match = re.match(r"\s*#[\s─-]*(?:\w+ )?Epic [\w.-]+: *(.*?)[\s─-]*$", line)
        if match:
            title = match[1]
        elif line.strip() and line.lstrip()[0] != "#":
            titles[number] = title
            title = ""
    return titles


def _warnings(found: Scan, opinion: Opinion, entries: Sequence[Entry]) -> Iterable[str]:
    if opinion.error:
        yield f"{opinion.error}; the entries were read line by line."
    for key, lines in _lines_of(found.rows).items():
        if len(lines) > 1:
            places = " and ".join(map(str, lines))
            yield f"{_short(key)} stands several times, on lines {places}; it is never written."
    for entry in entries:
        if not is_startable_key(entry.key):
            yield f"The key on line {entry.line} ({_short(entry.key)}) is not usable and is never started."
        elif entry.status_class is StatusClass.UNKNOWN:
            status = _short(entry.raw_status)
            yield f"{_short(entry.key)} on line {entry.line} has an unknown status: {status}"


def _short(text: str) -> str:
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    return repr(shown)
