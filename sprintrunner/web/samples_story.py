"""Samples of what the partials of a story's page and of the settings show, in every state they have."""

from __future__ import annotations

from collections.abc import Iterable

from ..settings import FIELDS
from .sample import NOW, Sample
from .views import evidence, ledger, looks, settings, timeline
from .views.commands import CommandLine


def _line(status: str) -> CommandLine:
    keys = ("2a-3-pdf-rendering",)
    return CommandLine(
        7, "dev-story", 2, keys, status, NOW - 550_000, 550_000, 0.61, 1_100_000, "claude · sonnet", "exit 1",
        status != "limited", status == "running", True,
    )  # fmt: skip


def story() -> Iterable[Sample]:
    lines = tuple(_line(status) for status in looks.COMMAND if status != "queued")
    yield Sample("command_rows.html", "each status", {"lines": lines, "now": NOW}, "card")
    bars = tuple(
        timeline.Bar(
            line,
            line.command,
            looks.of("command", line.status),
            12.0 * place,
            9.0,
            line.status,
            True,
            place > 5,
        )
        for place, line in enumerate(lines)
    )
    yield Sample(
        "lane_rows.html", "each status", {"rows": (timeline.Row("dev-story", bars, 1, False),)}, "lanes"
    )
    found = tuple(
        ledger.Finding(severity, hue, "Totals are rounded per line", "pdf/totals.py:48", status, rounds)
        for severity, hue, status, rounds in (
            ("CRITICAL", "blocked", "fixed", ("new", "fixed")),
            ("HIGH", "blocked", "fixed", ("new, fixed", "")),
            ("MEDIUM", "attention", "open", ("", "new")),
            ("LOW", "neutral", "open", ("new", "open")),
        )
    )
    parts = (ledger.Part("fixed", 26, 13), ledger.Part("open", 13, 12), ledger.Part("new", 0, 12))
    reviews = (ledger.Review(1, 1, "3 new, 1 fixed", parts), ledger.Review(2, 2, "1 new, 1 fixed", parts[:2]))
    yield Sample("ledger.html", "two reviews", {"ledger": ledger.Ledger(found, reviews)})
    line = evidence.Line
    told = (
        line("there", "Agent reported success", "dev-story"),
        line("missing", "pytest -q", "2 failed in 41 s, run by Sprint Runner", True),
        line("later", "Commit", "not yet"),
        line("note", "Tasks ticked", "8 of 9"),
    )
    yield Sample("evidence.html", "one missing", {"evidence": evidence.Evidence(told, 1, 3)})
    yield Sample("evidence.html", "whole", {"evidence": evidence.Evidence(told[:1], 1, 1)})


def fields() -> Iterable[Sample]:
    first = {info.kind: info for info in reversed(FIELDS)}
    for kind, info in first.items():
        field = settings.Field(info, "", "default", "", "", False)
        yield Sample("settings_field.html", kind, {"one": field}, "fields")
    info = first["int"]
    wrong = settings.Field(info, "400", "changed", "", "must be between 1 and 336", True)
    fixed = settings.Field(
        first["list"], "pytest -q, ruff check .", "file", "Only in sprintrunner.toml.", "", False
    )
    yield Sample("settings_field.html", "wrong", {"one": wrong}, "fields")
    yield Sample("settings_field.html", "set elsewhere", {"one": fixed}, "fields")
