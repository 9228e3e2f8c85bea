"""Runs schemathesis over docs/openapi.json against the real server: ``python bench/openapi.py``.

No 500 may come. Needs ``schemathesis`` on PATH, which is no dependency of the project; streams are left out.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "faults"))

from harness import World

DESCRIPTION = Path(__file__).resolve().parents[1] / "docs" / "openapi.json"


def main() -> int:
    """The exit status of schemathesis, 1 when the log holds a traceback, 2 where it is not installed."""
    program = shutil.which("schemathesis")
    if program is None:
        print("schemathesis is not on PATH; pip install schemathesis in a venv of its own")
        return 2
    with World(speed=0.2) as world:
        world.serve()
        words = [program, "run", str(DESCRIPTION), "--url", f"http://127.0.0.1:{world.port}"]
        words += ["--checks", "not_a_server_error", "--exclude-path", "/api/events/stream", "-n", "40"]
        status = subprocess.run([*words, "--phases", "examples,coverage,fuzzing"], check=False).returncode
        if "Traceback" in world.words():
            print(world.words()[-2000:])
            return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
