"""Reads the outline of a story and the sections of an epics document out of Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_FENCE = re.compile(r"\s*(```|~~~)")
_HEADING = re.compile(r"(#{1,6})\s+(.*?)\s*#*\s*$")
_ITEM = re.compile(r"(\s*)(?:[-*+]|\d+[.)])\s+(.*)$")
_TASK = re.compile(r"\s*[-*+]\s+\[([ xX])\]\s+(.*)$")
_STATUS = re.compile(r"\s*(?:[-*>]\s+)*\*{0,2}status\s*(?::\*{0,2}|\*{0,2}\s*:)\s*(.+)$", re.IGNORECASE)
_TITLE = re.compile(r"(?:story\s+)?[a-z]{0,4}[0-9][\w.-]*\s*(?::|—|–|-)\s+(.+)$", re.IGNORECASE)

#: The status line stands at the top; further down it is quoted text.
_STATUS_LINES = 15
_SHOWN = 500


@dataclass(frozen=True, slots=True)
class Outline:
    """What a story file says of itself; ``tasks`` are pairs of ticked and text, ``status`` is a hint only."""

    title: str
    description: str
    criteria: tuple[str, ...]
    tasks: tuple[tuple[bool, str], ...]
    status: str


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with everything below it up to the next heading of its level."""

    level: int
    title: str
    text: str


def _unfenced(text: str) -> list[tuple[str, bool]]:
    """Return the lines, each with whether it stands outside of code blocks."""
    lines: list[tuple[str, bool]] = []
    fence = ""
    for line in text.splitlines():
        match = _FENCE.match(line)
        if match and not fence:
            fence = match[1]
            lines.append((line, False))
            continue
        lines.append((line, not fence))
        if match and match[1] == fence:
            lines[-1] = (line, False)
            fence = ""
    return lines


def _body(heads: list[tuple[int, int, str]], index: int, last: int) -> int:
    """Return the line where the section of a heading ends."""
    level = heads[index][1]
    return next((place for place, other, _ in heads[index + 1 :] if other <= level), last)


def sections(text: str) -> Iterator[Section]:
    """Yield every heading outside of code blocks with its text, nested ones too, in order."""
    lines = _unfenced(text)
    heads: list[tuple[int, int, str]] = []
    for place, (line, outside) in enumerate(lines):
        match = _HEADING.match(line) if outside else None
        if match:
            heads.append((place, len(match[1]), match[2]))
    for index, (place, level, title) in enumerate(heads):
        end = _body(heads, index, len(lines))
        yield Section(level, title, "\n".join(line for line, _ in lines[place:end]))


def _bare(text: str) -> str:
    """Take emphasis and HTML comments off a line."""
    return re.sub(r"<!--.*?-->", "", text).replace("**", "").replace("`", "").strip()


def _named(found: Iterable[Section], *words: str) -> Section | None:
    return next((s for s in found if _bare(s.title).lower().rstrip(":").startswith(words)), None)


def _paragraph(section: Section) -> str:
    """Return the lines below a heading, up to the next, as one text of at most 500 characters."""
    lines: list[str] = []
    for line in section.text.splitlines()[1:]:
        if _HEADING.match(line) or _FENCE.match(line):
            break
        if line.strip():
            lines.append(_bare(line))
    return " ".join(lines)[:_SHOWN]


def _criteria(section: Section) -> Iterator[str]:
    """Yield the numbered or listed criteria, or, where headings number them, those headings."""
    lines = _unfenced(section.text)[1:]
    headed = [m[2] for line, outside in lines if outside and (m := _HEADING.match(line))]
    if headed:
        yield from map(_bare, headed)
        return
    items = [(len(m[1]), m[2]) for line, outside in lines if outside and (m := _ITEM.match(line))]
    if items:
        top = min(indent for indent, _ in items)
        yield from (_bare(re.sub(r"^\[[ xX]\]\s+", "", text)) for indent, text in items if indent == top)
        return
    bold = re.compile(r"\s*\*\*(?:AC\W?\d|Given)", re.IGNORECASE)
    yield from (_bare(line) for line, outside in lines if outside and bold.match(line))


def _tasks(text: str, found: list[Section]) -> Iterator[tuple[bool, str]]:
    section = _named((s for s in found if s.level > 1), "tasks", "task")
    for line, outside in _unfenced(section.text if section else text):
        match = _TASK.match(line) if outside else None
        if match:
            yield match[1] != " ", _bare(match[2])


def status_line(text: str) -> str:
    """Return the value of the first status line within the first fifteen lines, empty where there is none."""
    lines = _unfenced(text)[:_STATUS_LINES]
    for place, (line, outside) in enumerate(lines):
        if not outside:
            continue
        match = _STATUS.match(line)
        if match:
            return _bare(match[1]).strip("\"'")
        heading = _HEADING.match(line)
        if heading and heading[2].lower().startswith("status"):
            below = [_bare(other) for other, _ in lines[place + 1 :] if other.strip()]
            return _bare(heading[2][6:]).lstrip(": ") or next(iter(below), "")
    return ""


def heading_title(heading: str) -> str:
    """Return a heading without its number: ``Story 1.2: Log in`` is "Log in"."""
    match = _TITLE.match(_bare(heading))
    return match[1].strip() if match else _bare(heading)


def story_outline(text: str) -> Outline:
    """Return what can be told of a story from its file; missing parts are empty."""
    text = text.removeprefix("\ufeff")
    found = list(sections(text))
    first = next((s for s in found if s.level == 1), None)
    story = _named((s for s in found if s.level > 1), "story", "user story", "description") or first
    criteria = _named(found, "acceptance criteria", "acceptance criterion")
    return Outline(
        title=heading_title(first.title) if first else "",
        description=_paragraph(story) if story else "",
        criteria=tuple(_criteria(criteria)) if criteria else (),
        tasks=tuple(_tasks(text, found)),
        status=status_line(text),
    )


def _plain_id(text: str) -> str:
    return text.strip("*` ").rstrip(".:").replace(".", "-").lower()


def numbered(text: str, word: str) -> Iterator[tuple[str, str, Section]]:
    """Yield id, title and section of each heading ``<word> <id>: <title>``; ids have ``-`` for ``.``."""
    pattern = re.compile(rf"{word}\s+([\w.-]*\w)\s*(?::|—|–|-|\.|$)\s*(.*)$", re.IGNORECASE)
    for section in sections(text):
        match = pattern.match(_bare(section.title))
        if match:
            yield _plain_id(match[1]), match[2].strip(), section


def same_id(one: str, other: str) -> bool:
    """Tell whether two ids mean the same: ``3.5`` and ``3-5`` do."""
    return _plain_id(one) == _plain_id(other)


def description(section: Section) -> str:
    """Return the first lines of a section."""
    return _paragraph(section)
