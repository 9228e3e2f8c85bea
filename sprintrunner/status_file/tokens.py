"""Cuts one line of YAML into key, value and comment, with the columns of the value."""

from __future__ import annotations

import re
from dataclasses import dataclass

import yaml

_QUOTED = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^']|'')*'")
_COLON = re.compile(r":(?=[ \t]|$)")
_COMMENT = re.compile(r"[ \t]#")
_BLANK = re.compile(r"[ \t]*")

_FORBIDDEN = {
    "&": "holds an anchor",
    "*": "holds an alias",
    "!": "holds a tag",
    "{": "is in flow style",
    "[": "is in flow style",
    "|": "holds a value of several lines",
    ">": "holds a value of several lines",
    "%": "begins with a reserved character",
    "@": "begins with a reserved character",
    "`": "begins with a reserved character",
}


@dataclass(frozen=True, slots=True)
class Pair:
    """A ``key: value`` line; ``start`` and ``end`` are the columns of the value without its quotes."""

    key: str
    value: str
    line: int
    start: int
    end: int
    quote: str = ""
    comment: str = ""
    #: Why the value cannot be replaced in place, worded to follow "Line 7"; empty when it can.
    problem: str = ""


def is_content(line: str) -> bool:
    """Tell whether a line is neither blank nor only a comment."""
    bare = line.strip()
    return bool(bare) and bare[0] != "#"


def indent_of(line: str, number: int) -> int:
    """Return the number of spaces before the text; raises ValueError for a tab."""
    match = _BLANK.match(line)
    blank = match.group() if match else ""
    if "\t" in blank:
        raise ValueError(f"Line {number} is indented with a tab.")
    return len(blank)


def _unquote(token: str) -> str:
    """Return the text of a quoted scalar; raises ValueError for escapes YAML does not know."""
    if token[0] == "'":
        return token[1:-1].replace("''", "'")
    if "\\" not in token:
        return token[1:-1]
    try:
        return str(yaml.load(token, Loader=yaml.CBaseLoader))  # noqa: S506
    except yaml.YAMLError:
        raise ValueError("holds an escape that YAML does not know") from None


def _key(line: str, start: int) -> tuple[str, int] | None:
    """Return the key at ``start`` and the column of its colon, or None where there is no key."""
    quoted = _QUOTED.match(line, start)
    colon = _COLON.search(line, quoted.end() if quoted else start)
    if colon is None:
        return None
    if quoted:
        clean = not line[quoted.end() : colon.start()].strip()
        return (_unquote(quoted.group()), colon.start()) if clean else None
    text = line[start : colon.start()].rstrip()
    if not text or text[0] in "\"'" or text.startswith(("- ", "? ")) or _COMMENT.search(text):
        return None
    if text[0] in _FORBIDDEN or text == "<<":
        raise ValueError(_FORBIDDEN.get(text[0], "merges another map"))
    return text, colon.start()


def parse_pair(line: str, number: int) -> Pair | None:
    """Cut a line without its end; None when it is no pair.

    Raises ValueError, worded to follow "Line 7", for a key that is more than text.
    """
    blank = _BLANK.match(line)
    found = _key(line, blank.end() if blank else 0)
    if found is None:
        return None
    key, colon = found
    after = _BLANK.match(line, colon + 1)
    start = after.end() if after else colon + 1
    quoted = _QUOTED.match(line, start)
    if quoted:
        return _quoted(key, line, number, quoted)
    return _plain(key, line, number, start)


def _quoted(key: str, line: str, number: int, token: re.Match[str]) -> Pair:
    rest = line[token.end() :].strip()
    problem = "has text after the closing quote" if rest and rest[0] != "#" else ""
    try:
        text = _unquote(token.group())
    except ValueError as reason:
        text, problem = token.group(), str(reason)
    quote = token.group()[0]
    return Pair(key, text, number, token.start() + 1, token.end() - 1, quote, _bare(rest), problem)


def _bare(comment: str) -> str:
    return comment[1:].strip()


def _plain(key: str, line: str, number: int, start: int) -> Pair:
    # Searching from the blank before finds the comment of a value that is empty.
    comment = _COMMENT.search(line, start - 1)
    stop = comment.start() if comment else len(line)
    text = line[start:stop].rstrip()
    problem = _FORBIDDEN.get(text[:1], "")
    if not problem and text[:1] in ("'", '"'):
        problem = "has a quote that is not closed"
    elif not problem and _COLON.search(text):
        problem = "holds a second colon, so the value needs quotes"
    return Pair(key, text, number, start, start + len(text), "", _bare(line[stop:].strip()), problem)
