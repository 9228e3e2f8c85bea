"""The phases of a story as data: what each command is for, gets injected, and may be repeated (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from .sprint import Command, StoryStatus

Kind = Literal["context", "story", "discovery", "tech-spec", "git-status"]
Unit = Literal["batch", "cycle", "story"]


@dataclass(frozen=True, slots=True)
class Phase:
    """One command of the workflow. ``tries`` bounds its counted attempts, None = a setting decides."""

    command: Command
    title: str
    unit: Unit
    injected: tuple[Kind, ...]
    tasks: tuple[str, ...]
    tries: int | None
    #: What happens after the last try: the story blocks, or the batch goes on with a warning.
    fatal: bool


_ALL: tuple[Kind, ...] = ("context", "story", "discovery", "tech-spec")
_REVIEW_TASKS = ("setup", "analyze", "fix", "validate")

PHASES: Mapping[Command, Phase] = {
    phase.command: phase
    for phase in (
        Phase(
            Command.GENERATE_PROJECT_CONTEXT, "Context", "batch", (), ("setup", "explore", "write"), 2, False
        ),
        Phase(
            Command.CREATE_STORY,
            "Create",
            "cycle",
            ("context",),
            ("setup", "analyze", "generate", "write", "validate"),
            3,
            True,
        ),
        Phase(
            Command.CREATE_STORY_DISCOVERY,
            "Discovery",
            "cycle",
            ("context",),
            ("setup", "explore", "write"),
            2,
            False,
        ),
        Phase(
            Command.STORY_REVIEW,
            "Story review",
            "cycle",
            ("context", "story", "discovery"),
            _REVIEW_TASKS,
            2,
            False,
        ),
        Phase(
            Command.CREATE_TECH_SPEC,
            "Tech spec",
            "story",
            ("context", "story", "discovery"),
            ("setup", "discover", "generate", "write", "validate"),
            3,
            True,
        ),
        Phase(Command.TECH_SPEC_REVIEW, "Spec review", "story", _ALL, _REVIEW_TASKS, 2, False),
        Phase(
            Command.DEV_STORY,
            "Develop",
            "story",
            _ALL,
            ("setup", "implement", "tests", "lint", "validate"),
            None,
            True,
        ),
        Phase(
            Command.CODE_REVIEW,
            "Code review",
            "story",
            _ALL,
            ("setup", "analyze", "fix", "test", "validate"),
            None,
            True,
        ),
        Phase(
            Command.COMMIT,
            "Commit",
            "cycle",
            ("story", "git-status"),
            ("setup", "stage", "commit", "validate"),
            1,
            True,
        ),
    )
}

#: How many reviews of a document one creation may cause; the second and third run in the background.
DOCUMENT_REVIEWS = 3
#: Consecutive reviews without a valid verdict that block a story (workflow section 5).
INVALID_REVIEWS = 3
#: Valid reviews after which remaining findings up to MEDIUM no longer hold a story back.
LENIENT_FROM_REVIEW = 3
#: Consecutive reviews that leave the same finding open before a person is asked.
SAME_FINDING_REVIEWS = 3

#: The commands of a story in the order it meets them; a retry may name any of these.
STORY_COMMANDS: tuple[Command, ...] = (
    Command.CREATE_STORY,
    Command.CREATE_STORY_DISCOVERY,
    Command.STORY_REVIEW,
    Command.CREATE_TECH_SPEC,
    Command.TECH_SPEC_REVIEW,
    Command.DEV_STORY,
    Command.CODE_REVIEW,
    Command.COMMIT,
)

#: Where a story enters by its own status (workflow section 1).
ENTRY: Mapping[StoryStatus, Command] = {
    StoryStatus.BACKLOG: Command.CREATE_STORY,
    StoryStatus.READY_FOR_DEV: Command.DEV_STORY,
    StoryStatus.IN_PROGRESS: Command.DEV_STORY,
    StoryStatus.REVIEW: Command.CODE_REVIEW,
}

#: The status a story shows while it stands at a command; what a retry sets it back to.
STATUS_AT: Mapping[Command, StoryStatus] = {
    Command.CREATE_STORY: StoryStatus.BACKLOG,
    Command.CREATE_STORY_DISCOVERY: StoryStatus.BACKLOG,
    Command.STORY_REVIEW: StoryStatus.READY_FOR_DEV,
    Command.CREATE_TECH_SPEC: StoryStatus.READY_FOR_DEV,
    Command.TECH_SPEC_REVIEW: StoryStatus.READY_FOR_DEV,
    Command.DEV_STORY: StoryStatus.READY_FOR_DEV,
    Command.CODE_REVIEW: StoryStatus.REVIEW,
    Command.COMMIT: StoryStatus.REVIEW,
}


def reaches(entry: Command, command: Command) -> bool:
    """Whether a story that enters at ``entry`` still has ``command`` before it."""
    return STORY_COMMANDS.index(entry) <= STORY_COMMANDS.index(command)
