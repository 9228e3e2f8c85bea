"""What a batch did, from the store: stories, verdicts, commits, time, tokens, cost, what needs a person."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from .errors import NotFound
from .sprint import BatchStatus, Command, CommandStatus, StoryStatus
from .terminal import count, dollars, duration, printable

if TYPE_CHECKING:
    from .store import BatchRow, CommandRow, FindingRow, Store, StoryRow, Totals

#: How a batch ended, in words.
ENDINGS: Mapping[str, str] = {
    BatchStatus.RUNNING: "is running",
    BatchStatus.COMPLETED: "completed its cycles",
    BatchStatus.ALL_DONE: "had nothing left to do",
    BatchStatus.STOPPED: "was stopped",
    BatchStatus.FAILED: "failed",
    BatchStatus.INTERRUPTED: "was interrupted",
    BatchStatus.LIMIT: "was ended by a limit",
}


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens by kind; ``cache`` is read plus written."""

    input: int
    output: int
    cache: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one code review found: the severity that decided, None where it was not valid."""

    attempt: int
    severity: str | None
    status: str


@dataclass(frozen=True, slots=True)
class StoryReport:
    """One story; ``seconds`` is the time of its commands, ``cost_usd`` None where it is unknown."""

    key: str
    epic: str
    title: str
    status: str
    reason: str
    acknowledged: bool
    commit: str | None
    verdicts: tuple[Verdict, ...]
    findings_open: int
    findings_fixed: int
    evidence: Any
    commands: int
    seconds: float
    cost_usd: float | None
    tokens: Tokens


@dataclass(frozen=True, slots=True)
class Report:
    """What a batch did; times are in ms since the epoch, ``ended_at`` None while it runs."""

    batch_id: int
    status: str
    state: str
    reason: str
    started_at: int
    ended_at: int | None
    seconds: float
    cycles_completed: int
    max_cycles: int | None
    commands: int
    cost_usd: float | None
    tokens: Tokens
    stories: tuple[StoryReport, ...]
    commits: tuple[str, ...]
    needs_you: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return asdict(self)


def build(store: Store, batch_id: int | None = None) -> Report:
    """Return the report of a batch, of the newest one by default; raise NotFound where there is none."""
    batch = store.latest_batch() if batch_id is None else store.batch(batch_id)
    if batch is None:
        raise NotFound("No batch has run in this project yet." if batch_id is None else _absent(batch_id))
    stories = _stories(store, batch.id)
    return _of_batch(batch, store.batch_totals(batch.id), stories)


def _absent(batch_id: int) -> str:
    return f"There is no batch {batch_id} in this project."


def _of_batch(batch: BatchRow, totals: Totals, stories: tuple[StoryReport, ...]) -> Report:
    return Report(
        batch_id=batch.id,
        status=str(batch.status),
        state=str(batch.state),
        reason=batch.reason or "",
        started_at=batch.started_at,
        ended_at=batch.ended_at,
        seconds=totals.seconds,
        cycles_completed=batch.cycles_completed,
        max_cycles=batch.max_cycles,
        commands=totals.commands,
        cost_usd=totals.cost_usd,
        tokens=Tokens(totals.tokens_in, totals.tokens_out, totals.tokens_cache),
        stories=stories,
        commits=tuple(dict.fromkeys(story.commit for story in stories if story.commit)),
        needs_you=tuple(_needs_you(batch, stories)),
    )


def _stories(store: Store, batch_id: int) -> tuple[StoryReport, ...]:
    by_key = _by_story(store.commands(batch_id))
    return tuple(
        _of_story(row, by_key.get(row.story_key, []), store.findings(row.id))
        for row in store.stories(batch_id)
    )


def _by_story(commands: Iterable[CommandRow]) -> dict[str, list[tuple[CommandRow, int]]]:
    """Each story's commands with the number of stories that share each: cost is split evenly."""
    found: dict[str, list[tuple[CommandRow, int]]] = {}
    for command in commands:
        keys = [key for key in (command.story_keys or "").split(",") if key]
        for key in keys:
            found.setdefault(key, []).append((command, len(keys)))
    return found


def _of_story(
    row: StoryRow, shares: Sequence[tuple[CommandRow, int]], findings: Sequence[FindingRow]
) -> StoryReport:
    still_open = sum(finding.status == "open" for finding in findings)
    return StoryReport(
        key=row.story_key,
        epic=row.epic_id or "",
        title=row.title or "",
        status=str(row.status),
        reason=row.reason or "",
        acknowledged=row.acknowledged,
        commit=row.commit_sha,
        verdicts=tuple(_verdicts(command for command, _ in shares)),
        findings_open=still_open,
        findings_fixed=len(findings) - still_open,
        evidence=row.evidence,
        commands=len(shares),
        seconds=sum(_seconds(command) for command, _ in shares),
        cost_usd=_shared_cost(shares),
        tokens=_tokens([command for command, _ in shares]),
    )


