"""What docs/deploy.md describes, brought up for tests: the very blocks of that page are run."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from engine import git, until

from sprintrunner.rehearsal import install_launcher, sample

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = REPOSITORY / "docs" / "deploy.md"
#: The name that the page gives to the site.
NAME = "sprint.example.org"
TOKEN = "a-token-of-the-tests-0123456789"
#: Of the proxy, in seconds; the page's own hour would prove nothing here.
SILENCE = 2
# What nginx needs around a server block; packages of it bring the same.
_AROUND = """
worker_processes 1;
error_log {folder}/nginx.log;
pid {folder}/nginx.pid;
{user}
events {{}}
http {{
    access_log off;
    {temporary}
{server}
}}
"""


def blocks(language: str, heading: str) -> list[str]:
    """The code blocks of one language below a heading of the page."""
    section = PAGE.read_text("utf-8").split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


def replaced(text: str, changes: Mapping[str, str]) -> str:
    """The text with each of these, which must be there, replaced."""
    for old, new in changes.items():
        assert old in text, f"{old!r} is not on the page"
        text = text.replace(old, new)
    return text


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Answer:
    """What curl brought back."""

    status: int
    head: str
    body: str

    def header(self, name: str) -> str:
        found = re.search(rf"^{name}: (.*?)\r?$", self.head, re.MULTILINE | re.IGNORECASE)
        return found[1] if found else ""


class Stream:
    """curl on a stream: each line with the moment (seconds since the epoch) at which it came."""

    def __init__(self, words: Sequence[str]) -> None:
        self.asked = time.time()
        self.lines: list[tuple[float, str]] = []
        self._curl = subprocess.Popen(["curl", "-sSN", *words], stdout=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._curl.stdout is not None
        with self._curl.stdout as lines:
            for line in lines:
                self.lines.append((time.time(), line.rstrip("\n")))

    @property
    def open(self) -> bool:
        return self._curl.poll() is None

    def events(self) -> list[tuple[float, dict[str, Any]]]:
        """The JSON events so far."""
        told = [(when, line[5:].strip()) for when, line in self.lines if line.startswith("data:")]
        return [(when, json.loads(text)) for when, text in told]

    def close(self) -> None:
        self._curl.kill()
        self._curl.wait()
        self._reader.join()


class Site:
    """gunicorn with nginx in front, over a rehearsal project."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.public = free_port(), free_port()
        self.url = f"https://{NAME}:{self.public}"
        self.root = sample.create(folder / "project")
        self.state = folder / "state"
        install_launcher(folder / "bin")
        self.certificate = folder / "site.pem"
        self.gunicorn: subprocess.Popen[bytes] | None = None
        self.nginx: subprocess.Popen[bytes] | None = None
        self._configure()

    def _configure(self) -> None:
        (self.folder / "token").write_text(TOKEN)
        ours = blocks("toml", "Behind nginx")[0]
        ours = replaced(ours, {"/etc/sprintrunner/token": str(self.folder / "token")})
        (self.root / "sprintrunner.toml").write_text(f'verify = ["true"]\nheartbeat_seconds = 1\n{ours}')
        git(self.root, "commit", "-qam", "Be served by name")
        key = self.folder / "site.key"
        words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        words += ["-keyout", str(key), "-out", str(self.certificate), "-days", "2"]
        words += ["-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}"]
        subprocess.run(["openssl", *words], check=True, capture_output=True)
        server = replaced(
            blocks("nginx", "Behind nginx")[0],
            {
                "listen 443 ssl": f"listen 127.0.0.1:{self.public} ssl",
                "/etc/ssl/sprint.example.org.pem": str(self.certificate),
                "/etc/ssl/sprint.example.org.key": str(key),
                "127.0.0.1:8080": f"127.0.0.1:{self.port}",
                "proxy_read_timeout 1h": f"proxy_read_timeout {SILENCE}s",
            },
        )
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = "\n    ".join(f"{kind}_temp_path {self.folder}/{kind};" for kind in kinds)
        # As root nginx would give its rights away, and could not reach the folders of the test.
        user = "user root;" if os.geteuid() == 0 else ""
        text = _AROUND.format(folder=self.folder, user=user, temporary=temporary, server=server)
        (self.folder / "nginx.conf").write_text(text)

    # its parts

    def up(self, speed: float = 1.0) -> None:
        """Start gunicorn as the page says, and wait until it answers."""
        path = os.pathsep.join(
            [str(self.folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
        )
        env = {name: value for name, value in os.environ.items() if not name.startswith("SPRINTRUNNER_")}
        env |= {"PATH": path, "HOME": str(self.folder), "REHEARSAL_SPEED": str(speed)}
        env |= {"SPRINTRUNNER_PROJECT": str(self.root), "SPRINTRUNNER_STATE_DIR": str(self.state)}
        command = ["gunicorn", "wsgi:app", "--bind", f"127.0.0.1:{self.port}"]
        with (self.folder / "gunicorn.log").open("ab") as log:
            self.gunicorn = subprocess.Popen(command, env=env, cwd=REPOSITORY, stderr=log)
        until(lambda: self.direct("/healthz").status == 200, 20)

    def down(self) -> float:
        """Stop gunicorn in order; how long that took, in seconds."""
        assert self.gunicorn is not None
        began = time.monotonic()
        self.gunicorn.send_signal(signal.SIGTERM)
        assert self.gunicorn.wait(40) == 0
        return time.monotonic() - began

    def proxy(self, *words: str) -> None:
        """Run nginx with our configuration: the server itself, or ``-t``, or ``-s reload``."""
        program = shutil.which("nginx") or "/usr/sbin/nginx"
        command = [
            program,
            "-p",
            str(self.folder),
            "-c",
            "nginx.conf",
            "-e",
            str(self.folder / "nginx.log"),
            *words,
        ]
        if words:
            subprocess.run(command, check=True, capture_output=True)
            return
        self.nginx = subprocess.Popen([*command, "-g", "daemon off;"])
        until(lambda: self.curl("/healthz").status == 200, 10)

    def end(self) -> None:
        """End both."""
        for one in (self.nginx, self.gunicorn):
            if one is not None and one.poll() is None:
                one.send_signal(signal.SIGTERM)
        for one in (self.nginx, self.gunicorn):
            if one is not None:
                one.wait(40)

    # those who visit it

    def words(self, path: str, *more: str) -> list[str]:
        """curl's arguments for a path of the public site."""
        to = f"{NAME}:{self.public}:127.0.0.1"
        return ["--cacert", str(self.certificate), "--resolve", to, *more, f"{self.url}{path}"]

    def curl(self, path: str, *more: str) -> Answer:
        """Ask the public site."""
        return _curl(self.words(path, *more))

    def direct(self, path: str, *more: str) -> Answer:
        """Ask gunicorn itself, past the proxy."""
        return _curl([*more, f"http://127.0.0.1:{self.port}{path}"])

    def stream(self, path: str) -> Stream:
        """Follow a stream of the public site with the token."""
        return Stream(self.words(path, *BEARER))

    def status(self) -> dict[str, Any]:
        """What the orchestrator does now."""
        return dict(json.loads(self.curl("/api/orchestrator/status", *BEARER).body))


BEARER = ("-H", f"Authorization: Bearer {TOKEN}")


def _curl(words: Sequence[str]) -> Answer:
    done = subprocess.run(["curl", "-sSi", "-m", "20", *words], capture_output=True, check=False)
    head, _, body = done.stdout.decode().partition("\r\n\r\n")
    status = re.match(r"HTTP/[\d.]+ (\d+)", head)
    return Answer(int(status[1]) if status else 0, head, body)


def needs(*programs: str) -> None:
    """Skip the test where one of these programs is absent."""
    for program in programs:
        if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
            pytest.skip(f"{program} is not installed")
