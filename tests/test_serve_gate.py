"""The gate of the real server: what a browser posts by a plain form, what a forwarded header is worth."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sprintrunner.rehearsal import install_launcher, sample

TOKEN = "a-token-of-the-tests-0123456789"
START = "/api/orchestrator/start"


@dataclass
class Served:
    """A ``sprintrunner serve`` behind a token."""

    port: int

    def ask(self, method: str, path: str, headers: dict[str, str]) -> int:
        """The status of one request that carries the token."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, headers={"Authorization": f"Bearer {TOKEN}", **headers})
            return connection.getresponse().status
        finally:
            connection.close()

    def is_up(self) -> bool:
        try:
            return self.ask("GET", "/healthz", {}) == 200
        except OSError:
            return False


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    root = sample.create(folder / "project")
    install_launcher(folder / "bin")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        found = Served(probe.getsockname()[1])
    env = {name: value for name, value in os.environ.items() if not name.startswith("SPRINTRUNNER_")}
    env |= {"SPRINTRUNNER_TOKEN": TOKEN, "SPRINTRUNNER_STATE_DIR": str(folder / "state")}
    env |= {"PATH": f"{folder / 'bin'}{os.pathsep}{env['PATH']}", "HOME": str(folder)}
    command = [
        sys.executable,
        "-m",
        "sprintrunner",
        "--project",
        str(root),
        "serve",
        "--port",
        str(found.port),
    ]
    process = subprocess.Popen(command, env=env, cwd=Path(folder))
    try:
        limit = time.monotonic() + 30
        while not found.is_up():
            assert time.monotonic() < limit and process.poll() is None, "the server did not start"
            time.sleep(0.05)
        yield found
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def test_a_forwarded_scheme_or_path_of_anybody_is_not_believed(served: Served) -> None:
    forged = {
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Ssl": "on",
        "PATH_INFO": "/healthz",
        "SCRIPT_NAME": "/x",
    }
    foreign = {"Origin": f"https://127.0.0.1:{served.port}", "Content-Length": "0"}
    assert served.ask("POST", START, {**forged, **foreign}) == 403
    assert served.ask("GET", "/no-such-page", forged) == 404


def test_a_browser_logs_in_and_saves_a_form_without_any_script(served: Served, chromium: str) -> None:
    from playwright.sync_api import sync_playwright

    base = f"http://127.0.0.1:{served.port}"
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_context(java_script_enabled=False).new_page()
        page.goto(f"{base}/settings")
        assert page.url.startswith(f"{base}/login?next=")
        page.fill("input[name=token]", TOKEN)
        page.click("main button")
        page.wait_for_url(f"{base}/settings")
        page.fill("input[name=max_dev_attempts]", "5")
        page.click("#save")
        page.wait_for_url(f"{base}/settings?saved=1")
        assert page.input_value("input[name=max_dev_attempts]") == "5"
        browser.close()
