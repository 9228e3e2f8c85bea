"""gunicorn around the application: worker settings, the orchestrator's start and end in the worker."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import resource
import secrets
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from . import create_app, doctor, files, recovery, settings
from . import project as projects
from .errors import Refused, SprintRunnerError
from .redact import CleanFormatter, secret_values
from .runtime import Runtime
from .services import Services
from .settings import Layers

if TYPE_CHECKING:
    from flask import Flask

log = logging.getLogger(__name__)

#: Of malloc.h.
_M_ARENA_MAX = -8
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
#: Settings that the design depends on; gunicorn.conf.py and ``serve`` both use exactly these.
GUNICORN: dict[str, Any] = {
    "workers": 1,  # one orchestrator, one hub
    "worker_class": "gthread",
    "threads": 12,
    "preload_app": False,  # threads and descriptors must be made after the fork
    "max_requests": 0,
    "reload": False,
    "reuse_port": False,
    "timeout": 120,  # above a suspended laptop's minute
    "graceful_timeout": 15,
    "keepalive": 5,
    "worker_connections": 1000,
    "limit_request_line": 8190,
    "limit_request_fields": 100,
    "limit_request_field_size": 16380,
    "control_socket_disable": True,
    # gunicorn would believe X-Forwarded-Proto, SCRIPT_NAME and PATH_INFO of anybody on this machine;
    # trusted_proxies alone decides about forwarded headers.
    "forwarded_allow_ips": "",
    "secure_scheme_headers": {},
    "accesslog": None,
    "errorlog": "-",
    "loglevel": "warning",
}
_TOKEN_FILE = "token"  # noqa: S105 - the name of a file
#: gunicorn's exit status for a worker that cannot boot.
_WORKER_BOOT_ERROR = 3
#: Of a worker whose master was killed.
_CRASHED = 70
#: Seconds until the next try for a descriptor.
_DESCRIPTOR_PAUSE = 0.1


class Server:
    """The application and the runtime behind it; one in a process."""

    def __init__(self, root: Path, *, host: str, port: int, resume: bool = False) -> None:
        self.runtime = Runtime.open(root)
        layers = self.runtime.layers()
        self.host, self.port, self.resume = host, port, resume
        self.services = Services(
            project=self.runtime.project,
            state_dir=self.runtime.state_dir,
            store=self.runtime.store,
            layers=self.runtime.layers,
            submit=self.runtime.submit,
            alive=self.runtime.alive,
            saw_client=self.runtime.saw_client,
            examine=lambda: [check.as_json() for check in doctor.examine(root, os.environ)],
            token=find_token(self.runtime.state_dir, layers),
            port=port,
            bind_hosts=() if host in LOOPBACK else (host,),
        )
        demand_token(host, layers, self.services.token)
        self.app: Flask = create_app(self.services)

    @property
    def address(self) -> str:
        """Where the dashboard is, as a URL."""
        shown = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{shown}:{self.port}"

    def start(self) -> None:
        """In the worker, after the fork: hold the project, start the orchestrator, end both in order."""
        raise_descriptor_limit()
        self.runtime.start(f"the server at {self.address}", self.resume)

    def stop(self) -> None:
        """The batch and the streams end before the server waits for its connections. Repeatable."""
        self.runtime.stop("the server ends")
        self.services.close_streams()


def find_token(state_dir: Path, layers: Layers) -> str | None:
    """The token in force: the environment's, the configured file's, else the one ``--new-token`` made."""
    given = os.environ.get("SPRINTRUNNER_TOKEN")
    if given:
        return given.strip()
    configured = layers.values.token_file
    path = Path(configured) if configured else state_dir / _TOKEN_FILE
    try:
        return path.read_text("utf-8").strip() or None
    except FileNotFoundError:
        if configured:
            raise Refused(f"The token_file {path} does not exist.") from None
        return None
    except OSError as error:
        raise Refused(f"The token file {path} cannot be read: {error.strerror}.") from None


def demand_token(host: str, layers: Layers, token: str | None) -> None:
    """Refuse to be reachable from elsewhere without a token (contract section 3)."""
    if token is None and host not in LOOPBACK:
        raise Refused(f"{host} is not a loopback address: a token is needed; add --new-token.")
    if token is None and layers.values.trusted_proxies:
        raise Refused("trusted_proxies is set: a token is needed; add --new-token.")


def make_token(state_dir: Path) -> str:
    """Make a token and keep it in the state folder (0600); old sessions and tokens are dead with it."""
    token = secrets.token_urlsafe(32)
    files.keep(state_dir / _TOKEN_FILE, token.encode())
    return token


def raise_descriptor_limit() -> None:
    """1,000 stream clients need more descriptors than the usual soft limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, 65536) if hard != resource.RLIM_INFINITY else 65536
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _Ending:
    """Ends batch and streams at a signal, then lets gunicorn do what it does.

    gunicorn's gthread worker would wait for its connections first and be killed with the agent alive.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._begun = False
        self._done = False
        self._master = os.getppid()
        self._inherited = signal.getsignal(signal.SIGTERM)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._done and callable(self._inherited):
            self._inherited(signal.SIGTERM, frame)
        elif not self._begun:
            if os.getppid() != self._master:
                # Nobody ordered this end: the batch must look like after any crash, and go on by itself.
                # The shims see our descriptors close, and end the agents.
                os._exit(_CRASHED)
            self._begun = True
            # Never in the handler itself: it may have interrupted someone who holds the store's lock.
            threading.Thread(target=self._end, name="ending", daemon=True).start()

    def _end(self) -> None:
        try:
            self._server.stop()
        finally:
            self._done = True
            os.kill(os.getpid(), signal.SIGTERM)


def _end_with_parent() -> None:
    """Have the kernel send SIGTERM when gunicorn's master is killed: the worker then ends at once."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _share_the_heap() -> None:
    """Two malloc arenas for all threads, before there are any.

    glibc gives each thread of a machine with two cores one of sixteen, and each keeps the most that a page
    ever took: a server of some hours held 50 MB of room that nobody used. One thread computes at a time.
    """
    with contextlib.suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def serve(root: Path, *, host: str, port: int | None, new_token: bool, resume: bool) -> int:
    """Serve the dashboard until a signal ends it; returns the exit status.

    Raises Conflict when the project is held, Refused off loopback without a token.
    """
    project = projects.load(root)
    state_dir = projects.state_dir(project.root)
    recovery.refuse_if_held(state_dir)
    link = _new_login(state_dir) if new_token else ""
    chosen = port if port is not None else settings.load(project.root, state_dir).values.server_port
    server = Server(root, host=host, port=chosen, resume=resume)
    print(f"Sprint Runner serves {project.name} at {server.address}{link}", flush=True)
    _application(server).run()
    return 0


