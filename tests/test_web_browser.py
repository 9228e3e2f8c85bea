"""Chromium over the pages: one stream for all windows, keys of transcript and timeline, a silent console."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import face
import pytest
from demonstration import awaited
from flask import Response, request
from werkzeug.serving import BaseWSGIServer, make_server

from sprintrunner import create_app
from sprintrunner.errors import Conflict
from sprintrunner.services import Services

pytestmark = pytest.mark.browser
KEY = "2a-3-pdf-rendering"


class Site:
    """The dashboard behind a real server on one port, which can go away and come back."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.port = 0
        self.server: BaseWSGIServer | None = None
        self.begin()

    def begin(self, silence: bytes = b"15e3") -> None:
        """Listen, on the same port as before; ``silence``: the longest a page may be silent."""
        app = create_app(self.services)

        @app.after_request
        def shorten(response: Response) -> Response:
            if request.path.endswith("/stream.js"):
                response.direct_passthrough = False
                response.set_data(response.get_data().replace(b"15e3", silence))
            return response

        self.server = make_server("127.0.0.1", self.port, app, threaded=True)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def end(self) -> None:
        assert self.server is not None
        self.services.close_streams()
        self.server.shutdown()
        self.server.server_close()

    def url(self, path: str = "/") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    @property
    def streams(self) -> int:
        hub = self.services.hub
        return hub.clients if hub else 0

    def say(self, text: str) -> None:
        batch = self.services.store.latest_batch()
        assert batch is not None
        with self.services.store.transaction() as tx:
            tx.append("batch:warning", {"batch_id": batch.id, "warning": text}, batch_id=batch.id)


