"""Starts the load in its own process and talks to it; plain requests beside it."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_LOAD = Path(__file__).with_name("load.py")
_WEBSOCKET = {"": [], "plain": ["--websocket"], "deflate": ["--websocket", "--deflate"]}


class Load:
    """N clients of one stream, connected; ended by the ``with`` statement.

    ``websocket``: none, ``plain``, or ``deflate`` as every browser asks for it.
    """

    def __init__(self, port: int, path: str, count: int, *, websocket: str = "") -> None:
        words = [str(port), path, str(count), *_WEBSOCKET[websocket]]
        self._process = subprocess.Popen(
            [sys.executable, str(_LOAD), *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        #: Seconds until every client had its first bytes.
        self.accepted = float(self._answer()["seconds"])

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the load ended with {self._process.wait()}")
        return dict(json.loads(line))

    def _order(self, word: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        return self._answer()

    def reset(self) -> None:
        """Forget what was measured so far."""
        self._order("reset")

    def report(self) -> dict[str, Any]:
        """What arrived since the last reset."""
        return self._order("report")

    def await_messages(self, count: int, seconds: float) -> dict[str, Any]:
        """The report once so many messages arrived, or after so many seconds."""
        limit = time.monotonic() + seconds
        while self._order("count")["messages"] < count and time.monotonic() < limit:
            time.sleep(0.05)
        return self.report()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait(10)


class Caller:
    """One kept connection for requests one after the other."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def request(self, path: str, method: str = "GET") -> tuple[int, bytes, float]:
        """Status, body and seconds; on a fresh connection where the server closed the kept one."""
        for last in (False, True):
            began = time.perf_counter()
            try:
                self._connection.request(method, path)
                answer = self._connection.getresponse()
                body = answer.read()
                return answer.status, body, time.perf_counter() - began
            except (OSError, http.client.HTTPException):
                self._connection.close()
                if last:
                    raise
        raise AssertionError

    def close(self) -> None:
        """Let the connection go."""
        self._connection.close()


def answers(port: int, path: str) -> bool:
    """Whether a server gives 200 for the path now."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def clean_environment(**more: str) -> dict[str, str]:
    """Our environment without what would steer Sprint Runner, git or an agent."""
    foreign = ("SPRINTRUNNER_", "REHEARSAL_", "GIT_", "CLAUDE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {**kept, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", **more}
