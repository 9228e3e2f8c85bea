"""The fault bench itself: its list is the list of faults.md, and it fails when a process is left."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def _bench(repository: Path, *words: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, str(repository / "bench" / "faults"), *words]
    return subprocess.run(program, cwd=repository, capture_output=True, text=True, check=False)


def test_every_id_is_listed_once_and_groups_a_and_b_are_written(repository: Path) -> None:
    listed = _bench(repository, "--list").stdout.splitlines()
    ids = [line.split()[0] for line in listed]
    assert len(ids) == len(set(ids)) == 226
    assert not [line for line in listed if line[0] in "AB" and "not written" in line]


def test_a_name_that_is_no_id_is_refused(repository: Path) -> None:
    done = _bench(repository, "A31")
    assert done.returncode == 2
    assert "A31 is neither a group nor an id" in done.stderr


def test_a_process_that_outlives_its_check_fails_it(repository: Path, tmp_path: Path) -> None:
    program = tmp_path / "leaky.py"
    program.write_text(
        "import subprocess, sys\n"
        f"sys.path.insert(0, {str(repository / 'bench' / 'faults')!r})\n"
        "from harness import World\n"
        "import checks, harness\n"
        "harness.G = -4.5  # nobody here needs a grace\n"
        "@checks.check('A1', 'leaves a process')\n"
        "def leaky():\n"
        "    with World() as world:\n"
        "        subprocess.Popen(['sleep', '60'], cwd=world.root, start_new_session=True)\n"
        "print(checks.perform('A1').reason)\n"
    )
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=False)
    assert "1 processes outlived the check" in done.stdout, done.stderr
