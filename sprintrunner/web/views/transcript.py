"""The page of one command: its transcript as cards, what is folded, hits, and the facts beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from urllib.parse import urlencode

from ...errors import StoreError
from ...redact import MARK, redact, secret_values
from ...sprint import CommandStatus
from ...store import CommandRow
from ...transcript import Part, Window, read
from . import commands, words
from .commands import CommandPage
from .finding import Found, Marker, found, index_of, total_of
from .reading import Reading

#: Lines of the file that one page reads; more where they hold few parts.
LINES = 500
#: A longer row of calls that went well is folded to one line, except for its first and last.
_LONGEST_ROW = 7
#: Hits elsewhere that the rail lists.
_ELSEWHERE = 8
_GLYPHS = {
    "Run": "prompt",
    "Edit": "pencil",
    "Write": "pencil",
    "Read": "file",
    "List": "file",
    "Find": "lens",
    "Search": "lens",
    "Search the web": "lens",
    "Fetch": "lens",
}
_KINDS = {
    "start": "info",
    "thinking": "bubble",
    "told": "person",
    "note": "warn",
    "raw": "query",
    "result": "ok",
}


@dataclass(frozen=True, slots=True)
class Item:
    """One part as a card. ``told`` stands at its right; ``hue`` is set only for what is no success."""

    part: Part
    open: bool
    glyph: str
    hue: str
    told: str
    hits: int


@dataclass(frozen=True, slots=True)
class Row:
    """Items that stand one below the other; ``folded``: behind one line with their count."""

    items: tuple[Item, ...]
    folded: bool
    open: bool = False

    @property
    def slot(self) -> str:
        """The element id of the fold."""
        return f"fold-{self.items[0].part.slot}"


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of a transcript that still grows: the place to go on from, and what it has not answered.

    ``seen`` is how many parts there were when its end was last in view.
    """

    command_id: int
    after: int
    waiting: int
    parts: int
    seen: int
    live: bool

    @property
    def new(self) -> int:
        """Parts that came since."""
        return max(0, self.parts - self.seen)

    def address(self, seen: int) -> str:
        """Where to ask for more."""
        return (
            f"/commands/{self.command_id}/parts?after={self.after}&waiting={self.waiting}"
            f"&parts={self.parts}&seen={seen}"
        )


@dataclass(frozen=True, slots=True)
class Wish:
    """What the address asks for. ``line`` is to be in the window, ``first`` begins it; 0 = the newest.

    ``open`` is ``all`` or ``none`` where every card is to be so, else empty.
    """

    query: str = ""
    line: int = 0
    first: int = 0
    only: str = ""
    open: str = ""


@dataclass(frozen=True, slots=True)
class TranscriptPage:
    """The page. ``trouble`` is a sentence where the transcript cannot be shown."""

    command: CommandPage
    rows: tuple[Row, ...]
    window: Window | None
    marker: Marker
    here: tuple[Item, ...]
    elsewhere: tuple[Found, ...]
    total: str
    only: str
    trouble: str
    facts: tuple[tuple[str, str], ...]
    tail: Tail | None
    result: Item | None
    wish: Wish

    def again(self, open_: str) -> str:
        """The address of the same parts with all cards open or none; asked for again, as they were."""
        asked = {"q": self.wish.query, "line": self.wish.line, "first": self.wish.first, "only": self.only}
        asked["open"] = "" if open_ == self.wish.open else open_
        kept = urlencode({name: value for name, value in asked.items() if value})
        return f"/commands/{self.command.line.id}" + (f"?{kept}" if kept else "")

    @property
    def older(self) -> int:
        """The line an older page begins at; 0 where this one begins at the first."""
        return max(1, self.window.first - LINES) if self.window and self.window.first > 1 else 0

    @property
    def newer(self) -> int:
        """The line a newer page begins at; 0 where this one ends at the last."""
        return self.window.last + 1 if self.window and self.window.last < self.window.total else 0

    @property
    def lead(self) -> str:
        """The reason of the end, once: the result says it where there is one."""
        return "" if self.result and self.result.part.state == "passed" else self.command.line.why


