"""Reads the raw output of a command as numbered parts: messages, thoughts, tool calls, the result."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from .agents import (
    Denied,
    LimitHit,
    Raw,
    Retrying,
    SessionStarted,
    Stream,
    Text,
    Thinking,
    Tokens,
    ToolFinished,
    ToolStarted,
    TurnFinished,
    Usage,
    action,
    by_name,
)
from .agents.base import AgentEvent
from .errors import AgentMissing
from .transcript_text import Body, body_of, moment_of, shortened, whole_output

#: Longest line that is parsed, in bytes; the agent's shim cuts longer ones.
_LONGEST = 9 << 20
_CHUNK = 1 << 20
_COUNTING = threading.Lock()
#: Lines, and bytes, read past the end of a window for the results of calls that began in it.
_AHEAD_LINES, _AHEAD_BYTES = 400, 4 << 20
#: A window with fewer parts than this is widened: some streams need many lines for one part.
_FEW_PARTS = 120
_WIDEST = 200_000
#: Most parts that wait for the result of a call among them.
_MOST_PARTS = 2_000
#: Longest message shown whole, in characters.
_MESSAGE = 24_000

Clean = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Part:
    """One part. ``line`` counts from 1 in the raw file; ``nth`` tells apart the parts of one line.

    ``kind``: start, message, told, thinking, tool, note, raw or result. ``state``: empty, or of tools and
    results running, passed, failed, unknown. Times in ms.
    """

    line: int
    nth: int
    kind: str
    title: str
    what: str = ""
    body: Body = field(default_factory=Body)
    state: str = ""
    exit_code: int | None = None
    began: int | None = None
    ended: int | None = None
    inner: bool = False
    tokens: Tokens | None = None
    cost_usd: float | None = None

    @property
    def slot(self) -> str:
        """The permalink: ``L12``, or ``L12-2`` for the second part of a line."""
        return f"L{self.line}" if self.nth == 0 else f"L{self.line}-{self.nth + 1}"

    @property
    def text(self) -> str:
        """All its words, as the search sees them."""
        return "\n".join(filter(None, (self.title, self.what, *self.body.texts)))


@dataclass(frozen=True, slots=True)
class Window:
    """Parts of the lines ``first`` to ``last`` of a file of ``total`` lines."""

    parts: tuple[Part, ...]
    first: int
    last: int
    total: int


class Reader:
    """Turns lines into parts; a result joins the call it answers, however much later it comes."""

    def __init__(self, agent: str, root: Path) -> None:
        self.stream = _stream(agent)
        self.root = root
        self.parts: list[Part] = []
        self.open: dict[str, int] = {}
        self._spent: Usage | None = None

    def feed(self, number: int, line: bytes, results_only: bool = False) -> None:
        """Take the line ``number``; with ``results_only`` it may end calls but adds no part."""
        nth = 0
        for event in self.stream.feed(line):
            if isinstance(event, ToolFinished):
                self._finish(event, line)
            elif isinstance(event, Usage):
                self._spent = event
            elif not results_only and (part := self._part(event, number, nth, line)):
                nth += self._add(part, event, line)

    def _add(self, part: Part, event: AgentEvent, line: bytes) -> int:
        last = self.parts[-1] if self.parts else None
        if last and last.kind == part.kind == "message" and b'"delta":true' in line.replace(b" ", b""):
            joined = Body(text=shortened(last.body.text + part.body.text, _MESSAGE))
            self.parts[-1] = replace(last, body=joined)
            return 0
        self.parts.append(part)
        if isinstance(event, ToolStarted):
            self.open[event.tool_id] = len(self.parts) - 1
        return 1

    def _finish(self, event: ToolFinished, line: bytes) -> None:
        at = self.open.pop(event.tool_id, None)
        if at is None:
            return
        call = self.parts[at]
        output = whole_output(event.output, line)
        code = event.exit_code
        failed = event.is_error or bool(code)
        self.parts[at] = replace(
            call,
            body=replace(call.body, output=shortened(output), lines=output.count("\n") + bool(output)),
            state="failed" if failed else "passed",
            exit_code=code if code is not None or failed or call.title != "Run" else 0,
            ended=moment_of(line),
        )

    def _part(self, event: AgentEvent, number: int, nth: int, line: bytes) -> Part | None:
        if isinstance(event, ToolStarted):
            return self._call(event, number, nth, line)
        if isinstance(event, TurnFinished):
            return self._result(event, number, nth)
        made = _plain(event)
        if made is None:
            return None
        kind, title, what, text = made
        inner = bool(getattr(event, "parent", None))
        body = Body(text=shortened(text, _MESSAGE))
        return Part(number, nth, kind, title, what, body, began=moment_of(line), inner=inner)

    def _call(self, event: ToolStarted, number: int, nth: int, line: bytes) -> Part:
        verb, what = action(event, self.root)
        title = _VERBS.get(verb, verb)
        body = body_of(title, event.input)
        began, inner = moment_of(line), bool(event.parent)
        return Part(number, nth, "tool", title, what, body, state="running", began=began, inner=inner)

    def _result(self, event: TurnFinished, number: int, nth: int) -> Part:
        told = event.structured.get("summary") if isinstance(event.structured, dict) else None
        what = str(told or "") or (event.text if event.text.count("\n") < 2 else "")
        title = "Result: success" if event.ok else "Result: failed"
        body = Body(text=shortened(_pretty(event.structured) or event.text))
        what = " ".join(what.split())[:300] if not what.lstrip().startswith("{") else ""
        spent = self._spent
        made = Part(number, nth, "result", title, what or _reason(event), body)
        return replace(
            made,
            state="passed" if event.ok else "failed",
            tokens=spent.tokens if spent else None,
            cost_usd=spent.cost_usd if spent else None,
        )


#: What the agents module says while a call runs, as the name of the call.
_VERBS: Mapping[str, str] = {
    "Editing": "Edit",
    "Writing": "Write",
    "Reading": "Read",
    "Listing": "List",
    "Looking for": "Find",
    "Searching": "Search",
    "Running": "Run",
    "Ending": "End",
    "Delegating": "Delegate",
    "Fetching": "Fetch",
    "Searching the web for": "Search the web",
    "Updating": "Update",
    "Using skill": "Use skill",
    "Looking for tools": "Find tools",
    "Giving": "Give",
    "Using": "Use",
}


def _stream(agent: str) -> Stream:
    try:
        return by_name(agent).stream()
    except AgentMissing:
        # Written by an agent this version no longer drives: its lines are shown as they are.
        return by_name("claude").stream()


def _plain(event: AgentEvent) -> tuple[str, str, str, str] | None:
    """Kind, title, object and text of an event that stands for itself; None for what nobody reads."""
    if isinstance(event, Text):
        if not event.text.strip():
            return None
        return ("message", "", "", event.text) if event.role == "agent" else ("told", "Told", "", event.text)
    if isinstance(event, Thinking):
        return "thinking", "Thinking", f"{len(event.text.split())} words", event.text
    if isinstance(event, SessionStarted):
        servers = [f"{name} {status}" for name, status in event.mcp.items() if status != "connected"]
        told = ", ".join(filter(None, (event.version and f"version {event.version}", event.model, *servers)))
        return "start", "Start", told, f"Session {event.session_id}" if event.session_id else ""
    return _note(event)


def _note(event: AgentEvent) -> tuple[str, str, str, str] | None:
    if isinstance(event, Retrying):
        status = f", status {event.status}" if event.status else ""
        return "note", "Repeats a request", f"in {event.delay:.0f} s: {event.reason}{status}", ""
    if isinstance(event, LimitHit):
        kind = (event.kind or "usage").replace("_", " ")
        return None if event.status == "allowed" else ("note", "Usage limit", f"{kind}: {event.status}", "")
    if isinstance(event, Denied):
        return "note", "Refused", f"{event.tool} by the permission rules", ""
    if isinstance(event, Raw):
        return "raw", "No event", event.why, event.line
    return None


def _pretty(value: Any) -> str:
    if value is None:
        return ""
    try:
        return json.dumps(value, indent=2, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return ""


def _reason(event: TurnFinished) -> str:
    return "" if event.ok else event.reason.replace("_", " ")


def read(
    path: Path,
    agent: str,
    root: Path,
    *,
    clean: Clean,
    size: int = 500,
    first: int | None = None,
    live: bool = False,
) -> Window:
    """Read about ``size`` lines: from line ``first``, else the newest. Memory is that of the window.

    ``clean`` takes secrets out of each line before anything else sees it. A call without a result is
    running while ``live``. Raises OSError where the file cannot be read.
    """
    with path.open("rb") as file:
        total = _count(file, live)
        while True:
            begin = max(1, total - size + 1) if first is None else min(max(1, first), max(1, total))
            end = total if first is None else min(total, begin + size - 1)
            reader = _read(file, agent, root, begin, end, total, clean)
            whole = begin == 1 if first is None else end == total
            if whole or len(reader.parts) >= _FEW_PARTS or size >= _WIDEST:
                break
            size *= 4
    parts = (part if live or part.state != "running" else _unanswered(part) for part in reader.parts)
    return Window(tuple(_cleaned(part, clean) for part in parts), begin, end, total)


def _cleaned(part: Part, clean: Clean) -> Part:
    """Once more, decoded and joined: a line may hold a secret escaped, or one half of it."""
    return replace(part, title=clean(part.title), what=clean(part.what), body=part.body.cleaned(clean))


def _unanswered(part: Part) -> Part:
    return replace(part, state="unknown")


def _read(file: BinaryIO, agent: str, root: Path, begin: int, end: int, total: int, clean: Clean) -> Reader:
    reader = Reader(agent, root)
    _seek(file, begin)
    ahead = 0
    for number, line in enumerate(_lines(file), begin):
        if number > end:
            ahead += len(line)
            if number > total or not reader.open or number > end + _AHEAD_LINES or ahead > _AHEAD_BYTES:
                break
        reader.feed(number, clean(line.decode("utf-8", "replace")).encode("utf-8"), number > end)
    return reader


def portions(
    path: Path, agent: str, root: Path, *, clean: Clean, offset: int, line: int, final: bool
) -> Iterator[Portion]:
    """Read on from a place, all parts once, in portions of bounded size (for the search).

    A portion ends where no call waits for its result, so that reading on from there loses none. ``final``:
    nothing more can come. Raises OSError.
    """
    with path.open("rb") as file:
        file.seek(offset)
        reader, held, safe = Reader(agent, root), 0, Portion((), offset, line)
        for raw in _lines(file):
            if not raw.endswith(b"\n") and not final:
                break
            offset, line, held = offset + len(raw), line + 1, held + len(raw)
            reader.feed(line, clean(raw.decode("utf-8", "replace")).encode("utf-8"))
            if not reader.open or len(reader.parts) >= _MOST_PARTS:
                safe = Portion(tuple(_cleaned(part, clean) for part in reader.parts), offset, line)
                if held > _CHUNK or len(reader.parts) >= _FEW_PARTS:
                    yield safe
                    reader.parts.clear()
                    reader.open.clear()
                    held, safe = 0, Portion((), offset, line)
        yield Portion(tuple(_cleaned(part, clean) for part in reader.parts), offset, line) if final else safe


@dataclass(frozen=True, slots=True)
class Portion:
    """Parts, and the place (bytes, lines) up to which they were read."""

    parts: tuple[Part, ...]
    offset: int
    line: int


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines from here on; of one that is too long only the beginning is kept."""
    while line := file.readline(_LONGEST):
        rest = line
        while not rest.endswith(b"\n") and len(rest) == _LONGEST:
            rest = file.readline(_LONGEST)
        yield line


