"""Replaces values in the text of a status file, each on its own line, and proves that nothing else moved."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta, timezone

from ..errors import StatusFileRefused
from ..sprint import EntryKind, StoryStatus, kind_of, normalise, story_status
from .reading import Content
from .scan import Row, Scan
from .tokens import Pair

#: A value, with the columns it has now, and what shall stand there.
Edit = tuple[Pair, str]

_DATE = re.compile(
    r"(?:(?P<y>\d{4})-(?P<m>\d\d)-(?P<d>\d\d)|(?P<m2>\d\d)-(?P<d2>\d\d)-(?P<y2>\d{4}))"
    r"(?:(?P<sep>[T ])(?P<hour>\d\d):(?P<minute>\d\d)(?P<second>:\d\d)?"
    r"(?P<zone> ?(?:Z|[+-]\d\d:?\d\d))?)?"
)

_WRITABLE: Mapping[EntryKind, frozenset[StoryStatus]] = {
    EntryKind.STORY: frozenset(StoryStatus),
    EntryKind.EPIC: frozenset({StoryStatus.BACKLOG, StoryStatus.IN_PROGRESS}),
    EntryKind.RETROSPECTIVE: frozenset({StoryStatus.OPTIONAL, StoryStatus.DONE}),
}


def row_of(found: Scan, key: str) -> Row:
    """Return the one row of ``key``; raises StatusFileRefused for none, several, or one without a status."""
    rows = [row for row in found.rows if row.key == key]
    if not rows:
        raise StatusFileRefused(f"{key!r} is not in the status file; keys are never added.")
    if len(rows) > 1:
        lines = " and ".join(str(row.value_line) for row in rows)
        raise StatusFileRefused(f"{key!r} stands several times, on lines {lines}; remove all but one.")
    if rows[0].pair is None:
        raise StatusFileRefused(f"{key!r} on line {rows[0].line} has no status to replace.")
    return rows[0]


def check_change(row: Row, value: str, expected: str | None, force: bool) -> None:
    """Raise StatusFileRefused unless ``value`` may stand in the place of the row's present status."""
    kind = kind_of(row.key)
    if story_status(value) not in _WRITABLE[kind]:
        raise StatusFileRefused(f"{row.key!r} is a {kind} and is never set to {value!r} from here.")
    if expected is not None and row.value != expected:
        raise StatusFileRefused(f"{row.key!r} reads {row.value!r} by now, not {expected!r}.")
    status, status_class = normalise(row.value, kind)
    if status is None and not force:
        raise StatusFileRefused(
            f"{row.key!r} reads {row.value!r}, which is {status_class}; such a status is never overwritten."
        )


def plan(
    found: Scan,
    changes: Mapping[str, str],
    expected: Mapping[str, str],
    now: datetime,
    force: bool,
) -> list[Edit]:
    """Return the edits that make all changes and move ``last_updated``; none where all stands already.

    Raises StatusFileRefused, naming the key, when one of the changes must not be made.
    """
    edits: list[Edit] = []
    for key, value in changes.items():
        row = row_of(found, key)
        check_change(row, value, expected.get(key), force)
        if row.pair and row.value != value:
            edits.append((row.pair, value))
    stamp = _stamp(found, now) if edits else None
    return [*edits, stamp] if stamp else edits


def apply(found: Scan, edits: Iterable[Edit]) -> str:
    """Return the text with the values replaced, each between its own two columns."""
    lines = list(found.lines)
    for pair, value in edits:
        line = lines[pair.line - 1]
        lines[pair.line - 1] = line[: pair.start] + value + line[pair.end :]
    return "".join(lines)


def prove(before: Content, after: Content, edits: Sequence[Edit]) -> None:
    """Raise StatusFileRefused unless the edited text, read anew, differs in exactly the edited values."""
    wanted = {pair.line: value for pair, value in edits}
    expected = [(row.key, row.line, wanted.get(row.value_line, row.value)) for row in before.scan.rows]
    same_rows = [(row.key, row.line, row.value) for row in after.scan.rows] == expected
    if after.refusal or not same_rows:
        raise StatusFileRefused("The edit would have changed more than one value; nothing was written.")
    old, new = before.opinion, after.opinion
    if old.error is None and (new.error or _differences(old.scalars, new.scalars) != len(edits)):
        raise StatusFileRefused("A YAML parser reads the edited file differently; nothing was written.")


def _differences(before: list[str], after: list[str]) -> int:
    """Count the scalars that differ; -1 when some were lost or added."""
    if len(before) != len(after):
        return -1
    return sum(one != other for one, other in zip(before, after, strict=True))


def _stamp(found: Scan, now: datetime) -> Edit | None:
    """Return the pair of ``last_updated`` and its new value, when it stands once and holds a plain date."""
    pairs = [pair for pair in found.top if pair.key == "last_updated" and not pair.problem]
    if len(pairs) != 1:
        return None
    value = dated(pairs[0].value, now)
    return (pairs[0], value) if value and value != pairs[0].value else None


def _zone(text: str) -> timezone | None:
    """Return the offset written as ``Z``, ``+07:00`` or ``-0400``; None where there is none."""
    digits = re.sub(r"[^0-9]", "", text)
    if not text.strip():
        return None
    offset = timedelta(hours=int(digits[:2] or 0), minutes=int(digits[2:] or 0))
    return timezone(-offset if "-" in text else offset)


def dated(old: str, now: datetime) -> str | None:
    """Return ``now`` written the way the date ``old`` is; None for anything but a plain date.

    Known ways: ``2026-01-22`` and upstream's ``01-22-2026``, each with or without a time, seconds and an
    offset. A date of the form ``22-01-2026`` is not guessed at. ``now`` carries its zone.
    """
    match = _DATE.fullmatch(old)
    if match is None or not _is_date(match):
        return None
    zone = _zone(match["zone"] or "")
    moment = now.astimezone(zone) if zone else now
    text = moment.strftime("%Y-%m-%d" if match["y"] else "%m-%d-%Y")
    if match["sep"]:
        text += match["sep"] + moment.strftime("%H:%M:%S" if match["second"] else "%H:%M")
    return text + (match["zone"] or "")


def _is_date(match: re.Match[str]) -> bool:
    year, month, day = (int(match[name] or match[f"{name}2"]) for name in "ymd")
    try:
        date(year, month, day)
        _zone(match["zone"] or "")
    except ValueError:
        return False
    return True


def moment_of(today: date | None) -> datetime:
    """Return the moment to stamp: now, or ``today`` (midnight, local time, when it carries no time)."""
    if today is None:
        return datetime.now().astimezone()
    if not isinstance(today, datetime):
        today = datetime.combine(today, time())
    return today.astimezone() if today.tzinfo is None else today
