"""Keeps the machine from falling asleep while a batch runs, where the system offers a way."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)

#: Program → its options. Each runs a command and holds the machine awake for as long as that lives.
_HOLDERS: Mapping[str, tuple[str, ...]] = {
    "systemd-inhibit": (
        "--what=idle:sleep",
        "--who=Sprint Runner",
        "--why=A batch is running",
        "--mode=block",
    ),
    "caffeinate": ("-i", "-s"),
}
#: How long a holder may take to leave after its pipe was closed, in seconds.
_PATIENCE = 2.0
_STDERR_BYTES = 2000


def find(env: Mapping[str, str]) -> str | None:
    """The absolute path of a program that can hold the machine awake, None without one."""
    found = (shutil.which(name, path=env.get("PATH", os.defpath)) for name in _HOLDERS)
    return next((path for path in found if path and Path(path).is_absolute()), None)


class Inhibitor:
    """Holds the machine awake from ``start`` to ``stop``, or to the end of this process, however it ends."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = dict(env)
        self._child: subprocess.Popen[bytes] | None = None
        self._stopping = False

    def start(self) -> None:
        """Start the holder; what keeps it from working is a line in the log, never an error."""
        program = find(self._env)
        if program is None or self._child is not None:
            return
        options = _HOLDERS[Path(program).name]
        try:
            # ``cat`` waits for the end of our pipe: the kernel closes it for us, also after kill -9.
            self._child = subprocess.Popen(
                [program, *options, "cat"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=self._env,
                # No terminal: it must not ask anybody for a password.
                start_new_session=True,
            )
        except OSError as error:
            log.info("the machine may fall asleep: %s: %s", program, error.strerror)
            return
        self._stopping = False
        threading.Thread(target=self._watch, args=(self._child,), name="inhibitor", daemon=True).start()

    def stop(self) -> None:
        """Let the machine sleep again. Repeatable."""
        child, self._child = self._child, None
        if child is None:
            return
        self._stopping = True
        with suppress(OSError):
            if child.stdin is not None:
                child.stdin.close()
        try:
            child.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()

    def _watch(self, child: subprocess.Popen[bytes]) -> None:
        """Wait for its end, which comes at once where the system refuses."""
        told = b""
        if child.stderr is not None:
            with child.stderr:
                told = child.stderr.read(_STDERR_BYTES)
        code = child.wait()
        if not self._stopping:
            words = " ".join(told.decode("utf-8", "replace").split())
            log.info("the machine may fall asleep: %s ended with %s: %s", child.args, code, words or "-")
