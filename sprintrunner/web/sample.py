"""One sample of one partial, as the pattern page and the tests use it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: The moment of all samples, in ms: 02:13 of a night in UTC.
NOW = 1_789_524_780_000


@dataclass(frozen=True, slots=True)
class Sample:
    """One partial in one state; ``within`` is the element its content belongs into."""

    partial: str
    name: str
    values: Mapping[str, Any]
    within: str = ""
