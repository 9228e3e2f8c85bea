"""The time at which a usage limit resets, read from the words or numbers a CLI gives."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
#: A clock time this little in the past means now, not tomorrow.
_JUST_PASSED = timedelta(minutes=15)
#: Years 2001 to 2128 in seconds; anything else is not a reset time.
_EPOCH_RANGE = (10**9, 5 * 10**9)

_PIPED = re.compile(r"limit reached\|(\d{10,13})\b", re.IGNORECASE)
_CLOCK = re.compile(
    r"(?:resets?|try again)\s+(?:at\s+|on\s+)?"
    r"(?:(?P<day>mon|tue|wed|thu|fri|sat|sun)[a-z]*,?\s+(?:at\s+)?)?"
    r"(?:(?P<month>jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?\s+(?P<date>\d{1,2})(?:st|nd|rd|th)?"
    r",?\s+(?:(?P<year>20\d\d),?\s+)?(?:at\s+)?)?"
    r"(?P<hour>\d{1,2})(?::(?P<minute>\d\d))?\s*(?P<half>[ap]\.?m\.?)?"
    r"(?:\s*\((?P<zone>[\w+\-/]{1,40})\))?",
    re.IGNORECASE,
)
_SPAN = re.compile(r"(?:try again|resets) in\s+((?:\d+\s*[a-z]+[\s,]*(?:and\s+)?){1,4})", re.IGNORECASE)
_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


def from_epoch(value: Any) -> int | None:
    """Seconds or milliseconds since the epoch as ms UTC; None for anything that cannot be a reset time."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    seconds = value / 1000 if value > 10**11 else value
    return int(seconds * 1000) if _EPOCH_RANGE[0] <= seconds <= _EPOCH_RANGE[1] else None


def from_words(text: str, now: datetime | None = None) -> int | None:
    """The reset time named in a limit message as ms UTC, or None.

    Knows "resets 3am (UTC)", "resets Nov 25 at 3:30pm (Europe/Berlin)", "try again at Nov 25th, 2026 3:00 AM"
    (local time where no zone is named), "try again in 2 hours 5 minutes" and "limit reached|<epoch>".
    """
    head = text[:2000]
    if piped := _PIPED.search(head):
        return from_epoch(int(piped[1]))
    current = now or datetime.now(UTC)
    if span := _SPAN.search(head):
        return _stamp(current + timedelta(seconds=_seconds(span[1])))
    clock = _CLOCK.search(head)
    if not clock:
        return None
    try:
        return _stamp(_moment(clock, current))
    except ValueError:
        return None


def kind_from_words(text: str) -> str | None:
    """Which limit a message is about, in the provider's own names, or None."""
    low = text[:2000].lower()
    for words, kind in (
        ("opus", "seven_day_opus"),
        ("sonnet", "seven_day_sonnet"),
        ("weekly", "seven_day"),
        ("5-hour", "five_hour"),
        ("session limit", "five_hour"),
        ("usage credits", "overage"),
    ):
        if words in low:
            return kind
    return None


def _stamp(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _seconds(words: str) -> int:
    pairs = re.findall(r"(\d{1,6})\s*([a-z])", words.lower())
    return min(sum(int(number) * _UNITS.get(unit, 0) for number, unit in pairs), 60 * 86400)


def _zone(name: str | None, current: datetime) -> tzinfo | None:
    if not name:
        return current.astimezone().tzinfo
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        return UTC


def _hour(clock: re.Match[str]) -> int:
    hour, half = int(clock["hour"]), (clock["half"] or "").lower()
    if not half:
        return hour
    if not 1 <= hour <= 12:
        raise ValueError(hour)
    return hour % 12 + (12 if half.startswith("p") else 0)


def _moment(clock: re.Match[str], current: datetime) -> datetime:
    here = current.astimezone(_zone(clock["zone"], current))
    moment = here.replace(hour=_hour(clock), minute=int(clock["minute"] or 0), second=0, microsecond=0)
    if clock["month"]:
        return _dated(clock, moment, here)
    if clock["day"]:
        moment += timedelta(days=(_DAYS.index(clock["day"].lower()) - here.weekday()) % 7)
        step = timedelta(days=7)
    else:
        step = timedelta(days=1)
    return moment if moment > here - _JUST_PASSED else moment + step


def _dated(clock: re.Match[str], moment: datetime, here: datetime) -> datetime:
    month = _MONTHS.index(clock["month"].lower()) + 1
    dated = moment.replace(month=month, day=int(clock["date"]), year=int(clock["year"] or here.year))
    # Without a year, a date half a year back can only be meant for the next one.
    if not clock["year"] and dated < here - timedelta(days=180):
        dated = dated.replace(year=dated.year + 1)
    return dated
