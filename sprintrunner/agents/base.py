"""The seam between Sprint Runner and any agent CLI: calls, common events, results, protocols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, runtime_checkable


class Outcome(StrEnum):
    """What a run was, as far as its CLI tells; evidence on disk is judged elsewhere."""

    SUCCESS = "success"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    #: Ended by a signal before any result; a failure unless we asked for it.
    NO_RESULT = "no_result"
    USAGE_LIMIT = "usage_limit"
    #: Nothing else will work either until a person acts (login, billing, model).
    STOP_BATCH = "stop_batch"
    #: Repeat after a pause; not the agent's fault.
    RETRY = "retry"


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens by kind, subagents included where the CLI tells them."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0


@dataclass(frozen=True, slots=True)
class Call:
    """One run of an agent. ``schema_path`` holds ``Adapter.schema_document(schema)`` as a file."""

    command: str
    prompt_path: Path
    context_path: Path | None = None
    schema: Mapping[str, Any] | None = None
    schema_path: Path | None = None
    model: str | None = None
    session_id: str = ""
    resume: str | None = None
    permission_mode: str | None = None
    max_budget_usd: float | None = None
    extra_args: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an installed program says about itself; ``flags`` is None when its help was of no use."""

    version: str = ""
    flags: frozenset[str] | None = None
    #: Why the program cannot be run at all, "" where it can.
    trouble: str = ""

    def knows(self, flag: str) -> bool:
        """Whether the help lists the flag."""
        return self.flags is not None and flag in self.flags


@dataclass(frozen=True, slots=True)
class SessionStarted:
    """The agent session began. ``mcp`` maps each MCP server to its status."""

    session_id: str
    model: str
    version: str
    mcp: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Text:
    """Words. ``role`` is ``agent``, or ``user`` for what the CLI told the model."""

    text: str
    final: bool = False
    parent: str | None = None
    role: str = "agent"


@dataclass(frozen=True, slots=True)
class Thinking:
    """What the model thought before it spoke or acted; never an answer."""

    text: str
    parent: str | None = None


@dataclass(frozen=True, slots=True)
class ToolStarted:
    """A tool call began. ``parent`` is the tool call of the subagent that made it."""

    tool_id: str
    name: str
    input: Mapping[str, Any]
    parent: str | None = None


@dataclass(frozen=True, slots=True)
class ToolFinished:
    """A tool call ended; ``output`` is cut to a preview and never to be acted on."""

    tool_id: str
    is_error: bool
    output: str
    exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Spend so far. ``cumulative``: it counts from the start of the agent session, not of this run."""

    tokens: Tokens | None
    cost_usd: float | None
    cumulative: bool


@dataclass(frozen=True, slots=True)
class LimitHit:
    """News of a usage limit: ``status`` allowed, allowed_warning or rejected; ``resets_at`` in ms UTC."""

    status: str
    kind: str | None
    resets_at: int | None


@dataclass(frozen=True, slots=True)
class Retrying:
    """The CLI repeats a request after ``delay`` seconds. ``hopeless``: end the run, no repeat will help."""

    reason: str
    delay: float
    status: int | None
    hopeless: bool = False


@dataclass(frozen=True, slots=True)
class Denied:
    """A tool call was refused by the permission rules (advisory; the result decides)."""

    tool: str


@dataclass(frozen=True, slots=True)
class TurnFinished:
    """A result arrived; a later one may replace it."""

    ok: bool
    text: str
    structured: Any
    reason: str


@dataclass(frozen=True, slots=True)
class Raw:
    """A line that is no event; ``line`` is a harmless excerpt."""

    line: str
    why: str


AgentEvent = (
    SessionStarted
    | Text
    | Thinking
    | ToolStarted
    | ToolFinished
    | Usage
    | LimitHit
    | Retrying
    | Denied
    | TurnFinished
    | Raw
)


@dataclass(frozen=True, slots=True)
class AgentResult:
    """How a run ended. ``failure`` names the class ("" on success), ``reason`` is one sentence on it.

    ``cumulative``: cost and tokens include what a resumed session had spent before; subtract that.
    ``resets_at`` is in ms UTC, None when the CLI gave no time.
    """

    outcome: Outcome
    reason: str = ""
    failure: str = ""
    text: str = ""
    structured: Any | None = None
    session_id: str = ""
    model: str = ""
    cost_usd: float | None = None
    tokens: Tokens | None = None
    cumulative: bool = False
    resets_at: int | None = None
    limit_kind: str | None = None
    denials: tuple[str, ...] = ()
    counted_raw: int = 0


class Stream(Protocol):
    """A stateful parser of one run's standard output."""

    @property
    def saw_result(self) -> bool:
        """Whether a result line arrived; the process should end soon after."""

    def feed(self, line: bytes) -> list[AgentEvent]:
        """The events of one line, with or without its newline. Never raises, whatever the line holds."""

    def result(
        self,
        exit_code: int | None,
        signal: int | None = None,
        stderr_tail: str = "",
        schema_asked: bool = False,
        stop_asked: bool = False,
        ended_after_result: bool = False,
    ) -> AgentResult:
        """Judge the run. ``ended_after_result``: we ended it because it stayed after its result."""


@runtime_checkable
class Adapter(Protocol):
    """What Sprint Runner needs to know about one CLI."""

    @property
    def name(self) -> str:
        """The agent's name in settings."""

    @property
    def program(self) -> str:
        """The executable looked for on PATH."""

    @property
    def tells_cost(self) -> bool:
        """Whether results carry dollars; a dollar budget needs it."""

    @property
    def takes_schema(self) -> bool:
        """Whether the CLI itself enforces a JSON schema."""

    @property
    def resumes(self) -> bool:
        """Whether an agent session can be continued."""

    @property
    def chooses_session(self) -> bool:
        """Whether the caller's session id is used; else the stream tells the id."""

    def argv(self, program: str, call: Call) -> list[str]:
        """The command line; nothing of the prompt or the context is in it."""

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """``base`` with what this CLI needs added and what confuses it removed."""

    def stdin_text(self, prompt: str, context: str) -> str:
        """What goes to standard input; the context too where the CLI takes no file for it."""

    def schema_document(self, wanted: Mapping[str, Any]) -> Mapping[str, Any]:
        """The schema in the dialect of this CLI, as ``Call.schema_path`` must hold it."""

    def stream(self, schema: Mapping[str, Any] | None = None) -> Stream:
        """A parser for one run, which checks the answer against ``schema`` when there is one."""

    def objection(self, capabilities: Capabilities) -> str:
        """Why an installed version cannot be used, one sentence with the remedy, else ""."""

    def with_capabilities(self, capabilities: Capabilities) -> Adapter:
        """The same adapter, held to what the installed version knows."""
