"""The sections of ``sprintrunner.toml`` for one agent or command, and the types shared with the rest."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ..sprint import Command
from .fields import EnvName, Host, Line, ModelName

#: The agents with an adapter, and the commands of the workflow; both are outside names.
AGENTS = ("claude", "codex", "gemini", "opencode", "qwen")
COMMANDS = tuple(str(command) for command in Command)
MODEL_WANTS = "must be a model name: letters, digits and _ . : / @ [ ] -, the first a letter or digit"


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _known_agent(value: Any) -> Any:
    if value is not None and value not in AGENTS:
        raise ValueError("not a known agent")
    return value


ListOf = BeforeValidator(_as_tuple)
Lines = Annotated[tuple[Line, ...], ListOf]
Hosts = Annotated[tuple[Host, ...], ListOf]
EnvNames = Annotated[tuple[EnvName, ...], ListOf]
AgentName = Annotated[str, BeforeValidator(_known_agent)]

STRICT = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


class AgentConfig(BaseModel):
    """``[agents.<name>]``: an absolute path of the program, and arguments put before ours."""

    model_config = STRICT
    path: Annotated[str, Field(pattern=r"^/[^\x00\r\n]+$")] | None = None
    args: Lines = ()


class CommandConfig(BaseModel):
    """``[commands.<command>]``: what one command uses instead of the settings for all."""

    model_config = STRICT
    agent: AgentName | None = None
    model: ModelName | None = None
    timeout_minutes: Annotated[float, Field(ge=0.05, le=1440)] | None = None
