"""The shim by itself, driven over its two pipes as the server does it."""

from __future__ import annotations

import fcntl
import json
import marshal
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from supervision import PYTHON, exists, until

from sprintrunner import shim
from sprintrunner.process import read_exit

COMMAND = [sys.executable, "-I", "-S", shim.__file__]


class Driven:
    """One shim with the server's ends of its pipes."""

    def __init__(self, folder: Path, argv: list[str], **told) -> None:
        reader, self.lifeline = os.pipe()
        self.wake, writer = os.pipe()
        self.folder = folder
        self.told = {
            "argv": argv,
            "env": dict(os.environ),
            "run_id": f"shim-{os.getpid()}-{writer}",
            "stdin": None,
            "out_path": str(folder / "out"),
            "err_path": str(folder / "err"),
            "exit_path": str(folder / "exit"),
            "out_cap": 64 << 20,
            "err_cap": 4 << 20,
            "grace": 0.3,
            "lifeline": reader,
            "wake": writer,
            **told,
        }
        self.process = subprocess.Popen(
            COMMAND, stdin=subprocess.PIPE, pass_fds=(reader, writer), cwd=folder, start_new_session=True
        )
        os.close(reader)
        os.close(writer)

    def tell(self, orders: bytes = shim.GO) -> None:
        self.process.stdin.write(marshal.dumps(self.told))
        self.process.stdin.close()
        os.write(self.lifeline, orders)

    def hang_up(self) -> None:
        if self.lifeline:
            os.close(self.lifeline)
            self.lifeline = 0

    def said(self) -> bytes:
        """All that came over the wake pipe up to its end."""
        return b"".join(iter(lambda: os.read(self.wake, 65536), b""))

    def verdict(self) -> dict:
        found = json.loads(self.said().partition(shim.VERDICT)[2])
        assert self.process.wait(10) == 0
        return found

    def close(self) -> None:
        self.process.stdin.close()
        self.hang_up()
        if self.wake:
            os.close(self.wake)
        self.process.kill()
        self.process.wait()


@pytest.fixture
def drive(tmp_path):
    driven: list[Driven] = []

    def build(argv, **told) -> Driven:
        driven.append(Driven(tmp_path, argv, **told))
        return driven[-1]

    yield build
    for one in driven:
        one.close()


def written(folder: Path, name: str = "ready"):
    return (folder / name).exists


SLEEPER = [*PYTHON, "import time\nopen('ready', 'w')\ntime.sleep(600)"]


def test_it_loads_nothing_that_costs_time():
    load = f"import sys; exec(compile(open({shim.__file__!r}).read(), 'shim', 'exec'), {{'__name__': 'x'}})"
    modules = subprocess.run(
        [*PYTHON, load + "; print(*sys.modules)"], capture_output=True, text=True, check=True
    ).stdout.split()
    heavy = {"signal", "json", "enum", "re", "typing", "subprocess", "dataclasses", "pathlib", "ctypes"}
    assert not heavy & set(modules)


def test_orders_and_parameters_stand_in_no_argument_list(drive):
    one = drive([*SLEEPER, "secret prompt"])
    one.tell()
    assert until(written(one.folder))
    shown = Path(f"/proc/{one.process.pid}/cmdline").read_bytes()
    assert b"secret" not in shown
    assert b"secret" not in Path(f"/proc/{one.process.pid}/environ").read_bytes()


def test_the_end_of_the_lifeline_before_go_means_leave(drive):
    one = drive(["/bin/sh", "-c", "touch ready"])
    one.tell(b"")
    one.hang_up()
    assert one.verdict()["ended_by"] == "not_started"
    assert os.listdir(one.folder) == []


def test_half_the_parameters_mean_leave(drive):
    one = drive(["/bin/sh", "-c", "touch ready"])
    one.process.stdin.write(marshal.dumps(one.told)[:-40])
    one.process.stdin.close()
    os.write(one.lifeline, shim.GO)
    assert one.process.wait(10) != 0
    assert os.listdir(one.folder) == []


