"""What the stream sends: the slots of the dashboard, all of them or those that some events changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from markupsafe import escape

from ..events import Event, EventType
from .render import render
from .views import board, dashboard, grid, now, rail, verdict
from .views.reading import Reading

if TYPE_CHECKING:
    from ..services import Services

_EVERYTHING = tuple(slot.name for slot in dashboard.SLOTS)
_BATCH = frozenset({EventType.BATCH_START, EventType.BATCH_END, EventType.CYCLE_START, EventType.CYCLE_END})
#: What each kind of event changes besides the rows of its stories and the time of the last event.
_CHANGES = {
    EventType.COMMAND_START: ("pill", "verdict", "night", "now", "happened"),
    EventType.COMMAND_END: ("pill", "verdict", "night", "needs", "now", "happened"),
    EventType.STORY_STATUS: ("pill", "verdict", "night", "needs", "now", "happened", "commits"),
    # Sleep and waking are told by warnings.
    EventType.BATCH_WARNING: ("pill", "verdict", "night", "needs", "now", "happened"),
    EventType.ERROR: ("needs", "happened", "verdict", "pill"),
}
#: State changes of a story or the batch; progress and ends of commands are not read aloud.
_ANNOUNCED = frozenset(
    {EventType.BATCH_START, EventType.BATCH_END, EventType.STORY_STATUS, EventType.BATCH_WARNING}
)


#: The title of the dashboard; those of other pages and of drawings stay. (htmx cuts an address at its colon.)
_TITLE = "[data-dashboard] head title"


def oob(target: str, html: str) -> str:
    """Address ``html`` to the element with the id ``target``; the one place where an address is added.

    The wrapper is a template element because its content keeps table rows and forms, which a parser would
    drop elsewhere; it morphs, so that focus, selection and open details stay.
    """
    selector = _TITLE if target == "title" else f"#{escape(target)}"
    return f'<template hx-swap-oob="innerMorph:{selector}">{html}</template>\n'


def snapshot(services: Services) -> str:
    """Return replacements of everything that can change on the page."""
    reading = Reading(services)
    return _whole(reading)


def _whole(reading: Reading) -> str:
    parts = [_slot(reading, name) for name in _EVERYTHING]
    # The checks before the first batch go with its start; no later page has them.
    checks = [oob("checks", "")] if reading.batch else []
    return "".join((*parts, *checks, _board(reading), *_frame(reading)))


def _frame(reading: Reading) -> Iterable[str]:
    """What the tab of the browser shows: title (of the dashboard; other pages keep theirs), icon, mark."""
    bar = reading.once(verdict.bar)
    yield oob("title", str(escape(bar.title)))
    yield oob("mark", render("frame/mark.html", hue=bar.state.hue))
    yield render("frame/icon.html", icon=bar.icon, sent=True)


def _announcement(events: Sequence[Event]) -> Iterable[str]:
    """One sentence for screen readers: the newest change of a story or the batch, and nothing else."""
    told = [line for event in events if event.type in _ANNOUNCED and (line := rail.line_of(event))]
    if told:
        yield oob("announcer", str(escape("".join(told[-1].parts))))


def _board(reading: Reading) -> str:
    """The board has the place of the grid on some pages; the others have no such element."""
    view = board.board(reading)
    return oob(view.slot, render("partials/board.html", board=view))


def changes(services: Services, events: Sequence[Event]) -> str:
    """Return replacements of what these events changed."""
    reading = Reading(services)
    types = {event.type for event in events}
    if types & _BATCH or any(event.type not in _CHANGES for event in events if not _is_progress(event)):
        return "".join((_whole(reading), *_announcement(events)))
    names = {"last-event", *(name for kind in types for name in _CHANGES.get(kind, ()))}
    parts = [_slot(reading, name) for name in _EVERYTHING if name in names]
    if "now" not in names:
        parts.extend(_cards(reading, events))
    if "verdict" in names:
        parts.extend(_frame(reading))
    return "".join((*parts, *_rows(reading, events), *_announcement(events)))


def _is_progress(event: Event) -> bool:
    return event.type is EventType.COMMAND_PROGRESS


def _slot(reading: Reading, name: str) -> str:
    slot = dashboard.BY_NAME[name]
    return oob(slot.name, render(slot.partial, **{slot.variable: reading.once(slot.read)}))


def _cards(reading: Reading, events: Iterable[Event]) -> Iterable[str]:
    """The cards of commands that reported progress."""
    told = {(e.payload.get("command"), e.payload.get("story_key")) for e in events}
    for command in reading.running:
        if (command.command, command.story_keys) in told or (command.command, "") in told:
            card = now.card(reading, command)
            yield oob(card.slot, render("partials/now_card.html", card=card))


def _rows(reading: Reading, events: Iterable[Event]) -> Iterable[str]:
    """The rows of the stories that events name, and the headings of their epics."""
    keys = {key for event in events if not _is_progress(event) for key in _named(event)}
    if not keys:
        return
    rows, epics = grid.Board(reading), grid.by_epic(reading.entries)
    for epic, entries in epics.items():
        mine = [entry for entry in entries if entry.key in keys]
        for entry in mine:
            row = rows.row(entry)
            yield oob(row.slot, render("partials/story_row.html", row=row))
        if mine:
            heading = rows.epic(epic, entries, ())
            yield oob(heading.slot, render("partials/epic_row.html", epic=heading))
    yield oob("summary", str(escape(grid.summary(reading))))
    yield _board(reading)


def _named(event: Event) -> list[str]:
    return [key for key in str(event.payload.get("story_key") or "").split(",") if key]
