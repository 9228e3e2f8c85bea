"""The sprint grid: epics and their stories as rows, the phases of the workflow as columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from ...errors import StatusFileError
from ...sprint import Command, CommandStatus, Entry, StatusClass, StoryStatus
from ...store import StoryRow
from ...workflow import STORY_COMMANDS
from . import looks, words
from .looks import Look
from .reading import Reading, Share, by_story, took

#: A sprint with more stories folds epics that have nothing open or blocked, and shows at most so many rows:
#: the page stays under 100 KB.
FOLD_ABOVE, MOST_ROWS = 60, 14

#: More attempts than this are shown as three ticks and the number.
MOST_TICKS = 5

#: The stories of the newest batch whose cells open a menu; for more of them the page would grow too large.
MOST_MENUS, MOST_MENUS_FOLDED = 10, 5

#: Statuses the filter offers: the seven, and some words of the file's own.
_MOST_STATUSES = 12

_SPEC = (Command.CREATE_TECH_SPEC, Command.TECH_SPEC_REVIEW)
_TICKS: Mapping[CommandStatus, str] = {
    CommandStatus.FAILED: "f",
    CommandStatus.TIMED_OUT: "f",
    CommandStatus.LIMITED: "l",
    CommandStatus.INTERRUPTED: "i",
    CommandStatus.RUNNING: "r",
}


_BAD = frozenset({"failed", "timed_out"})


@dataclass(frozen=True, slots=True)
class Cell:
    """One phase of one story. ``word`` is a command status, or ``skip``, ``next``, or empty for not yet.

    ``label`` says in words what ticks show; a plain success has none, its word comes with its glyph.
    """

    word: str
    phase: str = ""
    command_id: int = 0
    ms: int = 0
    since: int = 0
    width: int = 0
    ticks: str = ""
    more: int = 0
    label: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One story. ``word`` is its status as written; time in ms, ``cost`` in dollars or None.

    ``menus``: its cells open a menu; the cells of others lead to the same things on the story's page.
    """

    slot: str
    key: str
    title: str
    word: str
    look: Look
    current: bool
    cells: tuple[Cell, ...]
    ms: int
    cost: float | None
    menus: bool
    failed: bool