def transcript_page(reading: Reading, row: CommandRow, wish: Wish) -> TranscriptPage:
    """Read the page of one command."""
    marker = Marker(wish.query)
    window, trouble = window_of(reading, row, _first(wish))
    items = [item(part, marker, reading.now) for part in window.parts] if window else []
    elsewhere, total = _elsewhere(reading, row, marker)
    command = commands.command_page(reading, row)
    shown = [one for one in items if one.part.state == "failed"] if wish.only == "failures" else items
    return TranscriptPage(
        command=command,
        rows=opened(rows_of(shown), wish.open),
        window=window,
        marker=marker,
        here=tuple(one for one in items if one.hits),
        elsewhere=elsewhere,
        total=total,
        only=wish.only,
        trouble=trouble,
        facts=(*_spending(row), *_manner(row), *_found_out(window)),
        tail=_tail(row, window, len(items), command.line.running),
        result=next((one for one in reversed(items) if one.part.kind == "result"), None),
        wish=wish,
    )


def _first(wish: Wish) -> int | None:
    if wish.line:
        return max(1, wish.line - LINES // 2)
    return wish.first or None


def window_of(reading: Reading, row: CommandRow, first: int | None) -> tuple[Window | None, str]:
    """Parts of the transcript, or the sentence that says why there are none."""
    if not row.transcript:
        return None, "Sprint Runner did this itself: there is no transcript."
    ours = reading.services
    # Only the file's own name counts: the column can never lead out of the folder.
    path = ours.state_dir / "transcripts" / row.transcript.rpartition("/")[2]
    secrets = secret_values(ours.environ)
    try:
        return read(
            path,
            row.agent or "",
            ours.project.root,
            clean=lambda text: redact(text, secrets),
            size=LINES,
            first=first,
            live=reading.outcome(row) == CommandStatus.RUNNING,
        ), ""
    except OSError:
        return None, "The transcript is no longer there: its file was removed from the state folder."


def item(part: Part, marker: Marker, now: int) -> Item:
    """One part as a card; running, failed and found ones are open, all else is folded."""
    hits = marker.count(part.text)
    failed = part.state == "failed"
    open_ = failed or part.state == "running" or bool(hits) or part.kind in ("message", "raw")
    hue = "blocked" if failed else "running" if part.state == "running" else ""
    if part.kind == "result" and not failed:
        hue = "done"
    glyph = (
        "no" if part.kind == "result" and failed else _KINDS.get(part.kind) or _GLYPHS.get(part.title, "dot")
    )
    return Item(part, open_, glyph, hue, _told(part, now), hits)


def _told(part: Part, now: int) -> str:
    if part.kind == "result":
        return _spent(part)
    if part.state in ("running", "unknown"):
        return "running" if part.state == "running" else "no result"
    told = []
    if part.exit_code is not None:
        told.append(f"exit {part.exit_code}")
    elif part.state == "failed":
        told.append("failed")
    if part.body.added or part.body.removed:
        told.append(f"+{part.body.added} −{part.body.removed}")
    elif part.title in ("Read", "Search", "Find", "List") and part.body.lines and part.state == "passed":
        told.append(words.plural(part.body.lines, "line"))
    if part.began and part.ended and part.title not in ("Read", "Edit", "Write", "List"):
        told.append(short_time(part.ended - part.began))
    return " · ".join(told)


def _spent(part: Part) -> str:
    tokens = part.tokens
    counts = (tokens.input, tokens.output, tokens.cache_read, tokens.cache_write) if tokens else ()
    told = [words.money(part.cost_usd)] if part.cost_usd is not None else []
    return " · ".join((*told, f"{words.tokens(sum(counts))} tokens") if counts else told)


def short_time(ms: int) -> str:
    """``0.8 s``, ``40.9 s``, ``2:13``."""
    return f"{max(0, ms) / 1000:.1f} s" if ms < 60_000 else words.clock(ms)


def rows_of(items: Sequence[Item]) -> tuple[Row, ...]:
    """The items with long rows of what went well folded."""
    rows: list[Row] = []
    for quiet, group in groupby(items, _is_quiet):
        run = tuple(group)
        if quiet and len(run) > _LONGEST_ROW:
            rows += [Row(run[:2], False), Row(run[2:-1], True), Row(run[-1:], False)]
        else:
            rows.append(Row(run, False))
    return tuple(rows)


def opened(rows: tuple[Row, ...], asked: str) -> tuple[Row, ...]:
    """The rows with every card open (``all``) or none; as they are where neither is asked for."""
    if not asked:
        return rows
    wide = asked == "all"
    return tuple(
        Row(tuple(replace(one, open=wide) for one in row.items), row.folded, row.folded and wide)
        for row in rows
    )


def _is_quiet(one: Item) -> bool:
    return not one.open and one.part.kind in ("tool", "thinking") and one.part.state != "unknown"


def _elsewhere(reading: Reading, row: CommandRow, marker: Marker) -> tuple[tuple[Found, ...], str]:
    """Hits in other transcripts, and how many there are in the project."""
    if not marker:
        return (), "0"
    try:
        hits = index_of(reading).find(marker.query, kinds=("part",), limit=_ELSEWHERE * 8)
    except StoreError:
        return (), "0"
    others = [hit for hit in hits.hits if hit.ref != row.id][:_ELSEWHERE]
    return tuple(line for hit in others if (line := found(reading, hit, marker.query))), total_of(hits)


def _spending(row: CommandRow) -> list[tuple[str, str]]:
    """Tokens by kind; what the agent did not tell is left out rather than shown as nothing."""
    counts = (
        ("Tokens in", row.tokens_in),
        ("Tokens out", row.tokens_out),
        ("From cache", row.tokens_cache_read),
        ("Into cache", row.tokens_cache_write),
    )
    return [(name, words.tokens(count)) for name, count in counts if count is not None]


def _manner(row: CommandRow) -> list[tuple[str, str]]:
    """How it ended."""
    ended = _ENDED.get(row.ended_by or "", (row.ended_by or "").replace("_", " "))
    facts = [("Ended", ended)] if ended else []
    facts += [("Exit code", str(row.exit_code))] if row.exit_code is not None else []
    facts += [("Signal", str(row.exit_signal))] if row.exit_signal is not None else []
    return facts + ([("Session", row.session_id)] if row.session_id else [])


_ENDED = {"itself": "by itself", "wall": "time limit", "idle": "silence limit", "stop": "stopped"}


def _found_out(window: Window | None) -> list[tuple[str, str]]:
    """What the parts of this page tell."""
    parts = window.parts if window else ()
    changed = {part.what for part in parts if part.title in ("Edit", "Write") and part.state == "passed"}
    hidden = sum(part.text.count(MARK) for part in parts)
    found = [("Longest silence", short_time(silence)) for silence in _silences(parts)]
    found += [("Files changed", str(len(changed)))] if changed else []
    return found + ([("Secrets hidden", str(hidden))] if hidden else [])


def _silences(parts: Iterable[Part]) -> list[int]:
    moments = sorted(moment for part in parts for moment in (part.began, part.ended) if moment)
    gaps = [after - before for before, after in pairwise(moments)]
    return [max(gaps)] if gaps and max(gaps) >= 1000 else []


def _tail(row: CommandRow, window: Window | None, count: int, live: bool) -> Tail | None:
    if not live or (window and window.last < window.total):
        return None
    last = window.total if window else 0
    waiting = min((p.line for p in window.parts if p.state == "running"), default=0) if window else 0
    return Tail(row.id, last, waiting, count, count, True)


@dataclass(frozen=True, slots=True)
class More:
    """What came since: cards that got their result, new ones, and the new tail."""

    answered: tuple[Item, ...]
    items: tuple[Item, ...]
    tail: Tail
    marker: Marker


def more(reading: Reading, row: CommandRow, after: int, waiting: int, parts: int, seen: int) -> More:
    """Read on after the line ``after``; ``waiting`` is the first line whose call had no result yet."""
    marker = Marker("")
    window, _ = window_of(reading, row, waiting or after + 1)
    live = reading.outcome(row) == CommandStatus.RUNNING
    if window is None or window.total <= after:
        return More((), (), Tail(row.id, after, waiting, parts, seen, live), marker)
    items = [item(part, marker, reading.now) for part in window.parts]
    answered = tuple(one for one in items if one.part.line <= after and one.part.state not in ("", "running"))
    new = tuple(one for one in items if one.part.line > after)
    left = min((one.part.line for one in items if one.part.state == "running"), default=0)
    tail = Tail(row.id, window.last, left, parts + len(new), seen, live)
    return More(answered, new, tail, marker)
