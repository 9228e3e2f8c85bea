"""Search: the words of a query in a text, and the hits of the index as lines of a page."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ...errors import StoreError
from ...store import CommandRow
from ...store.search import MOST_COUNTED, Hit, Hits, SearchIndex, terms_of
from . import looks
from .looks import Look
from .reading import Reading, keys_of

#: Hits on one page of a search.
PAGE = 30


class Marker:
    """Cuts texts at the words that are searched for."""

    def __init__(self, query: str) -> None:
        self.query = query
        terms = terms_of(query)
        inside = "|".join(re.escape(term) for term in sorted(terms, key=len, reverse=True))
        # As the index does it: a hit begins a word, and an underscore is no part of one.
        self._pattern = re.compile(rf"(?<![^\W_])({inside})", re.IGNORECASE) if terms else None

    def __bool__(self) -> bool:
        return self._pattern is not None

    def pieces(self, text: str) -> tuple[str, ...]:
        """``text`` cut so that every second piece is a hit."""
        return tuple(self._pattern.split(text)) if self._pattern else (text,)

    def count(self, text: str) -> int:
        """How often a word of the query stands in ``text``."""
        return len(self._pattern.findall(text)) if self._pattern else 0


@dataclass(frozen=True, slots=True)
class Found:
    """One hit: where it is in words, its address, and its excerpt. ``at`` in ms or None."""

    place: str
    keys: tuple[str, ...]
    href: str
    at: int | None
    pieces: tuple[str, ...]
    look: Look
    status: str
    line: str


@dataclass(frozen=True, slots=True)
class Result:
    """What was found of one kind; ``total`` in words, ``older`` is the id to go on from, 0 at the end."""

    lines: tuple[Found, ...]
    total: str
    older: int


@dataclass(frozen=True, slots=True)
class StoryHit:
    """A story whose key or title holds the words."""

    key: str
    key_pieces: tuple[str, ...]
    title_pieces: tuple[str, ...]
    word: str
    look: Look


@dataclass(frozen=True, slots=True)
class SearchPage:
    """The page. ``trouble`` is the one sentence that stands in the place of hits that cannot be had."""

    query: str
    stories: tuple[StoryHit, ...]
    parts: Result
    events: Result
    trouble: str
    only: str

    @property
    def empty(self) -> bool:
        """Whether nothing was found anywhere."""
        return not (self.stories or self.parts.lines or self.events.lines)


NOTHING = Result((), "0", 0)


def index_of(reading: Reading) -> SearchIndex:
    """The index of this project; its file may not exist yet."""
    return SearchIndex(Path(reading.services.state_dir))


def search_page(reading: Reading, query: str, only: str, before: int | None) -> SearchPage:
    """Read the page; ``only`` shows one kind, ``part`` or ``event``, and pages through it."""
    marker = Marker(query)
    parts = events = NOTHING
    trouble = ""
    try:
        if marker and only != "event":
            parts = _result(
                reading, index_of(reading).find(query, kinds=("part",), limit=PAGE + 1, before=before)
            )
        if marker and only != "part":
            events = _result(
                reading, index_of(reading).find(query, kinds=("event",), limit=PAGE + 1, before=before)
            )
    except StoreError as error:
        trouble = error.sentence
    if marker and not trouble and not index_of(reading).path.exists():
        trouble = (
            "Nothing has been indexed yet; that happens while Sprint Runner serves or runs this project."
        )
    stories = _stories(reading, marker) if marker and not only else ()
    return SearchPage(query, stories, parts, events, trouble, only)


def total_of(hits: Hits) -> str:
    """``11``, or ``1000+`` where counting stopped."""
    return f"{hits.total}+" if hits.total >= MOST_COUNTED else str(hits.total)


def _result(reading: Reading, hits: Hits) -> Result:
    shown = hits.hits[:PAGE]
    lines = tuple(line for hit in shown if (line := found(reading, hit, "")))
    return Result(lines, total_of(hits), shown[-1].id if len(hits.hits) > PAGE else 0)


def found(reading: Reading, hit: Hit, query: str) -> Found | None:
    """A hit as a line; None where what it was found in is gone."""
    if hit.kind == "event":
        return Found(
            place=f"event {hit.ref}",
            keys=(),
            href=f"/activity?batch=all&before={hit.ref + 1}",
            at=hit.at,
            pieces=hit.pieces,
            look=Look("neutral", "dot"),
            status="",
            line="",
        )
    command = reading.store.command(hit.ref)
    return None if command is None else _in_command(reading, hit, command)


def _in_command(reading: Reading, hit: Hit, command: CommandRow) -> Found:
    status = str(reading.outcome(command))
    line = hit.slot[1:].partition("-")[0]
    return Found(
        place=f"{command.command} {command.attempt}",
        keys=keys_of(command),
        href=f"/commands/{command.id}?line={line}",
        at=hit.at,
        pieces=hit.pieces,
        look=looks.of("command", status),
        status=status,
        line=line,
    )


def _stories(reading: Reading, marker: Marker) -> tuple[StoryHit, ...]:
    hits = []
    for entry in reading.entries:
        title = entry.title or ""
        if all(Marker(f'"{term}"').count(f"{entry.key} {title}") for term in terms_of(marker.query)):
            status = reading.status_of(entry)
            look = looks.of("story", status) if status else looks.of_entry(entry)
            word = str(status) if status else entry.raw_status
            hits.append(StoryHit(entry.key, marker.pieces(entry.key), marker.pieces(title), word, look))
    return tuple(hits[:PAGE])
