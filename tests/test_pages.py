"""The pages as a person gets them: with and without JavaScript, in each state of the sprint."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import face
import pytest
from flask.testing import FlaskClient
from werkzeug.serving import BaseWSGIServer, make_server

from sprintrunner import create_app
from sprintrunner.services import Services
from sprintrunner.web import assets

Make = Callable[..., Services]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Services] = []

    def services(statuses: dict[str, str] | None = None) -> Services:
        made.append(face.make_services(tmp_path, statuses))
        return made[-1]

    yield services
    for one in made:
        one.store.close()


def client(services: Services) -> FlaskClient:
    return create_app(services).test_client()


def words(html: str) -> str:
    """What is read on a page: no tags, single spaces."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def test_a_running_batch_says_so_first_and_offers_to_stop_it(make: Make) -> None:
    services = make()
    face.running(services)
    html = client(services).get("/").text
    assert "<title>Running 4/10 · larkspur</title>" in html
    assert "<h1>Running</h1><p>Cycle 3 of 5, batch 1</p>" in html
    assert re.search(r'<progress class="bar" max="5" value="2"[^>]*>2/5 cycles</progress>', html)
    assert 'name="after_story" value="true"' in html
    assert 'id="act-start"' not in html
    assert 'Editing <span class="mono">src/larkspur/pdf/render.py</span>' in html
    assert "All clear. Nothing needs you." in words(html)


def test_an_unlimited_batch_has_a_bar_without_an_end(make: Make) -> None:
    services = make()
    face.running(services, max_cycles=None)
    html = client(services).get("/").text
    assert "2 cycles (unlimited)" in html
    assert re.search(r'<progress class="bar endless"(?![^>]*value=)', html)


def test_blocked_stories_come_with_their_sentence_and_ways_on(make: Make) -> None:
    services = make()
    face.morning(services)
    html = client(services).get("/").text
    assert "<title>(2) Needs you · larkspur</title>" in html
    assert "Verify failed after all 3 attempts: pytest -q, 1 of 231 failed" in html
    assert 'action="/api/stories/2a-4-email-delivery/retry"' in html
    assert 'name="phase" value="code-review"' in html
    assert 'action="/api/stories/3-1-stripe-webhooks/done"' in html
    assert 'action="/api/stories/3-1-stripe-webhooks/skip"' in html
    assert "Retry dev-story" in html
    assert "6 of 14 done, 2 blocked, 1 on hold" in html


def test_an_acknowledged_block_asks_no_more_and_the_page_still_does_not_say_done_for_it(make: Make) -> None:
    services = make()
    script = face.morning(services)
    with services.store.transaction() as tx:
        for key in ("2a-4-email-delivery", "3-1-stripe-webhooks"):
            tx.update_story(script.ids[key], acknowledged=True)
    html = client(services).get("/").text
    assert "All clear." in html
    assert "2 blocked" in words(html)


def test_an_interrupted_batch_waits_for_a_click_and_nothing_is_said_to_run(make: Make) -> None:
    services = make()
    face.running(services).end("interrupted", "The server was stopped in cycle 3")
    html = client(services).get("/").text
    assert "<h1>Interrupted</h1>" in html
    assert 'action="/api/orchestrator/resume"' in html
    assert 'class="c running' not in html
    assert "running" not in words(client(services).get("/commands/30").text)


def test_a_sleeping_batch_says_when_it_wakes(make: Make) -> None:
    services = make()
    face.running(services, state="waiting", resumes_at=services.store.now() + 3_600_000, limit_kind="5-hour")
    html = client(services).get("/").text
    assert re.search(r"<h1>Asleep until \d\d:\d\d</h1>", html)
    assert "Wake now" in html
    assert "Wakes in" in html


def test_before_the_first_batch_the_page_offers_to_start_one(make: Make) -> None:
    html = client(make()).get("/").text
    assert "<h1>Idle</h1>" in html
    assert '<option value="2" selected>2 cycles</option>' in html
    assert '<option value="all">All stories</option>' in html
    assert "Nothing yet. Here you will read every change of a story" in html


def test_a_status_file_that_is_gone_is_one_sentence_not_an_error(make: Make) -> None:
    services = make()
    services.project.status_path.unlink()
    answer = client(services).get("/")
    assert answer.status_code == 200
    assert "does not exist" in answer.text
    assert "disabled" in answer.text


