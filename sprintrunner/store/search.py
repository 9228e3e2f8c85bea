"""The full-text index over events and transcripts: a file of its own beside the database, made to be lost.

It is apart from the database so that filling it never waits for, or holds up, the writer of state, and so
that backups stay small. Whoever deletes it loses nothing: it is filled again.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import StoreError
from .payload import clean

#: The name of the file in the state folder.
FILE = "search.db"
#: Changing it has the index made anew.
_VERSION = 2
#: Hits are counted up to this many.
MOST_COUNTED = 1_000
#: What surrounds a hit in an excerpt while it travels; no indexed text holds them.
_OPEN, _CLOSE = "\x01", "\x02"
_MARKS = re.compile("[\x01\x02]")
_WORDS_AROUND = 18
_MOST_TERMS, _TERM_CHARS = 8, 80
_TERM = re.compile(r'"([^"]+)"|(\S+)')

_TABLES = (
    "CREATE TABLE IF NOT EXISTS documents (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, ref INTEGER NOT NULL,"
    " slot TEXT NOT NULL, at INTEGER, text TEXT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS documents_by_ref ON documents (kind, ref)",
    "CREATE TABLE IF NOT EXISTS places (name TEXT PRIMARY KEY, first INTEGER NOT NULL, "
    " second INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE VIRTUAL TABLE IF NOT EXISTS texts USING fts5 (text, kind, content='documents',"
    " content_rowid='id', tokenize='unicode61 remove_diacritics 2')",
)
# CROSS JOIN: the full-text index first, whatever the planner thinks of the other table's indexes.
_FOUND = (
    "SELECT d.id, d.kind, d.ref, d.slot, d.at, snippet(texts, 0, char(1), char(2), '…', :around)"
    " FROM texts CROSS JOIN documents d ON d.id = texts.rowid"
    " WHERE texts MATCH :terms AND texts.rowid < :before ORDER BY texts.rowid DESC LIMIT :limit"
)
_COUNTED = "SELECT count(*) FROM (SELECT 1 FROM texts WHERE texts MATCH :terms LIMIT :most)"
_LAST = 2**63 - 1


class SearchUnavailable(StoreError):
    """Search needs an SQLite with FTS5, which this Python does not have; all else works without it."""


@dataclass(frozen=True, slots=True)
class Document:
    """A text to be found.

    ``kind`` is ``part`` (``ref`` = its command), ``event`` (``ref`` = its id), or ``step``: the event of a
    tool call, which the transcript tells better.
    """

    kind: str
    ref: int
    slot: str
    at: int | None
    text: str


@dataclass(frozen=True, slots=True)
class Hit:
    """A document that was found. ``pieces`` alternate: text, hit, text …"""

    id: int
    kind: str
    ref: int
    slot: str
    at: int | None
    pieces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Hits:
    """A part of what was found, newest first; ``total`` stops at MOST_COUNTED."""

    hits: tuple[Hit, ...]
    total: int


def terms_of(query: str) -> tuple[str, ...]:
    """The words and "quoted phrases" of a query that hold a letter or a digit."""
    found = (clean(quoted or word)[:_TERM_CHARS] for quoted, word in _TERM.findall(query[:500]))
    return tuple(term for term in found if any(map(str.isalnum, term)))[:_MOST_TERMS]


def available() -> bool:
    """Whether this Python's SQLite has FTS5."""
    with closing(sqlite3.connect(":memory:")) as connection:
        try:
            connection.execute("CREATE VIRTUAL TABLE probe USING fts5 (text)")
        except sqlite3.OperationalError:
            return False
    return True


