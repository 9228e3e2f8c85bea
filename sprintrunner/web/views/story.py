"""The page of one story: its file, its commands over time, its findings, the evidence that it is done."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ...errors import GitError, ProjectError
from ...git import Commit
from ...project import Outline, read_inside, story_file, story_outline
from ...sprint import Command, CommandStatus, Entry, StoryStatus
from ...store import CommandRow, StoryRow
from ...workflow import STORY_COMMANDS
from . import looks
from .commands import CommandLine, lines_of
from .diff import FileChange, files_of
from .evidence import Evidence, evidence
from .ledger import Ledger, ledger
from .looks import Look
from .reading import Reading, Share, by_story, took
from .waterfall import Waterfall, waterfall

#: Files of a commit that the page lists; its own page has them all.
MOST_FILES = 6


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at a phase, and how many files its agent had changed by then, None where nobody looked."""

    line: CommandLine
    changed: int | None


@dataclass(frozen=True, slots=True)
class Attempts:
    """All attempts at one phase side by side; ``others`` are the phases with how often each was tried."""

    phase: str
    attempts: tuple[Attempt, ...]
    others: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class StoryCommit:
    """A commit of the story with the first of its files."""

    commit: Commit
    files: tuple[FileChange, ...]
    more: int


@dataclass(frozen=True, slots=True)
class Numbers:
    """What the story took: time of agents and from start to end (ms), dollars, tokens."""

    ms: int
    span: int | None
    cost: float | None
    budget: float | None
    tokens: int
    cached: int


@dataclass(frozen=True, slots=True)
class StoryPage:
    """One story; ``neighbours`` are the keys before and after it in the status file, empty at its ends."""

    key: str
    title: str
    epic: str
    epic_title: str
    word: str
    look: Look
    reason: str
    outline: Outline | None
    file: str
    commands: tuple[CommandLine, ...]
    numbers: Numbers
    waterfall: Waterfall | None
    ledger: Ledger
    evidence: Evidence | None
    attempts: Attempts | None
    commits: tuple[StoryCommit, ...]
    batch_id: int | None
    cycle: int | None
    phases: tuple[str, ...]
    may_retry: bool
    may_close: bool
    neighbours: tuple[str, str]
    now: int


def story_page(reading: Reading, key: str, phase: str = "") -> StoryPage | None:
    """Read the page of a story; None when neither the status file nor the database knows the key.

    ``phase`` is the command whose attempts are compared; without it the one that needed most of them.
    """
    entry = next((one for one in reading.entries if one.key == key), None)
    record = reading.records.get(key)
    if entry is None and record is None:
        return None
    status = reading.status_of(entry) if entry else record.status if record else None
    commands = reading.store.commands_of_story(key)
    running = reading.live and any(c.status == CommandStatus.RUNNING for c in commands)
    outline, file = _file(reading, key)
    epic = (entry.epic if entry else record.epic_id if record else "") or ""
    return StoryPage(
        key=key,
        title=_title(outline, entry, record),
        epic=epic,
        epic_title=reading.epic_titles.get(epic, ""),
        word=str(status) if status else entry.raw_status if entry else "",
        look=looks.of("story", status) if status else looks.of_entry(entry) if entry else looks.NEUTRAL,
        reason=(record.reason or "") if record else "",
        outline=outline,
        file=file,
        commands=lines_of(reading, commands),
        numbers=_numbers(reading, key, commands, record),
        waterfall=waterfall(reading, reading.store.batch(record.batch_id) if record else None, commands),
        ledger=ledger(reading, record, commands),
        evidence=evidence(reading, record, outline),
        attempts=_attempts(reading, commands, phase),
        commits=_commits(reading, record),
        batch_id=record.batch_id if record else None,
        cycle=record.cycle if record else None,
        phases=tuple(map(str, STORY_COMMANDS)),
        may_retry=not running and _can_retry(entry),
        may_close=not running and status is StoryStatus.BLOCKED,
        neighbours=_neighbours(reading, key),
        now=reading.now,
    )


def _numbers(reading: Reading, key: str, commands: Sequence[CommandRow], record: StoryRow | None) -> Numbers:
    ended = record.ended_at if record else None
    return Numbers(
        ms=sum(took(command, reading.now) for command in commands),
        span=ended - record.started_at if record and ended and record.started_at else None,
        cost=_cost(by_story(commands).get(key, [])),
        budget=reading.layers.values.budget_usd_per_story,
        tokens=sum(_tokens(command) for command in commands),
        cached=sum(command.tokens_cache_read or 0 for command in commands),
    )


def _neighbours(reading: Reading, key: str) -> tuple[str, str]:
    keys = ["", *(entry.key for entry in reading.entries), ""]
    at = keys.index(key) if key in keys else 0
    return (keys[at - 1], keys[at + 1]) if at else ("", "")


def _tokens(command: CommandRow) -> int:
    counts = (command.tokens_in, command.tokens_out, command.tokens_cache_read, command.tokens_cache_write)
    return sum(count or 0 for count in counts)


def _attempts(reading: Reading, commands: Sequence[CommandRow], phase: str) -> Attempts | None:
    by_phase: dict[str, list[CommandRow]] = {}
    for command in commands:
        by_phase.setdefault(command.command, []).append(command)
    if not by_phase:
        return None
    order = [str(command) for command in STORY_COMMANDS if command in by_phase]
    order += [name for name in by_phase if name not in order]
    busiest = max(order, key=lambda name: (len(by_phase[name]), name == Command.DEV_STORY))
    chosen = phase if phase in by_phase else busiest
    mine = by_phase[chosen]
    attempts = map(Attempt, lines_of(reading, mine), map(_changed, mine))
    return Attempts(chosen, tuple(attempts), tuple((name, len(by_phase[name])) for name in order))


def _changed(command: CommandRow) -> int | None:
    told = command.evidence.get("changed") if isinstance(command.evidence, dict) else None
    return len(told) if isinstance(told, list) else None


def _commits(reading: Reading, record: StoryRow | None) -> tuple[StoryCommit, ...]:
    found = []
    for commit in reading.commits([record.commit_sha] if record and record.commit_sha else []):
        try:
            files = files_of(reading.project.root, commit.sha)
        except GitError:
            files = ()
        found.append(StoryCommit(commit, files[:MOST_FILES], max(0, len(files) - MOST_FILES)))
    return tuple(found)


def _can_retry(entry: Entry | None) -> bool:
    """Held, dropped and unknown ones have none of the seven statuses, and are refused."""
    return entry is not None and entry.status is not None


def _title(outline: Outline | None, entry: Entry | None, record: StoryRow | None) -> str:
    told = (outline and outline.title, entry and entry.title, record and record.title)
    return next((text for text in told if text), "")


def _cost(shares: Iterable[Share]) -> float | None:
    costs = [cost for share in shares if (cost := share.cost) is not None]
    return sum(costs) if costs else None


def _file(reading: Reading, key: str) -> tuple[Outline | None, str]:
    """The story's file as outline, and its path from the root of the project."""
    project = reading.project
    try:
        path = story_file(project, key, [entry.key for entry in reading.entries])
        if path is None:
            return None, ""
        return story_outline(read_inside(project.root, path)), str(path.relative_to(project.root))
    except (ProjectError, ValueError):
        return None, ""
