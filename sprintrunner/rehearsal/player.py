"""One run of the agent from its first line to its exit status."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from . import bmadskills, documents, faults, journal, mischief, options, planning, refusals, sessions
from .codereview import review
from .commit import commit
from .desk import Denied, Desk, OverLimit
from .develop import dev_story
from .facts import Facts, gather, raw_block
from .stream import Stream, identifier, tool_ids, tool_use
from .usage import Meter, model_id
from .verdicts import Verdict, fit, plain

SCRIPTS: dict[str, Callable[[Desk], Verdict]] = {
    "generate-project-context": planning.generate_context,
    "create-story": planning.create_story,
    "create-story-discovery": planning.discovery,
    "story-review": documents.story_review,
    "create-tech-spec": documents.create_tech_spec,
    "tech-spec-review": documents.tech_spec_review,
    "dev-story": dev_story,
    "code-review": review,
    "commit": commit,
}
NAG = (
    "[structured-output-enforce] You MUST call the StructuredOutput tool to complete this request."
    " Call this tool now."
)
PROMPT_LIMIT = 10_000_000  # bytes, the real CLI's


class Interrupted(BaseException):
    """SIGINT arrived."""


def play(argv: list[str]) -> int:
    """Run the command the prompt asks for; returns the exit status."""
    try:
        chosen = options.parse(argv)
        told = faults.parse(os.environ.get("REHEARSAL_FAULT", ""))
        if chosen.has("--version"):
            modes = {fault.mode for fault in told}
            print(options.OLD_VERSION if "old-version" in modes else options.VERSION)
            return 0
        if chosen.has("--help"):
            print(options.help_text(), end="")
            return 0
        options.check(chosen)
        return Run(chosen, told).run()
    except (options.Refusal, faults.UnknownMode) as refused:
        sys.stderr.write(f"{refused}\n")
        return 1


def _number(text: str) -> float:
    try:
        return max(0.0, float(text))
    except ValueError:
        raise options.Refusal(f"REHEARSAL_SPEED: {text!r} is not a number") from None


class Run:
    """What one run holds: its flags, its task, its session and its desk."""

    def __init__(self, chosen: options.Options, told: list[faults.Fault]) -> None:
        self.options = chosen
        self.told = told
        self.speed = _number(chosen.get("--speed") or os.environ.get("REHEARSAL_SPEED") or "1")
        self.desk: Desk | None = None
        self.resume = chosen.get("--resume")
        self.session_id = self.resume or chosen.get("--session-id") or identifier()
        self.schema = self._schema()

    def _schema(self) -> dict[str, Any] | None:
        text = self.options.get("--json-schema")
        if text is None:
            return None
        try:
            schema = json.loads(text)
        except ValueError:
            raise options.Refusal("Error: --json-schema is not valid JSON") from None
        if not isinstance(schema, dict):
            raise options.Refusal("Error: --json-schema is not a JSON schema")
        return schema

    def run(self) -> int:
        for number, status in ((signal.SIGTERM, 143), (signal.SIGHUP, 129)):
            signal.signal(number, lambda *_, status=status: self._die(status))
        signal.signal(signal.SIGINT, self._interrupt)
        early = gather({})
        early_modes = faults.active(self.told, early.command, early.attempt, early.keys)
        if early.command or "never-read-stdin" in early_modes:
            # The environment already tells which run this is: a test must see it even if nothing follows.
            journal.note_start(early.command, early.attempt, early.keys)
        if "never-read-stdin" in early_modes:
            mischief.hang()
        try:
            status = self._work(not early.command)
        except Interrupted:
            status = self._interrupted()
        journal.note("end", exit=status)
        return status

    def _die(self, status: int) -> NoReturn:
        """End on a signal as the real CLI does: its Bash call is killed, no result is written."""
        if self.desk is not None:
            self.desk.kill_running()
        journal.note("end", exit=status)
        os._exit(status)

    def _interrupt(self, *_: object) -> NoReturn:
        raise Interrupted

    def _interrupted(self) -> int:
        """SIGINT: a result that says so when a Bash call ran, none otherwise; exit status 0 in both cases."""
        if self.desk is not None and self.desk.running is not None:
            self.desk.kill_running()
            self.desk.stream.user_text("[Request interrupted by user for tool use]")
            self.desk.stream.result(
                subtype="error_during_execution",
                is_error=True,
                terminal_reason="aborted_tools",
                stop_reason="tool_use",
                errors=["[ede_diagnostic] result_type=user last_content_type=n/a stop_reason=tool_use"],
            )
        return 0

    # the beginning

    def _work(self, unannounced: bool) -> int:
        prompt, context = self._prompt(), self._context()
        record = sessions.load(self.session_id)
        if self.resume and record is None:
            return self._unknown_session()
        if record is not None and not self.resume:
            raise options.Refusal(f"Error: Session ID {self.session_id} is already in use.")
        record = record or {}
        raw = raw_block(prompt, context) or record.get("facts", {})
        facts = gather(raw)
        modes = faults.active(self.told, facts.command, facts.attempt, facts.keys)
        if unannounced:
            journal.note_start(facts.command, facts.attempt, facts.keys)
        journal.note("prompt", prompt_bytes=len(prompt.encode()), context_bytes=len(context.encode()))
        if "no-output" in modes:
            return 0
        known = model_id(self.options.get("--model"))
        model = known or str(self.options.get("--model"))
        meter = Meter(model, len(prompt) + len(context), record.get("models", {}))
        quiet = self.options.get("--output-format", "text") != "stream-json"
        stream = Stream(self.session_id, model, meter, quiet)
        self.desk = Desk(stream, self.options, facts, modes, self.speed)
        if "ignore-term" in modes:
            mischief.ignore_term()
        stream.init(self.options.permission_mode)
        sessions.save(self.session_id, {"facts": raw, "models": meter.models()})
        try:
            return self._perform(self.desk, refused=known is None)
        finally:
            sessions.save(self.session_id, {"facts": raw, "models": meter.models()})

    def _prompt(self) -> str:
        """The prompt: an argument, or stdin to its end."""
        if self.options.prompt is not None:
            return self.options.prompt
        data = b"" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.buffer.read()
        if not data.strip():
            raise options.Refusal(
                "Error: Input must be provided either through stdin or as a prompt argument"
                " when using --print"
            )
        if len(data) > PROMPT_LIMIT:
            raise options.Refusal("Error: the prompt on stdin is larger than 10MB")
        return data.decode("utf-8", errors="replace")

    def _context(self) -> str:
        text = self.options.get("--append-system-prompt", "") or ""
        path = self.options.get("--append-system-prompt-file")
        if path is None:
            return text
        try:
            return text + Path(path).read_text(encoding="utf-8", errors="replace")
        except OSError:
            raise options.Refusal(f"Error: Append system prompt file not found: {path}") from None

    def _unknown_session(self) -> int:
        words = f"No conversation found with session ID: {self.session_id}"
        stream = Stream(self.session_id, "", Meter("", 0, {}))
        stream.result(
            subtype="error_during_execution",
            is_error=True,
            errors=[words],
            stop_reason=None,
            terminal_reason=None,
        )
        sys.stderr.write(f"{words}\n")
        return 1

    # the work and its end

    def _perform(self, desk: Desk, refused: bool) -> int:
        if refused:
            sys.stderr.write(f"Model {desk.stream.model} is not known\n")
            return refusals.perform(desk, "model-not-found")
        mischief.at_start(desk)
        try:
            for mode in (*refusals.REFUSALS, *refusals.SPECIAL):
                if mode in desk.modes and not (mode == "usage-limit" and self.resume):
                    return refusals.perform(desk, mode)
            return self._finish(desk, self._script(desk))
        except Denied as denied:
            words = f"I could not go on because a permission was not granted. {denied}"
            desk.say(words)
            desk.stream.result(result=words)
            return 0
        except OverLimit as over:
            return refusals.over_limit(desk, str(over))

    def _script(self, desk: Desk) -> Verdict:
        facts: Facts = desk.facts
        if desk.modes & {"crash", "review-crash"}:
            desk.say("I'll begin with the files.")
            desk.bash("ls", "List the files")
            mischief.crash()
        script = bmadskills.script_for(facts) or SCRIPTS.get(facts.command)
        if script is None:
            return plain("Hello! The prompt names no command, so there is nothing for me to do.")
        verdict = script(desk)
        mischief.before_end(desk)
        desk.task("", "")
        return mischief.twist(desk, verdict)

    def _finish(self, desk: Desk, verdict: Verdict) -> int:
        if self.schema is None:
            self._end_in_words(desk, verdict.text)
        elif "no-schema" in desk.modes:
            desk.say(verdict.words)
            desk.stream.user_text(NAG, synthetic=True)
            self._end_in_words(desk, verdict.words)
        else:
            self._end_structured(desk, verdict, self.schema)
        if "hang-after-result" in desk.modes:
            mischief.hang()
        if "holds-stdout" in desk.modes:
            mischief.hold_stdout()
        return 1 if "exit-1-after-success" in desk.modes else 0

    def _end_in_words(self, desk: Desk, text: str) -> None:
        desk.say(text)
        self._print(desk.stream.result(result=text))

    def _end_structured(self, desk: Desk, verdict: Verdict, schema: dict[str, Any]) -> None:
        answer = fit(verdict.structured, schema)
        desk.say(verdict.words)
        tool_id = tool_ids(1)[0]
        desk.stream.assistant(tool_use(tool_id, "StructuredOutput", answer))
        said = "Structured output provided successfully"
        desk.stream.tool_result(tool_id, said, said, is_error=None)
        text = json.dumps(answer, ensure_ascii=False)
        self._print(desk.stream.result(result=text, structured_output=answer, stop_reason="tool_use"))

    def _print(self, line: dict[str, Any]) -> None:
        """The only output of the text and json formats."""
        form = self.options.get("--output-format", "text")
        if form == "json":
            print(json.dumps(line, ensure_ascii=False))
        elif form == "text":
            print(line["result"])
