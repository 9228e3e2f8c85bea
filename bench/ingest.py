"""How fast and with how little memory an agent's output is taken in, and that nothing of it is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from common import report
from common.figures import pair, ratio

_INGESTING = Path(__file__).parent / "common" / "ingesting.py"
_SHIPPED_CAP = 64 << 20
_WIDE_CAP = 512 << 20
#: Mode, what it is, bytes and lines (the result not counted).
MODES = (
    ("lines", "1 million lines of 100 bytes", 100_000_000, 1_000_000),
    ("mixed", "100 MB in lines of 2 KB", 100_000_000, 50_000),
    ("one", "one line of 100 MB", 100_000_000, 1),
)
WAYS = (("pipe", "plain loop over the pipe"), ("asyncio", "v1: asyncio readline"))


def measure(found: report.Report, quick: bool) -> None:
    """Each mode in each way, every one in a process of its own."""
    scale = 0.01 if quick else 1.0
    columns = ("way", "MB/s", "ours is faster by", "memory grew by MB", "lines", "result")
    for mode, title, size, lines in MODES[:1] if quick else MODES:
        table = found.table(title, *columns)
        own = _take("ours", mode, scale, _WIDE_CAP)
        table.add("Sprint Runner, nothing cut", *_cells(own, own))
        capped = _take("ours", mode, scale, _SHIPPED_CAP)
        table.add("Sprint Runner, 64 MiB kept", *_cells(capped, own))
        grown = max(own["grown"], capped["grown"])
        found.headline(f"{title}: MB/s, memory grows by MB", pair(_speed(own, own), grown))
        for way, name in WAYS:
            table.add(name, *_cells(_take(way, mode, scale, 0), own))
        _goals(found, title, own, capped, size * scale, int(lines * scale) if lines > 1 else 1)


def _take(way: str, mode: str, scale: float, cap: int) -> dict[str, Any]:
    words = [sys.executable, str(_INGESTING), way, mode, str(scale), str(cap)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=300)
    return dict(json.loads(done.stdout))


def _speed(seen: dict[str, Any], own: dict[str, Any]) -> float:
    # A line that was cut is still taken in whole, so the agent's own bytes count.
    return float(max(seen["bytes"], own["written"]) / seen["seconds"] / 1e6)


def _cells(seen: dict[str, Any], own: dict[str, Any]) -> tuple[object, ...]:
    own.setdefault("written", max(own["bytes"], 100_000_000 if own["lines"] < 10 else 0))
    if seen["failed"]:
        return "–", "–", "–", f"{seen['lines']:,}", f"lost: {seen['failed'][:60]}"
    speed, ours = _speed(seen, own), _speed(own, own)
    kept = "there" if seen["result"] == "the last word" else "**lost**"
    return speed, ratio(ours, speed), float(seen["grown"]), f"{seen['lines']:,}", kept


def _goals(
    found: report.Report, title: str, own: dict[str, Any], capped: dict[str, Any], size: float, lines: int
) -> None:
    found.at_most(f"{title}: memory grows by", max(own["grown"], capped["grown"]), 60.0, "MB")
    whole = own["lines"] == lines + 1
    found.goals.append(report.Goal(f"{title}: lines seen", f"{lines + 1:,}", f"{own['lines']:,}", whole))
    kept = own["result"] == capped["result"] == "the last word"
    found.goals.append(report.Goal(f"{title}: the result", "there", "there" if kept else "lost", kept))


if __name__ == "__main__":
    sys.exit(report.main("Taking in output", measure))
