"""A real gunicorn over a small project, for the tests of the web."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from web_project import make_project


class Server:
    """A gunicorn with one gthread worker of eight threads over a fresh project."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        make_project(folder / "project")
        here = Path(__file__).resolve().parent
        names = {"TEST_PROJECT": str(folder / "project"), "TEST_STATE": str(folder / "state")}
        path = os.pathsep.join([str(here), str(here.parent)])
        command = [sys.executable, "-m", "gunicorn", "-k", "gthread", "-w", "1", "--threads", "8"]
        command += ["-b", f"127.0.0.1:{self.port}", "--no-control-socket", "--graceful-timeout", "10"]
        command += ["--log-level", "warning", "web_project:from_environment()"]
        self.process = subprocess.Popen(command, env={**os.environ, **names, "PYTHONPATH": path}, cwd=folder)
        self._await()

    def _await(self) -> None:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            try:
                assert self.get("/healthz") == b"ok\n"
                return
            except OSError:
                time.sleep(0.02)
        raise AssertionError("gunicorn did not start")

    def get(self, path: str, method: str = "GET") -> bytes:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return bytes(answer.read())

    def state(self) -> dict[str, Any]:
        return dict(json.loads(self.get("/test/threads")))

    def say(self, count: int, size: int = 50) -> None:
        self.get(f"/test/say/{count}/{size}", "POST")

    def stop(self) -> float:
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)
        return time.monotonic() - began

    def raw(self, data: bytes, seconds: float = 5.0) -> bytes:
        """What comes back for bytes that no HTTP library would send."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as sock:
            answer = b""
            try:
                sock.sendall(data)
                while part := sock.recv(65536):
                    answer += part
            except OSError:
                pass  # refused while we were still sending
            return answer
