"""What all parsers share: safe reading of lines, counting of bad ones, the end that no result announced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import lines, schema
from .base import AgentEvent, AgentResult, Outcome, Raw, Tokens
from .failures import FAILURES, from_words

#: Bad lines that become events; the rest are only counted, a million of them must not flood anyone.
RAW_EVENTS = 50
#: What is kept of the final text, in characters.
TEXT_CHARS = 200_000
#: What is kept of a tool's output, in characters.
PREVIEW_CHARS = 2_000
#: Denied tools kept by name.
DENIALS = 100
#: Exit status of a program ended by a signal, as shells and CLIs give it.
_SIGNALLED = frozenset({129, 130, 137, 143})


class LineStream:
    """Base of the parsers. A subclass takes one object at a time in ``take`` and judges in ``judge``."""

    #: Whether cost and tokens go on counting in a resumed agent session.
    cumulative = False

    def __init__(self, wanted: Mapping[str, Any] | None = None) -> None:
        self.wanted = wanted
        self.counted_raw = 0
        self.session_id = ""
        self.model = ""
        self.text = ""
        self.structured: Any = None
        self.tokens: Tokens | None = None
        self.cost_usd: float | None = None
        self.resets_at: int | None = None
        self.limit_kind: str | None = None
        self.denials: list[str] = []
        self.finished = False
        #: The CLI's own words on its last failure, and their class.
        self.complaint = ""
        self.trouble = ""

    @property
    def saw_result(self) -> bool:
        """Whether a result line arrived."""
        return self.finished

    def feed(self, line: bytes) -> list[AgentEvent]:
        """The events of one line; a bad one is counted and becomes a Raw."""
        line = line.strip()
        if not line or lines.is_note(line) or self.skips(line):
            return []
        try:
            value, cleaned = lines.parse(line)
            events = self.take(value)
        except lines.BadLine as error:
            return self.raw(line, str(error))
        except (TypeError, ValueError, KeyError, AttributeError, IndexError, RecursionError) as error:
            # A version we have never seen may put anything anywhere; it must not end the run.
            return self.raw(line, f"unexpected form ({type(error).__name__})")
        return [*self.raw(line, "characters that cannot be stored"), *events] if cleaned else events

    def skips(self, line: bytes) -> bool:
        """Whether the line can be passed over without parsing it."""
        return False

    def take(self, value: dict[str, Any]) -> list[AgentEvent]:
        """The events of one object; any lookup error in here makes the line a Raw."""
        raise NotImplementedError

    def judge(self, exit_code: int | None, schema_asked: bool) -> AgentResult:
        """The result of a run that had its final line."""
        raise NotImplementedError

    def raw(self, line: bytes, why: str) -> list[AgentEvent]:
        """Count a bad line; it is an event only while there are few."""
        self.counted_raw += 1
        return [Raw(lines.excerpt(line), why)] if self.counted_raw <= RAW_EVENTS else []

    def deny(self, tool: str) -> None:
        """Remember a denied tool by name."""
        if tool and len(self.denials) < DENIALS:
            self.denials.append(tool)

    def result(
        self,
        exit_code: int | None,
        signal: int | None = None,
        stderr_tail: str = "",
        schema_asked: bool = False,
        stop_asked: bool = False,
        ended_after_result: bool = False,
    ) -> AgentResult:
        """Judge the run: success is only what is proved, all else has a named class."""
        # An end we forced after a result says nothing about the agent; its own status would be ours.
        code = 0 if ended_after_result and self.finished else (-signal if signal else exit_code)
        judged = self.judge(code, schema_asked) if self.finished else self._without_result(code, stderr_tail)
        if stop_asked and judged.outcome is not Outcome.SUCCESS:
            return self.fail("interrupted", "stopped on request")
        return judged

    def succeed(self, exit_code: int | None, schema_asked: bool) -> AgentResult:
        """A run whose final line claims success: check what else must hold."""
        if exit_code != 0:
            return self.fail("exit_status", f"success reported, then {ended(exit_code)}")
        if schema_asked or self.wanted is not None:
            why = self._unmet()
            if why:
                return self.fail("schema_not_met", why)
        return self.make(Outcome.SUCCESS)

    def _unmet(self) -> str:
        if self.structured is None:
            return "the agent gave no structured answer"
        return schema.objection(self.structured, self.wanted) if self.wanted is not None else ""

    def _without_result(self, code: int | None, stderr_tail: str) -> AgentResult:
        if self.trouble:
            return self.fail(self.trouble, self.complaint)
        said = stderr_tail.strip()
        if slug := from_words(said[-4000:]):
            return self.fail(slug, last_line(said))
        if code is not None and (code < 0 or code in _SIGNALLED):
            return self.fail("killed", f"the agent was ended from outside ({ended(code)})")
        if code in (126, 127):
            return self.fail("not_started", last_line(said) or ended(code))
        detail = f"{ended(code)} without a final line"
        return self.fail("no_result", f"{detail}, {last_line(said)}" if said else detail)

    def fail(self, slug: str, detail: str = "") -> AgentResult:
        """The result of the class ``slug``."""
        failure = FAILURES[slug]
        return self.make(failure.outcome, failure.sentence(detail), slug)

    def make(self, outcome: Outcome, reason: str = "", failure: str = "") -> AgentResult:
        """A result with everything known so far."""
        limited = outcome is Outcome.USAGE_LIMIT
        return AgentResult(
            outcome=outcome,
            reason=reason,
            failure=failure,
            text=self.text,
            structured=self.structured if outcome is Outcome.SUCCESS else None,
            session_id=self.session_id,
            model=self.model,
            cost_usd=self.cost_usd,
            tokens=self.tokens,
            cumulative=self.cumulative,
            resets_at=self.resets_at if limited else None,
            limit_kind=self.limit_kind if limited else None,
            denials=tuple(self.denials),
            counted_raw=self.counted_raw,
        )


def ended(code: int | None) -> str:
    """The end of a process in words."""
    if code is None:
        return "an unknown exit status"
    return f"signal {-code}" if code < 0 else f"exit status {code}"


def last_line(text: str) -> str:
    """The last line of a CLI's stderr that says something."""
    return next((line.strip() for line in reversed(text[-8000:].splitlines()) if line.strip()), "")
