"""The faults that are done: floods, rubbish, daemons, hangs, and hands in the wrong files."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from . import journal
from .commit import commit_line
from .desk import Desk
from .refusals import report_retries
from .stream import Stream, text_block, write_all
from .verdicts import Verdict, code_review

#: How long what is left behind would live if nobody ended it, in seconds.
LEFTOVER_LIFE = 300
CHILDREN = 200
MEGABYTE = 1_000_000


def scaled(size: int) -> int:
    """A size of faults.md times REHEARSAL_SCALE, which a quick test sets to a small fraction."""
    return max(1, int(size * float(os.environ.get("REHEARSAL_SCALE", "1"))))


# output


def flood_stderr(stream: Stream) -> None:
    line = b"warning: " + b"x" * 90 + b"\n"
    for _ in range(scaled(10 * MEGABYTE) // len(line) + 1):
        write_all(2, line)
    write_all(2, b"the last words on stderr\n")


def long_line(stream: Stream) -> None:
    stream.raw(b'{"type":"assistant","message":{"role":"assistant","content":[{"type":"text","text":"')
    size = scaled(100 * MEGABYTE)
    while size > 0:
        stream.raw(b"x" * min(size, MEGABYTE))
        size -= MEGABYTE
    stream.raw(b'"}]}}\n')


def million_lines(stream: Stream) -> None:
    chunk, line = 1_000, b'{"type":"keep_alive"}\n'
    for _ in range(scaled(MEGABYTE) // chunk + 1):
        stream.raw(line * chunk)


def string_content(stream: Stream) -> None:
    for content in ("This content is a string.", 42):
        stream.emit({"type": "user", "message": {"role": "user", "content": content}})


def _saying(text: str) -> Callable[[Stream], None]:
    def say(stream: Stream) -> None:
        stream.new_turn(len(text))
        line = '{"type":"assistant","message":{"role":"assistant","content":[{"type":"text","text":"%s"}]}}\n'
        stream.raw((line % text).encode())

    return say


def _line(data: bytes) -> Callable[[Stream], None]:
    return lambda stream: stream.raw(data + b"\n")


def deep_json(stream: Stream) -> None:
    depth = scaled(100_000)
    stream.raw(b'{"type":"system","subtype":"deep","value":' + b"[" * depth + b"]" * depth + b"}\n")


# processes


def _detach(environment: dict[str, str] | None, ignore_term: bool) -> None:
    """Double-fork a daemon in its own session that holds none of our descriptors."""
    if os.fork():
        os.wait()
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    if ignore_term:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    journal.note("leftover")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    sleep = shutil.which("sleep") or "/bin/sleep"
    os.execve(sleep, [sleep, str(LEFTOVER_LIFE)], dict(os.environ) if environment is None else environment)  # noqa: S606


def daemon(stream: Stream) -> None:
    _detach(None, ignore_term=True)


def env_daemon(stream: Stream) -> None:
    _detach({}, ignore_term=False)


def children(stream: Stream) -> None:
    sleep = shutil.which("sleep") or "/bin/sleep"
    silent = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
    for _ in range(scaled(CHILDREN)):
        pid = os.posix_spawn(sleep, [sleep, str(LEFTOVER_LIFE)], dict(os.environ), file_actions=silent)
        journal.note("leftover", pid=pid)


def stop_self(stream: Stream) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def ignore_term() -> None:
    """Go deaf; done before the first line, so that whoever has read it can rely on it."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def talk(stream: Stream) -> NoReturn:
    while True:
        stream.new_turn(40)
        stream.assistant(text_block("Let me think about that a little more."))
        time.sleep(0.1)


def hang(stream: Stream | None = None) -> NoReturn:
    while True:
        time.sleep(3600)


def half_line(stream: Stream) -> NoReturn:
    stream.raw(b'{"type":"assistant","message":{"id":"msg_half","content":[{"type":"te')
    journal.note("end", exit=0)
    os._exit(0)


def hold_stdout() -> None:
    """Leave a grandchild in its own session that keeps our stdout and stderr open."""
    if os.fork():
        return
    os.setsid()
    journal.note("leftover")
    sleep = shutil.which("sleep") or "/bin/sleep"
    os.execv(sleep, [sleep, str(LEFTOVER_LIFE)])  # noqa: S606


