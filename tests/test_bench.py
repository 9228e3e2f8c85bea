"""The programs of the bench run and print their tables; how fast anything is, no test says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

#: A word of a table that each program prints.
PROGRAMS = {
    "fanout": "Sprint Runner",
    "latency": "client of the JSON stream",
    "ingest": "nothing cut",
    "overhead": "code-review",
    "pages": "activity",
    "idle": "wake-ups",
    "start": "until it answers",
}


@pytest.mark.bench
@pytest.mark.skipif(sys.platform != "linux", reason="the bench reads /proc")
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_of_the_bench_runs_and_prints_its_table(
    name: str, repository: Path, tmp_path: Path
) -> None:
    result = tmp_path / "result.json"
    words = [sys.executable, str(repository / "bench" / f"{name}.py"), "--quick", "--json", str(result)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    assert PROGRAMS[name] in done.stdout
    assert "tables" in result.read_text("utf-8")
