"""The vocabulary of a sprint: stories, epics, commands, and the statuses each may have (pure)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from .errors import InvalidStatus


class StoryStatus(StrEnum):
    """The seven statuses of a story; no other value is ever stored."""

    BACKLOG = "backlog"
    READY_FOR_DEV = "ready-for-dev"
    IN_PROGRESS = "in-progress"
    REVIEW = "review"
    DONE = "done"
    BLOCKED = "blocked"
    OPTIONAL = "optional"


class StatusClass(StrEnum):
    """What a raw status means for the scheduler."""

    OPEN = "open"
    DONE = "done"
    HELD = "held"
    DROPPED = "dropped"
    UNKNOWN = "unknown"


class CommandStatus(StrEnum):
    """Where a command stands; all but RUNNING are values of ``command:end``."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    TIMED_OUT = "timed_out"
    INTERRUPTED = "interrupted"
    LIMITED = "limited"


class BatchStatus(StrEnum):
    """RUNNING, or how a batch ended (``batch:end``)."""

    RUNNING = "running"
    COMPLETED = "completed"
    ALL_DONE = "all_done"
    STOPPED = "stopped"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    LIMIT = "limit"


class BatchState(StrEnum):
    """The finer state of a live batch, the ``status`` of ``/api/orchestrator/status``."""

    STARTING = "starting"
    RUNNING = "running"
    WAITING = "waiting"
    STOPPING = "stopping"
    ENDED = "ended"


class Command(StrEnum):
    """One execution of an agent for a phase; the order is that of the workflow."""

    GENERATE_PROJECT_CONTEXT = "generate-project-context"
    CREATE_STORY = "create-story"
    CREATE_STORY_DISCOVERY = "create-story-discovery"
    STORY_REVIEW = "story-review"
    CREATE_TECH_SPEC = "create-tech-spec"
    TECH_SPEC_REVIEW = "tech-spec-review"
    DEV_STORY = "dev-story"
    CODE_REVIEW = "code-review"
    COMMIT = "commit"


class Severity(StrEnum):
    """Of a finding, worst first."""

    CRITICAL = "CRITICAL"
    HIGH = "HIGH"
    MEDIUM = "MEDIUM"
    LOW = "LOW"
    NONE = "NONE"


class EntryKind(StrEnum):
    """What a key of the status file names."""

    EPIC = "epic"
    STORY = "story"
    RETROSPECTIVE = "retrospective"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the status file's map.

    ``status`` is the normalised status or None where it has none of the seven; ``line`` counts from 1.
    """

    key: str
    kind: EntryKind
    epic: str | None
    raw_status: str
    status: StoryStatus | None
    status_class: StatusClass
    line: int
    comment: str = ""
    title: str = ""
    #: False for keys that are flagged and never started (too long, path-like).
    startable: bool = True


def story_status(value: str) -> StoryStatus:
    """Return the status named by ``value``; raise InvalidStatus, which lists the seven, otherwise."""
    try:
        return StoryStatus(value)
    except ValueError:
        known = ", ".join(StoryStatus)
        raise InvalidStatus(f"{value!r} is not a story status; it must be one of {known}") from None
