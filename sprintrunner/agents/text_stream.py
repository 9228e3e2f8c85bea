"""What the parsers of CLIs without an enforced schema share: the last message holds the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import answers, resets
from .base import AgentResult, Retrying
from .failures import from_words
from .stream import LineStream

#: Classes that no repetition cures: the run can be ended at the first sign.
_HOPELESS = frozenset({"auth", "bad_key", "billing", "account", "forbidden"})


class TextStream(LineStream):
    """A parser that ends in ``self.text``; a subclass notes failures with ``complain``."""

    def __init__(self, wanted: Mapping[str, Any] | None = None) -> None:
        super().__init__(wanted)
        #: The class of a repetition that was still going on.
        self._pending = ""

    def complain(self, message: str, slug: str = "") -> None:
        """Note the CLI's own message on a failure, and its class where the CLI names one."""
        self.complaint = message
        self.trouble = slug or from_words(message) or "agent_error"
        if self.trouble == "usage_limit":
            self.resets_at = resets.from_words(message)
            self.limit_kind = resets.kind_from_words(message)

    def repeats(self, message: str) -> Retrying:
        """Note that the CLI repeats a request."""
        self._pending, self.complaint = from_words(message) or "network", message
        return Retrying(message, 0.0, None, self._pending in _HOPELESS)

    def judge(self, exit_code: int | None, schema_asked: bool) -> AgentResult:
        """A failure the CLI named, or the success that its last message proves."""
        if self.trouble:
            return self.fail(self.trouble, self.complaint)
        if schema_asked or self.wanted is not None:
            self.structured = answers.from_text(self.text, self.wanted)
        return self.succeed(exit_code, schema_asked)

    def result(
        self,
        exit_code: int | None,
        signal: int | None = None,
        stderr_tail: str = "",
        schema_asked: bool = False,
        stop_asked: bool = False,
        ended_after_result: bool = False,
    ) -> AgentResult:
        """Judge the run; one that ended while repeating a request failed of what it repeated for."""
        if not self.finished and not self.trouble:
            self.trouble = self._pending
        return super().result(exit_code, signal, stderr_tail, schema_asked, stop_asked, ended_after_result)