def test_every_story_of_the_status_file_stands_there_with_its_word(make: Make) -> None:
    html = client(make()).get("/").text
    for key, status in face.STATUSES.items():
        row = html[html.index(f">{key}</a>") :]
        assert status in row[: row.index("</tr>")]
    assert "Accounts and sign-in" in html


def test_one_epic_can_be_shown_alone(make: Make) -> None:
    html = client(make()).get("/?epic=3").text
    assert "3-1-stripe-webhooks" in html
    assert "1-1-project-skeleton" not in html


@pytest.mark.parametrize("path", ["/", "/batches", "/batches/1", "/commands/1", "/settings", "/story"])
def test_a_hostile_key_is_only_text_on_every_page(make: Make, path: str) -> None:
    services = make({face.HOSTILE: "backlog", "1-1-a": "done"})
    script = face.Script(services)
    script.cycle(1, face.HOSTILE)
    script.command("dev-story", face.HOSTILE, reason=face.HOSTILE, stderr_tail=face.HOSTILE)
    script.status(face.HOSTILE, "blocked", reason=face.HOSTILE)
    path = "/stories/x%22%3E%3Cimg%20src=x%20onerror=alert(1)%3E" if path == "/story" else path
    answer = client(services).get(path)
    assert answer.status_code == 200
    assert "<img" not in answer.text
    if path != "/settings" and path != "/batches":
        assert "x&#34;&gt;&lt;img src=x onerror=alert(1)&gt;" in answer.text


def test_a_story_page_shows_its_file_commands_and_findings(make: Make) -> None:
    services = make()
    script = face.running(services)
    review = script.command("code-review", "2a-3-pdf-rendering", cycle=3)
    with services.store.transaction() as tx:
        found = tx.upsert_finding(
            script.ids["2a-3-pdf-rendering"],
            "totals",
            severity="HIGH",
            title="Totals are rounded per line",
            file="pdf/totals.py",
            line=48,
            status="open",
        )
        tx.add_finding_round(found, review, "open")
    said = words(client(services).get("/stories/2a-3-pdf-rendering").text)
    assert "As a customer, I want my invoice as a PDF" in said
    assert "A missing logo falls back to the name." in said
    assert "1 of 2 ticked" in said
    assert "Totals are rounded per line pdf/totals.py:48 new open" in said
    assert "tech-spec-review" in said


def test_what_does_not_exist_is_a_page_with_404(make: Make) -> None:
    browser = client(make())
    for path in ("/batches/99", "/commands/99", "/commands/99/transcript", "/stories/9-9-nothing"):
        answer = browser.get(path)
        assert answer.status_code == 404
        assert "Back to the sprint" in answer.text


def test_a_transcript_is_plain_text_without_secrets(make: Make) -> None:
    services = make()
    face.running(services)
    command = services.store.running_commands()[0]
    answer = client(services).get(f"/commands/{command.id}/transcript")
    assert answer.mimetype == "text/plain"
    assert "sk-ant-api03" not in answer.text
    assert answer.text.startswith('{"type":"text"')


def test_a_transcript_never_leads_out_of_its_folder(make: Make) -> None:
    services = make()
    face.running(services)
    command = services.store.running_commands()[0]
    (services.state_dir / "secret.txt").write_text("secret")
    with services.store.transaction() as tx:
        tx.update_command(command.id, transcript="../secret.txt")
    assert client(services).get(f"/commands/{command.id}/transcript").status_code == 404


def _sent(html: str) -> dict[str, str]:
    """What a browser sends for the settings form as it stands."""
    found = dict(re.findall(r'<input id="(\w+)" name="\w+" value="([^"]*)"', html))
    found |= dict.fromkeys(re.findall(r'type="checkbox" id="(\w+)"[^>]* checked', html), "true")
    for name, options in re.findall(r'<select id="(\w+)"[^>]*>(.*?)</select>', html, re.DOTALL):
        found[name] = re.findall(r'value="([^"]*)" selected', options)[0]
    return found | dict(re.findall(r'name="(etag)" value="([^"]*)"', html))


def test_settings_are_saved_by_a_plain_form(make: Make) -> None:
    services = make()
    browser = client(services)
    form = _sent(browser.get("/settings").text)
    form |= {"budget_usd_per_batch": "40", "order": "status", "default_max_cycles": "7"}
    del form["pair_stories"]
    answer = browser.post("/settings", data=form)
    assert (answer.status_code, answer.location) == (303, "/settings?saved=1")
    layers = services.layers()
    assert (layers.values.budget_usd_per_batch, layers.values.order) == (40, "status")
    assert layers.values.default_max_cycles == 7
    assert layers.values.pair_stories is False
    assert set(layers.saved) == {"budget_usd_per_batch", "order", "default_max_cycles", "pair_stories"}
    browser.post("/settings", data={"forget": "order"})
    assert services.layers().sources["order"] == "default"
    # A part of the form says nothing about the boxes it lacks.
    browser.post("/settings", data={"max_retries": "3"})
    assert services.layers().values.blocked_in_status_file is True