@pytest.fixture(scope="module")
def browser(request: pytest.FixtureRequest) -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = request.getfixturevalue("chromium")
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    made = face.make_services(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def site(services: Services) -> Iterator[Site]:
    made = Site(services)
    yield made
    made.end()


@pytest.fixture
def context(browser: Any) -> Iterator[Any]:
    made = browser.new_context(reduced_motion="reduce")
    yield made
    made.close()


def listened(context: Any) -> list[str]:
    """What any page of the browser says on its console from now on."""
    said: list[str] = []
    context.on("console", lambda message: said.append(message.text))
    context.on("weberror", lambda error: said.append(str(error.error)))
    return said


def live(tab: Any) -> Any:
    tab.locator("body[data-connection=live]").wait_for()
    return tab


def opened(context: Any, site: Site, path: str = "/") -> Any:
    tab = context.new_page()
    tab.goto(site.url(path))
    return live(tab)


def hide(tab: Any, hidden: bool) -> None:
    """Headless pages are always visible: say otherwise, as a browser does when its window is covered."""
    tab.evaluate(
        f"Object.defineProperty(document, 'hidden', {{value: {json.dumps(hidden)}, configurable: true}});"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )


def happened(tab: Any, text: str) -> None:
    tab.locator("#happened").get_by_text(text).wait_for()


def test_two_windows_of_one_browser_share_one_stream(site: Site, context: Any) -> None:
    face.running(site.services)
    said = listened(context)
    tabs = [opened(context, site), opened(context, site, "/?view=board")]
    awaited(lambda: site.streams == 1)
    site.say("the disk is nearly full")
    for tab in tabs:
        happened(tab, "the disk is nearly full")
    assert site.streams == 1
    assert said == []


def test_hidden_windows_cost_nothing_and_catch_up_when_they_are_looked_at(site: Site, context: Any) -> None:
    face.running(site.services)
    first, second = opened(context, site), opened(context, site)
    hide(first, True)
    site.say("only one looks")
    happened(second, "only one looks")
    assert first.get_by_text("only one looks").count() == 0
    hide(second, True)
    awaited(lambda: site.streams == 0)
    site.say("nobody looks")
    hide(first, False)
    happened(first, "only one looks")
    happened(first, "nobody looks")
    assert site.streams == 1


def test_a_closed_window_takes_its_stream_along(site: Site, context: Any) -> None:
    face.running(site.services)
    first, second = opened(context, site), opened(context, site)
    second.close()
    site.say("one is left")
    happened(first, "one is left")
    first.goto("about:blank")
    awaited(lambda: site.streams == 0)


def test_both_windows_follow_through_a_restart_in_silence(site: Site, context: Any) -> None:
    face.running(site.services)
    said = listened(context)
    tabs = [opened(context, site), opened(context, site)]
    site.end()
    for tab in tabs:
        tab.locator("#connection", has_text="Reconnecting, as of").wait_for()
    site.say("said while it was away")
    site.begin()
    for tab in tabs:
        happened(live(tab), "said while it was away")
    awaited(lambda: site.streams == 1)
    assert said == []


def test_what_is_clicked_without_a_connection_stays_quiet(site: Site, context: Any) -> None:
    face.running(site.services)
    said = listened(context)
    tab = opened(context, site)
    site.end()
    tab.locator("#connection", has_text="Reconnecting").wait_for()
    tab.get_by_role("button", name="Stop after story").click()
    site.begin()
    live(tab)
    assert said == []


def test_a_browser_without_shared_workers_follows_with_a_worker_of_its_own(site: Site, context: Any) -> None:
    face.running(site.services)
    context.add_init_script("delete window.SharedWorker")
    tab = opened(context, site)
    site.say("heard without sharing")
    happened(tab, "heard without sharing")
    assert tab.evaluate("typeof SharedWorker") == "undefined"


def test_a_machine_that_slept_asks_anew(site: Site, context: Any) -> None:
    """Time that jumps is what a sleep looks like from inside."""
    face.running(site.services)
    site.end()
    site.begin(silence=b"3e3")
    tab = opened(context, site)
    hub = site.services.hub
    assert hub is not None
    joined: list[int] = []
    attach = hub.attach

    def count(*given: Any) -> None:
        joined.append(1)
        attach(*given)

    hub.attach = count  # type: ignore[assignment, method-assign]
    # No ticks for longer than a page may be silent.
    tab.evaluate("const end = performance.now() + 4000; while (performance.now() < end);")
    awaited(lambda: len(joined) >= 1)
    site.say("after the sleep")
    happened(tab, "after the sleep")


def talk(services: Services, *records: dict[str, Any]) -> None:
    folder = services.state_dir / "transcripts"
    with (folder / "77.jsonl").open("a") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


def call(name: str, command: str, failed: bool = False) -> list[dict[str, Any]]:
    use = {"type": "tool_use", "id": name, "name": "Bash", "input": {"command": command}}
    result = {"type": "tool_result", "tool_use_id": name, "content": f"{command} said", "is_error": failed}
    return [
        {"type": "assistant", "message": {"content": [use]}},
        {"type": "user", "message": {"content": [result]}},
    ]


@pytest.fixture
def transcript(site: Site) -> str:
    face.running(site.services)
    (site.services.state_dir / "transcripts" / "77.jsonl").write_text("")
    talk(site.services, *call("a", "echo one"), *call("b", "echo two", True), *call("c", "echo three"))
    return f"/commands/{site.services.store.running_commands()[0].id}"


def test_keys_walk_open_and_close_the_cards_of_a_transcript(
    site: Site, context: Any, transcript: str
) -> None:
    said = listened(context)
    tab = opened(context, site, transcript)
    cards = tab.locator("details.part-card")

    def at() -> str:
        return str(tab.evaluate("document.activeElement.textContent"))

    tab.keyboard.press("j")
    assert "echo one" in at()
    tab.keyboard.press("j")
    assert "echo two" in at()
    tab.keyboard.press("k")
    tab.keyboard.press("Enter")
    assert cards.first.get_attribute("open") is not None
    tab.keyboard.press("e")
    tab.wait_for_url("**?open=all")
    assert tab.locator("details.part-card:not([open])").count() == 0
    tab.keyboard.press("c")
    tab.wait_for_url("**?open=none")
    assert tab.locator("details.part-card[open]").count() == 0
    live(tab).keyboard.press(".")
    tab.wait_for_url("**#end")
    tab.keyboard.press("f")
    tab.wait_for_url("**?only=failures")
    assert cards.count() == 1
    assert said == []


def test_keys_walk_the_hits_of_a_search_in_a_transcript(site: Site, context: Any, transcript: str) -> None:
    tab = opened(context, site, f"{transcript}?q=t")

    def at() -> str:
        return str(tab.evaluate("document.activeElement.textContent"))

    hits = [one for one in tab.locator("[data-hit]").all_text_contents() if one]
    assert len(hits) >= 2
    for key, found in (("n", hits[0]), ("n", hits[1]), ("N", hits[0])):
        tab.keyboard.press(key)
        assert at() == found


def from_of(url: str) -> int:
    return int(parse_qs(urlsplit(url).query)["from"][0])


def test_keys_move_and_zoom_the_timeline(site: Site, context: Any) -> None:
    face.morning(site.services)
    tab = context.new_page()
    tab.goto(site.url("/timeline"))

    def pressed(key: str) -> str:
        with tab.expect_navigation():
            tab.keyboard.press(key)
        return str(tab.url)

    pressed("+")
    near = pressed("+")
    earlier = pressed("h")
    assert from_of(earlier) < from_of(near)
    assert from_of(pressed("l")) > from_of(earlier)
    assert from_of(pressed("-")) <= from_of(near)


def test_the_list_of_keys_names_only_keys_that_some_page_has(
    site: Site, context: Any, transcript: str
) -> None:
    tab = context.new_page()
    bound: set[str] = {"j", "k", "n", "N", "Enter", "Esc"}
    batch = site.services.store.live_batch()
    assert batch is not None
    record = site.services.store.story_record(batch.id, "2a-4-email-delivery")
    assert record is not None
    half = f"/timeline?from={batch.started_at + 3_600_000}&to={batch.started_at + 5_400_000}"
    with site.services.store.transaction() as tx:
        tx.update_story(record.id, status="blocked", reason="a sentence")
    for path in ("/", transcript, half):
        tab.goto(site.url(path))
        bound |= set(tab.eval_on_selector_all("[data-key]", "all => all.map((el) => el.dataset.key)"))
    listed = tab.eval_on_selector_all(
        "#keys dl > div",
        "all => all.map((row) => [...row.querySelectorAll('kbd')].map((el) => el.textContent))",
    )
    for keys in listed:
        names = ["".join(keys)] if keys[0] == "g" else [key.replace("−", "-") for key in keys]
        assert set(names) <= bound, names


Act = Callable[[Any], None]


def refused_settings(tab: Any) -> None:
    tab.locator("#max_limit_wait_hours").fill("400")
    tab.get_by_role("button", name="Save").first.click()
    tab.get_by_text("Nothing was saved.").first.wait_for()


def refused_start(tab: Any) -> None:
    tab.get_by_role("button", name="Start", exact=True).first.click()
    tab.locator("#notice", has_text="no, not now").wait_for()


def refused_retry(tab: Any) -> None:
    tab.get_by_role("button", name="Retry", exact=False).first.click()
    tab.get_by_text("no, not now").first.wait_for()


@pytest.mark.parametrize(
    ("path", "act"),
    [
        ("/settings", refused_settings),
        ("/", refused_start),
        ("/", refused_retry),
        ("/stories/2a-4-email-delivery", refused_retry),
    ],
)
def test_what_is_refused_is_said_on_the_page_and_not_on_the_console(
    site: Site, context: Any, path: str, act: Act
) -> None:
    def refuse(action: str, arguments: Any) -> dict[str, Any]:
        raise Conflict(f"no, not now: {action}")

    face.morning(site.services)
    site.services.submit = refuse
    said = listened(context)
    tab = context.new_page()
    tab.goto(site.url(path))
    if path == "/":
        live(tab)
    act(tab)
    assert said == []


def test_a_stale_form_of_settings_is_said_without_a_console_message(site: Site, context: Any) -> None:
    said = listened(context)
    tab = context.new_page()
    tab.goto(site.url("/settings"))
    site.services.save_settings({"default_max_cycles": 9}, None)
    tab.locator("#max_retries").fill("3")
    tab.get_by_role("button", name="Save").first.click()
    tab.get_by_text("load them again").first.wait_for()
    assert said == []


def test_a_wrong_token_is_said_without_a_console_message(tmp_path: Path, context: Any) -> None:
    made = face.make_services(tmp_path)
    site = Site(replace(made, token="t" * 43))
    said = listened(context)
    tab = context.new_page()
    tab.goto(site.url("/"))
    tab.locator("#token").fill("wrong")
    tab.get_by_role("button", name="Log in").click()
    tab.get_by_text("This is not the token.").wait_for()
    assert said == []
    tab.locator("#token").fill("t" * 43)
    tab.get_by_role("button", name="Log in").click()
    live(tab)
    site.end()
    made.store.close()


def drifted(services: Services) -> None:
    """An interrupted batch: the state with the longest sentence and the most buttons."""
    script = face.Script(services)
    script.finish_cycle(1, "1-3-password-reset", "1-4-session-expiry")
    script.end("interrupted", "The server was stopped")


def foretold(services: Services) -> None:
    """A running batch with its expected end."""
    before = face.Script(services)
    before.finish_cycle(1, "1-1-project-skeleton", "1-2-user-login")
    before.end("completed")
    face.running(services)


@pytest.mark.parametrize("state", [drifted, foretold])
def test_nothing_is_cut_wrapped_or_pushed_out_at_any_width(
    site: Site, context: Any, state: Callable[[Services], None]
) -> None:
    state(site.services)
    tab = context.new_page()
    for width in (320, 390, 640, 900, 1000, 1280, 1400, 1800, 2560):
        tab.set_viewport_size({"width": width, "height": 800})
        tab.goto(site.url("/"))
        live(tab)
        assert tab.locator("html").evaluate("html => html.scrollWidth") <= width, width
        if width < 900:
            continue
        heights = tab.eval_on_selector_all(".verdict", "all => all.map((el) => el.offsetHeight)")
        assert heights[0] <= 75, (width, heights)
        keys = tab.eval_on_selector_all(".grid th .key", "all => all.map((el) => el.offsetWidth)")
        assert min(keys) >= 90, (width, keys)
        clocks = tab.eval_on_selector_all(".now-clock", "all => all.map((el) => el.offsetHeight)")
        assert all(height <= 26 for height in clocks), (width, clocks)
        assert tab.locator(".fact-last .value").is_visible()
