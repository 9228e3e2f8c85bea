"""The page of one story: its file, its commands, the ledger of its findings, its commit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ...errors import ProjectError
from ...git import Commit
from ...project import Outline, read_inside, story_file, story_outline
from ...sprint import CommandStatus, Entry, StoryStatus
from ...store import FindingRow, RoundRow, StoryRow
from ...workflow import STORY_COMMANDS
from . import looks
from .commands import CommandLine, lines_of
from .looks import Look
from .reading import Reading, Share, by_story, took


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding; ``rounds`` is what each review of the story said of it, empty where nothing."""

    severity: str
    hue: str
    title: str
    place: str
    status: str
    rounds: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StoryPage:
    """One story. ``reviews`` are the attempt numbers that head the ledger's columns."""

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
    ms: int
    cost: float | None
    findings: tuple[Finding, ...]
    reviews: tuple[int, ...]
    commits: tuple[Commit, ...]
    batch_id: int | None
    cycle: int | None
    phases: tuple[str, ...]
    may_retry: bool
    may_close: bool
    now: int


_HUES = {"CRITICAL": "blocked", "HIGH": "blocked", "MEDIUM": "attention"}
_SEVERITIES = ("CRITICAL", "HIGH", "MEDIUM", "LOW", "NONE")


def story_page(reading: Reading, key: str) -> StoryPage | None:
    """Read the page of a story; None when neither the status file nor the database knows the key."""
    entry = next((one for one in reading.entries if one.key == key), None)
    record = reading.records.get(key)
    if entry is None and record is None:
        return None
    status = reading.status_of(entry) if entry else record.status if record else None
    commands = reading.store.commands_of_story(key)
    running = any(c.status == CommandStatus.RUNNING for c in commands) and reading.live
    shares = by_story(commands).get(key, [])
    outline, file = _file(reading, key)
    epic = (entry.epic if entry else record.epic_id if record else "") or ""
    reviews = [c for c in commands if c.command == "code-review" and record and c.batch_id == record.batch_id]
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
        ms=sum(took(command, reading.now) for command in commands),
        cost=_cost(shares),
        findings=_findings(reading, record, [c.id for c in reviews]),
        reviews=tuple(c.attempt for c in reviews),
        commits=tuple(reading.commits([record.commit_sha])) if record and record.commit_sha else (),
        batch_id=record.batch_id if record else None,
        cycle=record.cycle if record else None,
        phases=tuple(map(str, STORY_COMMANDS)),
        may_retry=not running and _can_retry(entry),
        may_close=not running and status is StoryStatus.BLOCKED,
        now=reading.now,
    )


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


def _findings(reading: Reading, record: StoryRow | None, reviews: list[int]) -> tuple[Finding, ...]:
    if record is None:
        return ()
    said: dict[int, list[RoundRow]] = {}
    for told in reading.store.finding_rounds(record.id):
        said.setdefault(told.finding_id, []).append(told)
    rows = reading.store.findings(record.id)
    rows.sort(key=lambda row: (_SEVERITIES.index(row.severity), row.status == "fixed", row.id))
    return tuple(_finding(row, said.get(row.id, []), reviews) for row in rows)


def _finding(row: FindingRow, said: list[RoundRow], reviews: list[int]) -> Finding:
    by_review = {told.command_id: str(told.status) for told in said}
    first = next((review for review in reviews if review in by_review), None)
    return Finding(
        severity=str(row.severity),
        hue=_HUES.get(row.severity, "neutral"),
        title=row.title,
        place=f"{row.file}:{row.line}" if row.file and row.line else row.file or "",
        status=str(row.status),
        rounds=tuple(_word(by_review.get(review, ""), review == first) for review in reviews),
    )


def _word(status: str, first: bool) -> str:
    if not first:
        return status
    return "new" if status == "open" else "new, fixed"
