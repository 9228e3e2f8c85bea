"""What the engine asks of a pipeline; as it stands here it is the built-in one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .. import prompts
from ..sprint import Command
from ..verdict import Decision, Finding, Review, decide


@dataclass(frozen=True, slots=True)
class Developed:
    """What lies on disk after a development run whose agent reported success.

    ``done``: the engine may look for proof. ``unfinished`` and ``in-review``: go on within the tries.
    ``blocked``: no further try will help, ``reason`` says what a person has to do.
    """

    state: Literal["done", "unfinished", "in-review", "blocked"] = "done"
    reason: str = ""
    #: The revision that was there before the work, where the agent commits by itself.
    baseline: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)


class Pipeline:
    """Steps 2 to 5 of the workflow by our own prompts. Others override what they do differently."""

    #: How it is called in messages.
    name = "builtin"
    #: Whether two stories may share a cycle.
    pairs = True
    #: Whether the agent refuses to work beside uncommitted changes, and commits by itself.
    wants_clean_tree = False

    def runs(self, command: Command) -> bool:
        """Whether the command exists here; the engine passes over those that do not."""
        return True

    def entry(self, phase: Command, key: str, keys: Collection[str]) -> Command:
        """Where a story enters that would enter at ``phase``. ``keys``: all stories of the status file."""
        return phase

    def render(
        self, command: str, values: Mapping[str, Any], overrides: Path | None, keys: Collection[str]
    ) -> str:
        """The prompt of a command; raises PromptError."""
        return prompts.render(command, values, overrides)

    def advice(self) -> str:
        """What a person should know at the start of a batch, else empty."""
        return ""

    def has_begun(self, key: str, keys: Collection[str]) -> bool:
        """Whether changes in the tree may be this story's own work so far."""
        return True

    def developed(self, key: str, keys: Collection[str], since: int) -> Developed:
        """What the work of a run that began at ``since`` (ms) tells of itself on disk."""
        return Developed()

    def wants_review(self, key: str, keys: Collection[str]) -> bool:
        """Whether a developed story is reviewed by a command of its own."""
        return True

    def reviewed(self, key: str, keys: Collection[str]) -> Developed:
        """What a review leaves on disk of itself; all but ``done`` makes its verdict invalid."""
        return Developed()

    def decide(
        self, review: Review, ledger: Sequence[Finding], *, valid_reviews: int, maximum: int
    ) -> Decision:
        """What follows a valid review."""
        return decide(review, ledger, valid_reviews=valid_reviews, maximum=maximum)
