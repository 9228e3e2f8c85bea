"""The soak itself, for some seconds: it kills, measures and judges."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parent.parent / "bench"


@pytest.mark.bench
def test_a_short_soak_ends_flat() -> None:
    words = ["--minutes", "0.2", "--kill-every", "5", "--clients", "3", "--speed", "0"]
    done = subprocess.run(
        [sys.executable, str(BENCH / "soak.py"), *words],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert "PASS processes after the last kill: 0" in done.stdout, done.stdout + done.stderr
    assert "PASS orphans at any look: 0" in done.stdout
    assert done.stdout.splitlines()[0].split()[:2] == ["seconds", "kills"]


def test_growth_is_called_by_its_name() -> None:
    program = (
        "import soak; made = [soak.Sample(i, 60, i * 50_000_000, 40, 12, 0, 0) for i in range(1, 10)];"
        "flat, lines = soak.judge(made); print(flat, *lines, sep='|')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=BENCH, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith("False|FAIL RSS: 100.0 at first, 400.0 at last MB|PASS fds")
