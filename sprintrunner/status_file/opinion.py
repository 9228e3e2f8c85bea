"""Asks a YAML parser for a second opinion on a status file, without building what it describes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from .scan import CONTAINERS, MAP_KEY

#: Deeper nesting than this has no place in a status file and overflows the stack of a recursive reader.
MAX_DEPTH = 20


@dataclass(frozen=True, slots=True)
class Seen:
    """One entry as the parser reads it; ``line`` is that of the value, from 1."""

    key: str
    value: str
    line: int


@dataclass(slots=True)
class Opinion:
    """What the parser thinks: its ``error``, a reason to refuse, all scalars, the entries of the map."""

    error: str | None = None
    refusal: str | None = None
    scalars: list[str] = field(default_factory=list)
    entries: list[Seen] | None = None


@dataclass(slots=True)
class _Node:
    """A scalar (``children`` None), or a map or list with its keys and values in turn."""

    line: int
    value: str = ""
    children: list[_Node] | None = None
    mapping: bool = False


class _Refused(Exception):
    """The event stream holds something that is refused."""


def ask(text: str) -> Opinion:
    """Parse ``text`` (no BOM) into events; all scalars are text, so ``no``, ``on`` and ``12:30`` stay keys.

    Stops at the first anchor, alias, tag, second document or too deep nesting: hostile files cost nothing.
    """
    opinion = Opinion()
    try:
        root = _build(text, opinion.scalars)
    except _Refused as reason:
        opinion.refusal = str(reason)
    except yaml.YAMLError as problem:
        opinion.error = _sentence(problem)
        # libyaml looks ahead, so its own limit of 1,000 levels can come before ours.
        if "maximum nesting" in opinion.error:
            line = getattr(getattr(problem, "problem_mark", None), "line", 0) + 1
            opinion.refusal = f"Line {line} is nested more than {MAX_DEPTH} levels deep."
    else:
        opinion.entries = _entries(root)
    return opinion


def _sentence(problem: yaml.YAMLError) -> str:
    mark = getattr(problem, "problem_mark", None)
    what = getattr(problem, "problem", None) or getattr(problem, "reason", None) or str(problem)
    where = f"line {mark.line + 1}: " if mark else ""
    return f"YAML cannot be parsed, {where}{what}"


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _check(event: Any, documents: int) -> None:
    """Raise _Refused for what makes a value stand elsewhere, or mean more, than its own line says."""
    if documents > 1:
        raise _Refused(f"The file holds several YAML documents; the next one begins on line {_line(event)}.")
    if isinstance(event, yaml.AliasEvent):
        raise _Refused(f"Line {_line(event)} holds an alias (*{event.anchor}).")
    if not isinstance(event, (yaml.ScalarEvent, yaml.CollectionStartEvent)):
        return
    if event.anchor:
        raise _Refused(f"Line {_line(event)} holds an anchor (&{event.anchor}).")
    if event.tag:
        raise _Refused(f"Line {_line(event)} holds a tag ({event.tag}).")


def _build(text: str, scalars: list[str]) -> _Node:
    """Return the tree of the file below a node of its own."""
    stack = [_Node(1, children=[])]
    documents = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        documents += isinstance(event, yaml.DocumentStartEvent)
        _check(event, documents)
        if isinstance(event, yaml.ScalarEvent):
            scalars.append(event.value)
            _add(stack, _Node(_line(event), event.value))
        elif isinstance(event, yaml.CollectionStartEvent):
            node = _Node(_line(event), children=[], mapping=isinstance(event, yaml.MappingStartEvent))
            _push(stack, node)
        elif isinstance(event, yaml.CollectionEndEvent):
            stack.pop()
    return stack[0]


def _push(stack: list[_Node], node: _Node) -> None:
    if len(stack) > MAX_DEPTH:
        raise _Refused(f"Line {node.line} is nested more than {MAX_DEPTH} levels deep.")
    _add(stack, node)
    stack.append(node)


def _add(stack: list[_Node], node: _Node) -> None:
    siblings = stack[-1].children
    if siblings is not None:
        siblings.append(node)


def _pairs(node: _Node) -> Iterator[tuple[_Node, _Node]]:
    children = node.children or []
    if node.mapping:
        yield from zip(children[::2], children[1::2], strict=True)


def _entries(root: _Node) -> list[Seen] | None:
    """Return the entries of the one map in the file, None when there is no such map."""
    top = (root.children or [_Node(1)])[0]
    maps = [value for key, value in _pairs(top) if key.value == MAP_KEY]
    return list(_flatten(maps[0])) if len(maps) == 1 and maps[0].mapping else None


def _flatten(node: _Node) -> Iterator[Seen]:
    """Yield the entries in file order by the rules the line scan follows."""
    for key, value in _pairs(node):
        if value.children is None:
            yield Seen(key.value, value.value, value.line)
        elif key.value in CONTAINERS:
            yield from _flatten(value)
        else:
            yield from _flatten_nested(key, value)


def _flatten_nested(key: _Node, value: _Node) -> Iterator[Seen]:
    children = list(_pairs(value))
    found = [child for name, child in children if name.value == "status" and child.children is None]
    for status in found or [_Node(key.line)]:
        yield Seen(key.value, status.value, status.line)
    for name, child in children:
        if name.value in CONTAINERS:
            yield from _flatten(child)
