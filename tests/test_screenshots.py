"""The pictures of the README are taken from a running demonstration; `make screenshots` keeps them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from bad_morning import BLOCKED, UNPROVED, Night
from demonstration import Demo, awaited

pytestmark = pytest.mark.browser

Pictures = Mapping[str, tuple[int, int, str]]

#: Widths and heights in CSS pixels, and the colour scheme, by the name of the picture.
PICTURES = {
    "dashboard": (1400, 900, "light"),
    "dashboard-dark": (1400, 900, "dark"),
    "dashboard-phone": (390, 844, "light"),
}
#: The same for the morning after a night that went wrong, and for a project before its first batch.
MORNING = {
    "morning": (1400, 900, "light"),
    "morning-dark": (1400, 900, "dark"),
    "morning-phone": (390, 844, "light"),
}
EMPTY = {"empty": (1400, 900, "light"), "empty-dark": (1400, 900, "dark"), "empty-phone": (390, 844, "light")}


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
        _take(browser, f"http://127.0.0.1:{demo.port}/", ".now-clock", PICTURES, tmp_path)
        browser.close()
    _keep(tmp_path, repository / "docs" / "screenshots", PICTURES)


@pytest.fixture
def night(tmp_path: Path) -> Iterator[Night]:
    running = Night(tmp_path)
    yield running
    running.end()


@pytest.mark.timeout(240)
def test_a_bad_morning_says_what_needs_a_person_and_what_was_handled_without_one(
    night: Night, chromium: str, repository: Path, tmp_path: Path
) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    awaited(night.answers)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        _take(browser, night.address, ".checks li", EMPTY, tmp_path)
        night.go_wrong()
        _take(browser, night.address, ".handled", MORNING, tmp_path)
        page = browser.new_page()
        page.goto(night.address)
        assert page.locator("h1").inner_text() == "Needs you"
        assert page.locator(".need .key").all_inner_texts() == [BLOCKED, UNPROVED]
        handled = page.locator(".handled").inner_text()
        assert "started again and was not counted as a failure" in handled
        assert "The batch resumed by itself" in handled
        assert "dev-story 1 of 1-1 failed" in handled
        browser.close()
    _keep(tmp_path, repository / "docs" / "screenshots", MORNING | EMPTY)


def _take(browser: Any, address: str, awaited_part: str, pictures: Pictures, folder: Path) -> None:
    for name, (width, height, scheme) in pictures.items():
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        said: list[str] = []
        page.on("console", lambda message, said=said: said.append(message.text))
        page.goto(address, wait_until="load")
        page.locator(awaited_part).first.wait_for()
        page.screenshot(path=folder / f"{name}.png")
        assert said == []
        page.close()


def _keep(taken: Path, folder: Path, pictures: Pictures) -> None:
    """Put the pictures where the README shows them, when asked to: a test leaves the checkout as it is."""
    if os.environ.get("SCREENSHOTS") == "1":
        folder.mkdir(parents=True, exist_ok=True)
        for name in pictures:
            shutil.copyfile(taken / f"{name}.png", folder / f"{name}.png")
