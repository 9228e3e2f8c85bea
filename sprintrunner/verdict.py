"""From an agent's structured answer to a verdict, and the ledger of a story's findings (pure)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from .sprint import Severity
from .workflow import LENIENT_FROM_REVIEW, SAME_FINDING_REVIEWS

_RANK = {severity: rank for rank, severity in enumerate(reversed(Severity))}
#: What one finding's texts may take up in the database.
_TITLE_CHARS = 500


class InvalidVerdict(ValueError):
    """The answer is not a verdict; the message says why."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing a review found. ``streak`` counts the consecutive reviews that left it open."""

    identity: str
    severity: Severity
    title: str
    file: str = ""
    line: int | None = None
    status: Literal["open", "fixed"] = "open"
    streak: int = 0

    @property
    def place(self) -> str:
        """``file:line`` as far as known."""
        return f"{self.file}:{self.line}" if self.file and self.line else self.file


@dataclass(frozen=True, slots=True)
class Review:
    """A valid code review: what it found and the severity that decides (ours, not the claim)."""

    severity: Severity
    findings: tuple[Finding, ...]
    summary: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows a valid review."""

    step: Literal["pass", "next", "block"]
    reason: str = ""


def worst(severities: Iterable[Severity]) -> Severity:
    """The highest severity, NONE for nothing."""
    return max(severities, key=_RANK.__getitem__, default=Severity.NONE)


def identity_of(title: str, file: str) -> str:
    """A stable name for a finding without one: the same words about the same file are the same finding."""
    words = " ".join(re.findall(r"\w+", title.lower()))
    return "f-" + hashlib.sha256(f"{file}\0{words}".encode("utf-8", "replace")).hexdigest()[:10]


def _severity(value: Any) -> Severity:
    try:
        # Only text: str(None) would read as NONE, the one word that lets a story pass.
        return Severity(value.upper() if isinstance(value, str) else "")
    except ValueError:
        raise InvalidVerdict(f"unknown severity {str(value)[:40]!r}") from None


def _finding(raw: Any, known: Mapping[str, Finding]) -> Finding:
    if not isinstance(raw, Mapping) or not str(raw.get("title") or raw.get("id") or "").strip():
        raise InvalidVerdict("a finding has no title")
    status = raw.get("status")
    if status not in ("open", "fixed"):
        raise InvalidVerdict(f"a finding is neither open nor fixed but {str(status)[:40]!r}")
    title = str(raw.get("title") or "")[:_TITLE_CHARS]
    file = str(raw.get("file") or "")[:_TITLE_CHARS]
    given = str(raw.get("id") or "")[:80]
    line = raw.get("line")
    number = line if isinstance(line, int) and not isinstance(line, bool) and 0 < line < 10**7 else None
    earlier = known.get(given)
    title = title or (earlier.title if earlier else given)
    # An id we did not give out means nothing: agents number anew in each review.
    identity = given if earlier else identity_of(title, file)
    return Finding(identity, _severity(raw.get("severity")), title, file, number, status)


def read_review(answer: Any, ledger: Sequence[Finding] = ()) -> Review:
    """A code-review answer as a Review; raise InvalidVerdict for anything that is not one.

    A claim below what the review itself found is invalid; a claim above it counts (workflow section 5).
    """
    if not isinstance(answer, Mapping):
        raise InvalidVerdict("no structured verdict")
    claim = _severity(answer.get("highest_severity"))
    listed = answer.get("findings")
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        raise InvalidVerdict("the verdict has no list of findings")
    known = {finding.identity: finding for finding in ledger}
    findings = tuple(_finding(raw, known) for raw in listed)
    if any(finding.severity is Severity.NONE for finding in findings):
        raise InvalidVerdict("a finding has the severity NONE")
    found = worst(finding.severity for finding in findings)
    if _RANK[claim] < _RANK[found]:
        raise InvalidVerdict(f"it claims {claim} but lists a {found} finding")
    return Review(worst((claim, found)), findings, str(answer.get("summary") or "")[:2000])


def update_ledger(ledger: Sequence[Finding], review: Review) -> tuple[Finding, ...]:
    """The findings after a review: answered ones as answered, others stay open; NONE closes all."""
    answered = _by_identity(review.findings)
    merged: list[Finding] = []
    for old in ledger:
        new = answered.pop(old.identity, None)
        if review.severity is Severity.NONE:
            merged.append(replace(old, status="fixed", streak=0))
        elif new is None:
            merged.append(replace(old, streak=old.streak + 1) if old.status == "open" else old)
        else:
            merged.append(_answered(old, new))
    merged.extend(replace(new, streak=1 if new.status == "open" else 0) for new in answered.values())
    return tuple(merged)


def _by_identity(findings: Iterable[Finding]) -> dict[str, Finding]:
    """One finding an identity; where a review lists it twice, open and the worse severity win."""
    found: dict[str, Finding] = {}
    for new in findings:
        other = found.get(new.identity, new)
        kept = other if other.status == "open" else new
        found[new.identity] = replace(kept, severity=worst((new.severity, other.severity)))
    return found


def _answered(old: Finding, new: Finding) -> Finding:
    streak = old.streak + 1 if new.status == "open" else 0
    return replace(new, streak=streak, file=new.file or old.file, line=new.line or old.line)


def open_findings(ledger: Iterable[Finding]) -> tuple[Finding, ...]:
    """What is still open, worst first."""
    still = [finding for finding in ledger if finding.status == "open"]
    return tuple(sorted(still, key=lambda f: -_RANK[f.severity]))


def decide(
    review: Review,
    ledger: Sequence[Finding],
    *,
    valid_reviews: int,
    maximum: int,
    lenient_from: int = LENIENT_FROM_REVIEW,
) -> Decision:
    """What follows valid review number ``valid_reviews``: the first row of the table that matches.

    From review ``lenient_from`` on, what is MEDIUM at most no longer holds the story back.
    """
    still = open_findings(ledger)
    if review.severity is Severity.NONE:
        return Decision("pass")
    minor = _RANK[review.severity] <= _RANK[Severity.MEDIUM]
    if (
        valid_reviews >= lenient_from
        and minor
        and _RANK[worst(f.severity for f in still)] <= _RANK[Severity.MEDIUM]
    ):
        return Decision("pass", f"{len(still)} minor findings noted" if still else "")
    stuck = [finding for finding in still if finding.streak >= SAME_FINDING_REVIEWS]
    if stuck:
        return Decision("block", f"Open after {stuck[0].streak} reviews: {_named(stuck[0])}")
    if valid_reviews >= maximum:
        worst_open = f", open is: {_named(still[0])}" if still else ""
        return Decision("block", f"{maximum} reviews and still {review.severity} findings{worst_open}")
    return Decision("next")


def _named(finding: Finding) -> str:
    return f"{finding.title}, {finding.place}" if finding.place else finding.title


def read_tech_spec_decisions(answer: Any, keys: Sequence[str]) -> dict[str, str]:
    """``{key: REQUIRED|SKIP}`` for the keys that the create-story answer decides; others are left out."""
    stories = answer.get("stories") if isinstance(answer, Mapping) else None
    if not isinstance(stories, Sequence) or isinstance(stories, str):
        return {}
    found: dict[str, str] = {}
    for item in stories:
        if (
            isinstance(item, Mapping)
            and item.get("key") in keys
            and item.get("tech_spec") in ("REQUIRED", "SKIP")
        ):
            found[str(item["key"])] = str(item["tech_spec"])
    return found


def read_critical(answer: Any) -> bool:
    """Whether a document review says that critical issues were found; raise InvalidVerdict without a say."""
    critical = answer.get("critical_issues") if isinstance(answer, Mapping) else None
    if not isinstance(critical, bool):
        raise InvalidVerdict("the review does not say whether it found critical issues")
    return critical
