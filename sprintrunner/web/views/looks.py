"""The hue and the glyph of each status word; a word never stands without its glyph (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ...sprint import Entry, StatusClass


class Look(NamedTuple):
    """``hue`` is a ``data-hue`` of the stylesheet, ``glyph`` a symbol of the sprite."""

    hue: str
    glyph: str


NEUTRAL = Look("neutral", "ring")

STORY: Mapping[str, Look] = {
    "backlog": NEUTRAL,
    "ready-for-dev": Look("neutral", "ring-dot"),
    "optional": Look("neutral", "ring-dash"),
    "in-progress": Look("running", "half"),
    "review": Look("review", "three"),
    "done": Look("done", "disc"),
    "blocked": Look("blocked", "octagon"),
}

#: For raw words that are none of the seven, by what they mean.
CLASS: Mapping[str, Look] = {
    "held": Look("neutral", "pause"),
    "dropped": Look("neutral", "slash"),
    "unknown": Look("attention", "query"),
}

COMMAND: Mapping[str, Look] = {
    "queued": Look("neutral", "ring-dash"),
    "running": Look("running", "run"),
    "succeeded": Look("done", "ok"),
    "failed": Look("blocked", "no"),
    "timed_out": Look("blocked", "clock"),
    "stopped": Look("neutral", "stop"),
    "interrupted": Look("attention", "bolt"),
    "limited": Look("asleep", "moon"),
}

BATCH: Mapping[str, Look] = {
    "starting": Look("running", "run"),
    "running": Look("running", "run"),
    "waiting": Look("asleep", "moon"),
    "stopping": Look("neutral", "stop"),
    "completed": Look("done", "ok"),
    "all_done": Look("done", "disc"),
    "stopped": Look("neutral", "stop"),
    "failed": Look("blocked", "no"),
    "interrupted": Look("attention", "bolt"),
    "limit": Look("asleep", "moon"),
}

FAMILIES = {"story": STORY, "command": COMMAND, "batch": BATCH, "class": CLASS}


def of(family: str, word: str) -> Look:
    """Return the look of a status word of ``story``, ``command``, ``batch`` or ``class``."""
    return FAMILIES[family].get(word, CLASS["unknown"])


def of_entry(entry: Entry) -> Look:
    """Return the look of a line of the status file; held, dropped and unknown ones go by their meaning."""
    if entry.status is not None:
        return of("story", entry.status)
    known = {StatusClass.HELD, StatusClass.DROPPED}
    return CLASS[entry.status_class if entry.status_class in known else "unknown"]