@lru_cache(maxsize=64)
def _known(name: str, device: int, inode: int) -> list[int]:
    """Where the counts of one file are kept, see ``_chunks``."""
    return []


def _chunks(file: BinaryIO) -> list[int]:
    """How many lines end in each whole chunk of the file, counted once: a transcript only grows."""
    found = os.fstat(file.fileno())
    counts = _known(str(file.name), found.st_dev, found.st_ino)
    with _COUNTING:
        if len(counts) * _CHUNK > found.st_size:
            counts.clear()  # made anew under its name
        file.seek(len(counts) * _CHUNK)
        while len(counts) < found.st_size // _CHUNK and len(chunk := file.read(_CHUNK)) == _CHUNK:
            counts.append(chunk.count(b"\n"))
        return counts[:]


def _count(file: BinaryIO, live: bool) -> int:
    """How many lines there are; an unfinished last one counts once nothing more can come."""
    counts = _chunks(file)
    # From the last byte of the counted part: it tells whether that ends with a whole line.
    start = max(0, len(counts) * _CHUNK - 1)
    file.seek(start)
    rest = file.read()
    unfinished = bool(rest) and not rest.endswith(b"\n")
    return sum(counts) + rest.count(b"\n", 1 if start else 0) + (unfinished and not live)


def _seek(file: BinaryIO, number: int) -> None:
    """Stand at the beginning of line ``number``."""
    left, at = number - 1, 0
    for found in _chunks(file):
        if found >= left:
            break
        left, at = left - found, at + _CHUNK
    file.seek(at)
    while left and (chunk := file.read(_CHUNK)):
        found = chunk.count(b"\n")
        if found >= left:
            place = -1
            for _ in range(left):
                place = chunk.index(b"\n", place + 1)
            at, left = at + place + 1, 0
        else:
            at, left = at + len(chunk), left - found
    file.seek(at)