def test_a_wrong_value_is_refused_beside_its_field_and_nothing_is_saved(make: Make) -> None:
    services = make()
    browser = client(services)
    form = _sent(browser.get("/settings").text) | {"max_limit_wait_hours": "400", "order": "status"}
    answer = browser.post("/settings", data=form)
    assert answer.status_code == 200
    assert "Nothing was saved. 1 field to correct:" in answer.text
    assert 'value="400"' in answer.text
    assert 'aria-describedby="max_limit_wait_hours-error max_limit_wait_hours-help"' in answer.text
    assert services.layers().saved == {}


def test_settings_saved_elsewhere_meanwhile_are_not_overwritten(make: Make) -> None:
    services = make()
    browser = client(services)
    form = _sent(browser.get("/settings").text) | {"default_max_cycles": "3"}
    services.save_settings({"default_max_cycles": 9}, None)
    answer = browser.post("/settings", data=form)
    assert answer.status_code == 200
    assert "load them again" in answer.text
    assert services.layers().values.default_max_cycles == 9


def test_what_must_not_be_set_from_a_browser_has_no_control(make: Make) -> None:
    html = client(make()).get("/settings").text
    for name in ("verify", "env_drop", "permission_mode", "token_file", "server_port"):
        assert f'name="{name}"' not in html
    assert "never from the browser" in html


def test_the_page_stays_small_with_five_hundred_stories(make: Make) -> None:
    statuses = {
        f"{epic}-{n}-a-story-with-a-usual-name": "backlog" for epic in range(1, 51) for n in range(1, 11)
    }
    services = make(statuses)
    script = face.Script(services)
    why = "Open after 3 reviews: the bounce handler swallows SMTP 4xx, a failed mail is never sent again"
    for number in range(1, 6):
        keys = [f"{number}-{place}-a-story-with-a-usual-name" for place in range(1, 11)]
        script.finish_cycle(number, *keys[:2])
        for key in keys[2:7]:
            script.cycle(number, key)
            script.command("dev-story", key, status="failed", cycle=number, reason=why)
            script.status(key, "blocked", reason=why)
    own = sum(
        (assets.STATIC / name).stat().st_size for name in ("js/app.js", "js/stream.js", "img/icons.svg")
    )
    browser = client(services)
    for path in ("/", "/?view=board", "/?failures=1"):
        assert len(browser.get(path).data) + own + len(assets.stylesheet()) < 100_000, path


def test_our_own_script_is_small_and_vendored_files_carry_version_and_licence() -> None:
    assert sum(path.stat().st_size for path in (assets.STATIC / "js").iterdir()) < 4_096
    vendored = {path.name for path in (assets.STATIC / "vendor").iterdir()}
    assert vendored == {"htmx-4.0.1.min.js", "htmx-LICENSE.txt"}


def test_every_glyph_a_template_or_a_look_names_is_in_the_sprite(make: Make) -> None:
    sprite = set(re.findall(r'<symbol id="([\w-]+)"', (assets.STATIC / "img/icons.svg").read_text()))
    services = make()
    face.morning(services)
    used = set(re.findall(r"icons\.svg#([\w-]+)", client(services).get("/").text))
    for path in assets.TEMPLATES.rglob("*.html"):
        used |= set(re.findall(r'icon\("([\w-]+)"', path.read_text()))
    from sprintrunner.web.views import looks

    used |= {
        look.glyph
        for family in (looks.STORY, looks.CLASS, looks.COMMAND, looks.BATCH)
        for look in family.values()
    }
    assert used - sprite == set()


