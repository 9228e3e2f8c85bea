"""The process module against real agents that misbehave in every way seen so far."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from supervision import PYTHON, Run, exists, until

from sprintrunner import errors, shim
from sprintrunner.process import (
    Exit,
    Identity,
    Supervised,
    boot_id,
    end_holders,
    end_marked,
    end_tree,
    find_holders,
    find_marked,
    is_alive,
    read_exit,
    start_ticks,
)
from sprintrunner.process.deadlines import Deadlines
from sprintrunner.process.spec import Limits
from sprintrunner.process.transcript import Lines

IGNORE_TERM = "import os, signal, sys, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
READY = "print('ready', flush=True)\n"
FOREVER = "while True: time.sleep(60)\n"
#: A double fork into a session of its own that ignores SIGTERM, and tells its pid.
DAEMON = """
import os, signal, time
def daemon(then):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            then()
        os._exit(0)
    os.wait()
"""


@pytest.fixture
def make(tmp_path):
    runs: list[Run] = []

    def build(argv, **options) -> Run:
        runs.append(Run(tmp_path, argv, **options))
        return runs[-1]

    yield build
    for run in runs:
        run.supervised.abandon()
        run.supervised.stop()
        if hasattr(run.supervised, "_thread"):
            assert run.supervised.join(15)
        assert run.left() == []


def agent(text: str) -> list[str]:
    return [*PYTHON, text]


# -- an ordinary life


def test_a_quiet_agent_ends_by_itself_with_its_lines_code_and_stderr(make):
    run = make(["/bin/sh", "-c", "echo one; echo two; echo oops >&2; exit 3"])
    verdict = run.run()
    assert (verdict.code, verdict.signal, verdict.ended_by) == (3, None, "itself")
    assert run.lines == [b"one", b"two"]
    assert verdict.stderr_tail == "oops\n"
    assert (verdict.survivors, verdict.truncated, verdict.error) == (0, False, None)
    assert 0 < verdict.started_at <= verdict.ended_at
    assert 0 <= verdict.seconds < 5


def test_the_agent_sees_its_prompt_environment_and_folder(make, tmp_path):
    prompt = tmp_path / "prompt"
    prompt.write_text("do it\n")
    env = {"PATH": os.environ["PATH"], "GREETING": "grüß", "LC_ALL": "C"}
    run = make(["/bin/sh", "-c", "cat; env; pwd"], stdin_path=prompt, env=env)
    assert run.run().code == 0
    assert run.lines[0] == b"do it"
    shown = {line for line in run.lines if b"=" in line} - {b"PWD=" + os.fsencode(tmp_path)}
    names = {line.partition(b"=")[0] for line in shown}
    assert names - {b"_", b"OLDPWD", b"SHLVL"} == {b"PATH", b"GREETING", b"LC_ALL", b"SPRINTRUNNER_RUN_ID"}
    assert "GREETING=grüß".encode() in run.lines
    assert run.lines[-1] == os.fsencode(tmp_path)


def test_the_agent_starts_with_default_signals_and_no_foreign_descriptor(make):
    text = """
