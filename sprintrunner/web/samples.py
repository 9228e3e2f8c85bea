"""Samples of what each partial shows, in every state it has: for the pattern page and the tests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ..git import Commit
from ..store import Totals
from .sample import NOW, Sample
from .samples_story import fields, story
from .views import (
    board,
    grid,
    handled,
    looks,
    marks,
    needs,
    night,
    now,
    rail,
    words,
)
from .views.forecast import Forecast
from .views.looks import Look
from .views.plan import Segment
from .views.verdict import Bar, Cycles, LastEvent, Spent, Start, State

_MINUTE = 60_000


def samples() -> tuple[Sample, ...]:
    """All samples, in the order of the dashboard."""
    return (
        *_bars(),
        *_nights(),
        *_strips(),
        *_checks(),
        *_cards(),
        *_grid(),
        *_board(),
        *_rail(),
        *story(),
        *fields(),
    )


_SEGMENTS = tuple(
    Segment(f"1-{place}-a", state)
    for place, state in enumerate(("done", "done", "blocked", "running", "open", "open"), 1)
)
_BAR = Bar(
    state=State("running", "Running", "Cycle 3 of 5, batch 12", "running", "run"),
    needs=0,
    title="Running 4/10 · larkspur",
    icon=marks.favicon("running"),
    done=4,
    total=10,
    blocked=0,
    segments=_SEGMENTS,
    cycles=Cycles(2, 5),
    since=NOW - 155 * _MINUTE,
    took=None,
    cost=Spent(13.74, 40.0),
    tokens=Spent(21_600_000, None),
    totals=Totals(13.74, 1_200_000, 600_000, 19_800_000, 31, 6, 9300.0),
    wakes_at=None,
    forecast=Forecast(NOW + 147 * _MINUTE, NOW + 187 * _MINUTE, 9, ()),
    asleep=0,
    down=0,
    last=LastEvent(18_412, NOW - 2_000, True),
    actions=("stop_after", "stop"),
    start=Start((1, 2, 5), 2, "", ("2a-5-late-payment-reminders", "2a-6-credit-notes"), 3),
    now=NOW,
)
_ENDED: Mapping[str, Any] = {"since": None, "took": 369 * _MINUTE, "forecast": None, "actions": ("start",)}


def _bars() -> Iterable[Sample]:
    for name, bar in _BARS.items():
        yield Sample("verdict.html", name, {"bar": bar}, "verdict")
    for name in ("running", "running, needs you", "asleep", "needs you"):
        yield Sample("pill.html", name, {"bar": _BARS[name]})
    for name, segments in (("few", _SEGMENTS), ("over forty", _SEGMENTS * 8)):
        yield Sample("segments.html", name, {"segments": segments})
    yield Sample("last_event.html", "just now", {"last": _BAR.last})
    yield Sample("last_event.html", "none yet", {"last": LastEvent(0, None, False)})


def _state(slug: str, word: str, below: str, hue: str, glyph: str, solid: bool = False) -> State:
    return State(slug, word, below, hue, glyph, solid)


_BARS: Mapping[str, Bar] = {
    "running": _BAR,
    "running, needs you": replace(_BAR, needs=1),
    "unlimited": replace(_BAR, cycles=Cycles(2, None), forecast=None),
    "starting": replace(
        _BAR, state=_state("starting", "Starting", "Batch 12", "running", "run"), forecast=None
    ),
    "asleep": replace(
        _BAR,
        state=_state("waiting", "Asleep until 03:11", "5-hour limit of claude", "asleep", "moon"),
        wakes_at=NOW + 58 * _MINUTE,
        actions=("wake", "stop"),
    ),
    "stopping": replace(
        _BAR, state=_state("stopping", "Stopping", "Ending what runs", "neutral", "stop"), actions=()
    ),
    "stopping after the story": replace(
        _BAR,
        state=_state("stopping-after", "Stopping", "After the current story", "neutral", "stop"),
        actions=("stop",),
    ),
    "needs you": replace(
        _BAR,
        state=_state("needs", "Needs you", "2 blocked. Batch 12 ended 05:47", "blocked", "person", True),
        needs=2,
        blocked=2,
        cost=Spent(39.2, 40.0),
        tokens=Spent(21_600_000, 25_000_000),
        **{**_ENDED, "asleep": 50 * _MINUTE, "down": 3 * _MINUTE},
    ),
    "interrupted": replace(
        _BAR,
        state=_state("interrupted", "Interrupted", "Stopped at 04:02 in cycle 4", "attention", "bolt"),
        **{**_ENDED, "actions": ("resume", "start")},
    ),
    "stopped": replace(
        _BAR, state=_state("stopped", "Stopped", "Stopped on request", "neutral", "stop"), **_ENDED
    ),
    "failed": replace(
        _BAR, state=_state("failed", "Stopped: failed", "Not logged in", "blocked", "no"), **_ENDED
    ),
    "done": replace(_BAR, state=_state("done", "Done", "All 9 stories, 6 h 48 min", "done", "ok"), **_ENDED),
    "idle": replace(
        _BAR,
        state=_state("idle", "Idle", "Start waits for the status file", "neutral", "ring-dash"),
        cycles=None,
        cost=None,
        totals=None,
        start=Start((2,), 2, "Start waits for the status file", (), 0),
        **{**_ENDED, "took": None},
    ),
}


def _nights() -> Iterable[Sample]:
    block = night.Block
    blocks = (
        block("cycle", 0, 18, "done", "1-3 · 1-4", "Cycle 1", "/timeline"),
        block("cycle", 18, 14, "blocked", "2a-4", "Cycle 2", "/timeline"),
        block("asleep", 32, 10, "asleep", "asleep", "Asleep, 01:02 to 01:40"),
        block("down", 42, 1, "attention", "", "Down, 01:40 to 01:43"),
        block("cycle", 43, 8, "running", "2a-3", "Cycle 3", "/timeline"),
        block("planned", 51, 20, "neutral", "2a-5 · 2a-6", "Planned"),
        block("end", 85, 15, "neutral", "", "Ends 04:40 – 05:20"),
    )
    ticks = (night.Tick(20, "00:30"), night.Tick(40, "01:30", True))
    line = night.Night(
        blocks,
        ticks,
        (night.Tick(31, "2a-4"),),
        night.Tick(51, "02:13"),
        "23:38",
        "04:40 – 05:20",
        "3 cycles",
    )
    yield Sample("night.html", "running", {"night": line}, "night")
    yield Sample("night.html", "no batch yet", {"night": None}, "night")


_ITEMS = {
    "blocked": needs.Item(
        "p-blocked",
        "blocked",
        "octagon",
        "2a-4-email-delivery",
        "blocked in code-review 3",
        "Open after 3 reviews: the bounce handler swallows SMTP 4xx",
        "2a-4-email-delivery",
        "code-review",
        ("retry", "done", "skip"),
    ),
    "interrupted": needs.Item(
        "p-cut",
        "attention",
        "bolt",
        "Batch 12 was interrupted",
        "",
        "It was in cycle 4.",
        actions=("resume",),
    ),
    "drift": needs.Item(
        "p-drift",
        "attention",
        "warn",
        "1-3-password-reset",
        "status differs",
        "The story file says review; the status file and commit e09c4d2 say done",
        "1-3-password-reset",
        actions=("repair",),
        value="done",
    ),
    "status file behind": needs.Item(
        "p-behind",
        "attention",
        "warn",
        "1-4-session-expiry",
        "status differs",
        "The status file says review; batch 3 recorded done with commit e09c4d2.",
        "1-4-session-expiry",
        actions=("set-done",),
    ),
    "dirty tree": needs.Item(
        "p-tree", "attention", "warn", "Working tree", "3 changed files", "a.py, b.py, c.py.", calls=False
    ),
    "asleep": needs.Item(
        "p-asleep",
        "asleep",
        "moon",
        "Nothing to do.",
        "The limit is not a failure and no attempt was counted.",
        "dev-story 2 of 2a-3 was cut off and starts again at 03:11.",
        actions=("wake",),
    ),
}


def _strips() -> Iterable[Sample]:
    for name, item in _ITEMS.items():
        yield Sample("need.html", name, {"item": item})
    lines = (
        handled.Handled(NOW - 3_000_000, NOW, Look("asleep", "moon"), "Asleep until the 5-hour limit reset."),
        handled.Handled(NOW - 180_000, NOW, Look("attention", "bolt"), "The machine restarted."),
    )
    one = _ITEMS["blocked"]
    many = tuple(replace(one, id=f"p-many-{place}") for place in range(9))
    strip = needs.Strip
    yield Sample("needs.html", "all clear", {"strip": strip((), (), 0, (), ())})
    yield Sample("needs.html", "a bad morning", {"strip": strip(many[:5], many[5:], 3, (), lines)})
    yield Sample("needs.html", "asleep", {"strip": strip((), (), 0, (_ITEMS["asleep"],), ())})


def _checks() -> Iterable[Sample]:
    told = [
        {"name": "git", "status": "ok", "message": "on branch main", "remedy": ""},
        {"name": "verify", "status": "warn", "message": "none is set.", "remedy": "Name your tests."},
        {"name": "disk", "status": "fail", "message": "0.1 GB free", "remedy": "Make room."},
    ]
    for name, checks in (("not yet", []), ("one fails", told), ("ready", told[:2])):
        yield Sample("checks.html", name, {"checks": checks, "name": "larkspur"})


_CARD = now.Card(
    id=7,
    slot="p-now-7",
    command="dev-story",
    keys=("2a-3-pdf-rendering",),
    attempt=1,
    most=3,
    since=NOW - 550_000,
    background=False,
    verb="Editing",
    what="src/larkspur/pdf/render.py",
    is_name=True,
    action_at=NOW - 8_000,
    tasks=(now.Task("setup", "done"), now.Task("implement", "current"), now.Task("tests", "next")),
    silent_after=15 * _MINUTE,
    agent="claude",
    model="sonnet",
    cost=0.91,
    transcript=True,
    now=NOW,
)
_CARDS = {
    "running": _CARD,
    "silent for half its time, in the background": replace(
        _CARD, slot="p-now-8", background=True, action_at=NOW - 461_000, verb="Reading"
    ),
    "silent for nine tenths": replace(_CARD, slot="p-now-9", action_at=NOW - 820_000, cost=None),
}


def _cards() -> Iterable[Sample]:
    for name, card in _CARDS.items():
        yield Sample("now_card.html", name, {"card": card}, "now-card")
    for status in ("succeeded", "failed", "timed_out", "limited"):
        ended = replace(_CARD, result=status, why="verify: pytest -q, 2 of 198 failed", took=550_000)
        yield Sample("now_card.html", status, {"card": ended}, "now-card")
    yield Sample(
        "now.html", "two at work", {"now": now.Now((_CARD, _CARDS["silent for nine tenths"]), True, "")}
    )
    yield Sample("now.html", "between two", {"now": now.Now((), True, "Choosing the next stories")})


_WORDS = ("succeeded", "failed", "timed_out", "stopped", "interrupted", "limited", "running", "")


def _row(key: str, word: str, words_of: Iterable[str], menus: bool = False) -> grid.Row:
    cells = tuple(
        grid.Cell(w, "dev-story", 7, 187_000, NOW - 187_000 if w == "running" else 0, 9, "fs" if w else "")
        if w not in ("", "skip", "next")
        else grid.Cell(w)
        for w in words_of
    )
    return grid.Row(
        words.slot("p", key + word),
        key,
        "",
        word,
        looks.of("story", word),
        False,
        cells,
        990_000,
        1.74,
        menus,
        False,
    )


_EPIC = grid.Epic("p-epic", "2a", "Invoices", 2, 6, 9.10, (), 4)
_GRID = grid.Grid("grid", "6 of 14 done", (), (), (("backlog", 8), ("done", 6)), grid.ALL, "", (), NOW)


def _grid() -> Iterable[Sample]:
    yield Sample("epic_row.html", "folded", {"epic": _EPIC}, "tbody")
    for status in looks.STORY:
        row = _row("2a-3-pdf-rendering", status, _WORDS)
        yield Sample("story_row.html", status, {"row": row}, "tbody")
    row = _row("2a-4-email-delivery", "review", ("succeeded", "skip", "next", "", "failed", "", "", ""), True)
    yield Sample("story_row.html", "with menus", {"row": row}, "tbody")
    epic = replace(_EPIC, slot="p-epic-2", rows=(row,))
    yield Sample("grid.html", "stories", {"grid": replace(_GRID, epics=(epic,), names=("1", "2a"))})
    yield Sample("grid.html", "no stories yet", {"grid": _GRID})
    failures = replace(_GRID, wanted=grid.Wanted(failures=True))
    yield Sample("grid.html", "no failures", {"grid": failures})
    broken = replace(_GRID, problem="sprint-status.yaml does not exist.", warnings=("A key stands twice.",))
    yield Sample("grid.html", "no status file", {"grid": broken})


def _board() -> Iterable[Sample]:
    stories = tuple(
        board.Story(f"2a-{place}-{word}", look, word, 2.93 if word == "done" else None)
        for place, (word, look) in enumerate(looks.STORY.items(), 1)
    )
    running = board.Story(
        "2a-9-x", looks.of("story", "in-progress"), "in-progress", None, "dev-story", NOW - 9_000
    )
    card = board.EpicCard("p-b", "2a", "Invoices", _SEGMENTS, 2, 9.10, (*stories, running), 2, NOW, False)
    yield Sample("board_epic.html", "in progress", {"card": card}, "board-card")
    columns = (board.Column("Backlog", 0, ()), board.Column("In progress", 8, (replace(card, slot="p-b2"),)))
    yield Sample("board.html", "two columns", {"board": board.EpicBoard("board", columns)}, "board")


def _rail() -> Iterable[Sample]:
    lines = tuple(
        rail.Line(place, NOW, look, ("", "2a-3", f" {word}"))
        for place, (word, look) in enumerate(looks.STORY.items())
    )
    yield Sample("happened.html", "changes", {"happened": rail.Happened(lines, 412, 12)})
    yield Sample("happened.html", "nothing yet", {"happened": rail.Happened((), 0, None)})
    commit = rail.CommitLine(
        Commit("5b1e77c" + "0" * 33, "feat(2a): implement 2a-1", NOW, 918, 61), "implement 2a-1"
    )
    yield Sample("commits.html", "two ahead", {"commits": rail.Commits((commit,), 2)})
    yield Sample("commits.html", "none yet", {"commits": rail.Commits((), None)})


def words_of(family: str) -> tuple[tuple[str, Look], ...]:
    """Each status word of a family with its look, for the badges."""
    return tuple((word, looks.of(family, word)) for word in looks.FAMILIES[family])
