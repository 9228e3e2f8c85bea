"""The agent's hands: Read, Write, Edit and Bash, each announced, really done, and answered in the stream."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT, Popen, TimeoutExpired
from typing import Any, NamedTuple

from .facts import Facts
from .options import Options
from .stream import Stream, text_block, tool_ids, tool_use

BASH_TIMEOUT = 120.0  # seconds, the real CLI's default
BASH_OUTPUT = 30_000  # characters, the real CLI's limit
#: What ends the agent from outside.
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

#: Seconds a command takes at speed 1, and the steps over which they are spread.
PACES = {
    "generate-project-context": (1.6, 5),
    "create-story": (2.2, 5),
    "create-story-discovery": (2.4, 7),
    "story-review": (1.4, 4),
    "create-tech-spec": (1.9, 4),
    "tech-spec-review": (1.2, 4),
    "dev-story": (2.9, 12),
    "code-review": (2.0, 9),
    "commit": (1.2, 5),
}
#: A report of a task that takes longer than this is the last one, in seconds.
SLOW_REPORT = 1.5


class Denied(Exception):
    """A tool call was not permitted."""


class OverLimit(Exception):
    """--max-budget-usd or --max-turns was reached; the argument is the subtype of the result."""


class Ran(NamedTuple):
    """What a Bash call gave."""

    code: int
    output: str


class Pace:
    """Spreads a command's time over its steps by deadlines, so that real work is not added on top."""

    def __init__(self, command: str, speed: float) -> None:
        seconds, self.steps = PACES.get(command, (1.0, 5))
        self.seconds = seconds * speed
        self.started = time.monotonic()
        self.step = 0

    def wait(self) -> None:
        self.step += 1
        due = self.started + self.seconds * min(1.0, self.step / self.steps)
        if self.seconds and (pause := due - time.monotonic()) > 0:
            time.sleep(pause)


