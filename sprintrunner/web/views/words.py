"""Numbers, times and keys in the words of the dashboard; all times are ms since the epoch, UTC (pure)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

#: In ms.
MINUTE = 60_000

_SHORT = re.compile(r"([A-Za-z0-9]{1,8}-[0-9]{1,4}[a-z]?)-[a-z0-9]")


def clock(ms: float) -> str:
    """A duration as a running clock: ``9:10``, ``1:04:31``."""
    seconds = max(0, int(ms // 1000))
    hours, minutes, rest = seconds // 3600, seconds // 60 % 60, seconds % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def span(ms: float) -> str:
    """A duration in words: ``8 s``, ``9 min``, ``2 h 35 min``."""
    seconds = max(0, int(ms // 1000))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min"
    return f"{seconds // 3600} h {seconds // 60 % 60:02} min"


def ago(ms: float) -> str:
    """How long ago, to the second below an hour: ``8 s``, ``7 min 41 s``, ``2 h 05 min``."""
    seconds = max(0, int(ms // 1000))
    return f"{seconds // 60} min {seconds % 60} s" if 60 <= seconds < 3600 else span(ms)


def silence(ms: float) -> str:
    """``8 s``, ``7:41``."""
    return span(ms) if ms < MINUTE else clock(ms)


def money(usd: float | None) -> str:
    """Dollars and cents, an en dash where the agent does not tell."""
    return "–" if usd is None else f"${usd:,.2f}"


def tokens(count: int | None) -> str:
    """``812``, ``14 k``, ``21.6 M``."""
    if count is None:
        return "–"
    if count < 1000:
        return str(count)
    if count < 1_000_000:
        return f"{count / 1000:.0f} k"
    return f"{count / 1_000_000:.1f} M"


def number(value: float) -> str:
    """A whole number where it is one: ``15``, ``0.05``."""
    return f"{value:g}"


def grouped(value: int) -> str:
    """Thousands set apart by a narrow space that does not break."""
    return f"{value:,}".replace(",", "\u202f")


def _local(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000).astimezone()


def hour(ms: int) -> str:
    """Local time of day to the minute."""
    return f"{_local(ms):%H:%M}"


def second(ms: int) -> str:
    """Local time of day to the second."""
    return f"{_local(ms):%H:%M:%S}"


def day(ms: int) -> str:
    """``Wed 16 Sep 23:38``."""
    return f"{_local(ms):%a} {_local(ms).day} {_local(ms):%b %H:%M}"


def ends(low: int, high: int) -> str:
    """A range of moments: ``04:40 – 05:20``, one moment where both are the same minute."""
    say = hour if high - low < 20 * 60 * MINUTE else day
    return say(low) if say(low) == say(high) else f"{say(low)} – {say(high)}"


def utc(ms: int) -> str:
    """The full moment for ``title`` and ``datetime``."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def short_key(key: str) -> str:
    """The numbers of a story key for tight places (``2a-3``); a key of another form stays whole."""
    found = _SHORT.match(key)
    return found.group(1) if found else key


def plural(count: int, one: str, many: str = "") -> str:
    """``1 story``, ``4 stories``."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def sentence(text: str) -> str:
    """``text`` with a capital first and a full stop last."""
    bare = text.strip()
    return f"{bare[:1].upper()}{bare[1:]}{'' if bare[-1:] in '.!?' else '.'}" if bare else ""


def slot(prefix: str, key: object) -> str:
    """A stable element id for any key, however hostile its characters are."""
    digest = hashlib.sha256(str(key).encode("utf-8", "surrogatepass")).hexdigest()
    return f"{prefix}-{digest[:10]}"


def story_url(key: str) -> str:
    """The page of a story."""
    return "/stories/" + quote(key, safe="", errors="surrogatepass")


FILTERS: Mapping[str, Callable[..., Any]] = {
    "clock": clock,
    "span": span,
    "ago": ago,
    "silence": silence,
    "money": money,
    "tokens": tokens,
    "number": number,
    "grouped": grouped,
    "hour": hour,
    "second": second,
    "day": day,
    "ends": ends,
    "utc": utc,
    "short_key": short_key,
    "plural": plural,
}
