"""The ledger of a story's findings: what each review said of each, and a small stacked bar a review."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ...store import CommandRow, FindingRow, RoundRow, StoryRow
from .reading import Reading

_HUES = {"CRITICAL": "blocked", "HIGH": "blocked", "MEDIUM": "attention"}
_SEVERITIES = ("CRITICAL", "HIGH", "MEDIUM", "LOW", "NONE")
#: Height of the tallest bar of the chart, in px.
_TALL = 40
NEW, NEW_FIXED, OPEN, FIXED = "new", "new, fixed", "open", "fixed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding; ``rounds`` is what each review of the story said of it, empty where nothing new."""

    severity: str
    hue: str
    title: str
    place: str
    status: str
    rounds: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a bar: ``new``, ``open`` or ``fixed``; place and height in px from the top of the chart."""

    kind: str
    y: float
    height: float


@dataclass(frozen=True, slots=True)
class Review:
    """One column: its attempt number, its counts in words, its bar."""

    id: int
    attempt: int
    said: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Ledger:
    """All findings of a story, worst and open first, and its reviews in their order."""

    findings: tuple[Finding, ...]
    reviews: tuple[Review, ...]

    @property
    def fixed(self) -> int:
        """How many are fixed."""
        return sum(one.status == "fixed" for one in self.findings)


def ledger(reading: Reading, record: StoryRow | None, commands: Iterable[CommandRow]) -> Ledger:
    """Read the ledger; reviews that gave no verdict have no column."""
    if record is None:
        return Ledger((), ())
    told: dict[int, list[RoundRow]] = {}
    for one in reading.store.finding_rounds(record.id):
        told.setdefault(one.finding_id, []).append(one)
    reviews = [c for c in commands if c.command == "code-review" and c.batch_id == record.batch_id]
    reviews = [c for c in reviews if c.status == "succeeded" or c.id in _heard(told)]
    rows = reading.store.findings(record.id)
    rows.sort(key=lambda row: (_SEVERITIES.index(row.severity), row.status == "fixed", row.id))
    ids = [review.id for review in reviews]
    found = tuple(_finding(row, told.get(row.id, []), ids) for row in rows)
    return Ledger(found, _reviews(reviews, found))


def _heard(told: Mapping[int, Sequence[RoundRow]]) -> set[int]:
    return {one.command_id for rounds in told.values() for one in rounds}


def _finding(row: FindingRow, rounds: Iterable[RoundRow], reviews: Sequence[int]) -> Finding:
    said = {one.command_id: str(one.status) for one in rounds}
    return Finding(
        severity=str(row.severity),
        hue=_HUES.get(row.severity, "neutral"),
        title=row.title,
        place=f"{row.file}:{row.line}" if row.file and row.line else row.file or "",
        status=str(row.status),
        rounds=tuple(_words([said.get(review, "") for review in reviews])),
    )


def _words(statuses: Iterable[str]) -> Iterable[str]:
    """A fixed finding is repeated by every later review; only the first of these says something."""
    before = ""
    for status in statuses:
        if not before and status:
            yield NEW if status == OPEN else NEW_FIXED
        elif status == FIXED == before:
            yield ""
        else:
            yield status
        before = status or before


def _reviews(commands: Sequence[CommandRow], findings: Sequence[Finding]) -> tuple[Review, ...]:
    counts = []
    for place in range(len(commands)):
        words = [finding.rounds[place] for finding in findings]
        counts.append({word: words.count(word) for word in (NEW, NEW_FIXED, OPEN, FIXED)})
    most = max((sum(count.values()) for count in counts), default=0) or 1
    return tuple(
        Review(command.id, command.attempt, _said(count), tuple(_parts(count, _TALL / most)))
        for command, count in zip(commands, counts, strict=True)
    )


def _said(count: Mapping[str, int]) -> str:
    new, fixed = count[NEW] + count[NEW_FIXED], count[FIXED] + count[NEW_FIXED]
    parts = [(new, "new"), (fixed, "fixed"), (count[OPEN], "still open")]
    return ", ".join(f"{number} {word}" for number, word in parts if number) or "nothing"


def _parts(count: Mapping[str, int], unit: float) -> Iterable[Part]:
    y = float(_TALL)
    for kind, number in (
        ("fixed", count[FIXED] + count[NEW_FIXED]),
        ("open", count[OPEN]),
        ("new", count[NEW]),
    ):
        if number:
            y -= number * unit
            yield Part(kind, round(y, 1), round(number * unit - 1, 1))