class Desk:
    """One run at work. Paths are relative to the working directory, the project's root."""

    def __init__(self, stream: Stream, options: Options, facts: Facts, modes: frozenset[str], speed: float):
        self.stream = stream
        self.options = options
        self.facts = facts
        self.modes = modes
        self.pace = Pace(facts.command, speed)
        self.running: Popen[str] | None = None
        self._task = ""
        # A report starts a Python of its own; an instant run leaves them out unless asked.
        wanted = os.environ.get("REHEARSAL_TASKS", "all" if speed else "none")
        self._reports = wanted == "all" and bool(facts.stories)

    # speaking

    def _turn(self, written: int, paced: bool = True) -> None:
        if paced:
            self.pace.wait()
        budget = self.options.get("--max-budget-usd")
        if budget and self.stream.meter.total_cost() > float(budget):
            raise OverLimit("error_max_budget_usd")
        turns = self.options.get("--max-turns")
        if turns and self.stream.turns >= int(turns):
            raise OverLimit("error_max_turns")
        self.stream.new_turn(written)

    def say(self, text: str) -> None:
        self._turn(len(text))
        self.stream.assistant(text_block(text))

    # tools

    def _call(self, name: str, arguments: Mapping[str, Any], paced: bool = True) -> str:
        """Announce a tool call and return its id; raise Denied when the permission mode forbids it."""
        self._turn(len(json.dumps(arguments)), paced)
        tool_id = tool_ids(1)[0]
        self.stream.assistant(tool_use(tool_id, name, arguments))
        if not self._permitted(name):
            self._deny(tool_id, name, arguments)
        return tool_id

    def _permitted(self, name: str) -> bool:
        if name == "Read":
            return True
        if "permission-denied" in self.modes:
            return False
        if name in self.options.lists.get("--disallowedTools", ()):
            return False
        allowed = {rule.partition("(")[0] for rule in self.options.lists.get("--allowedTools", ())}
        mode = self.options.permission_mode
        edits = mode == "acceptEdits" and name in ("Write", "Edit")
        return mode in ("bypassPermissions", "auto") or edits or name in allowed

    def _deny(self, tool_id: str, name: str, arguments: Mapping[str, Any]) -> None:
        what = arguments.get("file_path") or arguments.get("command", "")
        words = f"Claude requested permissions to use {name} on {what}, but you haven't granted it yet."
        self.stream.denials.append({"tool_name": name, "tool_use_id": tool_id, "tool_input": dict(arguments)})
        self.stream.system("permission_denied", tool_name=name, tool_use_id=tool_id, message=words)
        self.stream.tool_result(tool_id, words, f"Error: {words}", is_error=True)
        raise Denied(words)

    def read(self, path: Path) -> str:
        """The text of a file, "" (and an error in the stream) when it cannot be read."""
        full = path.absolute()
        tool_id = self._call("Read", {"file_path": str(full)})
        try:
            text = full.read_text(encoding="utf-8", errors="replace")
        except OSError:
            self._failed(tool_id, "File does not exist.")
            return ""
        lines = text.split("\n")
        shown = "\n".join(f"{number}\t{line}" for number, line in enumerate(lines, 1))
        kept = {"filePath": str(full), "content": text, "numLines": len(lines), "startLine": 1}
        detail = {"type": "text", "file": {**kept, "totalLines": len(lines)}}
        self.stream.tool_result(tool_id, shown, detail, is_error=None)
        return text

    def write(self, path: Path, text: str) -> None:
        full = path.absolute()
        tool_id = self._call("Write", {"file_path": str(full), "content": text})
        existed = full.exists()
        try:
            full.parent.mkdir(parents=True, exist_ok=True)
            full.write_text(text, encoding="utf-8", newline="")
        except OSError as error:
            self._failed(tool_id, f"{error.strerror}: {full}")
            return
        words = "updated" if existed else "created"
        detail = {"type": words.removesuffix("d"), "filePath": str(full), "content": text}
        self.stream.tool_result(tool_id, f"File {words} successfully at: {full}", detail, is_error=None)

    def edit(self, path: Path, old: str, new: str) -> bool:
        """Replace the first ``old`` by ``new``; False (and an error in the stream) when it is not there."""
        full = path.absolute()
        tool_id = self._call("Edit", {"file_path": str(full), "old_string": old, "new_string": new})
        try:
            text = full.read_bytes().decode("utf-8", errors="surrogateescape")
        except OSError:
            return self._failed(tool_id, "File does not exist.")
        if old not in text:
            return self._failed(tool_id, f"String to replace not found in file.\nString: {old}")
        full.write_bytes(text.replace(old, new, 1).encode("utf-8", errors="surrogateescape"))
        detail = {"filePath": str(full), "oldString": old, "newString": new, "replaceAll": False}
        self.stream.tool_result(tool_id, f"The file {full} has been updated.", detail, is_error=None)
        return True

    def _failed(self, tool_id: str, words: str) -> bool:
        self.stream.tool_result(tool_id, words, f"Error: {words}", is_error=True)
        return False

    def bash(self, command: str, description: str, *, paced: bool = True) -> Ran:
        """Run a command in a session of its own, as the real CLI does, and return its real outcome."""
        tool_id = self._call("Bash", {"command": command, "description": description}, paced)
        ran = self._run(command)
        if ran.code:
            words = f"Exit code {ran.code}\n{ran.output}".rstrip()
            self.stream.tool_result(tool_id, words, f"Error: {words}", is_error=True)
        else:
            detail = {"stdout": ran.output, "stderr": "", "interrupted": False, "isImage": False}
            self.stream.tool_result(tool_id, ran.output, detail, is_error=False)
        return ran

    def _run(self, command: str) -> Ran:
        self.running = self._started(["/bin/sh", "-c", command])
        try:
            output, _ = self.running.communicate(timeout=BASH_TIMEOUT)
            code = self.running.returncode
        except TimeoutExpired:
            self.kill_running()
            output, code = f"Command timed out after {BASH_TIMEOUT:.0f}s", 143
        self.running = None
        return Ran(code, output.rstrip("\n")[:BASH_OUTPUT])

    def _started(self, argv: list[str]) -> Popen[str]:
        """The started command. What may end us waits until it is known, or it would live on unseen."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDINGS)
        try:
            self.running = Popen(
                argv,
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=STDOUT,
                start_new_session=True,
                encoding="utf-8",
                errors="replace",
                # A child would inherit the mask; this program has one thread.
                preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, before),
            )
            return self.running
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def kill_running(self) -> None:
        """End the Bash call that runs, with all of its own process group."""
        if self.running is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.running.pid, signal.SIGKILL)

    def run_tests(self) -> Ran:
        """Run the project's own check."""
        commands = self.facts.verify or ("python3 -m unittest",)
        return self.bash(" && ".join(commands), "Run the tests")

    # named tasks

    def task(self, name: str, message: str) -> None:
        """End the task before and start the next one, both in one Bash call."""
        reports = [self._report(self._task, "end", "")] if self._task else []
        self._task = name
        if name:
            reports.append(self._report(name, "start", message))
        # Asked each time: what cannot be reported once will not be reported later either.
        if self._reports and shutil.which("sprintrunner"):
            began = time.monotonic()
            # Reports take time of their own, so they are no step of the pace: its deadlines absorb them.
            ran = self.bash("; ".join(reports), f"Report the task {name or 'that ended'}", paced=False)
            self._reports = ran.code == 0 and time.monotonic() - began < SLOW_REPORT

    def _report(self, name: str, status: str, message: str) -> str:
        facts = self.facts
        fields = {
            "epic_id": facts.stories[0].epic if facts.stories else "",
            "story_id": ",".join(facts.keys),
            "command": facts.command,
            "task_id": name,
            "status": status,
            "message": message[:150],
            "attempt": facts.attempt,
        }
        return f"sprintrunner log {shlex.quote(json.dumps(fields))}"
