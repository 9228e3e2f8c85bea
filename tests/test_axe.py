"""axe-core, the accessibility checker, finds nothing on any page, light or dark."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import face
import pytest
from werkzeug.serving import make_server

from sprintrunner import create_app

pytestmark = pytest.mark.browser

AXE = Path(__file__).parent / "vendor" / "axe-core-4.14.1.min.js"
STORY = "2a-3-pdf-rendering"
#: Samples of the same partial stand side by side there; their ids are those of pages that hold one of them.
TOGETHER = (
    "duplicate-id-aria",
    "landmark-unique",
    "page-has-heading-one",
    "heading-order",
    "scrollable-region-focusable",
)


@pytest.fixture(scope="module")
def browser(request: pytest.FixtureRequest) -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = request.getfixturevalue("chromium")
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield launched
        launched.close()


class Site:
    """One state of the sprint behind a port."""

    def __init__(self, folder: Path, state: str) -> None:
        folder.mkdir()
        self.services = face.make_services(folder)
        if state == "locked":
            self.services.token = "a-token-that-is-long-enough"
        elif state != "empty":
            getattr(face, state)(self.services)
        app = create_app(self.services)
        app.config["PATTERNS"] = True
        self.server = make_server("127.0.0.1", 0, app, threaded=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def end(self) -> None:
        self.services.close_streams()
        self.server.shutdown()
        self.server.server_close()
        self.services.store.close()


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Site]]:
    folder = tmp_path_factory.mktemp("axe")
    made = {
        state: Site(folder / state, state) for state in ("running", "morning", "finished", "empty", "locked")
    }
    yield made
    for site in made.values():
        site.end()


PAGES = (
    ("running", "/"),
    ("running", "/?view=board"),
    ("running", "/?failures=1"),
    ("running", "/commands/1"),
    ("running", "/nothing-here"),
    ("morning", "/"),
    ("morning", "/stories/2a-4-email-delivery"),
    ("finished", f"/stories/{STORY}"),
    ("finished", "/commits/HEAD"),
    ("finished", "/batches"),
    ("finished", "/batches/1"),
    ("finished", "/timeline"),
    ("finished", "/activity"),
    ("finished", "/trends"),
    ("finished", "/search?q=pdf"),
    ("finished", "/settings"),
    ("empty", "/"),
    ("empty", "/batches"),
    ("empty", "/timeline"),
    ("empty", "/trends"),
    ("empty", "/patterns"),
    ("locked", "/login"),
)


def test_axe_finds_no_violation_on_any_page_light_or_dark(sites: dict[str, Site], browser: Any) -> None:
    # Without motion: a colour that is still on its way would be measured.
    context = browser.new_context(viewport={"width": 1400, "height": 900}, reduced_motion="reduce")
    context.add_init_script(path=str(AXE))
    page = context.new_page()
    found = []
    for state, path in PAGES:
        head = face.git(sites[state].services.project.root, "rev-parse", "HEAD")
        page.emulate_media(color_scheme="light")
        page.goto(sites[state].address + path.replace("HEAD", head), wait_until="load")
        found += [f"{state} {path}: {told}" for told in violations(page, _everything(path))]
        # Nothing but colours differs in the dark; the pattern page has both schemes side by side.
        page.emulate_media(color_scheme="dark")
        if path != "/patterns":
            found += [f"dark {state} {path}: {told}" for told in violations(page, _COLOURS)]
    context.close()
    assert found == []


_COLOURS = {"runOnly": ["color-contrast", "link-in-text-block"]}


def _everything(path: str) -> dict[str, Any]:
    off = TOGETHER if path == "/patterns" else ()
    return {"rules": {name: {"enabled": False} for name in off}}


def violations(page: Any, options: dict[str, Any]) -> list[str]:
    asked = {**options, "resultTypes": ["violations"]}
    told = page.evaluate("options => axe.run(document, options)", asked)["violations"]
    nodes = [(one["id"], node) for one in told for node in one["nodes"][:3]]
    return [f"{name}: {node['html'][:160]} {node['failureSummary'][:200]}" for name, node in nodes]