import os, signal
numbers = [signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT]
print([signal.getsignal(n) in (signal.SIG_DFL, signal.default_int_handler) for n in numbers])
print(sorted(int(n) for n in os.listdir('/proc/self/fd'))[:-1])
print(os.getpgrp() == os.getpid())
"""
    run = make(agent(text))
    assert run.run().code == 0
    assert run.lines == [b"[True, True, True, True]", b"[0, 1, 2]", b"True"]


def test_output_and_verdict_files_are_private_and_the_verdict_can_be_read_again(make):
    run = make(["/bin/sh", "-c", "echo hi"])
    verdict = run.run()
    assert [path.stat().st_mode & 0o777 for path in (run.out_path, run.err_path, run.exit_path)] == [
        0o600
    ] * 3
    assert read_exit(run.exit_path) == verdict
    assert list(run.folder.glob("*.tmp")) == []


def test_output_is_delivered_while_the_agent_runs(make):
    run = make(agent("import time\nprint('early', flush=True)\ntime.sleep(60)"))
    run.start()
    run.said(b"early")
    assert not run.exits
    run.supervised.stop()
    assert run.wait().ended_by == "stop"


def test_an_instant_agent_costs_little(make):
    spent = []
    for _ in range(15):
        run = make(["/bin/true"])
        begun = time.perf_counter()
        run.run()
        spent.append(time.perf_counter() - begun)
    assert statistics.median(spent) < 0.060, spent


def test_an_agent_that_is_killed_from_outside_says_by_which_signal(make):
    verdict = make(["/bin/sh", "-c", "kill -9 $$"]).run()
    assert (verdict.code, verdict.signal, verdict.ended_by) == (None, 9, "itself")


# -- starts that fail


@pytest.mark.parametrize(
    ("program", "content", "words"),
    [
        ("missing", None, "No such file"),
        ("plain", "#!/bin/sh\n", "Permission denied"),
        ("garbage", "garbage", "Exec format error"),
    ],
)
def test_a_program_that_cannot_be_executed_is_named_in_the_verdict(make, tmp_path, program, content, words):
    path = tmp_path / program
    if content is not None:
        path.write_text(content)
        path.chmod(0o755 if program == "garbage" else 0o644)
    verdict = make([str(path)]).run()
    assert (verdict.code, verdict.ended_by) == (None, "not_started")
    assert verdict.error == f"{path}: {words}" or words in verdict.error


def test_a_missing_prompt_file_is_named_in_the_verdict(make, tmp_path):
    verdict = make(["/bin/cat"], stdin_path=tmp_path / "none").run()
    assert verdict.ended_by == "not_started"
    assert str(tmp_path / "none") in verdict.error


def test_a_missing_working_folder_is_refused_at_once(make, tmp_path):
    run = make(["/bin/true"], cwd=tmp_path / "none")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        run.supervised.spawn()
    assert len(os.listdir("/proc/self/fd")) == before
    assert run.exits == []


def test_without_the_go_byte_the_agent_never_runs(make, tmp_path):
    run = make(["/bin/sh", "-c", f"touch {tmp_path}/ran"])
    identity = run.supervised.spawn()
    assert is_alive(identity)
    run.supervised.abandon()
    assert run.wait().ended_by == "not_started"
    assert not (tmp_path / "ran").exists()
    assert not run.exit_path.exists()


def test_a_stop_before_go_wins_and_go_changes_nothing(make, tmp_path):
    run = make(["/bin/sh", "-c", f"touch {tmp_path}/ran"])
    run.supervised.spawn()
    run.supervised.stop()
    run.supervised.go()
    assert run.wait().ended_by == "not_started"
    assert not (tmp_path / "ran").exists()


def test_a_stopped_run_is_not_spawned(make):
    run = make(["/bin/true"])
    run.supervised.stop()
    with pytest.raises(errors.Conflict):
        run.supervised.spawn()


# -- stop


def test_stop_is_answered_at_once_and_the_first_reason_counts(make):
    run = make(agent("import time\n" + READY + FOREVER))
    run.start()
    run.said(b"ready")
    begun = time.monotonic()
    run.supervised.stop("budget")
    run.supervised.stop("stop")
    assert time.monotonic() - begun < 0.1
    verdict = run.wait()
    assert (verdict.ended_by, verdict.signal) == ("budget", signal.SIGTERM)


def test_an_agent_that_ends_in_order_after_term_keeps_its_status_and_last_words(make):
    text = "import signal, sys, time\n"
    text += "def end(*_):\n    print('last words', flush=True)\n    sys.exit(143)\n"
    text += "signal.signal(signal.SIGTERM, end)\n" + READY + FOREVER
    run = make(agent(text))
    run.start()
    run.said(b"ready")
    run.supervised.stop()
    verdict = run.wait()
    assert (verdict.code, verdict.ended_by) == (143, "stop")
    assert run.lines[-1] == b"last words"


def test_an_agent_that_ignores_sigterm_is_dead_within_grace_and_a_second(make):
    run = make(agent(IGNORE_TERM + READY + FOREVER), limits={"grace": 0.5})
    run.start()
    run.said(b"ready")
    begun = time.monotonic()
    run.supervised.stop()
    verdict = run.wait()
    assert 0.5 <= time.monotonic() - begun < 1.5
    assert (verdict.signal, verdict.survivors) == (9, 0)


def test_an_agent_that_stopped_itself_still_gets_its_sigterm(make):
    text = "import os, signal, time\n" + READY + "os.kill(os.getpid(), signal.SIGSTOP)\n" + FOREVER
    run = make(agent(text))
    run.start()
    run.said(b"ready")
    run.supervised.stop()
    assert run.wait(2).signal in (signal.SIGTERM, signal.SIGKILL)


# -- what an agent leaves behind


def test_a_daemon_in_its_own_session_does_not_survive(make):
    text = DAEMON + "daemon(lambda: (print(os.getpid(), flush=True), time.sleep(600)))\n"
    text += "time.sleep(0.2)\n"
    run = make(agent(text))
    verdict = run.run()
    assert (verdict.code, verdict.survivors) == (0, 0)
    assert not exists(int(run.lines[0]))


def test_a_daemon_without_marker_and_session_does_not_survive(make):
    text = """
