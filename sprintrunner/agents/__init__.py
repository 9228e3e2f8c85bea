"""The agents Sprint Runner can drive, by name."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import AgentMissing
from .base import (
    Adapter,
    AgentEvent,
    AgentResult,
    Call,
    Capabilities,
    Denied,
    LimitHit,
    Outcome,
    Raw,
    Retrying,
    SessionStarted,
    Stream,
    Text,
    Thinking,
    Tokens,
    ToolFinished,
    ToolStarted,
    TurnFinished,
    Usage,
)
from .claude import ClaudeAdapter
from .codex import CodexAdapter
from .describe import action, describe
from .gemini import GeminiAdapter
from .locate import find_program, probe
from .opencode import OpencodeAdapter
from .qwen import QwenAdapter

_ALL: tuple[Adapter, ...] = (
    ClaudeAdapter(),
    CodexAdapter(),
    GeminiAdapter(),
    OpencodeAdapter(),
    QwenAdapter(),
)
_ADAPTERS: Mapping[str, Adapter] = {adapter.name: adapter for adapter in _ALL}

#: The names the setting ``agent`` may have.
NAMES: tuple[str, ...] = tuple(_ADAPTERS)


def by_name(name: str) -> Adapter:
    """The adapter of an agent; raises AgentMissing, which lists those there are."""
    adapter = _ADAPTERS.get(name)
    if adapter is None:
        raise AgentMissing(f"There is no agent {name!r}; known are {', '.join(NAMES)}")
    return adapter


__all__ = [
    "NAMES",
    "Adapter",
    "AgentEvent",
    "AgentResult",
    "Call",
    "Capabilities",
    "Denied",
    "LimitHit",
    "Outcome",
    "Raw",
    "Retrying",
    "SessionStarted",
    "Stream",
    "Text",
    "Thinking",
    "Tokens",
    "ToolFinished",
    "ToolStarted",
    "TurnFinished",
    "Usage",
    "action",
    "by_name",
    "describe",
    "find_program",
    "probe",
]
