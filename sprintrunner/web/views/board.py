"""The board: epics in the columns backlog, in progress and done, each with its stories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...sprint import Entry, StatusClass, StoryStatus
from . import looks, words
from .grid import Wanted, by_epic, word_of
from .looks import Look
from .plan import Segment
from .reading import Reading, by_story, keys_of

#: Stories of an epic that stand open. A sprint with more stories than FOLD_ABOVE shows MOST_LISTED of them in
#: all, of finished epics none, and one bar for the segments of an epic: the page stays under 100 KB.
MOST_STORIES, FOLD_ABOVE, MOST_LISTED = 12, 60, 10

_COLUMNS = (("Backlog", "backlog"), ("In progress", "in-progress"), ("Done", "done"))


@dataclass(frozen=True, slots=True)
class Story:
    """One line: right of the key its cost, or its running ``command`` since (ms), or its word."""

    key: str
    look: Look
    word: str
    cost: float | None
    command: str = ""
    since: int = 0


@dataclass(frozen=True, slots=True)
class EpicCard:
    """One epic; ``hidden`` counts stories that are not listed."""

    slot: str
    id: str
    title: str
    segments: tuple[Segment, ...]
    done: int
    cost: float | None
    stories: tuple[Story, ...]
    hidden: int
    now: int
    folds: bool


@dataclass(frozen=True, slots=True)
class Column:
    """One column with its epics."""

    name: str
    stories: int
    epics: tuple[EpicCard, ...]


@dataclass(frozen=True, slots=True)
class EpicBoard:
    """The section; the stream replaces the one that is not filtered."""

    slot: str
    columns: tuple[Column, ...]


#: The board without a filter, as the stream sends it.
WHOLE = Wanted(board=True)


def board(reading: Reading, wanted: Wanted = WHOLE) -> EpicBoard:
    """Read the board, limited to one epic or to stories with failures where that is asked for."""
    costs = _costs(reading)
    columns: dict[str, list[tuple[EpicCard, int]]] = {slug: [] for _, slug in _COLUMNS}
    left = MOST_LISTED if len(reading.entries) > FOLD_ABOVE and not wanted.epic else len(reading.entries)
    placed = (
        (epic, entries, _column(reading, entries)) for epic, entries in by_epic(reading.entries).items()
    )
    # What is in progress first: where not all stories can be listed, these are.
    for epic, entries, slug in sorted(placed, key=lambda one: one[2] != "in-progress"):
        if wanted.epic and wanted.epic != epic:
            continue
        listed = [e for e in entries if not wanted.failures or reading.status_of(e) is StoryStatus.BLOCKED]
        if wanted.status:
            listed = [entry for entry in listed if word_of(reading, entry) == wanted.status]
        if listed:
            card = _card(reading, epic, entries, listed, costs, left)
            left -= len(card.stories)
            columns[slug].append((card, len(listed)))
    return EpicBoard(
        "board" if wanted == WHOLE else words.slot("board", wanted),
        tuple(
            Column(name, sum(count for _, count in columns[slug]), tuple(card for card, _ in columns[slug]))
            for name, slug in _COLUMNS
        ),
    )


def _column(reading: Reading, entries: Sequence[Entry]) -> str:
    settled = (StatusClass.DONE, StatusClass.DROPPED)
    if all(reading.status_of(e) is StoryStatus.DONE or e.status_class in settled for e in entries):
        return "done"
    quiet = (StoryStatus.BACKLOG, StoryStatus.OPTIONAL, None)
    return "backlog" if all(reading.status_of(e) in quiet for e in entries) else "in-progress"


def _costs(reading: Reading) -> dict[str, float]:
    """Cost by story, over the commands of the newest batch and of no other: those are read already."""
    found: dict[str, float] = {}
    for key, shares in by_story(reading.batch_commands).items():
        told = [cost for share in shares if (cost := share.cost) is not None]
        if told:
            found[key] = sum(told)
    return found


def _card(
    reading: Reading,
    epic: str,
    entries: Sequence[Entry],
    listed: Sequence[Entry],
    costs: dict[str, float],
    left: int,
) -> EpicCard:
    """One epic, counted whole; of its stories only those ``listed``, at most ``left``."""
    statuses = [reading.status_of(entry) for entry in entries]
    done = statuses.count(StoryStatus.DONE)
    folds = len(reading.entries) > FOLD_ABOVE
    shown = listed[: 0 if folds and done == len(entries) else min(left, MOST_STORIES)]
    told = [costs[entry.key] for entry in entries if entry.key in costs]
    return EpicCard(
        slot=words.slot("b", epic),
        id=epic,
        title=reading.epic_titles.get(epic, ""),
        segments=tuple(Segment(e.key, _part(s)) for e, s in zip(entries, statuses, strict=True)),
        done=done,
        cost=sum(told) if told else None,
        stories=tuple(_story(reading, entry, costs) for entry in shown),
        hidden=len(listed) - len(shown),
        now=reading.now,
        folds=folds,
    )


def _part(status: StoryStatus | None) -> str:
    if status in (StoryStatus.DONE, StoryStatus.BLOCKED):
        return str(status)
    return "running" if status in (StoryStatus.IN_PROGRESS, StoryStatus.REVIEW) else "open"


def _story(reading: Reading, entry: Entry, costs: dict[str, float]) -> Story:
    status = reading.status_of(entry)
    running = next((command for command in reading.running if entry.key in keys_of(command)), None)
    return Story(
        key=entry.key,
        look=looks.of("story", status) if status else looks.of_entry(entry),
        word=str(status) if status else entry.raw_status,
        cost=costs.get(entry.key) if status is StoryStatus.DONE else None,
        command=running.command if running else "",
        since=running.started_at if running else 0,
    )
