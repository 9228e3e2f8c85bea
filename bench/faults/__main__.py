"""The fault bench: ``python bench/faults [GROUP|ID]…``; see the README beside this file."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import checks
import unprivileged


def main(words: Sequence[str]) -> int:
    """Run what was asked for; returns 0 when nothing failed, 1 otherwise, 2 for a wrong name."""
    parser = argparse.ArgumentParser(prog="python bench/faults", description="Checks against faults.md.")
    parser.add_argument("names", nargs="*", metavar="GROUP|ID", help="what to run (default: everything)")
    parser.add_argument("--list", action="store_true", help="show the checks, run none")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there too")
    parser.add_argument("--full", action="store_true", help="100 kills over 150 stories, as faults.md says")
    parser.add_argument("--kills", type=int, metavar="N", help="kills of a series (default: 12)")
    parser.add_argument("--stories", type=int, metavar="N", help="stories of a series (default: 20)")
    asked = parser.parse_args(words)
    checks.discover()
    try:
        ids = checks.chosen(asked.names)
    except ValueError as error:
        parser.error(str(error))
    if not asked.list:
        again = unprivileged.rerun(_without_json(asked), asked.json)
        if again is not None:
            return again
    checks.options.kills = asked.kills or (100 if asked.full else checks.options.kills)
    checks.options.stories = asked.stories or (150 if asked.full else checks.options.stories)
    return _list(ids) if asked.list else _run(ids, asked.json)


def _without_json(asked: argparse.Namespace) -> list[str]:
    """The arguments again; the file is written by whoever started the bench."""
    words = [*asked.names, *(["--full"] if asked.full else [])]
    for name in ("kills", "stories"):
        if getattr(asked, name):
            words += [f"--{name}", str(getattr(asked, name))]
    return words


def _list(ids: Sequence[str]) -> int:
    for id in ids:
        known = checks.REGISTRY.get(id)
        print(f"{id:4} {known.what if known else '(not written)'}")
    return 0


def _run(ids: Sequence[str], json_file: Path | None) -> int:
    results = []
    for id in ids:
        result = checks.perform(id)
        results.append(result)
        reason = f": {result.reason}" if result.reason else ""
        print(f"{id:4} {result.status:7} {result.seconds:6.1f} s  {result.what}{reason}", flush=True)
    _summary(ids, results)
    if json_file:
        json_file.write_text(json.dumps([asdict(result) for result in results], indent=2) + "\n")
    return int(any(result.status == "failed" for result in results))


def _summary(ids: Sequence[str], results: Sequence[checks.Result]) -> None:
    """``passed/total`` of each group that was asked for, and the sum."""
    print()
    groups = list(dict.fromkeys(id[0] for id in ids))
    passed = 0
    for group in groups:
        own = [result for result in results if result.id[0] == group]
        good = sum(result.status == "passed" for result in own)
        passed += good
        print(f"{group}  {good}/{checks.TOTALS[group]}")
        for result in own:
            if result.status != "passed":
                print(f"   {result.id} {result.status}: {result.reason}")
    print(f"sum  {passed}/{sum(checks.TOTALS[group] for group in groups)}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
