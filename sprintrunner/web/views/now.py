"""The cards of the commands that run at this moment."""

from __future__ import annotations

from dataclasses import dataclass

from ...sprint import Command, CommandStatus
from ...store import CommandRow
from ...workflow import DOCUMENT_REVIEWS, PHASES
from .reading import Reading, keys_of, took

#: How long (ms) the card of an ended command stays with its result; the stylesheet has the same number.
STAYS, MOST_ENDED = 5_000, 2

#: Verbs of an action whose object is a name of the machine, set in mono.
_ON_A_NAME = frozenset({"editing", "reading", "writing", "creating", "running"})


@dataclass(frozen=True, slots=True)
class Task:
    """A step of a command: ``done``, ``current`` or ``next``."""

    name: str
    state: str


@dataclass(frozen=True, slots=True)
class Card:
    """One running command, or one that ended just now: then ``result`` is its status and ``why`` says why.

    Times in ms; ``silent_after`` is its watchdog's patience.
    """

    id: int
    slot: str
    command: str
    keys: tuple[str, ...]
    attempt: int
    most: int | None
    since: int
    background: bool
    verb: str
    what: str
    is_name: bool
    action_at: int
    tasks: tuple[Task, ...]
    silent_after: int
    agent: str
    model: str
    cost: float | None
    transcript: bool
    now: int
    result: str = ""
    why: str = ""
    took: int = 0

    @property
    def silent(self) -> int:
        """Ms without a word of the agent, at the time of rendering."""
        return max(0, self.now - self.action_at)

    @property
    def silence_percent(self) -> float:
        """Share of the watchdog's patience, 100 at most."""
        return min(100.0, 100.0 * self.silent / self.silent_after)


@dataclass(frozen=True, slots=True)
class Now:
    """The section: its cards, or what is being waited for while none runs. ``live``: a batch runs."""

    cards: tuple[Card, ...]
    live: bool
    waiting: str


def now(reading: Reading) -> Now:
    """Read the section."""
    just = [c for c in reading.batch_commands if c.ended_at and c.ended_at > reading.now - STAYS][
        -MOST_ENDED:
    ]
    shown = sorted({c.id: c for c in (*reading.running, *just)}.values(), key=lambda c: c.id)
    cards = tuple(card(reading, command) for command in shown)
    return Now(cards, reading.live, "" if reading.running else _waiting(reading))


def _waiting(reading: Reading) -> str:
    state = reading.batch.state if reading.batch and reading.live else ""
    return {
        "starting": "Preparing the batch",
        "running": "Choosing the next stories",
        "stopping": "Writing down what was reached",
    }.get(str(state), "")


def slot_of(command_id: int) -> str:
    """The element id of a command's card."""
    return f"now-{command_id}"


def card(reading: Reading, command: CommandRow) -> Card:
    """Read one card."""
    values = reading.layers.values
    verb, _, what = _action(command.last_action).partition(" ")
    return Card(
        id=command.id,
        slot=slot_of(command.id),
        command=command.command,
        keys=keys_of(command),
        attempt=command.attempt,
        most=_most(reading, command.command),
        since=command.started_at,
        background=command.background,
        verb=verb[:1].upper() + verb[1:],
        what=what,
        is_name=" " not in what and verb.lower() in _ON_A_NAME,
        action_at=command.last_action_at or command.started_at,
        tasks=_tasks(command),
        silent_after=int(values.silence_timeout_minutes * 60_000),
        agent=command.agent or "",
        model=command.model or "",
        cost=command.cost_usd,
        transcript=bool(command.transcript),
        now=reading.now,
        result="" if command.status == CommandStatus.RUNNING else str(command.status),
        why=command.reason or command.output_summary or "",
        took=took(command, reading.now),
    )


def _most(reading: Reading, command: str) -> int | None:
    values = reading.layers.values
    if command == Command.DEV_STORY:
        return values.max_dev_attempts
    if command == Command.CODE_REVIEW:
        return values.max_code_review_attempts
    if command in (Command.STORY_REVIEW, Command.TECH_SPEC_REVIEW):
        return DOCUMENT_REVIEWS
    return PHASES[Command(command)].tries if command in PHASES else None


def _tasks(command: CommandRow) -> tuple[Task, ...]:
    """The known steps in order; a step of another name stands behind them as the current one."""
    names = list(PHASES[Command(command.command)].tasks) if command.command in PHASES else []
    current = command.current_task
    if not current or current == command.command:
        return tuple(Task(name, "next") for name in names)
    if current not in names:
        return (*(Task(name, "next") for name in names), Task(current, "current"))
    at = names.index(current)
    return tuple(
        Task(name, "done" if place < at else "current" if place == at else "next")
        for place, name in enumerate(names)
    )


#: How an agent tells of its own progress; the JSON it hands over is nothing for people.
_REPORT = "running sprintrunner log "


def _action(said: str | None) -> str:
    if said and said.lower().startswith(_REPORT):
        return "reporting its progress"
    return said or "starting the agent"
