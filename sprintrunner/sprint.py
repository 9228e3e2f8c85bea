"""The vocabulary of a sprint: stories, epics, commands, and the statuses each may have (pure)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache

from .errors import InvalidStatus


class StoryStatus(StrEnum):
    """The seven statuses of a story; no other value is ever stored."""

    BACKLOG = "backlog"
    READY_FOR_DEV = "ready-for-dev"
    IN_PROGRESS = "in-progress"
    REVIEW = "review"
    DONE = "done"
    BLOCKED = "blocked"
    OPTIONAL = "optional"


class StatusClass(StrEnum):
    """What a raw status means for the scheduler."""

    OPEN = "open"
    DONE = "done"
    HELD = "held"
    DROPPED = "dropped"
    UNKNOWN = "unknown"


class CommandStatus(StrEnum):
    """Where a command stands; all but RUNNING are values of ``command:end``."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    TIMED_OUT = "timed_out"
    INTERRUPTED = "interrupted"
    LIMITED = "limited"


class BatchStatus(StrEnum):
    """RUNNING, or how a batch ended (``batch:end``)."""

    RUNNING = "running"
    COMPLETED = "completed"
    ALL_DONE = "all_done"
    STOPPED = "stopped"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    LIMIT = "limit"


class BatchState(StrEnum):
    """The finer state of a live batch, the ``status`` of ``/api/orchestrator/status``."""

    STARTING = "starting"
    RUNNING = "running"
    WAITING = "waiting"
    STOPPING = "stopping"
    ENDED = "ended"


class Command(StrEnum):
    """One execution of an agent for a phase; the order is that of the workflow."""

    GENERATE_PROJECT_CONTEXT = "generate-project-context"
    CREATE_STORY = "create-story"
    CREATE_STORY_DISCOVERY = "create-story-discovery"
    STORY_REVIEW = "story-review"
    CREATE_TECH_SPEC = "create-tech-spec"
    TECH_SPEC_REVIEW = "tech-spec-review"
    DEV_STORY = "dev-story"
    CODE_REVIEW = "code-review"
    COMMIT = "commit"


class Severity(StrEnum):
    """Of a finding, worst first."""

    CRITICAL = "CRITICAL"
    HIGH = "HIGH"
    MEDIUM = "MEDIUM"
    LOW = "LOW"
    NONE = "NONE"