class Served:
    """An application behind a real server on one port, which can go away and come back."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.port = 0
        self.server: BaseWSGIServer | None = None
        self.begin()

    def begin(self) -> None:
        """Listen, on the same port as before."""
        app = create_app(self.services)
        self.server = make_server("127.0.0.1", self.port, app, threaded=True)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def end(self) -> None:
        """Close the streams and the port."""
        assert self.server is not None
        self.services.close_streams()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def served(make: Make) -> Iterator[Served]:
    services = make()
    face.running(services)
    running = Served(services)
    yield running
    running.end()


@pytest.mark.browser
def test_a_browser_follows_a_batch_through_a_restart_of_the_server_in_silence(
    served: Served, chromium: str
) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    store = served.services.store
    batch, command = store.live_batch(), store.running_commands()[0]
    assert batch is not None
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(f"http://127.0.0.1:{served.port}/")
        page.locator("#connection", has_text="Live").wait_for()
        page.locator(f"#now-{command.id}-stop").focus()
        _progress(served.services, command.id, "running ruff check")
        page.get_by_text("Running ruff check").wait_for()
        assert page.evaluate("document.activeElement.id") == f"now-{command.id}-stop"
        served.end()
        page.locator("#connection", has_text="Reconnecting, as of").wait_for()
        with store.transaction() as tx:
            tx.update_batch(batch.id, status="stopped", state="ended", ended_at=store.now())
            ended = {"batch_id": batch.id, "cycles_completed": 2, "status": "stopped"}
            tx.append("batch:end", ended, batch_id=batch.id)
        served.begin()
        page.get_by_role("heading", name="Stopped", exact=True).wait_for()
        assert page.title() == "Stopped · larkspur"
        assert page.evaluate("document.body.dataset.connection") == "live"
        assert said == []
        browser.close()


def _progress(services: Services, command: int, action: str) -> None:
    with services.store.transaction() as tx:
        tx.update_command(command, last_action=action, last_action_at=services.store.now())
        told = {
            "story_key": "2a-3-pdf-rendering",
            "command": "dev-story",
            "task_id": "tests",
            "message": action,
        }
        tx.append("command:progress", told, command_id=command)


@pytest.mark.browser
@pytest.mark.parametrize("width", [320, 390, 768, 1024, 1400, 2560])
def test_no_page_scrolls_sideways(served: Served, chromium: str, width: int) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 800}, java_script_enabled=False)
        for path in (
            "/",
            "/batches",
            "/batches/1",
            "/stories/2a-3-pdf-rendering",
            "/commands/1",
            "/settings",
        ):
            page.goto(f"http://127.0.0.1:{served.port}{path}")
            wide = page.locator("html").evaluate("html => html.scrollWidth")
            assert wide <= width, path
        browser.close()


@pytest.mark.browser
def test_a_click_reaches_the_server_once_and_its_effect_is_seen(make: Make, chromium: str) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    services = make()
    batch = face.running(services).batch
    asked: list[tuple[str, dict[str, object]]] = []

    def submit(action: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        asked.append((action, dict(arguments)))
        # Like the orchestrator, which records the state and no event.
        with services.store.transaction() as tx:
            tx.update_batch(batch, state="stopping", stop_after_story=True)
        return {"status": "stopping"}

    services.submit = submit
    running = Served(services)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.goto(f"http://127.0.0.1:{running.port}/")
        page.locator("#connection", has_text="Live").wait_for()
        page.get_by_role("button", name="Stop after story").click()
        page.get_by_role("heading", name="Stopping", exact=True).wait_for()
        assert page.get_by_role("button", name="Stop after story").count() == 0
        assert asked == [("stop", {"after_story": True})]
        assert said == []
        browser.close()
    running.end()


@pytest.mark.browser
def test_an_open_question_and_a_choice_survive_an_update(make: Make, chromium: str) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    services = make()
    face.morning(services)
    running = Served(services)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{running.port}/")
        page.locator("#connection", has_text="Live").wait_for()
        page.get_by_text("Mark done").first.click()
        page.locator("#batch-size").select_option("all")
        with services.store.transaction() as tx:
            tx.append("batch:warning", {"batch_id": 1, "warning": "the disk is nearly full"}, batch_id=1)
        page.locator("#happened").get_by_text("the disk is nearly full").wait_for()
        assert page.get_by_text("Mark 2a-4 done? Its record will say that a person did.").first.is_visible()
        assert page.locator("#batch-size").input_value() == "all"
        browser.close()
    running.end()


def test_a_blocked_story_can_be_retried_from_its_page_and_a_held_one_cannot(make: Make) -> None:
    browser = client(make({"1-1-a": "blocked", "1-2-b": "on-hold"}))
    blocked, held = browser.get("/stories/1-1-a").text, browser.get("/stories/1-2-b").text
    assert 'action="/api/stories/1-1-a/retry"' in blocked
    assert "Mark done" in blocked
    assert "/retry" not in held
