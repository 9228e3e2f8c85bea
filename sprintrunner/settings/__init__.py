"""The settings: the model, its layers, and what the form shows of it."""

from __future__ import annotations

from .fields import GROUPS, FieldInfo
from .layers import Layers, SettingsNotSaved, forget, load, over_http, save
from .model import BY_NAME, FIELDS, Settings
from .sections import AGENTS, COMMANDS, AgentConfig, CommandConfig
from .sources import parse

__all__ = [
    "AGENTS",
    "BY_NAME",
    "COMMANDS",
    "FIELDS",
    "GROUPS",
    "AgentConfig",
    "CommandConfig",
    "FieldInfo",
    "Layers",
    "Settings",
    "SettingsNotSaved",
    "forget",
    "load",
    "over_http",
    "parse",
    "save",
]
