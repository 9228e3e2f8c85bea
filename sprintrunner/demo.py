"""The demonstration: a sample project in a temporary folder, served, with a whole batch running in it."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from . import control
from .errors import Conflict, NotFound, SprintRunnerError
from .rehearsal import install_launcher, sample
from .terminal import printable

HOST = "127.0.0.1"
#: How long the server may take to answer, and to end after being asked to, in seconds.
_START_PATIENCE = 60.0
_STOP_PATIENCE = 20.0
_POLL = 0.05
_PR_SET_PDEATHSIG = 1
#: Variables of the caller that would point the sample project's git somewhere else.
_FOREIGN_PREFIXES = ("SPRINTRUNNER_", "GIT_", "REHEARSAL_")


class DemoFailed(SprintRunnerError):
    """The demonstration's server ended by itself."""


class _Ended(BaseException):
    """Ctrl-C or SIGTERM: unwinds to the end. Not an Exception, so that nothing on the way eats it."""


def run(port: int, speed: float) -> int:
    """Serve the sample project on ``port`` until Ctrl-C; raises Conflict when the port is taken.

    ``speed`` stretches the pace of the rehearsal agent; 0 is instant. Everything lies in one temporary
    folder that is removed at the end.
    """
    _check_port(port)
    with _signals(), suppress(_Ended), _folder() as folder:
        print(f"Sprint Runner demo: http://{HOST}:{port}  (Ctrl-C ends it)", flush=True)
        environment = _environment(folder, speed)
        root = sample.create(folder / "sample")
        print(f"The sample project lies in {root}.", flush=True)
        with _server(folder, root, port, environment) as server:
            _start_batch(folder, server)
            print("A batch is running there: five stories, from backlog to commit.", flush=True)
            server.wait()
        raise DemoFailed(_last_words(folder))
    print("\nThe demo has ended; nothing is left running.", flush=True)
    return 0


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            other = "PORT=9000 make demo, or sprintrunner demo --port 9000"
            raise Conflict(
                f"Port {port} cannot be used ({error.strerror}); choose another: {other}."
            ) from None


@contextmanager
def _signals() -> Iterator[None]:
    def end(number: int, frame: FrameType | None) -> None:
        # A second Ctrl-C must not cut the tidying short.
        for again in wanted:
            signal.signal(again, signal.SIG_IGN)
        raise _Ended

    wanted = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, end) for number in wanted}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="sprintrunner-demo-")).resolve()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _environment(folder: Path, speed: float) -> dict[str, str]:
    """The server's environment: ours, with the rehearsal agent first on PATH and all state in the folder."""
    programs = folder / "bin"
    programs.mkdir()
    install_launcher(programs)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN_PREFIXES)}
    return kept | {
        "PATH": f"{programs}{os.pathsep}{kept.get('PATH', os.defpath)}",
        "REHEARSAL_SPEED": f"{speed:g}",
        "SPRINTRUNNER_STATE_DIR": str(_state_dir(folder)),
    }


def _state_dir(folder: Path) -> Path:
    return folder / "state"


def _log(folder: Path) -> Path:
    return folder / "server.log"


@contextmanager
def _server(
    folder: Path, root: Path, port: int, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """The server as a child that cannot outlive us; it is ended in order on the way out."""
    arguments = ["--project", str(root), "serve", "--host", HOST, "--port", str(port)]
    with _log(folder).open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-P", "-m", "sprintrunner", *arguments],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # Ctrl-C goes to the whole foreground group; the server is to hear of it from us, once.
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
    try:
        yield server
    finally:
        _end(server)


def _end_with_parent() -> None:
    """Have the kernel send SIGTERM to the server when we die without a chance to tidy up (kill -9)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _end(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(_STOP_PATIENCE)
    except subprocess.TimeoutExpired:
        # Its trees hang on lifelines: they end with it.
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _start_batch(folder: Path, server: subprocess.Popen[bytes]) -> None:
    """Start a batch of all stories as soon as the orchestrator listens."""
    deadline = time.monotonic() + _START_PATIENCE
    while time.monotonic() < deadline and server.poll() is None:
        try:
            control.request(_state_dir(folder), "start", {"batch_size": None, "stories": None}, 10.0)
            return
        except NotFound:
            time.sleep(_POLL)
    raise DemoFailed(_last_words(folder))


def _last_words(folder: Path) -> str:
    """One sentence with the last line the server wrote; its log goes with the folder."""
    written = _log(folder).read_text("utf-8", "replace").strip().splitlines()
    said = printable(written[-1], 300) if written else "it said nothing"
    return f"The demonstration's server ended: {said}"
