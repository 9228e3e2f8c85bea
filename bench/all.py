"""Runs every program of the bench and writes RESULTS.md: machine, versions, medians, ratios, goals."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import machine, report

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "RESULTS.md"
README = HERE.parent / "README.md"
_BEGIN, _END = "<!-- performance: written by make bench -->", "<!-- performance: end -->"
PROGRAMS = ("start", "fanout", "latency", "ingest", "overhead", "pages", "idle")
_HEAD = """# Performance, measured

Written by `make bench`, which runs the programs of this folder one after the other; each can be run alone
(`python bench/fanout.py`). Rivals are measured in the same run on the same work. Figures of different runs
differ by up to 1.5×; on a busy machine only the ratios mean something.
"""


def main() -> int:
    """Exit status: 0, also with goals missed; 1 when a program failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "programs", nargs="*", metavar="PROGRAM", help=f"of: {', '.join(PROGRAMS)} (default: all)"
    )
    parser.add_argument("--quick", action="store_true", help="tiny runs, nothing is written")
    asked = parser.parse_args()
    began, reports, failed = time.monotonic(), [], []
    with tempfile.TemporaryDirectory(prefix="sprintrunner-bench-") as folder:
        for name in asked.programs or PROGRAMS:
            print(f"— {name}", flush=True)
            kept = Path(folder) / f"{name}.json"
            words = [sys.executable, str(HERE / f"{name}.py"), "--json", str(kept)]
            done = subprocess.run([*words, *(["--quick"] if asked.quick else [])], check=False)
            if done.returncode == 0:
                reports.append(report.load(kept))
            else:
                failed.append(name)
    if not asked.quick and not asked.programs:
        RESULTS.write_text(_document(reports, failed, time.monotonic() - began), "utf-8")
        _into_readme(reports)
        print(f"written to {RESULTS} and the README")
    return 1 if failed else 0


def _into_readme(reports: list[report.Report]) -> None:
    """Put the headlines between the two marks of the README."""
    table = report.Table("", ["what", "Sprint Runner", "rivals in the same run"])
    for found in reports:
        for line in found.headlines:
            table.add(*line)
    text = README.read_text("utf-8")
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    lines = table.markdown().partition("\n\n")[2]
    README.write_text(f"{before}{_BEGIN}\n{lines}\n{_END}{after}", "utf-8")


def _document(reports: list[report.Report], failed: list[str], seconds: float) -> str:
    goals = [(found.name, goal) for found in reports for goal in found.goals]
    missed = [goal for _, goal in goals if not goal.met]
    summary = report.Table("all goals", ["program", "goal", "wanted", "seen", "met"])
    for name, goal in goals:
        summary.add(name, goal.what, goal.wanted, goal.seen, "yes" if goal.met else "**no**")
    parts = [_HEAD, *(f"* {line}" for line in machine.describe())]
    parts += [
        f"* {time.strftime('%Y-%m-%d')}, {seconds / 60:.0f} minutes; "
        f"{len(goals) - len(missed)} of {len(goals)} goals met"
    ]
    parts += [f"* **failed**: {name}" for name in failed]
    parts += ["", summary.markdown(), "", *(found.markdown() for found in reports)]
    return "\n".join(parts)


if __name__ == "__main__":
    sys.exit(main())
