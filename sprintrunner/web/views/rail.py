"""The rail: what happened, one sentence a change of state, newest first; below it the commits."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...events import Event, EventType
from ...git import Commit
from . import looks, words
from .looks import Look
from .reading import Reading

#: What a commit of ours begins with before it comes to the stories.
_PREFIX = re.compile(r"^feat\([^)]*\): (?=implement )|(?<=implement )stories ")

#: Lines of the rail.
MOST_LINES = 10


@dataclass(frozen=True, slots=True)
class Line:
    """One sentence. ``parts`` alternate: prose, a name in mono, prose …; ``at`` in ms."""

    id: int
    at: int
    look: Look
    parts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Happened:
    """The newest lines, and how many events there are in all."""

    lines: tuple[Line, ...]
    total: int
    batch_id: int | None


@dataclass(frozen=True, slots=True)
class CommitLine:
    """One commit; ``short`` is its subject without the prefix, its keys cut to their numbers."""

    commit: Commit
    short: str


@dataclass(frozen=True, slots=True)
class Commits:
    """The commits of the batch, newest first; ``ahead`` of the remote, None without one."""

    lines: tuple[CommitLine, ...]
    ahead: int | None


def happened(reading: Reading) -> Happened:
    """Read the upper half of the rail."""
    verdicts = {(c.command, c.story_keys, c.attempt): c.verdict for c in reading.batch_commands if c.verdict}
    told = _told_by_cycles(reading.events)
    newest = (event for event in reversed(reading.events) if event.id not in told)
    lines = [line for event in newest if (line := line_of(event, verdicts=verdicts))]
    batch_id = reading.batch.id if reading.batch else None
    return Happened(
        tuple(lines[:MOST_LINES]), reading.store.count_events(batch_id) if batch_id else 0, batch_id
    )


def commits(reading: Reading) -> Commits:
    """Read the lower half of the rail."""
    shas = list(dict.fromkeys(s.commit_sha for s in reversed(reading.batch_stories) if s.commit_sha))
    found = sorted(reading.commits(shas), key=lambda commit: -commit.when)
    return Commits(
        tuple(CommitLine(one, _short(one.subject)) for one in found[:12]), reading.ahead() if found else None
    )


def _short(subject: str) -> str:
    bare = _PREFIX.sub("", subject)
    return " ".join(words.short_key(word.rstrip(",")) + "," * word.endswith(",") for word in bare.split(" "))


def _told_by_cycles(events: Sequence[Event]) -> set[int]:
    """The events that say of one story what the end of its cycle says of all."""
    ended = {str(k) for e in events if e.type is EventType.CYCLE_END for k in e.payload["completed_stories"]}
    return {
        event.id
        for event in events
        if event.type is EventType.STORY_STATUS
        and event.payload["new_status"] == "done"
        and event.payload["story_key"] in ended
    }


#: What reviews answered, by command, story keys and attempt.
Verdicts = Mapping[tuple[str, str, int], Any]


def line_of(event: Event, progress: bool = False, verdicts: Verdicts | None = None) -> Line | None:
    """Return the sentence of an event; None where it is no change of state, unless ``progress``."""
    payload = event.payload
    if event.type is EventType.COMMAND_END and verdicts:
        at = (str(payload["command"]), str(payload["story_key"]), int(payload.get("attempt") or 0))
        payload = {**payload, "verdict": verdicts.get(at)}
    made = _SENTENCES[event.type](payload)
    if made is None:
        made = _plain(payload) if progress else None
    return None if made is None else Line(event.id, event.timestamp, made[0], made[1])


Sentence = tuple[Look, tuple[str, ...]]

_DOCUMENT_REVIEWS = ("story-review", "tech-spec-review")
_PLAIN = Look("neutral", "dot")
_NEXT = Look("neutral", "next")
_WARN = Look("attention", "warn")


def _keys(value: Any) -> str:
    keys = value.split(",") if isinstance(value, str) else value if isinstance(value, Iterable) else ()
    return ", ".join(words.short_key(str(key)) for key in keys)


def _attempt(payload: Mapping[str, Any]) -> str:
    attempt = payload.get("attempt")
    return f" {attempt}" if isinstance(attempt, int) else ""


def _of(payload: Mapping[str, Any]) -> tuple[str, ...]:
    keys = _keys(payload["story_key"] or "")
    return (f"{_attempt(payload)} of ", keys) if keys else (_attempt(payload),)


def _batch_start(payload: Mapping[str, Any]) -> Sentence:
    most = payload["max_cycles"]
    many = words.plural(most, "cycle") if isinstance(most, int) else "all stories"
    return Look("neutral", "play"), (f"Batch {payload['batch_id']} started: {many}",)


def _batch_end(payload: Mapping[str, Any]) -> Sentence:
    status = str(payload["status"])
    reason = payload.get("reason")
    many = words.plural(int(payload["cycles_completed"] or 0), "cycle")
    # Nothing is called done while a story is blocked.
    left = status in ("all_done", "completed") and payload.get("blocked")
    word, look = ("ended", _WARN) if left else (status.replace("_", " "), looks.of("batch", status))
    return look, (f"Batch {payload['batch_id']} {word}: {reason or many}",)


def _warning(payload: Mapping[str, Any]) -> Sentence:
    said = words.sentence(str(payload["warning"])).rstrip(".")
    state, wakes = payload.get("state"), payload.get("resumes_at")
    if state == "waiting":
        until = f"Asleep until {words.hour(wakes)}: " if isinstance(wakes, int) else "Asleep: "
        return looks.of("batch", "waiting"), (until + said,)
    if payload.get("resumed") or state == "running":
        return Look("running", "play"), (said,)
    return (Look("neutral", "stop") if payload.get("stopping") else _WARN), (said,)


def _cycle_start(payload: Mapping[str, Any]) -> Sentence:
    return _NEXT, (f"Cycle {payload['cycle_number']} started: ", _keys(payload["story_keys"]))


def _cycle_end(payload: Mapping[str, Any]) -> Sentence:
    done = payload["completed_stories"]
    names = _keys(done) if isinstance(done, list | str) else ""
    cycle = f"Cycle {payload['cycle_number']} ended"
    if not names:
        return _NEXT, (f"{cycle}, no story was finished",)
    return Look("done", "disc"), (f"{cycle}: ", names, " done")


def _command_start(payload: Mapping[str, Any]) -> Sentence | None:
    attempt = payload.get("attempt")
    again = isinstance(attempt, int) and attempt > 1 and payload["command"] in _DOCUMENT_REVIEWS
    if payload["task_id"] != payload["command"] or not again:
        return None
    return looks.of("command", "running"), ("", str(payload["command"]), *_of(payload), " started")


def _command_end(payload: Mapping[str, Any]) -> Sentence | None:
    status = str(payload["status"])
    if payload["task_id"] != payload["command"]:
        return None
    if status == "succeeded" and payload["command"] != "code-review":
        return None
    said = _found(payload.get("verdict")) if status == "succeeded" else ""
    reason = payload.get("reason")
    said = said or status.replace("_", " ") + (f": {reason}" if reason else "")
    return looks.of("command", status), ("", str(payload["command"]), *_of(payload), f" {said}")


def _found(verdict: Any) -> str:
    """What a code review found, in a few words; empty where it said nothing that can be read."""
    severity = verdict.get("highest_severity") if isinstance(verdict, Mapping) else None
    if severity is None:
        return ""
    if severity == "NONE":
        return "found nothing more"
    findings = [one for one in verdict.get("findings") or () if isinstance(one, Mapping)]
    fixed = sum(one.get("status") == "fixed" for one in findings)
    return f"found {severity}, {fixed} of {words.plural(len(findings), 'finding')} fixed"


def _story_status(payload: Mapping[str, Any]) -> Sentence:
    status = str(payload["new_status"])
    reason = payload.get("reason")
    if payload.get("acknowledged"):
        return looks.of("story", status), ("", words.short_key(str(payload["story_key"])), " stays blocked")
    verb = {"done": "", "blocked": "", "review": "is in "}.get(status, "is ")
    said = f" {verb}{status.replace('-', ' ')}" + (f": {reason}" if reason else "")
    return looks.of("story", status), ("", words.short_key(str(payload["story_key"])), said)


def _context(payload: Mapping[str, Any]) -> Sentence:
    return _PLAIN, (f"Project context: {payload['status']}",)


def _error(payload: Mapping[str, Any]) -> Sentence:
    return Look("blocked", "no"), (str(payload["message"]),)


def _nothing(_: Mapping[str, Any]) -> None:
    return None


def _plain(payload: Mapping[str, Any]) -> Sentence:
    said = str(payload.get("message") or payload.get("status") or "started")
    return _PLAIN, ("", str(payload["command"]), *_of(payload), f" {said}")


_SENTENCES: Mapping[EventType, Callable[[Mapping[str, Any]], Sentence | None]] = {
    EventType.BATCH_START: _batch_start,
    EventType.BATCH_END: _batch_end,
    EventType.BATCH_WARNING: _warning,
    EventType.CYCLE_START: _cycle_start,
    EventType.CYCLE_END: _cycle_end,
    EventType.COMMAND_START: _command_start,
    EventType.COMMAND_PROGRESS: _nothing,
    EventType.COMMAND_END: _command_end,
    EventType.STORY_STATUS: _story_status,
    EventType.CONTEXT_CREATE: _context,
    EventType.CONTEXT_REFRESH: _context,
    EventType.CONTEXT_COMPLETE: _context,
    EventType.ERROR: _error,
    EventType.PONG: _nothing,
}