import os, subprocess, sys, time
inner = "import os,signal,time; signal.signal(15,1); print(os.getpid(), flush=True); time.sleep(600)"
daemon = "env -i setsid '" + sys.executable + "' -I -S -c '" + inner + "' & "
subprocess.run(["/bin/sh", "-c", daemon])
"""
    run = make(agent(text + IGNORE_TERM + FOREVER), limits={"grace": 0.3})
    run.start()
    assert until(lambda: run.lines)
    pid = int(run.lines[0])
    assert pid not in run.left()
    run.supervised.stop()
    assert run.wait().survivors == 0
    assert not exists(pid)


def test_two_hundred_stubborn_children_die_with_the_agent(make):
    text = IGNORE_TERM + "for _ in range(200):\n    if os.fork() == 0:\n        os.setsid()\n"
    text += "        while True: time.sleep(60)\n" + READY + FOREVER
    run = make(agent(text), limits={"grace": 0.5})
    run.start()
    run.said(b"ready")
    assert len(run.left()) >= 200
    begun = time.monotonic()
    run.supervised.stop()
    assert run.wait().survivors == 0
    assert time.monotonic() - begun < 3.5
    assert run.left() == []


def test_a_grandchild_on_stdout_does_not_delay_the_verdict(make):
    run = make(["/bin/sh", "-c", "sleep 600 & echo $!; exit 0"])
    begun = time.monotonic()
    verdict = run.run()
    assert time.monotonic() - begun < 2
    assert verdict.code == 0
    assert not exists(int(run.lines[0]))


def test_children_that_keep_forking_are_caught(make):
    text = IGNORE_TERM + READY + "while True:\n    if os.fork() == 0:\n        time.sleep(0.05)\n"
    text += "        if os.fork(): os._exit(0)\n        os.setsid(); time.sleep(5); os._exit(0)\n"
    text += "    time.sleep(0.02)\n"
    run = make(agent(text), limits={"grace": 0.3})
    run.start()
    run.said(b"ready")
    assert until(lambda: len(run.left()) > 10)
    run.supervised.stop()
    assert run.wait().survivors == 0
    assert run.left() == []


# -- output


def test_ten_megabytes_of_stderr_do_not_block_and_leave_a_tail(make):
    text = "import sys\nfor _ in range(160): sys.stderr.write('x' * 65535 + chr(10))\n"
    text += "sys.stderr.write('the end')\n"
    run = make(agent(text))
    verdict = run.run()
    assert verdict.code == 0
    assert verdict.stderr_tail.endswith("the end")
    assert len(verdict.stderr_tail) <= 64 << 10
    assert run.err_path.stat().st_size < (4 << 20) + 200


def test_a_line_of_100_megabytes_is_cut_and_the_next_one_is_whole(make):
    text = "import sys\nfor _ in range(100): sys.stdout.write('x' * (1 << 20))\n"
    text += "print()\nprint('next line')\n"
    before = rss()
    run = make(agent(text))
    run.start()
    highest = {"server": 0, "shim": 0}
    pid = run.supervised._process.pid
    while not run.ended.is_set():
        highest["server"] = max(highest["server"], rss() - before)
        highest["shim"] = max(highest["shim"], rss(pid))
        run.ended.wait(0.01)
    assert run.wait().truncated
    assert [len(line) < 100_000 for line in run.lines] == [True] * len(run.lines)
    assert b"bytes cut]" in run.lines[0]
    assert run.lines[-1] == b"next line"
    assert highest["server"] < 60 << 20
    assert highest["shim"] < 60 << 20


def rss(pid: int | str = "self") -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def test_over_the_cap_the_last_lines_are_kept_and_said_to_be_the_last(make):
    text = "for n in range(200000): print('line', n)\nprint('result')\n"
    run = make(agent(text), out_cap=2 << 20)
    assert run.run().truncated
    assert run.lines[0] == b"line 0"
    assert run.lines[-1] == b"result"
    notes = [line for line in run.lines if b"left out here" in line]
    assert len(notes) == 1
    dropped = int(notes[0].split()[1])
    whole = sum(len(f"line {n}\n") for n in range(200000)) + len("result\n")
    kept = run.out_path.stat().st_size - len(notes[0]) - 2
    assert dropped + kept == whole
    assert run.lines[run.lines.index(notes[0]) + 1].startswith(b"line ")


def test_output_just_at_the_cap_is_whole(make):
    run = make(agent("print('x' * 9999)\n" * 10), out_cap=100_000)
    assert not run.run().truncated
    assert run.lines == [b"x" * 9999] * 10


def test_a_million_short_lines_arrive_complete(make):
    run = make(agent("import sys\nfor _ in range(1000): sys.stdout.write('{}\\n' * 1000)\n"))
    begun = time.monotonic()
    assert run.run(60).code == 0
    assert time.monotonic() - begun < 30
    assert len(run.lines) == 1_000_000


def test_bytes_that_are_not_utf8_and_half_a_line_arrive_as_they_are(make):
    run = make(["/bin/sh", "-c", r"printf '\377\376\nhalf'"])
    assert run.run().code == 0
    assert run.lines == [b"\xff\xfe", b"half"]


def test_an_agent_that_never_reads_a_megabyte_of_prompt_ends_normally(make, tmp_path):
    prompt = tmp_path / "prompt"
    prompt.write_bytes(b"x" * (1 << 20))
    assert make(["/bin/sh", "-c", "exit 0"], stdin_path=prompt).run().code == 0


def test_a_slow_reader_does_not_block_the_agent(make, tmp_path):
    run = make(agent("print(('x' * 99 + '\\n') * 50000)\nopen('finished', 'w')"))
    gate = threading.Event()
    run.on_lines = lambda lines: (gate.wait(20), run.lines.extend(lines))
    run.start()
    assert until((tmp_path / "finished").exists)
    gate.set()
    assert run.wait().code == 0
    assert len(run.lines) == 50001


def test_a_callback_that_raises_ends_the_run_and_is_named(make, caplog):
    run = make(agent("import time\n" + READY + FOREVER))

    def broken(lines):
        raise ValueError("no such table")

    run.on_lines = broken
    verdict = run.run()
    assert verdict.ended_by == "stop"
    assert verdict.error == "ValueError: no such table"


# -- limits


def test_an_attempt_has_a_length_and_half_of_it_is_a_warning(make):
    text = "import time\nwhile True:\n    print('talk', flush=True); time.sleep(0.01)\n"
    run = make(agent(text), limits={"wall": 0.8})
    begun = time.monotonic()
    verdict = run.run()
    assert verdict.ended_by == "wall"
    assert 0.8 <= time.monotonic() - begun < 2
    assert len(run.warnings) == 1


def test_silence_ends_an_agent_that_does_nothing(make):
    run = make(agent("import time\n" + READY + FOREVER), limits={"idle": 0.8})
    verdict = run.run()
    assert verdict.ended_by == "idle"
    assert 0.8 <= verdict.seconds < 3
    assert len(run.warnings) == 1


def test_a_silent_tree_that_computes_is_left_alone(make):
    inner = "import time; end = time.monotonic() + 2.5\nwhile time.monotonic() < end: pass"
    text = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {inner!r}])"
    verdict = make(agent(text), limits={"idle": 0.6}).run()
    assert (verdict.code, verdict.ended_by) == (0, "itself")


def test_after_the_result_an_agent_has_only_so_long(make):
    run = make(agent("import time\n" + READY + FOREVER), limits={"after_result": 0.4})
    run.on_lines = lambda lines: run.supervised.saw_result()
    verdict = run.run()
    assert verdict.ended_by == "after_result"
    assert verdict.seconds < 3


def looked(limits: Limits, cpu=lambda: 0.0) -> tuple[Deadlines, list[str]]:
    warnings: list[str] = []
    deadlines = Deadlines(limits, cpu, warnings.append)
    deadlines.start(100.0)
    return deadlines, warnings


def test_silence_after_output_counts_from_the_output():
    deadlines, warnings = looked(Limits(None, 80.0, None, 1.0))
    deadlines.output(150.0)
    assert deadlines.due() == 155.0
    assert deadlines.check(155.0) is None
    assert deadlines.due() == 190.0
    assert deadlines.check(190.0) is None
    assert warnings == ["silent for 40 s; its limit is 80 s"]
    assert deadlines.due() == 230.0
    assert deadlines.check(229.9) is None
    assert deadlines.check(230.0) == "idle"


def test_five_percent_of_a_core_is_not_silence():
    spent = iter([0.0, 35 * 0.05, 100.0, 100.0 + 35 * 0.04, 100.0 + 75 * 0.049])
    deadlines, warnings = looked(Limits(None, 80.0, None, 1.0), lambda: next(spent))
    for now in (105.0, 140.0, 145.0, 180.0):
        assert deadlines.check(now) is None
    assert len(warnings) == 1
    assert deadlines.check(220.0) == "idle"


def test_without_limits_the_watcher_never_wakes_by_itself():
    deadlines, _ = looked(Limits(None, None, None, 1.0))
    assert deadlines.due() is None
    assert deadlines.check(1e9) is None


def test_a_watcher_that_slept_does_not_take_its_sleep_for_silence(make, monkeypatch):
    run = make(agent("import time\n" + READY + FOREVER), limits={"wall": None, "idle": 1.0})
    monkeypatch.setattr("sprintrunner.process.supervised.ASLEEP", 0.3)
    real, jumps = time.monotonic, [0.0]
    clock = SimpleNamespace(monotonic=lambda: real() + jumps[0], time=time.time)
    monkeypatch.setattr("sprintrunner.process.supervised.time", clock)
    run.start()
    run.said(b"ready")
    assert until(lambda: run.supervised._deadlines._baseline)
    jumps[0] = 500.0
    jumped = real()
    assert run.wait().ended_by == "idle"
    assert real() - jumped >= 0.9


# -- deaths


SERVER = """
import os, sys, time
sys.path[:0] = [{root!r}, {root!r} + "/tests"]
from pathlib import Path
from supervision import Run
run = Run(Path({folder!r}), {argv!r}, run_id={run_id!r}, limits={{"grace": 0.5}})
identity = run.supervised.spawn()
print("spawned", identity.pid, flush=True)
if {go}:
    run.supervised.go()
