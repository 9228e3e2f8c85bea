"""Finds the agent program and asks it, once, what it is and which options it knows."""

from __future__ import annotations

import os
import re
import selectors
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..errors import AgentMissing
from .base import Adapter, Capabilities
from .lines import one_line

#: How long a program may take to name its version or its options, in seconds.
PROBE_SECONDS = 4.0
#: How much of its answer is read, in bytes.
_ANSWER_BYTES = 256 * 1024
_VERSION = re.compile(r"\b\d+\.\d+\.\d+[\w.+-]*")
_FLAG = re.compile(r"(?<![\w-])--[a-z][a-zA-Z0-9-]+")
#: Exit statuses of a program that was found but could not be executed.
_NOT_EXECUTED = frozenset({126, 127})


class Configured(Protocol):
    """The part of an agent's settings that is needed here."""

    @property
    def path(self) -> str | Path | None:
        """Absolute path of the program, None = look on PATH."""


@dataclass(frozen=True, slots=True)
class _Answer:
    code: int | None
    text: str


def find_program(adapter: Adapter, configured: Configured | None, env: Mapping[str, str]) -> str:
    """The absolute path of the agent program: the configured one, else the first on PATH.

    Raises AgentMissing with the remedy.
    """
    if configured is not None and configured.path:
        return _configured_program(adapter, str(configured.path))
    # Entries that are empty or relative would run whatever lies in the project.
    folders = [
        folder for folder in env.get("PATH", os.defpath).split(os.pathsep) if folder.startswith(os.sep)
    ]
    found = shutil.which(adapter.program, path=os.pathsep.join(folders))
    if found:
        return found
    raise AgentMissing(
        f"{adapter.program} was not found on PATH; install it, or set path under [agents.{adapter.name}] in "
        "sprintrunner.toml"
    )


def _configured_program(adapter: Adapter, path: str) -> str:
    where = f"path under [agents.{adapter.name}] in sprintrunner.toml"
    if not Path(path).is_absolute():
        raise AgentMissing(f"{where} is not absolute: {path}")
    if not Path(path).is_file():
        raise AgentMissing(f"{path} does not exist; correct the {where}")
    if not os.access(path, os.X_OK):
        raise AgentMissing(f"{path} is not executable; run chmod +x on it or correct the {where}")
    return path


def probe(program: str, env: Mapping[str, str], seconds: float = PROBE_SECONDS) -> Capabilities:
    """Ask the program for its version and its options. Never raises; takes at most twice ``seconds``.

    A program that ignores both questions is no error: it gets the defaults.
    """
    quiet = {name: value for name, value in env.items() if not name.startswith("SPRINTRUNNER_")}
    try:
        said = _ask([program, "--version"], quiet, seconds)
    except OSError as error:
        return Capabilities(trouble=one_line(error.strerror or str(error), 200))
    if said.code in _NOT_EXECUTED:
        return Capabilities(trouble=one_line(said.text, 200) or f"exit status {said.code}")
    version = _VERSION.search(said.text)
    if said.code != 0 or version is None:
        return Capabilities()
    return Capabilities(version[0], _flags(program, quiet, seconds))


def _flags(program: str, env: Mapping[str, str], seconds: float) -> frozenset[str] | None:
    try:
        said = _ask([program, "--help"], env, seconds)
    except OSError:
        return None
    flags = frozenset(_FLAG.findall(said.text))
    return flags if said.code == 0 and flags else None


def _ask(argv: list[str], env: Mapping[str, str], seconds: float) -> _Answer:
    # An empty folder of its own: a program that ignores the question must not work on the project.
    with (
        tempfile.TemporaryDirectory(prefix="sprintrunner-") as folder,
        subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=dict(env),
            start_new_session=True,
        ) as child,
    ):
        try:
            text = _read(child, time.monotonic() + seconds)
        finally:
            _end_group(child)
        return _Answer(child.returncode, text)


def _read(child: subprocess.Popen[bytes], deadline: float) -> str:
    """The child's output until it closes, is too long, or its time is up (then it counts as ended by us)."""
    if child.stdout is None:
        return ""
    pieces: list[bytes] = []
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while sum(map(len, pieces)) < _ANSWER_BYTES:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                break
            piece = os.read(child.stdout.fileno(), 65536)
            if not piece:
                break
            pieces.append(piece)
        else:
            return b"".join(pieces).decode("utf-8", "replace")
    try:
        child.wait(timeout=max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return ""
    return b"".join(pieces).decode("utf-8", "replace")


def _end_group(child: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        child.kill()
    child.wait()