def _verdicts(commands: Iterable[CommandRow]) -> Iterable[Verdict]:
    for command in commands:
        if command.command == Command.CODE_REVIEW and command.ended_at is not None:
            yield Verdict(command.attempt, _severity(command), str(command.status))


def _severity(command: CommandRow) -> str | None:
    # What a review that was not valid claims is no verdict.
    valid = command.status == CommandStatus.SUCCEEDED and isinstance(command.verdict, Mapping)
    return str(command.verdict.get("highest_severity")) if valid else None


def _seconds(command: CommandRow) -> float:
    if command.ended_at is None or command.started_at is None:
        return 0.0
    return max(0, command.ended_at - command.started_at) / 1000


def _shared_cost(shares: Iterable[tuple[CommandRow, int]]) -> float | None:
    known = [command.cost_usd / of for command, of in shares if command.cost_usd is not None]
    return sum(known) if known else None


def _tokens(commands: Iterable[CommandRow]) -> Tokens:
    rows = list(commands)
    return Tokens(
        input=sum(row.tokens_in or 0 for row in rows),
        output=sum(row.tokens_out or 0 for row in rows),
        cache=sum((row.tokens_cache_read or 0) + (row.tokens_cache_write or 0) for row in rows),
    )


def _needs_you(batch: BatchRow, stories: Iterable[StoryReport]) -> Iterable[str]:
    """One sentence for each thing that only a person can settle."""
    for story in stories:
        if story.status == StoryStatus.BLOCKED and not story.acknowledged:
            yield f"{story.key} is blocked: {story.reason or 'no reason was recorded'}"
    if batch.status == BatchStatus.INTERRUPTED:
        yield "The batch was interrupted; continue it on the dashboard or with serve --resume."
    if batch.status in (BatchStatus.FAILED, BatchStatus.LIMIT):
        yield f"The batch {ENDINGS[batch.status]}: {batch.reason or 'see the log'}"


def lines(report: Report) -> list[str]:
    """Return the report as lines for a terminal; nothing in them can steer it."""
    return [_headline(report), *_story_lines(report), "", _totals(report), *_attention(report)]


def _headline(report: Report) -> str:
    of = "unlimited" if report.max_cycles is None else str(report.max_cycles)
    ending = ENDINGS.get(report.status, report.status)
    why = f" ({printable(report.reason, 200)})" if report.reason else ""
    cycles = f"{report.cycles_completed} of {of} cycles"
    return f"Batch {report.batch_id} {ending}{why}: {cycles} in {duration(report.seconds)}."


def _story_lines(report: Report) -> list[str]:
    if not report.stories:
        return ["No story was taken up."]
    width = min(48, max(len(printable(story.key)) for story in report.stories))
    return [_story_line(story, width) for story in report.stories]


def _story_line(story: StoryReport, width: int) -> str:
    parts = [f"  {printable(story.key, 48):<{width}}  {story.status:<13}", f"{duration(story.seconds):>12}"]
    parts.append(f"{dollars(story.cost_usd):>9}")
    parts.append((story.commit or "")[:10].ljust(10))
    parts.append(_review_words(story))
    return "  ".join(parts).rstrip()


def _review_words(story: StoryReport) -> str:
    if not story.verdicts:
        return ""
    rounds = " → ".join(verdict.severity or verdict.status for verdict in story.verdicts)
    still_open = f", {count(story.findings_open, 'finding')} open" if story.findings_open else ""
    return f"reviews: {rounds}{still_open}"


def _totals(report: Report) -> str:
    done = sum(story.status == StoryStatus.DONE for story in report.stories)
    tokens = report.tokens
    work = f"{count(report.commands, 'command')}, {count(len(report.commits), 'commit')}"
    spent = f"{tokens.input:,} in, {tokens.output:,} out, {tokens.cache:,} cached"
    stories = count(len(report.stories), "story", "stories")
    return f"{done} of {stories} done, {work}; cost {dollars(report.cost_usd)}, tokens {spent}."


def _attention(report: Report) -> list[str]:
    if not report.needs_you:
        return ["Nothing needs you."]
    return ["Needs you:", *(f"  {printable(sentence, 400)}" for sentence in report.needs_you)]