class EntryKind(StrEnum):
    """What a key of the status file names."""

    EPIC = "epic"
    STORY = "story"
    RETROSPECTIVE = "retrospective"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the status file's map.

    ``status`` is the normalised status or None where it has none of the seven; ``line`` counts from 1.
    """

    key: str
    kind: EntryKind
    epic: str | None
    raw_status: str
    status: StoryStatus | None
    status_class: StatusClass
    line: int
    comment: str = ""
    title: str = ""
    #: False for keys that are flagged and never started (too long, path-like).
    startable: bool = True


def story_status(value: str) -> StoryStatus:
    """Return the status named by ``value``; raise InvalidStatus, which lists the seven, otherwise."""
    try:
        return StoryStatus(value)
    except ValueError:
        known = ", ".join(StoryStatus)
        raise InvalidStatus(f"{value!r} is not a story status; it must be one of {known}") from None


#: Longest key that may be started, in UTF-8 bytes: ``tech-spec-<key>-discovery.md`` must fit a file name.
MAX_KEY_BYTES = 200

_DEFINITE: Mapping[StoryStatus, str] = {
    StoryStatus.BACKLOG: "backlog todo to-do not-started planned pending open new proposed",
    StoryStatus.READY_FOR_DEV: "ready-for-dev ready drafted draft approved contexted",
    StoryStatus.IN_PROGRESS: "in-progress wip active started needs-rework rework",
    StoryStatus.REVIEW: "review in-review ready-for-review code-review qa dev-complete done-unreviewed",
    StoryStatus.DONE: "done completed complete closed deployed shipped mvp-complete framework-complete",
    StoryStatus.BLOCKED: "blocked",
    StoryStatus.OPTIONAL: "optional",
}
_HELD = "deferred on-hold paused parked post-mvp future-backlog unscoped awaiting-operator partial"
_DROPPED = (
    "cancelled canceled wont-do wontdo skipped removed deprecated superseded absorbed split consolidated"
    " migrated merged descoped moved-to covered-by archived obsolete"
)

#: After each change of one status a file of hundreds of the same keys is read again.
_remembered = lru_cache(maxsize=8192)

_Meaning = tuple[StoryStatus | None, StatusClass]
_UNKNOWN: _Meaning = (None, StatusClass.UNKNOWN)


def _class_of(status: StoryStatus) -> StatusClass:
    if status is StoryStatus.DONE:
        return StatusClass.DONE
    never_started = status in (StoryStatus.BLOCKED, StoryStatus.OPTIONAL)
    return StatusClass.HELD if never_started else StatusClass.OPEN


def _words() -> dict[str, _Meaning]:
    """Map every word met in real files to what it means."""
    words: dict[str, _Meaning] = {}
    for status, names in _DEFINITE.items():
        words.update(dict.fromkeys(names.split(), (status, _class_of(status))))
    words.update(dict.fromkeys(_HELD.split(), (None, StatusClass.HELD)))
    words.update(dict.fromkeys(_DROPPED.split(), (None, StatusClass.DROPPED)))
    return words


_WORDS = _words()
#: Longest first, so that ``done-unreviewed`` is not taken for ``done``.
_BY_LENGTH = sorted(_WORDS, key=len, reverse=True)
_OPEN_ENDED = frozenset({"moved-to", "covered-by"})


def _flatten(raw: str) -> str:
    """Lower case NFKC text with single spaces, without apostrophes and leading emoji or symbols."""
    text = unicodedata.normalize("NFKC", raw).lower()
    text = re.sub(r"['\u2018\u2019`]", "", " ".join(text.split()))
    return re.sub(r"^[\W_]+", "", text)


def _starts_with_word(text: str, word: str) -> bool:
    """Tell whether ``text`` is ``word``, or ``word`` followed by what leaves its meaning alone."""
    if not text.replace("_", "-").replace(" ", "-").startswith(word):
        return False
    rest = text[len(word) :]
    if not rest or word in _OPEN_ENDED:
        return True
    # "done (carried over)" is done; "ready-to-merge" and "review_failed" are words of their own.
    joined = rest[0] in "-_" and rest[1:2].isalnum()
    return not rest[0].isalnum() and not joined


@_remembered
def normalise(raw: str, kind: EntryKind = EntryKind.STORY) -> tuple[StoryStatus | None, StatusClass]:
    """Return what a raw status means for an entry of this kind.

    The status is None where it has none of the seven (held, dropped and unknown words). An optional
    retrospective is open, an optional story is held: it is never started.
    """
    text = _flatten(raw)
    word = next((word for word in _BY_LENGTH if _starts_with_word(text, word)), None)
    if word is None:
        return _UNKNOWN
    status, status_class = _WORDS[word]
    if word == "contexted" and kind is EntryKind.EPIC:
        return StoryStatus.IN_PROGRESS, StatusClass.OPEN
    if status is StoryStatus.OPTIONAL and kind is EntryKind.RETROSPECTIVE:
        return status, StatusClass.OPEN
    return status, status_class


_RETRO_SUFFIX = re.compile(r"-retro(spective)?$", re.IGNORECASE)
_RETRO_ITEM = re.compile(r"-retro-item-", re.IGNORECASE)
_EPIC = re.compile(r"(epic[-_].|[\w.]+-epic-[\w.]+$)", re.IGNORECASE)


@_remembered
def kind_of(key: str) -> EntryKind:
    """Tell what a key names; case does not matter and no number is demanded."""
    if _RETRO_SUFFIX.search(key) or (_RETRO_ITEM.search(key) and _EPIC.match(key)):
        return EntryKind.RETROSPECTIVE
    return EntryKind.EPIC if _EPIC.match(key) else EntryKind.STORY


@_remembered
def epic_id(key: str) -> str:
    """Return the id in the key of an epic or retrospective: ``2a``; ``orch-1`` of ``orch-epic-1``."""
    key = _RETRO_SUFFIX.sub("", key)
    if re.match(r"epic[-_]", key, re.IGNORECASE):
        return key[5:]
    return re.sub(r"-epic-", "-", key, count=1, flags=re.IGNORECASE)


_DEEPEST = 24


@dataclass(frozen=True, slots=True)
class _Claim:
    """An epic's claim on keys that begin with a leading run of its id; ``whole``: the run is all of it."""

    epic: str
    whole: bool


