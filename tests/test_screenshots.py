"""The pictures of the README are taken from a running demonstration; `make screenshots` keeps them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from demonstration import Demo, awaited

pytestmark = pytest.mark.browser

#: Widths and heights in CSS pixels, and the colour scheme, by the name of the picture.
PICTURES = {
    "dashboard": (1400, 900, "light"),
    "dashboard-dark": (1400, 900, "dark"),
    "dashboard-phone": (390, 844, "light"),
}


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    running = Demo(tmp_path, "0.3")
    yield running
    running.end()


def _in_the_middle(demo: Demo) -> bool:
    """Whether one cycle is done and an agent is at work on the next."""
    now = demo.get("/api/orchestrator/status")
    return bool(now and now["cycles_completed"] and now["current_stories"] and demo.has_agent())


def test_a_running_batch_is_worth_a_picture(
    demo: Demo, chromium: str, repository: Path, tmp_path: Path
) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    awaited(lambda: _in_the_middle(demo))
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, (width, height, scheme) in PICTURES.items():
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            said: list[str] = []
            page.on("console", lambda message, said=said: said.append(message.text))
            page.goto(f"http://127.0.0.1:{demo.port}/", wait_until="load")
            page.locator(".now-clock").first.wait_for()
            page.screenshot(path=tmp_path / f"{name}.png")
            assert said == []
        browser.close()
    _keep(tmp_path, repository / "docs" / "screenshots")


def _keep(taken: Path, folder: Path) -> None:
    """Put the pictures where the README shows them, when asked to: a test leaves the checkout as it is."""
    if os.environ.get("SCREENSHOTS") == "1":
        folder.mkdir(parents=True, exist_ok=True)
        for name in PICTURES:
            shutil.copyfile(taken / f"{name}.png", folder / f"{name}.png")
