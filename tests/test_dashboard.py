"""What the dashboard tells beyond single commands: ranges, drift, repairs, filters, keys, the first page."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import face
import pytest
from demonstration import awaited
from flask.testing import FlaskClient
from werkzeug.serving import make_server

from sprintrunner import create_app
from sprintrunner.agents import describe
from sprintrunner.agents.base import ToolStarted
from sprintrunner.ours import file_hash
from sprintrunner.services import Services
from sprintrunner.store import Store
from sprintrunner.web.views import forecast, gaps
from sprintrunner.web.views.reading import Reading, forget_slow

Make = Callable[..., Services]
STORY, HELD_BACK = "2a-3-pdf-rendering", "2a-4-email-delivery"
FILE = Path("_bmad-output/implementation-artifacts") / f"{STORY}.md"


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
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def page(services: Services, path: str = "/") -> str:
    forget_slow(services.project.root)
    return client(services).get(path).text


def three_cycles(services: Services) -> face.Script:
    """An ended batch of one cycle, then a live one with two cycles done and a third at work."""
    before = face.Script(services)
    before.finish_cycle(1, "1-1-project-skeleton", "1-2-user-login")
    before.end("completed")
    return face.running(services)


def test_no_end_is_foretold_from_fewer_than_three_cycles(make: Make) -> None:
    services = make()
    face.running(services)
    assert forecast.forecast(Reading(services)) is None
    assert not re.search(r"ends \d\d:", words(page(services)))


def test_the_end_is_a_range_that_names_the_cycles_it_comes_from(make: Make) -> None:
    services = make()
    three_cycles(services)
    told = forecast.forecast(Reading(services))
    assert told is not None and told.cycles == 3 and told.low < told.high
    said = words(page(services))
    assert re.search(r"ends \d\d:\d\d – \d\d:\d\d, from 3 cycles", said)
    assert [planned.keys for planned in told.planned] == [
        (),
        ("2a-5-late-payment-reminders", "2a-6-credit-notes"),
        ("3-1-stripe-webhooks", "3-2-refund-flow"),
    ]
    assert "Planned: 2a-5 · 2a-6" in page(services)


def test_a_stopping_batch_foretells_nothing_and_plans_nothing(make: Make) -> None:
    services = make()
    script = three_cycles(services)
    with services.store.transaction() as tx:
        tx.update_batch(script.batch, stop_after_story=1)
    html = page(services)
    assert "Planned:" not in html and "from 3 cycles" not in html


def test_sleeps_and_times_without_a_server_are_told_apart(make: Make) -> None:
    services = make()
    script = face.finished(services)
    script.event("batch:end", {"batch_id": script.batch, "cycles_completed": 2, "status": "interrupted"})
    script.event("batch:warning", {"batch_id": script.batch, "warning": "Resumed.", "resumed": True})
    reading = Reading(services)
    assert reading.batch is not None
    assert [gap.kind for gap in gaps.gaps(reading, reading.batch)] == ["asleep", "down"]


def test_the_morning_lists_what_was_handled_without_a_person(make: Make) -> None:
    services = make()
    face.finished(services)
    said = words(page(services))
    assert "Handled without you" in said
    assert "5-hour limit of claude, resets 03:10. Slept" in said
    why = "verify: pytest -q, 2 failed in tests/pdf"
    assert f"dev-story 1 of 2a-3 failed: {why}. Attempt 3 succeeded." in said


def test_a_sleep_says_what_was_cut_off_and_offers_to_wake(make: Make) -> None:
    services = make()
    script = face.running(services, state="waiting", resumes_at=services.store.now() + 600_000)
    script.command("dev-story", HELD_BACK, status="limited", cycle=3, seconds=9)
    html = page(services)
    assert "dev-story 1 of 2a-4-email-delivery was cut off and starts again at" in words(html)
    assert 'id="note-asleep-wake"' in html


def test_a_changed_file_is_named_before_somebody_presses_start(make: Make) -> None:
    services = make()
    (services.project.root / "notes.txt").write_text("mine\n")
    html = page(services)
    assert "Start waits for a clean working tree" in html
    assert "notes.txt. Commit or stash them, or set dirty_tree to allow" in words(html)
    assert "<h1>Idle</h1>" in html


def test_what_a_batch_of_ours_left_is_no_dirt(make: Make) -> None:
    services = make()
    script = face.Script(services)
    script.end("stopped")
    (services.project.root / "left.py").write_text("x = 1\n")
    left = {"left.py": file_hash(services.project.root / "left.py")}
    with services.store.transaction() as tx:
        tx.update_batch(script.batch, left_paths=left)
    assert "need-tree" not in page(services)


def set_line(services: Services, value: str) -> None:
    path = services.project.root / FILE
    path.write_text(re.sub(r"(?m)^Status: .*$", f"Status: {value}", path.read_text()))
    face.git(services.project.root, "commit", "-q", "-a", "-m", "drift", "--allow-empty")


def test_a_story_file_that_says_something_else_is_repaired_by_one_click(make: Make) -> None:
    services = make({STORY: "done"})
    set_line(services, "review")
    before = (services.project.root / FILE).read_text()
    html = page(services)
    assert "The story file says review; the status file says done" in html
    assert "<h1>Needs you</h1>" in html
    found = re.search(r'action="(/repair/[^"]+)"', html)
    assert found is not None
    answer = client(services).post(found[1], data={"value": "done"}, headers={"Accept": "text/html"})
    assert answer.status_code == 303
    after = (services.project.root / FILE).read_text()
    assert after == before.replace("Status: review", "Status: done")
    assert "status differs" not in page(services)
    assert client(services).post(found[1]).status_code == 409


def test_a_repair_made_by_us_does_not_refuse_the_next_start(make: Make) -> None:
    services = make({STORY: "done"})
    face.Script(services).end("stopped")
    set_line(services, "in-progress")
    page(services)
    client(services).post(f"/repair/stories/{STORY}")
    assert "need-tree" not in page(services)


def test_a_repair_before_any_batch_is_ours_and_a_persons_own_change_beside_it_is_not(make: Make) -> None:
    services = make({STORY: "done"})
    set_line(services, "in-progress")
    page(services)
    client(services).post(f"/repair/stories/{STORY}")
    assert "need-tree" not in page(services)
    set_line(services, "review")
    path = services.project.root / FILE
    path.write_text(path.read_text() + "\nA note of mine.\n")
    forget_slow(services.project.root)
    page(services)
    client(services).post(f"/repair/stories/{STORY}")
    assert "need-tree" in page(services)


def test_nothing_is_repaired_while_a_batch_runs(make: Make) -> None:
    services = make({STORY: "done"})
    set_line(services, "review")
    face.Script(services)
    assert "status differs" not in page(services)
    answer = client(services).post(f"/repair/stories/{STORY}")
    assert answer.status_code == 409
    assert "Status: review" in (services.project.root / FILE).read_text()


def test_on_the_way_to_done_a_story_file_may_lag_behind(make: Make) -> None:
    services = make({STORY: "review"})
    set_line(services, "ready-for-dev")
    assert "status differs" not in page(services)


def test_a_record_that_the_status_file_lost_is_shown_with_the_way_to_set_it(make: Make) -> None:
    services = make()
    script = face.Script(services)
    script.finish_cycle(1, "2a-5-late-payment-reminders")
    script.end("completed")
    said = words(page(services))
    assert re.search(r"The status file says backlog; batch 1 recorded done with commit [0-9a-f]{7}\.", said)
    assert "Set status file to done" in said


def test_a_commit_that_is_gone_from_head_is_shown(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    services = make({"1-3-password-reset": "done", STORY: "done"})
    script = face.Script(services)
    script.finish_cycle(1, "1-3-password-reset")
    script.end("completed")
    assert "is not part of HEAD" not in page(services)
    face.git(services.project.root, "reset", "-q", "--hard", "HEAD~1")
    later = services.store.now() + 60_000
    monkeypatch.setattr(Store, "now", staticmethod(lambda: later))
    assert "of it is not part of HEAD any more; the records say done." in words(page(services))


def test_more_than_five_needs_fold(make: Make) -> None:
    services = make({f"1-{n}-blocked-story": "blocked" for n in range(1, 9)})
    html = page(services)
    assert "3 more" in html
    assert html.count('class="need"') == 8


def test_the_url_filters_by_epic_and_failures_and_shows_the_board(make: Make) -> None:
    services = make()
    face.morning(services)
    html = page(services, "/?failures=1")
    assert HELD_BACK in html and "1-3-password-reset</a>" not in html
    board = page(services, "/?view=board&epic=3")
    assert 'class="card board-card"' in board and "3-1-stripe-webhooks" in board
    assert "Epic 3" in words(board) and "2a-1-invoice-model</a>" not in board
    assert "No failures in epic 1." in words(page(services, "/?epic=1&failures=1"))


def test_the_board_puts_epics_in_the_column_their_stories_say(make: Make) -> None:
    services = make()
    face.running(services)
    html = page(services, "/?view=board")
    columns = [words(part) for part in html.split('<section class="board-column"')[1:]]
    assert ["Epic 3" in columns[0], "Epic 2a" in columns[1], "Epic 1" in columns[2]] == [True] * 3
    assert re.search(r"2a-3-pdf-rendering (dev-story|tech-spec-review) 9:\d\d", columns[1])


def test_a_cell_offers_to_retry_exactly_that_phase(make: Make) -> None:
    services = make()
    face.morning(services)
    html = page(services)
    row = html[
        html.index(f'method="post" action="/api/stories/{HELD_BACK}/retry" hx-post', html.index("<table")) :
    ]
    row = row.partition("</tr>")[0]
    assert 'name="phase" value="code-review">Retry code-review</button>' in row
    assert f'href="/stories/{HELD_BACK}?phase=code-review#attempts"' in row


def test_the_start_form_takes_chosen_stories(make: Make) -> None:
    services = make()
    asked: list[Mapping[str, Any]] = []

    def submit(action: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        asked.append(arguments)
        return {"status": "started"}

    services.submit = submit
    html = page(services)
    assert html.count('name="stories"') == 7
    sent = {"batch_size": "all", "stories": ["3-1-stripe-webhooks", "3-2-refund-flow"]}
    client(services).post("/api/orchestrator/start", data=sent)
    assert asked == [{"batch_size": None, "stories": ["3-1-stripe-webhooks", "3-2-refund-flow"]}]


def test_the_card_of_an_ended_command_stays_with_its_result(make: Make) -> None:
    services = make()
    script = face.running(services)
    command = services.store.running_commands()[0]
    with services.store.transaction() as tx:
        tx.update_command(command.id, status="failed", ended_at=script.store.now(), reason="exit 1")
    card = page(services)
    card = card[card.index(f'id="now-{command.id}"') :].partition("</article>")[0]
    assert "failed" in words(card) and "exit 1" in words(card) and "Silent" not in card


def test_a_story_page_has_waterfall_ledger_evidence_and_attempts(make: Make) -> None:
    services = make()
    face.finished(services)
    html = page(services, f"/stories/{STORY}")
    said = words(html)
    assert "Evidence of done 5 of 5 required" in said
    assert "Findings 5 seen, 4 fixed, 1 open" in said
    assert "Review 1 4 new, 1 fixed" in said and "Review 3 1 fixed, 1 still open" in said
    assert "Attempts of dev-story 3, 1 not counted" in said
    assert "214 passed in 41 s, run by Sprint Runner" in said
    assert html.count('class="tl-bar"') >= 12
    assert "Attempts of commit 1" in words(page(services, f"/stories/{STORY}?phase=commit"))


def test_missing_evidence_of_a_story_that_is_done_is_red_and_says_what_to_do(make: Make) -> None:
    services = make()
    script = face.Script(services)
    script.cycle(1, STORY)
    script.status(STORY, "done", evidence={})
    html = page(services, f"/stories/{STORY}")
    assert "Evidence of done 0 of 5 required" in words(html)
    assert html.count('data-evidence="missing"') == 5
    assert "no review passed; retry code-review" in html


def test_a_commit_is_shown_as_a_diff_of_escaped_lines(make: Make) -> None:
    services = make()
    root = services.project.root
    (root / "page.html").write_text(f"{face.HOSTILE}\n")
    (root / "logo.bin").write_bytes(b"\0\1\2")
    face.git(root, "add", ".")
    face.git(root, "commit", "-q", "-m", face.HOSTILE)
    sha = face.git(root, "rev-parse", "HEAD")
    html = client(services).get(f"/commits/{sha}").text
    assert "<img" not in html
    assert "+x&#34;&gt;&lt;img src=x" in html
    assert "A binary file." in html
    for wrong in ("0" * 40, "HEAD", "--output=x", face.git(root, "rev-parse", "HEAD^{tree}")):
        assert client(services).get(f"/commits/{wrong}").status_code == 404


def test_one_status_is_filtered_by_the_address_in_grid_and_board(make: Make) -> None:
    services = make()
    face.morning(services)
    html = page(services, "/?status=blocked")
    assert re.findall(r'row"><a class="key" href="/stories/([\w-]+)"', html) == [
        HELD_BACK,
        "3-1-stripe-webhooks",
    ]
    assert "2 of 6 done" in words(html), "an epic is counted whole"
    assert 'href="/?status=on-hold"' in html and 'href="/?status=blocked&amp;view=board"' in html
    board = page(services, "/?status=blocked&view=board")
    assert re.findall(r'data-row href="/stories/([\w-]+)" title', board) == [HELD_BACK, "3-1-stripe-webhooks"]
    assert "2 of 6 done" in words(board)
    assert "No story is review in epic 1." in words(page(services, "/?epic=1&status=review"))


def test_what_an_agent_hands_over_to_report_itself_is_not_shown_as_its_action(make: Make) -> None:
    services = make()
    face.running(services)
    command = services.store.running_commands()[0]
    with services.store.transaction() as tx:
        tx.update_command(command.id, last_action='Running sprintrunner log \'{"epic_id": "2a"}\'')
    said = words(page(services))
    assert "Reporting its progress" in said and "epic_id" not in said


def test_the_name_an_agent_works_on_is_set_apart_as_its_adapter_says_it(make: Make) -> None:
    services = make()
    face.running(services)
    command = services.store.running_commands()[0]
    said = describe(ToolStarted("a", "Edit", {"file_path": "src/pdf.py"}, None), services.project.root)
    with services.store.transaction() as tx:
        tx.update_command(command.id, last_action=said)
    assert 'Editing <span class="mono">src/pdf.py</span>' in page(services)


def test_tokens_stand_against_their_budget(make: Make) -> None:
    services = make()
    face.running(services)
    services.save_settings({"budget_tokens_per_batch": 50_000_000}, None)
    assert re.search(r"Tokens [\d.]+ M of 50.0 M", words(page(services)))


def test_a_browser_without_javascript_is_offered_to_reload_by_itself(make: Make) -> None:
    services = make()
    assert '<a href="/?refresh=20">reload every 20 s</a>' in page(services)
    assert '<meta http-equiv="refresh" content="20">' in page(services, "/?refresh=20")
    assert client(services).get("/?refresh=x").status_code == 400


def test_the_checks_are_there_until_the_first_batch(make: Make) -> None:
    services = make()
    told = [{"name": "disk", "status": "fail", "message": "0.1 GB free", "remedy": "Make room."}]
    services.examine = lambda: told
    assert 'hx-trigger="load, click"' in page(services)
    part = client(services).get("/checks", headers={"HX-Request": "true"}).text
    assert "One thing to fix first" in part and "<html" not in part
    assert "0.1 GB free. Make room." in words(page(services, "/checks"))
    face.Script(services)
    assert 'id="checks"' not in page(services)
    # A page that asked for them before the batch began must not get them after the stream took them away.
    assert client(services).get("/checks", headers={"HX-Request": "true"}).text == ""


@pytest.fixture(scope="module")
def browser(request: pytest.FixtureRequest) -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = request.getfixturevalue("chromium")
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def address(make: Make) -> Iterator[tuple[str, Services]]:
    services = make()
    face.morning(services)
    server = make_server("127.0.0.1", 0, create_app(services), threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", services
    services.close_streams()
    server.shutdown()
    server.server_close()


@pytest.mark.browser
def test_keys_press_what_the_page_offers(address: tuple[str, Services], browser: Any) -> None:
    tab = browser.new_page()
    said: list[str] = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.goto(f"{address[0]}/")
    tab.keyboard.press("?")
    assert tab.locator("#keys").is_visible()
    tab.keyboard.press("Escape")
    assert not tab.locator("#keys").is_visible()
    tab.keyboard.press("j")
    tab.keyboard.press("j")
    assert tab.evaluate("document.activeElement.textContent") == "3-1-stripe-webhooks"
    tab.keyboard.press("k")
    assert tab.evaluate("document.activeElement.textContent") == HELD_BACK
    tab.keyboard.press("/")
    assert tab.evaluate("document.activeElement.id") == "top-search"
    tab.keyboard.type("f")
    assert "failures" not in tab.url
    tab.keyboard.press("Escape")
    tab.keyboard.press("f")
    tab.wait_for_url("**/?failures=1")
    tab.keyboard.press("x")
    tab.wait_for_url(f"**/stories/{HELD_BACK}")
    tab.keyboard.press("g")
    tab.keyboard.press(",")
    tab.wait_for_url("**/settings")
    assert said == []
    tab.close()


@pytest.mark.browser
def test_the_menu_of_a_cell_retries_its_phase_by_one_click(
    address: tuple[str, Services], browser: Any
) -> None:
    asked: list[tuple[str, Mapping[str, Any]]] = []
    address[1].submit = lambda action, arguments: asked.append((action, dict(arguments))) or {"status": "x"}
    tab = browser.new_page()
    tab.goto(f"{address[0]}/")
    tab.locator("#connection", has_text="Live").wait_for()
    tab.locator("td.c.failed summary").first.click()
    with tab.expect_response("**/retry") as answered:
        tab.get_by_role("button", name="Retry code-review", exact=True).last.click()
    assert answered.value.status == 204
    assert asked == [("retry", {"key": HELD_BACK, "phase": "code-review"})]
    tab.close()


@pytest.mark.browser
def test_the_dashboard_comes_in_eight_requests_and_follows_in_a_hidden_tab_no_more(
    address: tuple[str, Services], browser: Any
) -> None:
    tab = browser.new_page()
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(f"{address[0]}/")
    tab.locator("#connection", has_text="Live").wait_for()
    assert len(asked) <= 8, asked
    hub = address[1].hub
    assert hub is not None
    tab.evaluate(
        "Object.defineProperty(document, 'hidden', {value: true});"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    awaited(lambda: hub.clients == 0)
    before = len(asked)
    tab.wait_for_timeout(1200)
    assert len(asked) == before
    tab.close()


@pytest.mark.browser
def test_only_a_change_of_state_is_announced(address: tuple[str, Services], browser: Any) -> None:
    store = address[1].store
    tab = browser.new_page()
    tab.goto(f"{address[0]}/")
    tab.locator("#connection", has_text="Live").wait_for()
    told = {"story_key": HELD_BACK, "command": "dev-story", "task_id": "tests", "message": "running pytest"}
    with store.transaction() as tx:
        tx.append("command:progress", told, batch_id=1)
        changed = {"story_key": HELD_BACK, "old_status": "blocked", "new_status": "review"}
        tx.append("story:status", changed, batch_id=1)
    tab.locator("#announcer", has_text="2a-4 is in review").wait_for(state="attached")
    tab.close()


@pytest.mark.parametrize(("blocked", "said"), [(0, "Batch 1 all done: "), (2, "Batch 1 ended: ")])
def test_no_end_of_a_batch_is_called_done_while_a_story_is_blocked(
    make: Make, blocked: int, said: str
) -> None:
    services = make()
    script = face.Script(services)
    reason = f"3 of 5 stories done, {blocked} blocked, 0 on hold"
    payload = {"batch_id": script.batch, "cycles_completed": 3, "status": "all_done", "reason": reason}
    script.event("batch:end", {**payload, "blocked": blocked})
    assert f"{said}{reason}" in page(services)