def _claims(epics: Iterable[str]) -> dict[str, list[_Claim]]:
    """Map each leading run of segments of the declared ids, in folded case, to the epics that claim it."""
    found: dict[str, list[_Claim]] = {}
    for epic in dict.fromkeys(epics):
        segments = epic.split("-")
        for length in range(1, len(segments) + 1):
            run = "-".join(segments[:length]).casefold()
            found.setdefault(run, []).append(_Claim(epic, length == len(segments)))
    return found


def _pick(claims: Sequence[_Claim], above: Sequence[str]) -> str:
    """Choose among equal claims: a whole id first, then the epic declared nearest above."""
    best = [claim.epic for claim in claims if claim.whole] or [claim.epic for claim in claims]
    return next((epic for epic in reversed(above) if epic in best), best[0])


def _epic_of(key: str, claims: Mapping[str, Sequence[_Claim]], above: Sequence[str]) -> str | None:
    # No number in a key lies deeper than this many segments; a key of 10,000 dashes must cost nothing.
    segments = key.casefold().split("-", _DEEPEST)
    runs = [("-".join(segments[:n]), segments[n][:1].isdigit()) for n in range(len(segments) - 1, 0, -1)]
    claimed = [(run, numbered) for run, numbered in runs if run in claims]
    if not claimed:
        return above[-1] if above else None
    # A number after the prefix outranks a longer prefix without one: epic 3-5 must not take 3-5-help-overlay.
    run = next((run for run, numbered in claimed if numbered), claimed[0][0])
    return _pick(claims[run], above)


def assign_epics(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Return the entries, in the same order, each with the id of the epic it belongs to.

    A story belongs to the longest declared epic prefix followed by ``-<digit>``; a tie goes to the block it
    stands in. Then the longest prefix followed by any segment, then the block, else none; nothing is made up.
    """
    listed = list(entries)
    claims = _claims(epic_id(e.key) for e in listed if e.kind is EntryKind.EPIC)
    above: list[str] = []
    result: list[Entry] = []
    for entry in listed:
        is_story = entry.kind is EntryKind.STORY
        epic = _epic_of(entry.key, claims, above) if is_story else epic_id(entry.key)
        if entry.kind is EntryKind.EPIC:
            above.append(epic_id(entry.key))
        result.append(replace(entry, epic=epic))
    return tuple(result)


def natural_key(key: str) -> tuple[object, ...]:
    """Return a sort key in which ``2a-2`` comes before ``2a-10``; two different keys never tie."""
    parts = re.findall(r"[0-9]+|[^0-9]+", key)
    # Digits are compared by length and text: a key may hold more of them than int() accepts.
    ordered = [(0, len(p.lstrip("0")), p.lstrip("0")) if p[0] in "0123456789" else (1, 0, p) for p in parts]
    return (tuple(ordered), key)


#: Path separators (as in addresses too), the comma that joins keys, control characters, half characters.
_UNFIT = re.compile(r"[/\\,\x00-\x1f\x7f-\x9f\ud800-\udfff]|%(?:2e|2f|5c|00)", re.IGNORECASE)


@_remembered
def is_startable_key(key: str) -> bool:
    """Tell whether a story of this key may be started.

    Keys are opaque text that ends up in file names, in an environment variable and, joined by commas, in
    events: too long ones, and those with path separators, commas or control characters, are only shown.
    """
    if not key or key[0] in ".-" or key != key.strip():
        return False
    return not _UNFIT.search(key) and len(key.encode()) <= MAX_KEY_BYTES


@_remembered
def slug_title(key: str) -> str:
    """Return the words of a story's key without its number: ``1-2-user-login`` is "User login"."""
    words = key.split("-")
    number = re.compile(r"[0-9]+(\.[0-9]+)?[a-z]?", re.IGNORECASE)
    numbered = [place for place, word in enumerate(words[:3], start=1) if number.fullmatch(word)]
    text = " ".join(words[max(numbered, default=0) :]).replace("_", " ").strip() or key
    return text[:1].upper() + text[1:]