@dataclass(frozen=True, slots=True)
class Epic:
    """One epic's heading and its open rows; ``hidden`` counts stories that are not shown."""

    slot: str
    id: str
    title: str
    done: int
    total: int
    cost: float | None
    rows: tuple[Row, ...]
    hidden: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the URL asks for: one epic, failures only, the board in place of the grid, one status."""

    epic: str = ""
    failures: bool = False
    board: bool = False
    status: str = ""

    def url(self, **changed: Any) -> str:
        """The address of the dashboard with some of it changed."""
        now = replace(self, **changed)
        asked = {"epic": now.epic, "failures": "1" * now.failures, "status": now.status}
        asked["view"] = "board" * now.board
        query = urlencode({name: value for name, value in asked.items() if value}, errors="surrogatepass")
        return f"/?{query}" if query else "/"


ALL = Wanted()


@dataclass(frozen=True, slots=True)
class Grid:
    """The section. ``wanted`` is what the URL asks for; ``problem`` a sentence in place of the stories."""

    slot: str
    summary: str
    epics: tuple[Epic, ...]
    names: tuple[str, ...]
    statuses: tuple[tuple[str, int], ...]
    wanted: Wanted
    problem: str
    warnings: tuple[str, ...]
    now: int


class Board:
    """The rows of one rendering; commands of a batch are read once for all of them."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self._shares: dict[int, dict[str, list[Share]]] = {}
        self._longest: dict[str, int] | None = None
        most = MOST_MENUS if len(reading.entries) <= FOLD_ABOVE else MOST_MENUS_FOLDED
        self._menus = {row.story_key for row in reading.batch_stories[-most:]}

    def shares(self, key: str) -> list[Share]:
        """The commands of a story in the batch that last worked on it."""
        record = self.reading.records.get(key)
        if record is None:
            return []
        if record.batch_id not in self._shares:
            self._shares[record.batch_id] = by_story(self.reading.commands_of(record.batch_id))
        return self._shares[record.batch_id].get(key, [])

    def longest(self, command: str) -> int:
        """The 90th percentile of a phase's time in the newest batch, in ms: the full width of its bars."""
        if self._longest is None:
            self._longest = _percentiles(self.reading)
        return self._longest.get(command, 1)

    def row(self, entry: Entry) -> Row:
        """Read one story's row."""
        reading = self.reading
        shares = self.shares(entry.key)
        status = reading.status_of(entry)
        record = reading.records.get(entry.key)
        cells = _with_next(reading, record, tuple(self._cell(c, shares, record) for c in STORY_COMMANDS))
        costs = [cost for share in shares if (cost := share.cost) is not None]
        return Row(
            slot=words.slot("s", entry.key),
            key=entry.key,
            title=entry.title or (record.title if record and record.title else ""),
            word=word_of(reading, entry),
            look=looks.of("story", status) if status else looks.of_entry(entry),
            current=any(s.command.status == CommandStatus.RUNNING for s in shares) and reading.live,
            cells=cells,
            ms=sum(took(share.command, reading.now) for share in shares),
            cost=sum(costs) if costs else None,
            menus=entry.key in self._menus,
            failed=status is StoryStatus.BLOCKED or any(cell.word in _BAD for cell in cells),
        )

    def _cell(self, command: Command, shares: Sequence[Share], record: StoryRow | None) -> Cell:
        mine = [share.command for share in shares if share.command.command == command]
        if not mine:
            skipped = command in _SPEC and record is not None and record.tech_spec == "SKIP"
            return Cell("skip") if skipped else Cell("")
        last, status = mine[-1], self.reading.outcome(mine[-1])
        ms = sum(took(one, self.reading.now) for one in mine)
        running = status == CommandStatus.RUNNING
        ticks = "".join(_TICKS.get(self.reading.outcome(one), "s") for one in mine) if len(mine) > 1 else ""
        attempts = f", {len(mine)} attempts" if len(mine) > 1 else ""
        plain = status == CommandStatus.SUCCEEDED and len(mine) == 1
        return Cell(
            word=str(status),
            phase=str(command),
            command_id=last.id,
            ms=took(last, self.reading.now) if running else ms,
            since=last.started_at if running else 0,
            width=_twentieths(ms, self.longest(command)),
            ticks=ticks if len(ticks) <= MOST_TICKS else ticks[-3:],
            more=len(ticks) if len(ticks) > MOST_TICKS else 0,
            label="" if plain else f"{status}{attempts}",
        )

    def epic(self, epic_id: str, entries: Sequence[Entry], shown: Sequence[Entry]) -> Epic:
        """Read one epic; only ``shown`` of its entries get a row."""
        # A folded epic costs no reads: its stories may lie in as many batches as there are.
        paid = entries if shown else ()
        costs = [c for e in paid for s in self.shares(e.key) if (c := s.cost) is not None]
        return Epic(
            slot=words.slot("e", epic_id),
            id=epic_id,
            title=self.reading.epic_titles.get(epic_id, ""),
            done=sum(self.reading.status_of(e) is StoryStatus.DONE for e in entries),
            total=len(entries),
            cost=sum(costs) if costs else None,
            rows=tuple(self.row(entry) for entry in shown),
            hidden=len(entries) - len(shown),
        )


