"""The machine stays awake from the start of a batch to its end, and to no later moment."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from engine import FIRST, engine_in, statuses

from sprintrunner import inhibit
from sprintrunner.inhibit import Inhibitor

HOLDER = """#!/bin/sh
echo "start $*" >> {log}
while [ "$1" != cat ]; do shift; done
"$@"
echo end >> {log}
"""


def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it never happened"
        time.sleep(0.01)


def program(folder: Path, text: str, name: str = "systemd-inhibit") -> dict[str, str]:
    """A holder of the test's own, the only one on PATH beside the system's plain tools."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin"}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "holder.log"


def lines(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


def test_it_is_held_from_start_to_stop(tmp_path: Path, log: Path) -> None:
    held = Inhibitor(program(tmp_path / "bin", HOLDER.format(log=log)))
    held.start()
    until(lambda: lines(log))
    assert "--what=idle:sleep" in lines(log)[0] and lines(log)[0].endswith(" cat")
    held.stop()
    assert lines(log)[-1] == "end"
    held.stop()


def test_caffeinate_serves_as_well(tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = program(tmp_path / "bin", HOLDER.format(log=log), "caffeinate")
    monkeypatch.setattr(inhibit, "_HOLDERS", {"caffeinate": ("-i", "-s")})
    held = Inhibitor(env)
    held.start()
    until(lambda: lines(log))
    held.stop()
    assert lines(log) == ["start -i -s cat", "end"]


def test_without_a_holder_nothing_happens(tmp_path: Path) -> None:
    held = Inhibitor({"PATH": str(tmp_path)})
    held.start()
    held.stop()
    assert inhibit.find({"PATH": str(tmp_path)}) is None


def test_a_holder_that_is_refused_is_a_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sprintrunner.inhibit")
    held = Inhibitor(program(tmp_path / "bin", "#!/bin/sh\necho 'Access denied' >&2\nexit 1\n"))
    held.start()
    until(lambda: "Access denied" in caplog.text)
    held.stop()


def test_a_program_that_cannot_be_executed_is_a_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sprintrunner.inhibit")
    Inhibitor(program(tmp_path / "bin", "#!/no/such/interpreter\n")).start()
    assert "may fall asleep" in caplog.text


def test_a_holder_that_ignores_its_pipe_is_killed(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inhibit, "_PATIENCE", 0.1)
    held = Inhibitor(program(tmp_path / "bin", f"#!/bin/sh\necho $$ >> {log}\nexec sleep 600\n"))
    held.start()
    until(lambda: lines(log))
    held.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(int(lines(log)[0]), 0)


def test_it_ends_with_us_also_after_kill_9(tmp_path: Path, log: Path) -> None:
    env = program(tmp_path / "bin", HOLDER.format(log=log))
    code = (
        "import sys, time\nfrom sprintrunner.inhibit import Inhibitor\n"
        f"Inhibitor({env!r}).start()\nprint('held', flush=True)\ntime.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline() == b"held\n"
        until(lambda: lines(log))
        child.send_signal(signal.SIGKILL)
    until(lambda: lines(log)[-1] == "end")


def test_a_batch_keeps_the_machine_awake_and_lets_it_go(tmp_path: Path, log: Path) -> None:
    with engine_in(tmp_path, statuses=statuses(first="review")) as engine:
        program(tmp_path / "bin", HOLDER.format(log=log))
        batch = engine.start(FIRST)
        until(lambda: lines(log))
        assert engine.wait(batch).ended_at is not None
        until(lambda: lines(log)[-1] == "end")
        assert sum(line.startswith("start") for line in lines(log)) == 1