def _application(server: Server) -> Any:
    from gunicorn.app.base import BaseApplication

    class Application(BaseApplication):  # type: ignore[misc]
        def load_config(self) -> None:
            for name, value in worker_settings(server).items():
                self.cfg.set(name, value)

        def load(self) -> Flask:
            return server.app

    return Application()


def worker_settings(server: Server) -> dict[str, Any]:
    """All settings of gunicorn for this server, hooks included."""
    return {
        **GUNICORN,
        "graceful_timeout": longest_stop(server.runtime.layers()),
        "bind": server.address.partition("//")[2],
        "post_worker_init": lambda worker: in_worker(server, worker),
        "worker_exit": lambda arbiter, worker: server.stop(),
    }


def longest_stop(layers: Layers) -> int:
    """How long gunicorn must wait for its worker, in seconds: agents get their own grace first."""
    return max(int(GUNICORN["graceful_timeout"]), int(layers.values.stop_grace_seconds) + 10)


def _new_login(state_dir: Path) -> str:
    from .web.login import issue_code

    make_token(state_dir)
    return f"/login?code={issue_code(state_dir)}"


def in_worker(server: Server, worker: Any) -> None:
    """Start what belongs to gunicorn's worker; a project that is held ends it for good."""
    _log_cleanly()
    _accept_patiently(worker)
    _end_with_parent()
    _share_the_heap()
    try:
        server.start()
    except SprintRunnerError as error:
        print(f"sprintrunner: {error.sentence}", file=sys.stderr, flush=True)
        # Tells gunicorn's master that the worker can never boot: it ends instead of trying for ever.
        os._exit(_WORKER_BOOT_ERROR)
    _Ending(server)


def _log_cleanly() -> None:
    """Our part of the error log may quote an agent; without a handler Python writes it as it is."""
    handler = logging.StreamHandler()
    handler.setFormatter(CleanFormatter(secret_values(os.environ)))
    logging.getLogger(__package__).addHandler(handler)


def _accept_patiently(worker: Any) -> None:
    """Leave a connection waiting while no descriptor is left: gunicorn would end worker, batch and agent."""
    accept = worker.accept

    def patiently(listener: Any) -> None:
        try:
            accept(listener)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            time.sleep(_DESCRIPTOR_PAUSE)  # it is asked again at once otherwise

    worker.accept = patiently


def bound(server: Server, addresses: Sequence[tuple[str, int] | str]) -> None:
    """Tell the server where gunicorn really listens, and demand a token where that is not loopback."""
    places = [place for place in addresses if isinstance(place, tuple)]
    for host, _port in places:
        try:
            demand_token(host, server.runtime.layers(), server.services.token)
        except Refused as error:
            print(f"sprintrunner: {error.sentence}", file=sys.stderr, flush=True)
            os._exit(_WORKER_BOOT_ERROR)
    if places:
        server.host, server.port = places[0]
        server.services.port = server.port
