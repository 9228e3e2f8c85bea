"""The frame of every page: name, branch, navigation, title and icon."""

from __future__ import annotations

from dataclasses import dataclass

from . import marks, verdict
from .reading import Reading
from .verdict import Bar


@dataclass(frozen=True, slots=True)
class Link:
    """An entry of the navigation, and the letter that opens it after ``g``."""

    name: str
    href: str
    letter: str
    current: bool = False


@dataclass(frozen=True, slots=True)
class Shell:
    """What base.html shows. ``live``: the page follows the stream, from the event ``after`` on."""

    title: str
    icon: str
    hue: str
    project: str
    branch: str
    nav: tuple[Link, ...]
    pill: Bar | None
    live: bool
    after: int
    now: int


#: The frame of pages that must stand without a project or a database: errors and the login.
BLANK = Shell("Sprint Runner", marks.favicon("neutral"), "neutral", "", "", (), None, False, 0, 0)

_NAV = (
    ("Sprint", "/", "s"),
    ("Batches", "/batches", "b"),
    ("Timeline", "/timeline", "t"),
    ("Activity", "/activity", "a"),
    ("Trends", "/trends", "r"),
    ("Settings", "/settings", ","),
)


def shell(reading: Reading, title: str, current: str) -> Shell:
    """Read the frame; ``current`` is the address of the entry the page belongs to, ``/`` has no pill."""
    bar = verdict.bar(reading)
    name = reading.project.name
    return Shell(
        title=bar.title if current == "/" and not title else f"{title} · {name}",
        icon=bar.icon,
        hue=bar.state.hue,
        project=name,
        branch=reading.branch,
        nav=tuple(Link(text, href, letter, href == current) for text, href, letter in _NAV),
        pill=bar if title else None,
        live=True,
        after=bar.last.id,
        now=reading.now,
    )
