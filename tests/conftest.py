"""What the whole suite shares: a clean environment, the shared material, the browser that is there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from engine import Engine, Make, engine_in

REPOSITORY = Path(__file__).resolve().parent.parent
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: Would point git, the agents or Sprint Runner itself at the machine of whoever runs the suite.
_FOREIGN_PREFIXES = ("SPRINTRUNNER_", "REHEARSAL_", "GIT_", "CLAUDE")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The suite runs the same inside an agent of Sprint Runner, under a CI, and on a developer's machine."""
    for name in [name for name in os.environ if name.startswith(_FOREIGN_PREFIXES)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "state"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of this repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared() -> Path:
    """Material beside the repository that does not belong to it; skips where it is absent."""
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        pytest.skip("the shared material is not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a browser; without one the test is skipped, or fails where REQUIRE_BROWSER=1."""
    for name in _BROWSERS:
        if found := shutil.which(name):
            return found
    if os.environ.get("REQUIRE_BROWSER") == "1":
        pytest.fail("REQUIRE_BROWSER=1, but no Chromium was found on PATH")
    pytest.skip("no Chromium was found on PATH")


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes the engines of one test, and ends them with it."""
    with ExitStack() as stack:

        def build(given: dict[str, str] | None = None, **more: Any) -> Engine:
            return stack.enter_context(engine_in(tmp_path, statuses=given, **more))

        yield build
