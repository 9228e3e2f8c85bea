"""A world for one check: a temporary project, its state folder, the fake agent, and the real server."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import client
import plans
import processes
from checks import Failed, expect
from processes import Process

from sprintrunner import rehearsal

T = TypeVar("T")

#: The stop grace of the bench, in seconds.
G = 1.0
#: How long anything may take that has no limit of its own, in seconds; the machine may be busy.
PATIENCE = 60.0
_MARKER = "BENCH_WORLD"
_FOREIGN = ("SPRINTRUNNER_", "REHEARSAL_", "GIT_", "CLAUDE", "BENCH_")


class World:
    """Made by ``with World(...) as world``; its end kills everything and fails when a process survives.

    ``fault`` and ``speed`` are the rehearsal agent's, ``settings`` become SPRINTRUNNER_ variables.
    """

    def __init__(
        self,
        fault: str = "",
        *,
        stories: Sequence[tuple[str, str]] = ((plans.STORY, "backlog"),),
        speed: float = 0.0,
        settings: Mapping[str, Any] | None = None,
        toml: str = "",
        env: Mapping[str, str] | None = None,
        agent: bool = True,
        name: str = "project",
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="bench-")).resolve()
        self.token = secrets.token_hex(8)
        self.root = plans.build(self.folder / name, stories, toml)
        self.state = self.folder / "state"
        self.bin = self.folder / "bin"
        self.journal = self.folder / "journal.jsonl"
        self.log = self.folder / "server.log"
        self.port = _free_port()
        self.server: subprocess.Popen[bytes] | None = None
        self._streams: list[client.StreamClient] = []
        if agent:
            rehearsal.install_launcher(self.bin)
        self.env = self._environment(fault, speed, settings or {}) | dict(env or {})

    def _environment(self, fault: str, speed: float, settings: Mapping[str, Any]) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        given = {"stop_grace_seconds": G, "retry_backoff_seconds": 0, **settings}
        told = {f"SPRINTRUNNER_{name.upper()}": str(value) for name, value in given.items()}
        return {
            **kept,
            **told,
            "HOME": str(self.folder),
            "PATH": f"{self.bin}{os.pathsep}{kept.get('PATH', os.defpath)}",
            "SPRINTRUNNER_STATE_DIR": str(self.state),
            "GIT_CONFIG_NOSYSTEM": "1",
            "REHEARSAL_SPEED": f"{speed:g}",
            "REHEARSAL_FAULT": fault,
            "REHEARSAL_LOG": str(self.journal),
            _MARKER: self.token,
        }

    # its end

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stream in self._streams:
            stream.close()
        self.kill_group()
        # With the server killed, each shim ends its tree: nothing else may be needed.
        left = processes.gone_within(self.processes, G + 5.0)
        for one in left:
            processes.kill(one)
        processes.gone_within(self.processes, 5.0)
        shutil.rmtree(self.folder, ignore_errors=True)
        if left and kind is None:
            raise Failed(f"{len(left)} processes outlived the check: {', '.join(map(str, left[:3]))}")

    def processes(self) -> list[Process]:
        """Every living process of this world, the server's included."""
        found = {one.pid: one for one in processes.in_folder(self.folder)}
        found |= {one.pid: one for one in processes.with_variable(_MARKER, self.token)}
        return [one for one in found.values() if one.pid != os.getpid()]

    def tree(self) -> list[Process]:
        """Every living process of this world that is not the server: shims, agents and what they left."""
        return [one for one in self.processes() if not self._is_server(one)]

    def _is_server(self, one: Process) -> bool:
        return "-m" in one.words and "sprintrunner" in one.words and "serve" in one.words

    def shims(self) -> list[Process]:
        """The living shims."""
        return [one for one in self.tree() if one.words and one.words[-1].endswith("/shim.py")]

    def agents(self) -> list[Process]:
        """The living rehearsal agents."""
        return [one for one in self.tree() if any(word.endswith("/agent.py") for word in one.words)]

    # the server

    def command(self, *words: str) -> list[str]:
        """The command line of ``sprintrunner`` for this project."""
        return [sys.executable, "-P", "-m", "sprintrunner", "--project", str(self.root), *words]

    def run(self, *words: str, timeout: float = PATIENCE) -> subprocess.CompletedProcess[str]:
        """Run a ``sprintrunner`` command to its end."""
        return subprocess.run(
            self.command(*words),
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def spawn(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a ``sprintrunner`` command in a session of its own, its words in the server's log."""
        with self.log.open("ab") as log:
            return subprocess.Popen(
                self.command(*words),
                cwd=self.folder,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def serve(self, *words: str) -> Self:
        """Start ``sprintrunner serve`` and wait until it is healthy."""
        self.server = self.spawn("serve", "--port", str(self.port), *words)
        self.wait(self._up, PATIENCE, "the server to be healthy")
        return self

    def _up(self) -> bool:
        if self.server is not None and self.server.poll() is not None:
            raise Failed(f"the server ended with {self.server.returncode}: {self.words()[-300:]}")
        return self.healthy()

    def healthy(self) -> bool:
        """Whether ``/healthz`` says so."""
        try:
            return client.request(self.port, "GET", "/healthz", timeout=5).status == 200
        except (OSError, HTTPException):
            return False

    def words(self) -> str:
        """What the server wrote so far."""
        return self.log.read_text("utf-8", "replace").strip() if self.log.exists() else ""

    @property
    def worker(self) -> Process:
        """The process that holds the orchestrator: gunicorn's worker."""
        assert self.server is not None
        found = [one for one in processes.children(self.server.pid) if self._is_server(one)]
        expect(found, "the server has no worker process")
        return found[0]

    def kill_group(self) -> None:
        """kill -9 of the server's whole process group, if there is one."""
        if self.server is not None and self.server.returncode is None:
            os.killpg(self.server.pid, signal.SIGKILL)
            self.server.wait()

    def end(self, number: int = signal.SIGTERM, seconds: float = PATIENCE) -> float:
        """Send the server a signal; returns after how many seconds it has ended."""
        assert self.server is not None
        began = time.monotonic()
        self.server.send_signal(number)
        try:
            self.server.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failed(f"the server lives {seconds:.0f} s after signal {number}") from None
        return time.monotonic() - began

    # requests

    def request(self, method: str, path: str, body: Any = None, **more: Any) -> client.Answer:
        """Send one request to the server."""
        return client.request(self.port, method, path, body, **more)

    def get(self, path: str) -> Any:
        """The JSON of a GET."""
        return self.request("GET", path).json

    def start(self, size: int | str = 1, **more: Any) -> int:
        """Start a batch; returns its id."""
        answer = self.request("POST", "/api/orchestrator/start", {"batch_size": size, **more})
        expect(answer.status == 202, f"start was answered {answer.status}: {answer.text[:200]}")
        return int(answer.json["batch_id"])

    def stream(self, after: int | None = None) -> client.StreamClient:
        """A new client of the JSON stream, connected."""
        self._streams.append(client.StreamClient(self.port, after).start())
        return self._streams[-1]

    # looking at what happened

    def wait(self, condition: Callable[[], T | None], seconds: float, what: str) -> T:
        """Wait until the condition is true and return what it gave; Failed names what never came."""
        limit = time.monotonic() + seconds
        while True:
            if found := condition():
                return found
            if time.monotonic() > limit:
                raise Failed(f"waited {seconds:.0f} s for {what}")
            time.sleep(0.02)

    @property
    def database(self) -> Path:
        """The database file."""
        return self.state / "sprint-runner.db"

    def rows(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        """Rows of the database as it is on disk, read by a connection of our own."""
        if not self.database.exists():
            return []
        connection = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=10)
        try:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(sql, values)]
        finally:
            connection.close()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A connection of our own that holds the database's write lock; committed at the end."""
        with self._foreign() as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")

    @contextmanager
    def _foreign(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self.database, isolation_level=None, timeout=10)
        try:
            yield connection
        finally:
            connection.close()

    def sound(self) -> None:
        """Fail unless SQLite finds the database whole."""
        with self._foreign() as connection:
            told = connection.execute("PRAGMA quick_check").fetchone()[0]
        expect(told == "ok", f"the database is damaged: {told}")

    def texts(self) -> list[tuple[str, bytes]]:
        """Every text in the database with the place where it stands, as bytes."""
        connection = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=10)
        connection.text_factory = bytes
        found: list[tuple[str, bytes]] = []
        try:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for (table,) in tables:
                for row in connection.execute(f'SELECT * FROM "{table.decode()}"'):
                    found += [(table.decode(), value) for value in row if isinstance(value, bytes)]
        finally:
            connection.close()
        return found

    def commands(self, name: str = "") -> list[dict[str, Any]]:
        """The rows of all commands, or of those with this name, oldest first."""
        rows = self.rows("SELECT * FROM commands ORDER BY id")
        return [row for row in rows if name in ("", row["command"])]

    def batch(self) -> dict[str, Any]:
        """The row of the newest batch."""
        return self.rows("SELECT * FROM batches ORDER BY id DESC LIMIT 1")[0]

    def events(self, kind: str = "") -> list[dict[str, Any]]:
        """All recorded events, or those of a type, with their payload decoded."""
        rows = self.rows("SELECT * FROM events ORDER BY id")
        return [{**r, "payload": json.loads(r["payload"])} for r in rows if kind in ("", r["event_type"])]

    def runs(self, event: str = "start") -> list[dict[str, Any]]:
        """What the agents noted of themselves: lines of REHEARSAL_LOG with this event."""
        if not self.journal.exists():
            return []
        lines = [json.loads(line) for line in self.journal.read_text().splitlines()]
        return [line for line in lines if line["event"] == event]

    def ended(self, name: str, seconds: float = PATIENCE) -> dict[str, Any]:
        """The row of the first command with this name, once it has ended."""

        def look() -> dict[str, Any] | None:
            rows = self.commands(name)
            return rows[0] if rows and rows[0]["ended_at"] is not None else None

        return self.wait(look, seconds, f"the end of {name}")

    def batch_end(self, seconds: float = 2 * PATIENCE) -> dict[str, Any]:
        """The newest batch, once it has ended."""

        def look() -> dict[str, Any] | None:
            row = self.batch()
            return row if row["ended_at"] is not None else None

        return self.wait(look, seconds, "the end of the batch")

    def agent_runs(self, name: str, seconds: float = PATIENCE) -> Process:
        """The agent of a command, once it has started."""
        self.wait(lambda: [r for r in self.runs() if r["command"] == name], seconds, f"the start of {name}")
        pid = next(run["pid"] for run in self.runs() if run["command"] == name)
        found = processes.look(pid)
        if found is None:
            raise Failed(f"the agent of {name} has ended already")
        return found

    def transcript(self, row: Mapping[str, Any]) -> bytes:
        """The raw output of a command, as it lies on disk."""
        return (self.state / "transcripts" / str(row["transcript"])).read_bytes()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((client.HOST, 0))
        return int(probe.getsockname()[1])
