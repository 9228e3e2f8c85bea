"""What a check is, and the patient: the project with what several checks need of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path

from .. import project, settings
from ..git import Git
from ..settings import Layers


class Status(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at; ``remedy`` says what to do and is empty where nothing is."""

    name: str
    status: Status
    message: str
    remedy: str = ""

    def as_json(self) -> dict[str, str]:
        """The check as plain values."""
        return {name: str(value) for name, value in asdict(self).items()}


class Patient:
    """The project and what several checks need of it, each read once."""

    def __init__(self, found: project.Project, env: Mapping[str, str]) -> None:
        self.project = found
        self.env = env
        self.git = Git(found.root)

    @cached_property
    def state_dir(self) -> Path:
        """The project's state folder."""
        return project.state_dir(self.project.root, self.env)

    @cached_property
    def layers(self) -> Layers:
        """The settings in force."""
        return settings.load(self.project.root, self.state_dir, self.env)