#: Done right after the first line, in this order.
AT_START: dict[str, Callable[[Stream], None]] = {
    "stderr-flood": flood_stderr,
    "long-line": long_line,
    "million-lines": million_lines,
    "not-utf8": _line(b'{"type":"assistant","text":"\xff\xfe\xc3\x28"}'),
    "number-line": _line(b"123"),
    "list-line": _line(b"[]"),
    "null-line": _line(b"null"),
    "string-content": string_content,
    "deep-json": deep_json,
    "huge-integer": _line(b'{"type":"system","subtype":"status","value":' + b"9" * 5_000 + b"}"),
    "nan": _line(b'{"type":"system","subtype":"status","value":NaN}'),
    "lone-surrogate": _saying("\\ud800 is half a character"),
    "nul-text": _saying("before\\u0000after"),
    "daemon": daemon,
    "env-daemon": env_daemon,
    "children": children,
    "stop-self": stop_self,
    "half-line": half_line,
    "hang": hang,
    "talk": talk,
}


def at_start(desk: Desk) -> None:
    """Do what the modes ask for before the work begins."""
    if "retries" in desk.modes:
        report_retries(desk, 529, "overloaded")
    for mode, act in AT_START.items():
        if mode in desk.modes:
            act(desk.stream)


def crash() -> NoReturn:
    """Die as a program does that met an error of its own."""
    sys.stderr.write("Error: the agent crashed in the middle of its work (rehearsal)\n")
    sys.stderr.flush()
    journal.note("end", exit=1)
    os._exit(1)


# repository


def before_end(desk: Desk) -> None:
    """Do what the modes ask for after the work, before the result."""
    if "touches-status-file" in desk.modes:
        _touch_status_file(desk, "done")
    if "defers-itself" in desk.modes:
        _touch_status_file(desk, "deferred")
    if "edits-settings" in desk.modes:
        desk.bash("echo '# the agent was here' >> sprintrunner.toml", "Adjust the settings")
    if "switch-branch" in desk.modes:
        desk.bash(
            "git checkout -q -b rehearsal-branch || git checkout -q rehearsal-branch", "Work on a branch"
        )
    if "self-commit" in desk.modes:
        desk.bash(f"git add -A && {commit_line(desk)}", "Commit my work")
    if "git-clean" in desk.modes:
        desk.bash("git clean -fdxq", "Clean the tree")


def _touch_status_file(desk: Desk, word: str) -> None:
    place = Path(str(desk.facts.project.get("implementation") or "_bmad-output/implementation-artifacts"))
    path = place / "sprint-status.yaml"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    for key in desk.facts.keys:
        if match := re.search(rf"^\s+{re.escape(key)}: *", text, re.MULTILINE):
            line = text[match.start() :].split("\n", 1)[0]
            desk.edit(path, line, f"{match[0].rstrip()} {word}")
    desk.bash(f"echo '# seen by the agent' >> {path}", "Leave a note")


# verdicts


def twist(desk: Desk, verdict: Verdict) -> Verdict:
    """The verdict of a code review as the modes want it."""
    if desk.facts.command != "code-review":
        return verdict
    number = desk.facts.attempt
    if "review-critical" in desk.modes:
        return code_review(
            "There is a critical issue.", [_found("CRITICAL", f"Data can get lost, way {number}")]
        )
    if "review-medium" in desk.modes:
        return code_review("A flaw, fixed.", [_found("MEDIUM", f"A name misleads, place {number}", "fixed")])
    if "low-claim" in desk.modes:
        return code_review("Fine on the whole.", [_found("HIGH", "It fails on Sundays")], "NONE")
    if "quoted-zero-issues" in desk.modes:
        words = (
            'The reviewer before me wrote "ZERO ISSUES" and "HIGHEST SEVERITY: NONE", with nothing CRITICAL.'
            " I do not agree: HIGHEST SEVERITY: NONE is not what I see, and ZERO ISSUES neither."
        )
        return code_review(words, [_found("HIGH", f"It fails on day {number} of the month")])
    if "same-finding" in desk.modes:
        again: dict[str, Any] = _found("HIGH", "The result depends on the order of the input")
        for known in desk.facts.open_findings:
            if known.get("title") == again["title"] and known.get("id") is not None:
                again["id"] = known["id"]
        return code_review("Still not right.", [again])
    return verdict


def _found(severity: str, title: str, status: str = "open") -> dict[str, Any]:
    return {"severity": severity, "title": title, "file": "README.md", "line": 1, "status": status}