def test_sigterm_before_go_means_leave(drive):
    one = drive(SLEEPER)
    one.tell(b"")
    assert until(lambda: b"ctypes" in Path(f"/proc/{one.process.pid}/maps").read_bytes())
    assert until(lambda: signal.SIGTERM in caught(one.process.pid))
    one.process.terminate()
    assert one.verdict()["ended_by"] == "not_started"


def caught(pid: int) -> set[int]:
    shown = Path(f"/proc/{pid}/status").read_text().partition("SigCgt:\t")[2].split()[0]
    return {number for number in range(1, 65) if int(shown, 16) >> (number - 1) & 1}


def test_sigterm_ends_the_tree_and_interrupts_do_not(drive):
    one = drive(SLEEPER)
    one.tell()
    assert until(written(one.folder))
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        one.process.send_signal(number)
    children = shim.descendants(one.process.pid)
    assert len(children) == 1
    one.process.terminate()
    verdict = one.verdict()
    assert (verdict["ended_by"], verdict["signal"]) == ("stop", signal.SIGTERM)
    assert not exists(children[0])


def test_an_agent_that_ended_before_the_lifeline_did_ended_by_itself(drive):
    one = drive(["/bin/sh", "-c", "echo $$ > pid; exit 7"])
    one.tell(b"")
    assert until(lambda: signal.SIGCHLD in caught(one.process.pid))
    os.write(one.lifeline, shim.GO)
    assert until(lambda: (one.folder / "exit").exists())
    one.hang_up()
    verdict = one.verdict()
    assert (verdict["code"], verdict["ended_by"]) == (7, "itself")


def test_both_facts_at_once_count_as_the_end_of_the_agent(drive, tmp_path):
    os.mkfifo(tmp_path / "gate")
    text = "import os\nopen('ready', 'w')\nos.read(0, 1)\nos._exit(7)"
    one = drive([*PYTHON, text], stdin=str(tmp_path / "gate"))
    one.tell()
    gate = os.open(one.told["stdin"], os.O_WRONLY)
    assert until(written(one.folder))
    agent = shim.descendants(one.process.pid)[0]
    one.process.send_signal(signal.SIGSTOP)
    os.close(gate)
    assert until(lambda: not exists(agent))
    one.hang_up()
    one.process.send_signal(signal.SIGCONT)
    verdict = one.verdict()
    assert (verdict["code"], verdict["ended_by"]) == (7, "itself")


def test_a_full_wake_pipe_blocks_nobody(drive):
    one = drive([*PYTHON, "import os\nfor n in range(9000): os.write(1, b'%d\\n' % n)"])
    fcntl.fcntl(one.wake, fcntl.F_SETPIPE_SZ, 4096)
    one.tell()
    assert one.process.wait(20) == 0
    verdict = read_exit(one.folder / "exit")
    assert verdict.code == 0
    assert (one.folder / "out").read_bytes().endswith(b"\n8999\n")


def test_a_full_disk_neither_stops_the_agent_nor_hides_that_output_is_missing(drive):
    one = drive(["/bin/sh", "-c", "echo lost; touch finished"], out_path="/dev/full")
    one.tell()
    verdict = one.verdict()
    assert (one.folder / "finished").exists()
    assert (verdict["code"], verdict["truncated"]) == (0, True)


def test_a_verdict_that_the_disk_does_not_take_is_still_told(drive):
    one = drive(["/bin/sh", "-c", "exit 5"], exit_path="/no/such/folder/exit")
    one.tell()
    assert one.verdict()["code"] == 5


def test_a_link_in_place_of_the_transcript_is_not_followed(drive, tmp_path):
    target = tmp_path / "precious"
    target.write_text("keep me")
    (tmp_path / "out").symlink_to(target)
    one = drive(["/bin/echo", "overwritten"])
    one.tell()
    verdict = one.verdict()
    assert verdict["ended_by"] == "not_started"
    assert str(tmp_path / "out") in verdict["error"]
    assert target.read_text() == "keep me"


