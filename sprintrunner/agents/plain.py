"""The base of the adapters whose CLI reads everything from standard input and needs no other care."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .base import Call, Capabilities, Stream


class PlainAdapter:
    """One merged text on standard input, the environment as it is, no schema, no cost."""

    name = ""
    program = ""
    tells_cost = False
    takes_schema = False
    resumes = False
    chooses_session = False

    def argv(self, program: str, call: Call) -> list[str]:
        """The command line of a call."""
        raise NotImplementedError

    def stream(self, schema: Mapping[str, Any] | None = None) -> Stream:
        """A parser for one run."""
        raise NotImplementedError

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """A copy of ``base``."""
        return dict(base)

    def stdin_text(self, prompt: str, context: str) -> str:
        """The context, then the prompt: what is asked comes last."""
        return f"{context}\n\n{prompt}" if context else prompt

    def schema_document(self, wanted: Mapping[str, Any]) -> Mapping[str, Any]:
        """The schema as it is."""
        return wanted

    def objection(self, capabilities: Capabilities) -> str:
        """One sentence when the program cannot be run."""
        if not capabilities.trouble:
            return ""
        remedy = "reinstall it or set its path in sprintrunner.toml"
        return f"{self.name} cannot be run: {capabilities.trouble}; {remedy}"

    def with_capabilities(self, capabilities: Capabilities) -> PlainAdapter:
        """The adapter itself: nothing it says depends on the version."""
        return self
