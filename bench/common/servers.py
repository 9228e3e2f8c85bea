"""Servers of the bench: started on a free port in a session of their own, ended with all below them."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from sprintrunner.rehearsal import sample

from . import processes
from .clients import answers, clean_environment

HERE = Path(__file__).resolve().parent
RIVALS = HERE.parent / "rivals"
PATIENCE = 60.0  # seconds


class Unavailable(Exception):
    """A rival cannot be had on this machine; the text says why."""


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """One server process; ``path`` answers 200 once it is up."""

    def __init__(
        self, words: Sequence[str], port: int, path: str, env: Mapping[str, str] | None = None
    ) -> None:
        self.port = port
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the server
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            list(words),
            env=dict(env or clean_environment()),
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )
        self.await_up(path)

    def await_up(self, path: str) -> None:
        """Wait until it answers; RuntimeError with its last words when it ends instead."""
        while not answers(self.port, path):
            if self.process.poll() is not None or time.monotonic() - self.began > PATIENCE:
                self.kill()
                self.log.seek(0)
                raise RuntimeError(self.log.read()[-2000:].decode("utf-8", "replace"))
            time.sleep(0.005)
        #: Seconds from its start to its first answer.
        self.up_after = time.monotonic() - self.began

    def cost(self) -> processes.Cost:
        """What all its processes have used so far."""
        return processes.cost(self.process.pid)

    def kill(self) -> None:
        """kill -9 of the whole group; repeatable."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        self.kill()
        self.log.close()


class Folder:
    """A temporary folder with the sample project in it; removed at the end."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="sprintrunner-bench-")).resolve()
        self.root = self.path / "project"
        self.state = self.path / "state"
        sample.create(self.root)
        self.state.mkdir(mode=0o700)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def ours(folder: Folder) -> Server:
    """The product with a publisher in it; see ``ours.py``."""
    port = free_port()
    words = [sys.executable, str(HERE / "ours.py"), str(port), str(folder.root), str(folder.state)]
    return Server(words, port, "/healthz")


def product(folder: Folder, env: Mapping[str, str], *words: str) -> Server:
    """``sprintrunner serve`` itself."""
    port = free_port()
    command = [sys.executable, "-P", "-m", "sprintrunner", "--project", str(folder.root), "serve"]
    return Server([*command, "--port", str(port), *words], port, "/healthz", env)


def rival(name: str) -> Server:
    """A Python rival of ``bench/rivals``; Unavailable where its packages are not installed."""
    port = free_port()
    try:
        return Server([sys.executable, str(RIVALS / f"{name}.py"), str(port)], port, "/health")
    except RuntimeError as error:
        said = str(error)
        if "ModuleNotFoundError" in said:
            raise Unavailable(said.strip().splitlines()[-1]) from None
        raise


_NGINX_MODULES = ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules")


def nchan(folder: Path) -> Server:
    """nginx with nchan, one worker; Unavailable where they are not installed."""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    modules = [path for name in _NGINX_MODULES if (path := Path(name) / "ngx_nchan_module.so").exists()]
    if program is None or not modules:
        raise Unavailable("nginx with nchan is not installed (apt-get install nginx libnginx-mod-nchan)")
    port = free_port()
    config = (RIVALS / "nchan.conf").read_text("utf-8")
    for name, value in {"@module@": modules[0], "@folder@": folder, "@port@": port}.items():
        config = config.replace(name, str(value))
    path = folder / "nginx.conf"
    path.write_text(config, "utf-8")
    return Server([program, "-c", str(path), "-p", str(folder), "-e", str(folder / "log")], port, "/health")
