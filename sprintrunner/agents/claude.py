"""Claude Code: its command line, its environment, its parser."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .base import Call, Capabilities
from .claude_stream import ClaudeStream

#: What the mode is where the settings name none.
DEFAULT_PERMISSION_MODE = "bypassPermissions"
#: Stands in for bypassPermissions where Claude refuses it, together with ROOT_TOOLS (contract section 10).
ROOT_PERMISSION_MODE = "acceptEdits"
ROOT_TOOLS = ("Bash", "Edit", "Write", "Read", "Glob", "Grep", "Task")

#: Variables that tell the CLI that it runs inside another one of its kind.
NESTING_VARIABLES = (
    "CLAUDECODE",
    "CLAUDE_CODE_ENTRYPOINT",
    "CLAUDE_CODE_CHILD_SESSION",
    "CLAUDE_CODE_SESSION_ID",
)
_ADDED = {
    # A background task gives several results and up to ten minutes of life after the first.
    "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS": "1",
    "DISABLE_AUTOUPDATER": "1",
}
_MAX_RETRIES = "5"


@dataclass(frozen=True, slots=True)
class ClaudeAdapter:
    """The `claude` program in print mode. ``root`` is whether it would refuse bypassPermissions."""

    capabilities: Capabilities = field(default_factory=Capabilities)
    root: bool | None = None
    name: str = "claude"
    program: str = "claude"
    tells_cost: bool = True
    takes_schema: bool = True
    resumes: bool = True
    chooses_session: bool = True

    def argv(self, program: str, call: Call) -> list[str]:
        """The command line of a call.

        Variadic options are given in the ``=`` form: otherwise they swallow whatever follows.
        """
        argv = [program, "-p", "--output-format", "stream-json", "--verbose"]
        argv += ["--resume", call.resume] if call.resume else ["--session-id", call.session_id]
        if call.model:
            argv += ["--model", call.model]
        argv += self._permissions(call.permission_mode or DEFAULT_PERMISSION_MODE)
        if call.context_path is not None:
            argv += ["--append-system-prompt-file", str(call.context_path)]
        if call.schema is not None:
            argv += ["--json-schema", json.dumps(call.schema, separators=(",", ":"))]
        if call.max_budget_usd is not None:
            argv += ["--max-budget-usd", _dollars(call.max_budget_usd)]
        return [*argv, *call.extra_args]

    def _permissions(self, mode: str) -> list[str]:
        refused = mode == DEFAULT_PERMISSION_MODE and self._as_root()
        argv = ["--permission-mode", ROOT_PERMISSION_MODE if refused else mode]
        if self.capabilities.knows("--permission-prompts"):
            argv += ["--permission-prompts", "none"]
        return [*argv, f"--allowedTools={','.join(ROOT_TOOLS)}"] if refused else argv

    def _as_root(self) -> bool:
        if self.root is not None:
            return self.root
        return os.geteuid() == 0 and os.environ.get("IS_SANDBOX") != "1"

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """``base`` without the signs of nesting, with background tasks and self-updates off."""
        kept = {name: value for name, value in base.items() if name not in NESTING_VARIABLES}
        kept.setdefault("CLAUDE_CODE_MAX_RETRIES", _MAX_RETRIES)
        return {**kept, **_ADDED}

    def stdin_text(self, prompt: str, context: str) -> str:
        """The prompt alone; the context goes by file."""
        return prompt

    def schema_document(self, wanted: Mapping[str, Any]) -> Mapping[str, Any]:
        """The schema as it is."""
        return wanted

    def stream(self, schema: Mapping[str, Any] | None = None) -> ClaudeStream:
        """A parser for one run."""
        return ClaudeStream(schema)

    def objection(self, capabilities: Capabilities) -> str:
        """One sentence on a version that cannot be used: it cannot run, or lacks structured output."""
        if capabilities.trouble:
            remedy = "reinstall it or set its path in sprintrunner.toml"
            return f"claude cannot be run: {capabilities.trouble}; {remedy}"
        old = capabilities.knows("--output-format") and not capabilities.knows("--json-schema")
        version = f"claude {capabilities.version}".strip()
        return f"{version} is too old: it lacks --json-schema; run `claude update`" if old else ""

    def with_capabilities(self, capabilities: Capabilities) -> ClaudeAdapter:
        """The adapter held to the options that the installed version knows."""
        return replace(self, capabilities=capabilities)


def _dollars(amount: float) -> str:
    # Never in exponent form, which the CLI may not read.
    return f"{amount:.6f}".rstrip("0").rstrip(".")