def test_each_process_gets_one_sigterm(drive):
    text = """
import os, signal, time
def count(*_):
    with open('terms', 'a') as file: file.write('x')
signal.signal(signal.SIGTERM, count)
open('ready', 'w')
while True: time.sleep(60)
"""
    one = drive([*PYTHON, text])
    one.tell()
    assert until(written(one.folder))
    os.write(one.lifeline, shim.STOP)
    os.write(one.lifeline, shim.STOP)
    assert one.verdict()["signal"] == signal.SIGKILL
    assert (one.folder / "terms").read_text() == "x"


def test_a_kill_at_any_moment_leaves_a_whole_verdict_or_none(drive):
    dice = random.Random(8)
    for _ in range(25):
        one = drive(["/bin/true"])
        one.tell()
        assert until(lambda one=one: (one.folder / "out").exists() or one.process.poll() is not None)
        time.sleep(dice.random() * 0.006)
        one.process.kill()
        one.process.wait()
        path = one.folder / "exit"
        if path.exists():
            assert read_exit(path) is not None
        for leftover in one.folder.iterdir():
            leftover.unlink()


# -- parts


@pytest.mark.parametrize("total", [0, 1, 99, 100, 101, 130, 199, 1000, 12345])
@pytest.mark.parametrize("step", [1, 7, 64, 5000])
def test_what_is_kept_is_the_head_and_the_tail_and_the_count_is_right(tmp_path, total, step):
    data = b"".join(b"%07d\n" % n for n in range(total // 8 + 1))[:total]
    keeper = shim.Keeper(str(tmp_path / "out"), 100, 40)
    for start in range(0, total, step):
        keeper.add(data[start : start + step])
    keeper.close()
    kept = (tmp_path / "out").read_bytes()
    if total <= 100:
        assert (kept, keeper.dropped) == (data, 0)
        return
    note = b"\n[sprintrunner: %d bytes of output left out here]\n" % keeper.dropped
    head, tail = kept.split(note)
    assert head == data[:60]
    assert data.endswith(tail)
    assert len(head) + len(tail) + keeper.dropped == total
    assert len(tail) > 24


@pytest.mark.parametrize(
    "value", [None, True, False, 0, -5, 1.25, "", 'a"b\\c', "\x00\n\x1f", "é😀", "\udcff", "x" * 5000]
)
def test_values_are_written_as_json(value):
    expected = value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
    assert json.loads(shim.quoted(value)) == expected


def test_a_process_name_with_parentheses_does_not_shift_the_fields():
    program = (
        "import sys, time; open('/proc/self/comm', 'w').write(') S 1 ('); print(flush=True); time.sleep(60)"
    )
    with subprocess.Popen([*PYTHON, program], stdout=subprocess.PIPE) as odd:
        try:
            odd.stdout.readline()
            assert b") S 1 (" in shim.read_proc(odd.pid, "stat")
            assert int(shim.stat_of(odd.pid)[1]) == os.getpid()
            assert odd.pid in shim.descendants(os.getpid())
        finally:
            odd.kill()


def test_parents_come_before_their_children():
    with subprocess.Popen(["/bin/sh", "-c", "sh -c 'sleep 60; :'; :"]) as top:
        try:
            assert until(lambda: len(shim.descendants(top.pid)) == 2)
            first, second = shim.descendants(top.pid)
            assert int(shim.stat_of(first)[1]) == top.pid
            assert int(shim.stat_of(second)[1]) == first
        finally:
            shim.send([*shim.descendants(top.pid), top.pid], signal.SIGKILL)


def test_a_process_that_is_gone_has_no_fields_and_gets_no_signal():
    assert shim.stat_of(2**22 + 1) == []
    shim.send([2**22 + 1], signal.SIGKILL)