class SearchIndex:
    """The index of one project. One thread fills it; any may ask. Errors are StoreError, a sentence."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE

    def prepare(self) -> None:
        """Make the file, anew where it is damaged or of another version; SearchUnavailable without FTS5."""
        if not available():
            raise SearchUnavailable()
        for attempt in (1, 2):
            try:
                with self._writing() as connection:
                    (version,) = connection.execute("PRAGMA user_version").fetchone()
                    if version in (0, _VERSION):
                        for statement in _TABLES:
                            connection.execute(statement)
                        connection.execute(f"PRAGMA user_version={_VERSION}")
                        return
            except StoreError:
                if attempt == 2:
                    raise
            self._discard()

    def _discard(self) -> None:
        for end in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + end).unlink(missing_ok=True)

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=5, isolation_level=None)) as connection:
                self.path.chmod(0o600)
                connection.execute("PRAGMA auto_vacuum=INCREMENTAL")  # heeded by a new file only
                connection.execute("PRAGMA journal_mode=WAL")
                # What a power cut takes is read again from the transcripts.
                connection.execute("PRAGMA synchronous=NORMAL")
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"The search index {self.path} cannot be written: {error}.") from error

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=2, isolation_level=None)) as connection:
                connection.execute("PRAGMA query_only=ON")
                yield connection
        except sqlite3.Error as error:
            if "fts5" in str(error):
                raise SearchUnavailable() from error
            raise StoreError(f"The search index cannot be read: {error}.") from error

    def add(
        self,
        documents: Iterable[Document],
        places: Mapping[str, tuple[int, int]],
        forget: Iterable[str] = (),
    ) -> None:
        """Add texts, remember how far their sources were read, ``forget`` others; all or nothing."""
        with self._writing() as connection:
            for one in documents:
                text = _MARKS.sub("", clean(one.text))
                values = (one.kind, one.ref, one.slot, one.at, text)
                insert = "INSERT INTO documents (kind, ref, slot, at, text) VALUES (?, ?, ?, ?, ?)"
                number = connection.execute(insert, values).lastrowid
                connection.execute(
                    "INSERT INTO texts (rowid, text, kind) VALUES (?, ?, ?)", (number, text, one.kind)
                )
            for name, (first, second) in places.items():
                connection.execute("INSERT OR REPLACE INTO places VALUES (?, ?, ?)", (name, first, second))
            connection.executemany("DELETE FROM places WHERE name = ?", [(name,) for name in forget])

    def forget(self, kinds: Sequence[str], refs: Iterable[int]) -> None:
        """Take the texts of these kinds about these events or commands out; all or nothing."""
        marks = ", ".join("?" for _ in kinds)
        with self._writing() as connection:
            for ref in refs:
                rows = connection.execute(
                    f"SELECT id, text, kind FROM documents WHERE kind IN ({marks}) AND ref = ?",  # noqa: S608
                    (*kinds, ref),
                ).fetchall()
                # The full-text index keeps no texts of its own: it has to be told what it indexed.
                connection.executemany(
                    "INSERT INTO texts (texts, rowid, text, kind) VALUES ('delete', ?, ?, ?)", rows
                )
                connection.executemany("DELETE FROM documents WHERE id = ?", [(row[0],) for row in rows])

    def free_pages(self) -> int:
        """How many pages of the file hold nothing and can be given back; 0 where it cannot shrink."""
        with self._reading() as connection:
            (mode,) = connection.execute("PRAGMA auto_vacuum").fetchone()
            (free,) = connection.execute("PRAGMA freelist_count").fetchone()
        return int(free) if mode else 0

    def give_back(self, pages: int) -> None:
        """Cut up to so many free pages off the file."""
        with self._writing() as connection:
            # One at a time: the driver takes a single step of a statement that has no columns.
            for _ in range(pages):
                connection.execute("PRAGMA incremental_vacuum(1)")

    def place(self, name: str) -> tuple[int, int]:
        """How far a source was read; zeros for one that was not begun."""
        with self._reading() as connection:
            row = connection.execute("SELECT first, second FROM places WHERE name = ?", (name,)).fetchone()
        return (int(row[0]), int(row[1])) if row else (0, 0)

    def find(
        self,
        query: str,
        *,
        kinds: Sequence[str] = (),
        limit: int = 30,
        before: int | None = None,
    ) -> Hits:
        """All words of ``query``, each as the beginning of a word; newest first, below the id ``before``."""
        terms = terms_of(query)
        if not terms or not self.path.exists():
            return Hits((), 0)
        most = max(0, min(limit, MOST_COUNTED))
        values = {
            "terms": _expression(terms, kinds),
            "around": _WORDS_AROUND,
            "limit": most,
            "most": MOST_COUNTED,
            "before": _LAST if before is None else before,
        }
        with self._reading() as connection:
            found = connection.execute(_FOUND, values).fetchall()
            # A page that is not full was counted by reading it; so is one as long as counting goes.
            if before is None and (len(found) < most or len(found) >= MOST_COUNTED):
                counted = (len(found),)
            else:
                counted = connection.execute(_COUNTED, values).fetchone()
        return Hits(tuple(_hit(row) for row in found), int(counted[0]))


def _expression(terms: Sequence[str], kinds: Sequence[str]) -> str:
    """All terms as beginnings of words; the kind is indexed too, so that few among many are quick."""
    wanted = " ".join('"' + term.replace('"', '""') + '"*' for term in terms)
    among = " OR ".join(f'"{kind}"' for kind in kinds)
    return f"{{text}} : ({wanted})" + (f" AND {{kind}} : ({among})" if kinds else "")


def _hit(row: tuple[int, str, int, str, int | None, str]) -> Hit:
    number, kind, ref, slot, at, excerpt = row
    return Hit(number, kind, ref, slot, at, tuple(re.split(f"[{_OPEN}{_CLOSE}]", excerpt)))