time.sleep(600)
"""


def serve(folder: Path, argv: list[str], run_id: str, go: bool = True) -> subprocess.Popen:
    root = str(Path(__file__).parent.parent)
    text = SERVER.format(root=root, folder=str(folder), argv=argv, run_id=run_id, go=go)
    server = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE)
    assert server.stdout.readline().startswith(b"spawned")
    return server


def kill(server: subprocess.Popen) -> float:
    server.kill()
    server.wait()
    server.stdout.close()
    return time.monotonic()


HOSTILE = (
    DAEMON
    + "daemon(lambda: time.sleep(600))\n"
    + "import subprocess\nsubprocess.Popen(['env', '-i', 'setsid', 'sleep', '600'])\n"
    + IGNORE_TERM
    + "open('alive', 'w').write('x')\n"
    + FOREVER
)


def test_nothing_survives_a_kill_of_the_server(tmp_path):
    server = serve(tmp_path, agent(HOSTILE), "lifeline-run")
    assert until((tmp_path / "alive").exists)
    assert until(lambda: len(find_marked("lifeline-run")) >= 3)
    family = shim.descendants(server.pid)
    assert len(family) >= 4
    died = kill(server)
    assert until(lambda: not any(map(exists, family)), 1.5)
    assert time.monotonic() - died < 1.5
    assert find_marked("lifeline-run") == []
    verdict = read_exit(tmp_path / "exit.lifeline-run")
    assert (verdict.ended_by, verdict.signal, verdict.survivors) == ("lifeline", 9, 0)


def test_a_status_given_after_the_death_of_the_server_is_kept_for_adoption(tmp_path):
    text = (
        "import signal, sys, time\nsignal.signal(15, lambda *_: sys.exit(0))\nopen('alive', 'w')\n" + FOREVER
    )
    server = serve(tmp_path, agent(text), "adopted-run")
    assert until((tmp_path / "alive").exists)
    kill(server)
    assert until(lambda: read_exit(tmp_path / "exit.adopted-run"))
    verdict = read_exit(tmp_path / "exit.adopted-run")
    assert (verdict.code, verdict.signal, verdict.ended_by) == (0, None, "lifeline")


def test_a_server_killed_before_its_go_byte_never_starts_the_agent(tmp_path):
    server = serve(tmp_path, ["/bin/sh", "-c", "touch ran"], "held-run", go=False)
    assert until(lambda: find_marked("held-run"))
    kill(server)
    assert until(lambda: not find_marked("held-run"))
    assert not (tmp_path / "ran").exists()


def test_a_killed_shim_is_noticed_and_its_tree_ended(make):
    text = "import subprocess\nsubprocess.Popen(['setsid', 'sleep', '600'])\n" + IGNORE_TERM + READY + FOREVER
    run = make(agent(text), limits={"grace": 0.5})
    identity = run.start()
    run.said(b"ready")
    family = shim.descendants(identity.pid)
    assert len(family) == 2
    begun = time.monotonic()
    os.kill(identity.pid, signal.SIGKILL)
    verdict = run.wait()
    assert time.monotonic() - begun < 2.5
    assert (verdict.ended_by, verdict.code, verdict.signal) == ("shim_lost", None, None)
    assert verdict.survivors == 0
    assert not any(map(exists, family))
    assert run.lines == [b"ready"]


def test_a_killed_shim_takes_a_child_without_marker_along(make):
    text = "import subprocess, time\nsubprocess.Popen(['env', '-i', 'sleep', '600'])\n" + READY + FOREVER
    run = make(agent(text), limits={"grace": 0.3})
    identity = run.start()
    run.said(b"ready")
    family = shim.descendants(identity.pid)
    os.kill(identity.pid, signal.SIGKILL)
    assert run.wait().survivors == 0
    assert not any(map(exists, family))


def test_a_killed_shim_takes_a_daemon_along_that_holds_nothing_but_the_lock(make, tmp_path):
    inner = "import os,signal,time; signal.signal(15,1); print(os.getpid(), flush=True); time.sleep(600)"
    text = "import os, sys, time\n" + DAEMON
    text += f"args = ['env', '-i', sys.executable, '-I', '-S', '-c', {inner!r}]\n"
    text += "daemon(lambda: os.execvp('env', args))\n" + FOREVER
    lock = (tmp_path / "lock").open("w")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        other = make(agent("import time\n" + READY + FOREVER), lock_fd=lock.fileno())
        other.start()
        other.said(b"ready")
        run = make(agent(text), lock_fd=lock.fileno(), limits={"grace": 0.3})
        identity = run.start()
        assert until(lambda: run.lines)
        os.kill(identity.pid, signal.SIGKILL)
        verdict = run.wait()
        assert (verdict.ended_by, verdict.survivors) == ("shim_lost", 0)
        assert not exists(int(run.lines[0]))
        assert not other.exits


def test_who_merely_opened_the_lock_file_is_no_holder(tmp_path):
    path = tmp_path / "lock"
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with path.open() as opened, subprocess.Popen(["sleep", "600"], stdin=opened) as bystander:
            try:
                assert find_holders(path) == []
            finally:
                bystander.kill()


def test_a_shim_that_hangs_is_ended_by_the_watcher(make, monkeypatch):
    monkeypatch.setattr("sprintrunner.process.identity.SHIM_MARGIN", 0.3)
    run = make(agent("import time\n" + READY + FOREVER), limits={"grace": 0.2})
    identity = run.start()
    run.said(b"ready")
    os.kill(identity.pid, signal.SIGSTOP)
    run.supervised.stop()
    verdict = run.wait(5)
    assert (verdict.ended_by, verdict.survivors) == ("stop", 0)


def test_a_shim_killed_before_go_means_not_started(make):
    run = make(["/bin/true"])
    identity = run.supervised.spawn()
    os.kill(identity.pid, signal.SIGKILL)
    assert run.wait().ended_by == "not_started"
    run.supervised.go()
    run.supervised.stop()


def test_the_lock_is_held_until_the_last_descendant_is_gone_and_its_holders_can_be_ended(tmp_path):
    lock = tmp_path / "agent.lock"
    holder = lock.open("w")
    fcntl.flock(holder, fcntl.LOCK_EX)
    run = Run(
        tmp_path, agent("import time\n" + READY + FOREVER), lock_fd=holder.fileno(), limits={"grace": 0.3}
    )
    identity = run.start()
    run.said(b"ready")
    assert set(find_holders(lock)) == {identity.pid, *shim.descendants(identity.pid)}
    holder.close()
    with lock.open() as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.kill(identity.pid, signal.SIGSTOP)
    assert end_holders(lock, 0.3) == 0
    assert run.wait().survivors == 0
    with lock.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


# -- identity


def test_this_process_is_alive_and_an_impostor_is_not():
    ticks = start_ticks(os.getpid())
    assert is_alive(Identity(os.getpid(), ticks, boot_id(), "x"))
    assert not is_alive(Identity(os.getpid(), ticks + 1, boot_id(), "x"))
    assert not is_alive(Identity(os.getpid(), ticks, "another boot", "x"))
    assert start_ticks(2**22 + 1) is None


def test_a_foreign_process_with_a_used_pid_is_not_killed():
    with subprocess.Popen(["sleep", "600"]) as stranger:
        try:
            ticks = start_ticks(stranger.pid)
            assert end_tree(Identity(stranger.pid, ticks - 5, boot_id(), "no-such-run"), 0.1) == 0
            assert end_tree(Identity(stranger.pid, ticks, "another boot", "no-such-run"), 0.1) == 0
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_the_tree_of_a_former_life_is_ended_through_its_shim(make):
    run = make(agent(HOSTILE), limits={"grace": 0.3})
    identity = run.start()
    assert until((run.folder / "alive").exists)
    family = shim.descendants(identity.pid)
    assert end_tree(identity, 0.3) == 0
    assert not any(map(exists, family))
    assert run.wait().ended_by == "stop"


def test_marked_strangers_are_ended_without_a_shim():
    env = {**os.environ, "SPRINTRUNNER_RUN_ID": "stray"}
    with subprocess.Popen(["/bin/sh", "-c", "trap '' TERM; while :; do sleep 1; done"], env=env) as stray:
        threading.Thread(target=stray.wait).start()
        assert until(lambda: find_marked("stray"))
        assert find_marked("stra") == []
        assert end_marked("stray", 0.1) == 0


def test_half_a_verdict_is_no_verdict(tmp_path):
    path = tmp_path / "exit"
    assert read_exit(path) is None
    for text in ("", '{"code": 0', "[]", "{}", '{"code": 0, "err_path": 3}'):
        path.write_text(text)
        assert read_exit(path) is None


# -- many at once


def test_runs_started_from_many_threads_all_end_and_leave_no_descriptor(tmp_path):
    def one() -> None:
        run = Run(tmp_path, ["/bin/sh", "-c", "echo hello"])
        results.append((run.run(), run.lines))

    results: list[tuple[Exit, list[bytes]]] = []
    before = len(os.listdir("/proc/self/fd"))
    threads = [threading.Thread(target=one) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [(verdict.code, lines) for verdict, lines in results] == [(0, [b"hello"])] * 16
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_run_works_beyond_the_descriptors_that_select_can_take(make):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1300:
        pytest.skip("the machine allows too few descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1300), hard))
    taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        run = make(["/bin/sh", "-c", "echo hello"])
        assert run.run().code == 0
        assert run.lines == [b"hello"]
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_wish_to_end_a_former_run_reaches_a_shim_that_hangs(make, monkeypatch):
    monkeypatch.setattr("sprintrunner.process.identity.SHIM_MARGIN", 0.2)
    run = make(agent(IGNORE_TERM + READY + FOREVER), limits={"grace": 5.0})
    identity = run.start()
    run.said(b"ready")
    begun = time.monotonic()
    assert end_tree(identity, 0.2) == 0
    assert time.monotonic() - begun < 3
    assert run.left() == []
    assert run.wait().survivors == 0


def test_an_idle_run_does_not_wake_anybody(make):
    run = make(agent("import time\n" + READY + FOREVER), limits={"wall": 7200.0, "idle": 900.0})
    identity = run.start()
    run.said(b"ready")

    def switches() -> int:
        shown = Path(f"/proc/{identity.pid}/status").read_text()
        return int(shown.partition("\nvoluntary_ctxt_switches:")[2].split()[0])

    assert until(lambda: sleeps(identity.pid))
    before = switches()
    assert not until(lambda: switches() > before, 0.5)
    assert run.supervised._patience() > 1


def sleeps(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"S"


# -- lines


def test_lines_are_the_same_however_the_chunks_fall():
    text = b"".join(b"%d\n" % n * (n % 3 + 1) for n in range(300)) + b"\n\nend"
    expected = text.split(b"\n")
    for size in (1, 2, 3, 7, 64, 5000):
        lines, got = Lines(), []
        for start in range(0, len(text), size):
            got += lines.feed(text[start : start + size])
        assert got + lines.rest() == expected


def test_a_line_of_exactly_the_limit_is_whole_and_one_byte_more_is_cut():
    lines = Lines(longest=10, kept=4)
    assert lines.feed(b"0123456789\n0123456789x\nnext\n") == [
        b"0123456789",
        b"0123 [sprintrunner: line of 11 bytes cut]",
        b"next",
    ]


def test_the_verdict_is_plain_json(make):
    run = make(['/no/such "pro\\gram"\n\x01é'])
    verdict = run.run()
    assert json.loads(run.exit_path.read_text())["error"] == verdict.error
    assert verdict.error.startswith('/no/such "pro\\gram"\n\x01é')


def test_the_interface_is_what_the_others_expect():
    assert {"spawn", "go", "stop", "saw_result", "abandon"} <= set(dir(Supervised))
