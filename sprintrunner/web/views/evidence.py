"""The evidence that a story is done: what is required, what is there of it, and what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import GitError
from ...git import Git
from ...project import Outline
from ...sprint import StoryStatus
from ...store import StoryRow
from . import words
from .reading import Reading


@dataclass(frozen=True, slots=True)
class Line:
    """One piece: ``there``, ``missing`` (red, with what to do), ``later`` (not yet), or ``note``."""

    state: str
    what: str
    told: str
    mono: bool = False


@dataclass(frozen=True, slots=True)
class Evidence:
    """All pieces; ``there`` of ``required`` are there."""

    lines: tuple[Line, ...]
    there: int
    required: int


def evidence(reading: Reading, record: StoryRow | None, outline: Outline | None) -> Evidence | None:
    """Read the evidence; None for a story no batch worked on."""
    if record is None:
        return None
    held: Mapping[str, Any] = record.evidence if isinstance(record.evidence, dict) else {}
    absent = "missing" if record.status == StoryStatus.DONE and not held.get("marked") else "later"
    required = tuple(_required(reading, record, held, absent))
    there = sum(line.state == "there" for line in required)
    return Evidence((*required, *_beside(reading, record, held, outline)), there, len(required))


def _required(reading: Reading, record: StoryRow, held: Mapping[str, Any], absent: str) -> Iterable[Line]:
    dev = held.get("dev") or {}
    review = held.get("review") or {}
    if dev.get("agent") == "success":
        yield Line("there", "Agent reported success", "dev-story")
    else:
        yield Line(absent, "Agent reported success", _ask(absent, "no dev-story succeeded; retry it"))
    if changed := dev.get("changed"):
        many = words.plural(len(changed), "file") + ("+" if len(changed) >= 200 else "")
        yield Line("there", "Working tree changed", many)
    else:
        yield Line(absent, "Working tree changed", _ask(absent, "no change is recorded; retry dev-story"))
    yield from _verified(review.get("verify") or dev.get("verify"), absent)
    if held.get("review_passed"):
        told = f"nothing that blocks, worst {review.get('severity', 'NONE')}"
        yield Line("there", f"Review {review.get('review', '')}".strip(), told)
    else:
        yield Line(absent, "Review passed", _ask(absent, "no review passed; retry code-review"))
    yield _commit(reading, record, absent)


def _ask(absent: str, what: str) -> str:
    return what if absent == "missing" else "not yet"


def _verified(told: Any, absent: str) -> Iterable[Line]:
    runs = [one for one in told if isinstance(one, dict)] if isinstance(told, list) else []
    for run in runs:
        last = str(run.get("tail") or "").strip().splitlines()[-1:] or [str(run.get("reason") or "")]
        seconds = f"in {words.span(float(run.get('seconds') or 0) * 1000)}, run by Sprint Runner"
        state = "there" if run.get("ok") else "missing"
        yield Line(state, str(run.get("command")), f"{last[0][:80]} {seconds}".strip(), mono=True)
    if not runs and told:
        yield Line("missing", "Verified", "not verified: no verify command is set in sprintrunner.toml")
    elif not runs:
        yield Line(absent, "Verified", _ask(absent, "no verify run is recorded; retry code-review"))


def _commit(reading: Reading, record: StoryRow, absent: str) -> Line:
    if not record.commit_sha:
        return Line(absent, "Commit", _ask(absent, "none is recorded; retry commit"))
    try:
        reachable = Git(reading.project.root).reachable(record.commit_sha)
    except GitError:
        reachable = False
    name = f"Commit {record.commit_sha[:7]}"
    if reachable:
        return Line("there", name, "reachable from HEAD")
    return Line("missing", name, "not reachable from HEAD; switch back or bring it in")


def _beside(
    reading: Reading, record: StoryRow, held: Mapping[str, Any], outline: Outline | None
) -> Iterable[Line]:
    """What is good to know and not required."""
    if held.get("marked"):
        yield Line("note", "Marked by a person", "that counts in place of what is missing")
    if outline and outline.tasks:
        ticked = sum(done for done, _ in outline.tasks)
        yield Line("note", "Tasks ticked", f"{ticked} of {len(outline.tasks)}")
    if record.commit_sha and (ahead := reading.ahead()):
        yield Line("note", "Not on the remote", f"{words.plural(ahead, 'commit')} to push")
