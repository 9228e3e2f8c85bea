"""A real Chromium: pages opened, what their console said, and what they asked of servers."""

from __future__ import annotations

import atexit
import http.server
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from checks import Failed, Skipped

HOSTILE_NAME = "evil.test"
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--no-sandbox",  # containers allow no namespaces
    "--disable-dev-shm-usage",
    "--disable-gpu",
    # The hostile site and the rebound name both lead to this machine.
    f"--host-resolver-rules=MAP {HOSTILE_NAME} 127.0.0.1,MAP other.test 127.0.0.1",
    # Chrome's own guard of the local network would hide what ours does.
    "--disable-features=LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests",
)


@cache
def chromium() -> Any:
    """The one browser of this bench; raises Skipped where there is none."""
    program = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if program is None:
        raise Skipped("no Chromium here")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise Skipped("playwright is not installed") from None
    driver = sync_playwright().start()
    atexit.register(driver.stop)
    return driver.chromium.launch(executable_path=program, args=list(_FLAGS))


@dataclass
class Page:
    """An open page with what its console, its dialogs and its requests told."""

    page: Any
    console: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)
    _addresses: dict[str, str] = field(default_factory=dict)
    _statuses: list[tuple[str, int]] = field(default_factory=list)

    def answered(self, part: str) -> list[int]:
        """The status of every answer to an address that contains ``part``, kept from the page or not."""
        return [status for request, status in self._statuses if part in self._addresses.get(request, "")]

    def linger(self, seconds: float) -> None:
        """Let the page live on and tell what it does."""
        self.page.wait_for_timeout(seconds * 1000)

    def wait(self, condition: Callable[[], Any], seconds: float, what: str) -> Any:
        """What the condition gives once it is true while the page lives; raises Failed."""
        limit = time.monotonic() + seconds
        while not (found := condition()):
            if time.monotonic() > limit:
                raise Failed(f"waited {seconds:.0f} s for {what}")
            self.linger(0.05)
        return found

    def follow(self) -> None:
        """Listen below the page: what a policy hides from the page was answered all the same."""
        below = self.page.context.new_cdp_session(self.page)
        below.send("Network.enable")
        below.on("Network.requestWillBeSent", self._asked)
        below.on("Network.responseReceivedExtraInfo", self._told)

    def _asked(self, told: dict[str, Any]) -> None:
        self._addresses[told["requestId"]] = told["request"]["url"]

    def _told(self, told: dict[str, Any]) -> None:
        self._statuses.append((told["requestId"], told["statusCode"]))

    def violations(self) -> list[str]:
        """What the console said of the content security policy."""
        return [line for line in self.console if "Content Security Policy" in line or "CSP" in line]


@contextmanager
def opened(**options: Any) -> Iterator[Page]:
    """A page in a context of its own."""
    context = chromium().new_context(**options)
    try:
        found = Page(context.new_page())
        _listen(found)
        yield found
    finally:
        context.close()


def _listen(found: Page) -> None:
    def dialog(one: Any) -> None:
        found.dialogs.append(one.message)
        with suppress(Exception):
            one.dismiss()

    page = found.page
    page.on("console", lambda message: found.console.append(message.text))
    page.on("pageerror", lambda error: found.console.append(str(error)))
    page.on("dialog", dialog)
    found.follow()


@contextmanager
def site(pages: dict[str, str]) -> Iterator[int]:
    """A web server of someone else on another port, with these pages; gives its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = pages.get(self.path)
            data = (text or "not here").encode()
            self.send_response(200 if text else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *values: Any) -> None:
            return None

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
