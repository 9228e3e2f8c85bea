"""Runs one agent under a shim: spawn, go, watch its output and limits, stop, report its end."""

from __future__ import annotations

import logging
import marshal
import math
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import shim
from ..errors import Conflict
from . import identity as ids
from .deadlines import Deadlines
from .spec import Exit, Identity, Limits, Spec, parse_exit, read_exit, tail_of
from .transcript import Transcript

log = logging.getLogger(__name__)

#: Seconds the watcher may wake later than asked before it holds that the machine or the server was asleep.
ASLEEP = 2.0
#: The dynamic loader's variables, where an interpreter needs them to find its own library.
_LOADER = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


def _ignore(_: Any) -> None:
    """Take a callback nobody asked for."""


class Supervised:
    """One run of an agent; usable once. All methods may be called from any thread.

    ``on_lines`` gets batches of output lines without their newlines, ``on_warning`` a sentence at half of a
    limit, ``on_exit`` the end: exactly once for each spawned run, after all lines. They are called from one
    thread of this run. A callback that raises ends the run; ``Exit.error`` names what it raised.
    ``moves(seconds)`` tells whether the work moved elsewhere in that time: then silence is none.
    """

    def __init__(
        self,
        spec: Spec,
        limits: Limits,
        *,
        on_lines: Callable[[Sequence[bytes]], None],
        on_exit: Callable[[Exit], None],
        on_warning: Callable[[str], None] = _ignore,
        moves: Callable[[float], bool] | None = None,
    ) -> None:
        self.spec = spec
        self.limits = limits
        self._on_lines, self._on_exit, self._on_warning = on_lines, on_exit, on_warning
        self._lock = threading.Lock()
        self._lifeline: int | None = None
        self._nudge: int | None = None
        self._went = False
        self._reason: str | None = None
        self._stop_by: float | None = None
        self._error: str | None = None
        self._said = bytearray()
        self._transcript = Transcript(spec.out_path)
        self._deadlines = Deadlines(limits, self._cpu, self._warn, moves)
        self._identity: Identity | None = None

    def spawn(self) -> Identity:
        """Start the shim, which waits for ``go``; the agent does not run yet.

        Raises OSError when the process cannot be made (no such ``cwd``, no memory), Conflict after ``stop``.
        """
        with self._lock:
            if self._identity or self._reason:
                raise Conflict("This run was started or stopped before.")
            self._process = self._popen()
            pid = self._process.pid
            # The shim is our unreaped child, so its pid is its own and its stat is there.
            self._identity = Identity(pid, ids.start_ticks(pid) or 0, ids.boot_id(), self.spec.run_id)
        try:
            self._hand_over_parameters()
            self._thread = threading.Thread(target=self._watch, name=f"watch-{pid}", daemon=True)
            self._thread.start()
        except BaseException:  # no thread to be had: a run that nobody watches must not be
            self._process.kill()
            self._process.wait()
            with self._lock:
                self._close_all()
            raise
        return self._identity

    def go(self) -> None:
        """Let the agent start: to be called once its row is committed. Without effect after ``stop``."""
        with self._lock:
            if self._reason or self._went or self._lifeline is None:
                return
            self._went = True
            self._deadlines.start(time.monotonic())
            self._send(shim.GO)

    def stop(self, reason: str = "stop") -> None:
        """Begin to end the tree, return at once; ``reason`` becomes ``ended_by``. The first call counts."""
        with self._lock:
            if self._reason:
                return
            self._reason = reason
            self._stop_by = time.monotonic() + self.limits.grace + ids.SHIM_MARGIN
            self._send(shim.STOP)

    def saw_result(self) -> None:
        """Start the clock after the result."""
        if self._deadlines.result_at is None:
            self._deadlines.result(time.monotonic())
            with self._lock:
                self._wake_watcher()

    def abandon(self) -> None:
        """Give up a run before its go byte; after it, end it as the death of the server would."""
        with self._lock:
            if self._lifeline is not None:
                os.close(self._lifeline)
                self._lifeline = None

    def join(self, timeout: float | None = None) -> bool:
        """Wait until ``on_exit`` has returned; False when ``timeout`` seconds were not enough."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    # -- starting

    def _popen(self) -> subprocess.Popen[bytes]:
        lifeline, self._lifeline = os.pipe()
        self._wakes, wake = os.pipe()
        self._nudges, self._nudge = os.pipe()
        os.set_blocking(self._wakes, False)
        os.set_blocking(self._nudge, False)
        self._told = self._parameters(lifeline, wake)
        lock = [] if self.spec.lock_fd is None else [self.spec.lock_fd]
        try:
            return subprocess.Popen(
                [sys.executable, "-I", "-S", str(Path(shim.__file__))],
                cwd=self.spec.cwd,
                env=self._shim_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=(lifeline, wake, *lock),
            )
        except BaseException:
            self._close_all()
            raise
        finally:
            os.close(lifeline)
            os.close(wake)

    def _shim_environment(self) -> dict[str, str]:
        # Nothing of the agent's environment may change how the shim itself runs; the marker must be there.
        kept = {name: os.environ[name] for name in _LOADER if name in os.environ}
        return {shim.MARKER: self.spec.run_id, **kept}

    def _parameters(self, lifeline: int, wake: int) -> dict[str, Any]:
        spec = self.spec
        return {
            "argv": [str(part) for part in spec.argv],
            "env": {**spec.env, shim.MARKER: spec.run_id},
            "run_id": spec.run_id,
            "stdin": None if spec.stdin_path is None else str(spec.stdin_path),
            "out_path": str(spec.out_path),
            "err_path": str(spec.err_path),
            "exit_path": str(spec.exit_path),
            "out_cap": spec.out_cap,
            "err_cap": spec.err_cap,
            "grace": float(self.limits.grace),
            "lifeline": lifeline,
            "wake": wake,
        }

    def _hand_over_parameters(self) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        # A shim that is dead already is reported by the watcher.
        with suppress(BrokenPipeError):
            pipe.write(marshal.dumps(self._told))
        with suppress(BrokenPipeError):
            pipe.close()

    # -- talking to the shim and to the watcher; the lock is held

    def _send(self, order: bytes) -> None:
        if self._lifeline is not None:
            # A shim that has ended needs no order; its verdict is on its way.
            with suppress(BrokenPipeError):
                os.write(self._lifeline, order)
        self._wake_watcher()

    def _wake_watcher(self) -> None:
        if self._nudge is not None:
            with suppress(BlockingIOError):
                os.write(self._nudge, b"n")

    # -- the watcher thread

    def _watch(self) -> None:
        verdict: Exit | None = None
        try:
            verdict = self._attend()
        except BaseException as error:
            log.exception("The watcher of run %s failed", self.spec.run_id)
            self._error = self._error or repr(error)
        finally:
            self._end(verdict or self._end_without_shim())

    def _attend(self) -> Exit:
        """Deliver output and keep the limits until the shim is gone; return how the run ended."""
        looked, behind, gone = time.monotonic(), False, False
        while not gone:
            patience = 0.0 if behind else self._patience()
            gone = self._listen(patience)
            now = time.monotonic()
            # Nobody could have been heard meanwhile, so it was not silence.
            if patience is not None and now - looked > patience + ASLEEP:
                self._deadlines.output(now)
            looked = now
            behind = self._deliver()
            self._keep_limits(now)
        self._process.wait()
        while self._deliver():
            pass
        self._hand_on(self._transcript.rest())
        return self._verdict() or self._end_without_shim()

    def _patience(self) -> float | None:
        due = self._stop_by if self._reason else self._deadlines.due()
        return None if due is None else max(0.0, due - time.monotonic())

    def _listen(self, patience: float | None) -> bool:
        """Wait for the shim or a nudge; return True when the shim has ended."""
        # Not select(): with a thousand streams open, descriptors go beyond what it can take.
        poll = select.poll()
        poll.register(self._wakes, select.POLLIN)
        poll.register(self._nudges, select.POLLIN)
        ready = [fd for fd, _ in poll.poll(None if patience is None else math.ceil(patience * 1000))]
        if self._nudges in ready:
            os.read(self._nudges, shim.CHUNK)
        if self._wakes not in ready:
            return False
        said = os.read(self._wakes, shim.CHUNK)
        if said:
            self._deadlines.output(time.monotonic())
        self._said += said if self._said else said.lstrip(shim.WAKE)
        return not said

    def _deliver(self) -> bool:
        lines, behind = self._transcript.read()
        self._hand_on(lines)
        return behind

    def _hand_on(self, lines: Sequence[bytes]) -> None:
        if lines:
            self._call(self._on_lines, lines)

    def _warn(self, sentence: str) -> None:
        self._call(self._on_warning, sentence)

    def _call(self, callback: Callable[[Any], None], value: Any) -> None:
        try:
            callback(value)
        except Exception as error:
            log.exception("A callback of run %s failed", self.spec.run_id)
            self._error = self._error or f"{type(error).__name__}: {error}"
            self.stop()

    def _keep_limits(self, now: float) -> None:
        if self._reason is None:
            over = self._deadlines.check(now)
            if over:
                self.stop(over)
        elif self._stop_by is not None and now >= self._stop_by:
            # A stopped or hanging shim cannot end its tree; its death is then seen on the wake pipe.
            self._process.send_signal(signal.SIGKILL)
            self._stop_by = None

    def _cpu(self) -> float:
        return ids.cpu_seconds(self._process.pid)

    # -- the end

    def _verdict(self) -> Exit | None:
        """Return what the shim said last, on the pipe or on disk; None when it died without a word."""
        said = self._said.partition(shim.VERDICT)[2]
        verdict = parse_exit(bytes(said)) or (read_exit(self.spec.exit_path) if self._went else None)
        if verdict and verdict.ended_by == "stop":
            return replace(verdict, ended_by=self._reason or "stop")
        return verdict

    def _end_without_shim(self) -> Exit:
        """The shim was killed: end its tree from here."""
        self._process.kill()
        self._process.wait()
        now = int(time.time() * 1000)
        if not self._went:
            return Exit(None, None, "not_started", ended_at=now)
        survivors = ids.end_all(self._find_tree, self.limits.grace)
        seconds = time.monotonic() - (self._deadlines.started or 0.0)
        return Exit(
            None,
            None,
            self._reason or "shim_lost",
            stderr_tail=tail_of(self.spec.err_path),
            survivors=survivors,
            started_at=now - int(seconds * 1000),
            ended_at=now,
            seconds=seconds,
        )

    def _find_tree(self) -> set[int]:
        """Return what is left without a shim: by session, by marker, by the lock that it inherited."""
        found = {*ids.find_session(self._process.pid), *ids.find_marked(self.spec.run_id)}
        if self.spec.lock_fd is not None:
            # The owner may have closed its lock already; whoever has it next then looks for holders.
            with suppress(OSError):
                found |= {*ids.find_orphans(self.spec.lock_fd)}
        return found

    def _end(self, verdict: Exit) -> None:
        self._transcript.close()
        with self._lock:
            self._close_all()
        if self._error:
            verdict = replace(verdict, error=verdict.error or self._error)
        try:
            self._on_exit(verdict)
        except Exception:
            log.exception("The exit callback of run %s failed", self.spec.run_id)

    def _close_all(self) -> None:
        for fd in (self._lifeline, self._nudge, self._wakes, self._nudges):
            if fd is not None:
                os.close(fd)
        self._lifeline = self._nudge = None
