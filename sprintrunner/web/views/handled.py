"""What went wrong in a batch and was put right without a person: sleeps, restarts, retries that worked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ...sprint import CommandStatus
from ...store import BatchRow, CommandRow
from . import words
from .gaps import Gap, gaps
from .looks import Look
from .reading import Reading

#: Lines of the list; the timeline has them all.
_MOST = 8
_CUT_OFF = {"asleep": CommandStatus.LIMITED, "down": CommandStatus.INTERRUPTED}
_AGAIN = (CommandStatus.FAILED, CommandStatus.TIMED_OUT)


@dataclass(frozen=True, slots=True)
class Handled:
    """One line: from ``first`` to ``last`` (ms), and the sentence."""

    first: int
    last: int
    look: Look
    said: str


def handled(reading: Reading) -> tuple[Handled, ...]:
    """Read the list; empty while a batch runs, and where it is not the newest thing a person has to know."""
    batch = reading.batch
    if batch is None or reading.live:
        return ()
    found = [*_gaps(reading, batch), *_retries(reading.batch_commands)]
    return tuple(sorted(found, key=lambda one: one.first)[:_MOST])


def _gaps(reading: Reading, batch: BatchRow) -> Iterable[Handled]:
    for gap in reading.once(batch_gaps):
        cut = [c for c in reading.batch_commands if c.status == _CUT_OFF[gap.kind] and _ends_with(c, gap)]
        again = " and ".join(map(_named, cut[-2:]))
        if gap.kind == "asleep":
            more = f" {again} started again and was not counted as a failure." if again else ""
            said = f"{words.sentence(gap.why)} Slept {words.span(gap.ms)}.{more}"
            yield Handled(gap.first, gap.last, Look("asleep", "moon"), said)
        else:
            more = f"; {again} was repeated" if again else ""
            said = f"{words.sentence(gap.why)} The batch resumed by itself{more}, no file was lost."
            yield Handled(gap.first, gap.last, Look("attention", "bolt"), said)


def batch_gaps(reading: Reading) -> tuple[Gap, ...]:
    """The gaps of the batch on the page."""
    return gaps(reading, reading.batch) if reading.batch else ()


def _ends_with(command: CommandRow, gap: Gap) -> bool:
    return command.ended_at is not None and gap.first - 60_000 <= command.ended_at <= gap.last


def _named(command: CommandRow) -> str:
    of = f" of {', '.join(map(words.short_key, command.story_keys.split(',')))}" if command.story_keys else ""
    return f"{command.command} {command.attempt}{of}"


def _retries(commands: Sequence[CommandRow]) -> Iterable[Handled]:
    """A command that failed and succeeded later by itself."""
    by_work: dict[tuple[str, str], list[CommandRow]] = {}
    for command in commands:
        by_work.setdefault((command.command, command.story_keys), []).append(command)
    for tries in by_work.values():
        bad = [one for one in tries if one.status in _AGAIN]
        last = tries[-1]
        if not bad or last.status != CommandStatus.SUCCEEDED or bad[-1].id > last.id:
            continue
        why = f": {bad[-1].reason.rstrip('.')}" if bad[-1].reason else ""
        times = "" if len(bad) == 1 else f" {len(bad)} times, last"
        said = f"{_named(bad[-1])} failed{times}{why}. Attempt {last.attempt} succeeded."
        yield Handled(bad[0].started_at, last.ended_at or last.started_at, Look("neutral", "again"), said)
