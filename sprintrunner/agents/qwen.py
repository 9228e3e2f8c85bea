"""Qwen Code: its command line; its events have Claude's shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from . import answers
from .base import AgentResult, Call
from .claude_stream import ClaudeStream
from .plain import PlainAdapter


class QwenAdapter(PlainAdapter):
    """The `qwen` program. It tells tokens but no cost."""

    name = program = "qwen"

    def argv(self, program: str, call: Call) -> list[str]:
        """The command line; without a prompt argument standard input is the prompt."""
        argv = [program, "--output-format", "stream-json", "--approval-mode", "yolo"]
        if call.model:
            argv += ["--model", call.model]
        return [*argv, *call.extra_args]

    def stream(self, schema: Mapping[str, Any] | None = None) -> QwenStream:
        """A parser for one run."""
        return QwenStream(schema)


class QwenStream(ClaudeStream):
    """One run of `qwen --output-format stream-json`; the verdict is the JSON of the final text."""

    cumulative = False
    work_tools = frozenset({"run_shell_command", "edit", "write_file"})
    version_field = "qwen_code_version"

    def _spend(self, value: dict[str, Any]) -> None:
        super()._spend(value)
        if self.tokens is not None:
            # The input it tells includes what came from the cache.
            self.tokens = replace(self.tokens, input=max(0, self.tokens.input - self.tokens.cache_read))

    def judge(self, exit_code: int | None, schema_asked: bool) -> AgentResult:
        """As for Claude, with the structured answer taken from the final text."""
        if self.structured is None and (schema_asked or self.wanted is not None):
            self.structured = answers.from_text(self.text, self.wanted)
        return super().judge(exit_code, schema_asked)