def _percentiles(reading: Reading) -> dict[str, int]:
    times: dict[tuple[str, str], int] = {}
    for key, shares in by_story(reading.batch_commands).items():
        for share in shares:
            at = (share.command.command, key)
            times[at] = times.get(at, 0) + took(share.command, reading.now)
    found: dict[str, list[int]] = {}
    for (command, _), ms in times.items():
        found.setdefault(command, []).append(ms)
    return {command: max(1, sorted(all_ms)[(len(all_ms) * 9) // 10]) for command, all_ms in found.items()}


def _twentieths(ms: int, longest: int) -> int:
    """The width of a cell's bar in twentieths of the column, so that 20 CSS classes do."""
    return max(1, min(20, round(20 * ms / longest)))


def _with_next(reading: Reading, record: StoryRow | None, cells: tuple[Cell, ...]) -> tuple[Cell, ...]:
    """Mark the phase a story of the running cycle waits for."""
    batch = reading.batch
    waits = (
        reading.live
        and batch is not None
        and record is not None
        and record.batch_id == batch.id
        and record.status not in (StoryStatus.DONE, StoryStatus.BLOCKED)
        and all(cell.word != CommandStatus.RUNNING for cell in cells)
    )
    begun = [at for at, cell in enumerate(cells) if cell.word not in ("", "skip", "next")]
    for at in range(begun[-1] + 1 if begun else 0, len(cells)) if waits else ():
        if not cells[at].word:
            return (*cells[:at], Cell("next"), *cells[at + 1 :])
    return cells


def grid(reading: Reading, wanted: Wanted = ALL) -> Grid:
    """Read the whole section; one epic asked for shows all of its rows."""
    board, epics = Board(reading), by_epic(reading.entries)
    # An empty name is the group of stories without an epic, and no filter.
    wanted = wanted if wanted.epic in epics else replace(wanted, epic="")
    chosen: Mapping[str, Sequence[Entry]] = {wanted.epic: epics[wanted.epic]} if wanted.epic else epics
    if wanted.status:
        chosen = with_status(reading, chosen, wanted.status)
    folds = not wanted.epic and not wanted.failures and len(reading.entries) > FOLD_ABOVE
    shown = _shown(reading, chosen, MOST_ROWS, fold=not wanted.status) if folds else chosen
    found = tuple(
        replace(board.epic(epic, epics[epic], shown[epic]), hidden=len(entries) - len(shown[epic]))
        for epic, entries in chosen.items()
    )
    sprint = reading.sprint
    return Grid(
        slot="grid" if wanted == ALL else words.slot("grid", wanted),
        summary=summary(reading),
        epics=_only_failures(found) if wanted.failures else found,
        names=tuple(epics) if len(epics) <= 12 else (),
        statuses=_statuses(reading),
        wanted=wanted,
        problem=sprint.sentence if isinstance(sprint, StatusFileError) else "",
        warnings=() if isinstance(sprint, StatusFileError) else sprint.warnings[:5],
        now=reading.now,
    )


def word_of(reading: Reading, entry: Entry) -> str:
    """The status that counts for a story, or the word of the file where that is none of the seven."""
    return str(reading.status_of(entry) or entry.raw_status)


def with_status(
    reading: Reading, epics: Mapping[str, Sequence[Entry]], status: str
) -> dict[str, Sequence[Entry]]:
    """The epics with only their stories of this status; those without one are left out."""
    found = {epic: [e for e in all_ if word_of(reading, e) == status] for epic, all_ in epics.items()}
    return {epic: kept for epic, kept in found.items() if kept}


def _statuses(reading: Reading) -> tuple[tuple[str, int], ...]:
    """Each status that some story has, with how many: the choices of the filter."""
    counts: dict[str, int] = {}
    for entry in reading.entries:
        word = word_of(reading, entry)
        counts[word] = counts.get(word, 0) + 1
    order = [*map(str, StoryStatus), *sorted(counts)]
    return tuple((word, counts[word]) for word in dict.fromkeys(order) if word in counts)[:_MOST_STATUSES]


def _only_failures(epics: Iterable[Epic]) -> tuple[Epic, ...]:
    kept = (replace(e, rows=tuple(row for row in e.rows if row.failed)[:MOST_ROWS], hidden=0) for e in epics)
    return tuple(epic for epic in kept if epic.rows)


def by_epic(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """Stories by epic in the order of the file; those without one come under an empty name."""
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry.epic or "", []).append(entry)
    return found


def _shown(
    reading: Reading, epics: Mapping[str, Sequence[Entry]], most: int, fold: bool
) -> Mapping[str, Sequence[Entry]]:
    left, shown = most, {}
    for epic, entries in sorted(epics.items(), key=lambda item: not _stirs(reading, item[1])):
        calm = fold and all(e.status_class in (StatusClass.DONE, StatusClass.DROPPED) for e in entries)
        shown[epic] = [] if calm else list(entries[:left])
        left -= len(shown[epic])
    return shown


def _stirs(reading: Reading, entries: Iterable[Entry]) -> bool:
    quiet = {StoryStatus.BACKLOG, StoryStatus.DONE, StoryStatus.OPTIONAL, None}
    return any(reading.status_of(entry) not in quiet for entry in entries)


def summary(reading: Reading) -> str:
    """``6 of 14 done, 1 blocked, 1 on hold``."""
    statuses = [reading.status_of(entry) for entry in reading.entries]
    parts = [f"{statuses.count(StoryStatus.DONE)} of {len(statuses)} done"]
    if blocked := statuses.count(StoryStatus.BLOCKED):
        parts.append(f"{blocked} blocked")
    # A blocked story counts as held too where the scheduler asks; here it has a word of its own.
    held = sum(e.status is None and e.status_class is StatusClass.HELD for e in reading.entries)
    if held:
        parts.append(f"{held} on hold")
    return ", ".join(parts) if statuses else "no stories yet"
