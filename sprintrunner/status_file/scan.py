"""Reads the map of a status file line by line and knows where each value stands."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ..sprint import EntryKind, StatusClass, kind_of, normalise
from .tokens import Pair, indent_of, is_content, parse_pair

MAP_KEY = "development_status"
#: Keys of a nested map whose children are entries themselves, not properties of one.
CONTAINERS = frozenset({"stories"})

_CONFLICT = re.compile(r"(<{7}|>{7}|\|{7})( |$)|={7}$")
_STORY_LIKE = re.compile(r"[0-9]+[a-z]?[-.][0-9a-z]|epic-", re.IGNORECASE)


class Unreadable(Exception):
    """A line inside the map breaks its form; the text says which and how."""


@dataclass(frozen=True, slots=True)
class Row:
    """One entry: ``pair`` holds the status (None: it has none), ``line`` is that of the key, from 1."""

    key: str
    line: int
    pair: Pair | None
    title: str = ""
    nested: bool = False

    @property
    def value(self) -> str:
        """The raw status."""
        return self.pair.value if self.pair else ""

    @property
    def value_line(self) -> int:
        """The line the status stands on, from 1."""
        return self.pair.line if self.pair else self.line


@dataclass(slots=True)
class Scan:
    """The lines of a file (with their ends), its top-level pairs, and the rows of the map."""

    lines: list[str]
    top: list[Pair] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    refusal: str | None = None
    shape: str = "none"

    def refuse(self, sentence: str) -> None:
        """Note why the file must not be written; the first reason stays."""
        self.refusal = self.refusal or sentence

    def refuse_from(self, *sentences: str | None) -> None:
        """Note the first of these reasons, if any, unless there was one before."""
        self.refusal = self.refusal or next(filter(None, sentences), None)


def scan(text: str) -> Scan:
    """Read a status file; never raises: what breaks the form becomes the ``refusal``."""
    result = Scan(split_lines(text))
    _read_top(result)
    blocks = [pair for pair in result.top if pair.key == MAP_KEY]
    if len(blocks) > 1:
        places = " and ".join(str(pair.line) for pair in blocks)
        result.refuse(f"{MAP_KEY} stands several times, on lines {places}.")
    if blocks:
        _read_block(result, blocks[0])
    return result


def split_lines(text: str) -> list[str]:
    """Cut at LF, CRLF and CR, keeping the ends: joined again they are the same text."""
    return re.findall(r"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+$", text)


def _read_top(result: Scan) -> None:
    """Collect the pairs in column 0, and refuse documents that are not one plain map."""
    for number, line in enumerate(result.lines, start=1):
        if not is_content(line) or line[0] in " \t":
            continue
        bare = line.rstrip("\r\n")
        if _CONFLICT.match(bare):
            result.refuse(f"A merge conflict marker stands on line {number}.")
        elif re.match(r"(---|\.\.\.)(\s|$)", bare):
            _check_marker(result, number, bare)
        elif bare[0] != "%":
            result.top.append(_top_pair(bare, number))


def _top_pair(bare: str, number: int) -> Pair:
    try:
        pair = parse_pair(bare, number)
    except ValueError:
        pair = None
    return pair or Pair("", "", number, len(bare), len(bare), problem="is not of the form key: value")


def _check_marker(result: Scan, number: int, bare: str) -> None:
    if result.top and (bare.startswith("---") or _content_after(result, number)):
        result.refuse(f"The file holds several YAML documents; the next one begins on line {number}.")


def _content_after(result: Scan, number: int) -> bool:
    return any(is_content(line) for line in result.lines[number:])


def _read_block(result: Scan, head: Pair) -> None:
    if head.value or head.quote:
        result.shape = "flow" if head.value[:1] in ("{", "[") else "none"
        result.refuse(f"Line {head.line}: {MAP_KEY} {head.problem or 'is not a map'}; it cannot be edited.")
        return
    end = next((pair.line for pair in result.top if pair.line > head.line), len(result.lines) + 1)
    body = [n for n in range(head.line + 1, end) if is_content(result.lines[n - 1])]
    if not body:
        result.shape = "empty"
        result.refuse(f"{MAP_KEY} on line {head.line} has no entries.")
        return
    try:
        for row in _rows(result.lines, body):
            result.rows.append(row)
    except Unreadable as problem:
        result.refuse(str(problem))
    result.shape = "nested" if any(row.nested for row in result.rows) else "flat"
    _check_rest(result, end)
    _check_end(result, body[-1])


def _pair_at(lines: Sequence[str], number: int) -> Pair:
    """Return the pair on a line of the map, or raise Unreadable with the reason."""
    try:
        pair = parse_pair(lines[number - 1].rstrip("\r\n"), number)
    except ValueError as problem:
        raise Unreadable(f"Line {number} {problem}.") from None
    if pair is None:
        raise Unreadable(f"Line {number} is not of the form key: value.")
    if pair.problem:
        raise Unreadable(f"Line {number} {pair.problem}.")
    return pair


def _indent(lines: Sequence[str], number: int) -> int:
    try:
        return indent_of(lines[number - 1], number)
    except ValueError as problem:
        raise Unreadable(str(problem)) from None


def _groups(lines: Sequence[str], body: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """Yield each line at the indent of the first, with the deeper lines that follow it."""
    if not body:
        return
    indent = _indent(lines, body[0])
    head, children = body[0], []
    for number in body[1:]:
        column = _indent(lines, number)
        if column < indent:
            raise Unreadable(f"Line {number} is indented less than the entries above it.")
        if column > indent:
            children.append(number)
            continue
        yield head, children
        head, children = number, []
    yield head, children


def _rows(lines: Sequence[str], body: Sequence[int]) -> Iterator[Row]:
    """Yield the entries of a block of lines, those of nested containers after their parent."""
    for number, children in _groups(lines, body):
        pair = _pair_at(lines, number)
        if not children:
            yield Row(pair.key, number, _if_any(pair))
        elif pair.value or pair.quote:
            raise Unreadable(f"Line {children[0]} is indented deeper than the entries around it.")
        elif pair.key in CONTAINERS:
            yield from _rows(lines, children)
        else:
            yield from _nested(lines, pair, children)


def _if_any(pair: Pair) -> Pair | None:
    """Return the pair when it has a value that can be replaced, be it empty quotes."""
    return pair if pair.value or pair.quote else None


def _child_name(line: str, number: int) -> str:
    """Return the key of a child, empty for lists and other things that are none of ours."""
    try:
        pair = parse_pair(line.rstrip("\r\n"), number)
    except ValueError:
        return ""
    return pair.key if pair else ""


def _nested(lines: Sequence[str], head: Pair, children: Sequence[int]) -> Iterator[Row]:
    """Yield the entry whose status is a child of its own map, then the entries it contains."""
    found: dict[str, list[Pair]] = {"status": [], "title": []}
    inner: list[int] = []
    for number, deeper in _groups(lines, children):
        name = _child_name(lines[number - 1], number)
        if name in CONTAINERS:
            inner.extend(deeper)
        elif name in found and not deeper:
            found[name].append(_pair_at(lines, number))
    title = found["title"][0].value if found["title"] else ""
    # A status given twice makes two rows of one key, which is refused like any duplicate.
    statuses: list[Pair | None] = [_if_any(pair) for pair in found["status"]] or [None]
    for pair in statuses:
        yield Row(head.key, head.line, pair, title, nested=True)
    if inner:
        yield from _rows(lines, inner)


def _is_known(value: str) -> bool:
    return normalise(value, EntryKind.STORY)[1] is not StatusClass.UNKNOWN


def _check_rest(result: Scan, end: int) -> None:
    """Refuse when entries seem to stand after the end of the map: an entry at column 0 has cut it short."""
    opener = False
    for number in range(end, len(result.lines) + 1):
        line = result.lines[number - 1]
        if not is_content(line):
            continue
        try:
            pair = parse_pair(line.rstrip("\r\n"), number)
        except ValueError:
            pair = None
        inside = line[0] in " \t"
        suspect = pair is not None and (not opener if inside else bool(_STORY_LIKE.match(pair.key)))
        if suspect and pair is not None and _is_known(pair.value):
            result.refuse(f"Line {number} looks like an entry but stands outside {MAP_KEY}.")
            return
        if not inside:
            opener = pair is None or not pair.value or pair.value[0] in "|>"


def _check_end(result: Scan, last: int) -> None:
    """Refuse a file that ends in the middle of a status: it is still being written."""
    cut = last == len(result.lines) and not result.lines[-1].endswith(("\n", "\r"))
    if cut and result.rows and not _is_known(result.rows[-1].value):
        if kind_of(result.rows[-1].key) is EntryKind.EPIC and "/" in result.rows[-1].value:
            return
        result.refuse(f"The file ends in the middle of line {last}; it may be half written.")
