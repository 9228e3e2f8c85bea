"""The timeline and the event log as a person reads them, and the transcript while an agent writes it."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import face
import pytest
from flask.testing import FlaskClient
from werkzeug.serving import make_server

from sprintrunner import create_app
from sprintrunner.services import Services
from sprintrunner.web.render import render
from sprintrunner.web.views import activity, timeline, transcript
from sprintrunner.web.views.reading import Reading

MINUTE = face.MINUTE


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    made = face.make_services(tmp_path)
    yield made
    made.store.close()


def client(services: Services) -> FlaskClient:
    return create_app(services).test_client()


def words(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def page(services: Services, first: int | None = None, last: int | None = None) -> timeline.TimelinePage:
    reading = Reading(services)
    assert reading.batch is not None
    return timeline.timeline_page(reading, reading.batch, first, last)


def test_every_command_is_a_bar_in_the_row_of_its_kind(services: Services) -> None:
    face.morning(services)
    html = client(services).get("/timeline").text
    assert "Batch 1" in words(html) and "4 of 6 stories done, 2 blocked" in words(html)
    bars = re.findall(r'<a class="tl-bar"[^>]*aria-label="([^"]*)"', html)
    assert len(bars) == len(services.store.commands(1))
    assert "3-1: dev-story 1 3-1-stripe-webhooks, failed, 7:11" in bars
    view = page(services)
    assert all(bar.line.command == row.name for row in view.rows for bar in row.bars if row.name != "verify")
    assert all(0 <= bar.x <= 100 and bar.x + bar.width <= 100.5 for row in view.rows for bar in row.bars)


def test_what_runs_at_once_lies_in_lanes(services: Services) -> None:
    face.running(services)
    view = page(services)
    assert view.most_at_once == 2 and view.at is not None
    rows = {row.name: row for row in view.rows}
    for row in rows.values():
        for lane in range(row.lanes):
            bars = [bar for bar in row.bars if bar.lane == lane]
            assert all(a.x + a.width <= b.x + 0.02 for a, b in pairwise(bars))


def test_a_window_shows_its_part_and_can_be_moved_and_zoomed(services: Services) -> None:
    script = face.morning(services)
    first = services.store.commands(script.batch)[0]
    begin, end = first.started_at, first.started_at + 10 * MINUTE
    view = page(services, begin, end)
    assert (view.first, view.last) == (begin, end)
    assert len(view.shown) < len(services.store.commands(script.batch))
    moves = {one.name: one.href for one in view.moves}
    assert moves["Earlier"] == "" and "from=" in moves["Later"] and moves["Zoom out"]
    for address in (*filter(None, moves.values()), *(one.href for one in view.choices)):
        assert client(services).get(address).status_code == 200


@pytest.mark.parametrize(
    "query", ["from=5&to=4", "from=0&to=0", "from=86400000000000", "to=1", "from=1&to=86400000000000"]
)
def test_any_window_is_a_page(services: Services, query: str) -> None:
    face.morning(services)
    assert client(services).get(f"/timeline?{query}").status_code == 200


@pytest.mark.parametrize(
    ("query", "status"), [("from=x", 400), ("batch=99", 404), ("batch=x", 404), ("to=-1", 400)]
)
def test_a_window_that_is_none_is_refused(services: Services, query: str, status: int) -> None:
    face.morning(services)
    assert client(services).get(f"/timeline?{query}").status_code == status


def test_a_limit_sleep_and_a_lost_server_are_bands(services: Services) -> None:
    script = face.Script(services)
    script.cycle(1, "1-3-password-reset")
    script.command("dev-story", "1-3-password-reset", status="limited", cycle=1)
    script.at += 50 * MINUTE
    script.command("dev-story", "1-3-password-reset", status="interrupted", cycle=1)
    script.at += 9 * MINUTE
    script.command("dev-story", "1-3-password-reset", cycle=1)
    script.end("completed")
    bands = page(services).bands
    assert [band.hue for band in bands] == ["asleep", "attention"]
    assert bands[0].label.startswith("asleep ") and bands[0].width > bands[1].width


def test_our_own_verify_has_a_row(services: Services) -> None:
    script = face.Script(services)
    script.cycle(1, "1-3-password-reset")
    command = script.command("dev-story", "1-3-password-reset", cycle=1)
    told = {
        "story_key": "1-3-password-reset",
        "command": "dev-story",
        "task_id": "verify",
        "message": "verify: pytest -q",
    }
    script.event("command:progress", told)
    now = services.store.now()
    with services.store.transaction() as tx:
        tx.update_command(command, started_at=now - 5_000, ended_at=now + 5_000)
    verify = next(row for row in page(services).rows if row.name == "verify")
    assert [bar.name for bar in verify.bars] == ["verify: pytest -q"]


def test_the_timeline_has_its_numbers_in_a_table_too(services: Services) -> None:
    face.morning(services)
    html = client(services).get("/timeline").text
    table = html[html.index("The same in numbers") :]
    assert table.count('<tr><th scope="row">') == len(services.store.commands(1))


def test_the_log_is_told_newest_first_and_paged(services: Services) -> None:
    face.morning(services)
    store, browser = services.store, client(services)
    html = browser.get("/activity").text
    ids = [int(n) for n in re.findall(r'role="rowheader"[^>]*>(\d+)<', html)]
    assert ids == sorted(ids, reverse=True) and ids[0] == store.last_event_id() and len(ids) == activity.PAGE
    older = re.search(r'href="(/activity\?before=\d+)" rel="next"', html)
    assert older is not None
    rest = browser.get(older[1]).text
    more = [int(n) for n in re.findall(r'role="rowheader"[^>]*>(\d+)<', rest)]
    assert max(more) < min(ids) and len(ids) + len(more) == store.count_events(1)
    assert 'rel="prev"' in rest


@pytest.mark.parametrize(
    ("query", "seen", "unseen"),
    [
        ("type=story:status", "story:status", "command:start</span>"),
        ("story=3-1-stripe-webhooks", "3-1-stripe-webhooks", "1-3-password-reset"),
        ("only=failures", "failed", "succeeded"),
        ("batch=all&type=batch:end", "completed", "cycle:start</span>"),
    ],
)
def test_filters_stand_in_the_address(services: Services, query: str, seen: str, unseen: str) -> None:
    face.morning(services)
    table = client(services).get(f"/activity?{query}").text.partition("<tbody")[2]
    assert seen in table and unseen not in table


def test_a_pair_of_stories_is_listed_under_both(services: Services) -> None:
    face.morning(services)
    for key in ("1-3-password-reset", "1-4-session-expiry"):
        assert "create-story 1" in client(services).get(f"/activity?story={key}").text


def test_a_filter_without_hits_names_itself_and_offers_all(services: Services) -> None:
    face.morning(services)
    html = client(services).get("/activity?type=context:create&only=failures&story=x%22%3E%3Cimg").text
    assert "type context:create" in html and "failures only" in html and "<img" not in html
    assert 'href="/activity">Show all events' in html


def test_new_events_are_offered_not_pushed_in(services: Services) -> None:
    script = face.running(services)
    html = client(services).get("/activity").text
    ask = re.search(r'hx-get="(/activity/new\?[^"]*)"', html)
    assert ask is not None
    address = ask[1].replace("&amp;", "&")
    assert client(services).get(address).text.strip() == ""
    script.event("batch:warning", {"batch_id": script.batch, "warning": "the disk is nearly full"})
    assert "1 new event, show" in words(client(services).get(address).text)


def test_hostile_words_are_only_text_on_all_pages(services: Services) -> None:
    script = face.Script(services)
    script.cycle(1, face.HOSTILE)
    script.command("dev-story", face.HOSTILE, status="failed", cycle=1, reason=face.HOSTILE)
    script.event("batch:warning", {"batch_id": 1, "warning": face.HOSTILE})
    script.event("error", {"type": "x", "message": face.HOSTILE})
    script.end("failed", face.HOSTILE)
    for path in (
        "/timeline",
        "/activity",
        "/activity?q=onerror",
        "/batches",
        "/batches/1",
        "/trends",
        "/search?q=img",
    ):
        html = client(services).get(path).text
        assert "<img" not in html, path


def talk(folder: Path, *parts: object) -> None:
    folder.mkdir(exist_ok=True)
    with (folder / "77.jsonl").open("a") as file:
        file.write("".join(json.dumps(part) + "\n" for part in parts))


def at_work(services: Services) -> face.Script:
    """Two commands at work, whose one transcript is still empty."""
    script = face.running(services)
    (services.state_dir / "transcripts" / "77.jsonl").write_text("")
    return script


def call(tool: str, command: str) -> dict[str, object]:
    block = {"type": "tool_use", "id": tool, "name": "Bash", "input": {"command": command}}
    return {"type": "assistant", "message": {"content": [block]}}


def answer(tool: str, text: str, error: bool = False) -> dict[str, object]:
    block = {"type": "tool_result", "tool_use_id": tool, "content": text, "is_error": error}
    return {"type": "user", "message": {"content": [block]}}


def test_failed_and_running_calls_are_open_and_passed_ones_folded(services: Services) -> None:
    at_work(services)
    folder = services.state_dir / "transcripts"
    talk(
        folder,
        call("a", "ls"),
        answer("a", "x"),
        call("b", "pytest"),
        answer("b", "Exit code 1", True),
        call("c", "sleep"),
    )
    command = services.store.running_commands()[0]
    html = client(services).get(f"/commands/{command.id}").text
    opened = dict(re.findall(r'<details class="part-card" id="(L\d+)-card"[^>]*?( open)?>', html))
    assert opened == {"L1": "", "L3": " open", "L5": " open"}
    assert "The agent is at work." in words(html) and f"/commands/{command.id}/transcript" in html
    only = client(services).get(f"/commands/{command.id}?only=failures").text
    assert re.findall(r'<li class="tpart" id="(L\d+)"', only) == ["L3"]


def test_long_rows_of_passed_calls_fold_to_one_line(services: Services) -> None:
    at_work(services)
    for number in range(12):
        talk(services.state_dir / "transcripts", call(f"t{number}", "true"), answer(f"t{number}", "ok"))
    html = client(services).get(f"/commands/{services.store.running_commands()[0].id}").text
    assert "9 parts passed, folded" in words(html)


def test_what_comes_later_is_sent_with_what_it_answers(services: Services) -> None:
    at_work(services)
    command = services.store.running_commands()[0]
    talk(services.state_dir / "transcripts", call("a", "sleep 5"))
    browser = client(services)
    html = browser.get(f"/commands/{command.id}").text
    ask = re.search(r'id="tail" hx-get="([^"]*)"', html)
    assert ask is not None
    address = ask[1].replace("&amp;", "&")
    assert "parts=1&seen=1" in address
    talk(services.state_dir / "transcripts", answer("a", "slept"), call("b", "echo next"))
    more = browser.get(address).text
    assert '<template hx-swap-oob="innerHTML:#L1">' in more and "slept" in more
    assert '<li class="tpart" id="L3">' in more and "1 new" in words(more)
    with services.store.transaction() as tx:
        tx.update_command(command.id, status="succeeded", ended_at=services.store.now())
    assert "It has ended." in browser.get(address).text


def test_what_cannot_be_shown_is_a_sentence(services: Services) -> None:
    script = at_work(services)
    built = script.command("commit", "2a-3-pdf-rendering")
    lost = script.command("code-review", "2a-3-pdf-rendering", transcript="999.jsonl")
    outside = script.command("code-review", "2a-3-pdf-rendering", transcript="../sprint-runner.db")
    browser = client(services)
    assert "Sprint Runner did this itself" in browser.get(f"/commands/{built}").text
    for command in (lost, outside):
        assert "The transcript is no longer there" in browser.get(f"/commands/{command}").text
    assert browser.get("/commands/9999/parts").status_code == 404


def test_the_pieces_render_alone(services: Services) -> None:
    at_work(services)
    talk(services.state_dir / "transcripts", call("a", "ls"))
    reading = Reading(services)
    view = transcript.more(reading, reading.running[0], 0, 0, 0, 0)
    assert 'id="L1"' in render("parts/more.html", more=view)
    assert 'id="end"' in render("parts/end.html", end=view.tail)
    assert "2 new events" in render("parts/fresh.html", count=2, href="/activity")


def _await(tab: Any, expression: str) -> None:
    """Ask until it is true: the page's policy forbids the tab to evaluate text by itself."""
    for _ in range(100):
        if tab.evaluate(expression):
            return
        tab.wait_for_timeout(50)
    raise AssertionError(expression)


@pytest.mark.browser
def test_a_reader_follows_an_agent_until_he_scrolls_up(services: Services, chromium: str) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    script = at_work(services)
    folder = services.state_dir / "transcripts"
    talk(
        folder,
        *(
            {"type": "assistant", "message": {"content": [{"type": "text", "text": "words " * 60}]}}
            for _ in range(30)
        ),
    )
    command = services.store.running_commands()[0]
    server = make_server("127.0.0.1", 0, create_app(services), threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def work(name: str) -> None:
        talk(folder, call(name, f"echo {name}"), answer(name, "fine"))
        told = {
            "story_key": "2a-3-pdf-rendering",
            "command": "dev-story",
            "task_id": "tests",
            "message": name,
        }
        script.event("command:progress", told)

    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page()
        said: list[str] = []
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.goto(f"http://127.0.0.1:{server.server_port}/commands/{command.id}")
        tab.locator("body[data-connection=live]").wait_for()
        tab.get_by_role("link", name="Follow").click()
        work("one")
        tab.get_by_text("echo one").wait_for()
        _await(tab, "innerHeight + scrollY > document.documentElement.scrollHeight - 5")
        tab.evaluate("scrollTo(0, 0)")
        work("two")
        tab.locator(".fresh", has_text="1 new").wait_for()
        assert tab.evaluate("scrollY") == 0
        tab.locator(".fresh").click()
        tab.locator(".fresh").wait_for(state="detached")
        assert said == []
        browser.close()
    services.close_streams()
    server.shutdown()
    server.server_close()


@pytest.mark.browser
@pytest.mark.parametrize("width", [320, 768, 1400, 2560])
def test_none_of_these_pages_scrolls_sideways_or_complains(
    services: Services, chromium: str, width: int
) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    at_work(services)
    talk(services.state_dir / "transcripts", call("a", "x" * 400), answer("a", "y" * 900, True))
    command = services.store.running_commands()[0]
    server = make_server("127.0.0.1", 0, create_app(services), threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    said: list[str] = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": width, "height": 800})
        tab.on("console", lambda message: said.append(message.text))
        for path in (
            "/timeline",
            "/activity",
            "/trends",
            "/search?q=x",
            "/batches",
            f"/commands/{command.id}?q=y",
        ):
            tab.goto(f"http://127.0.0.1:{server.server_port}{path}")
            assert tab.locator("html").evaluate("html => html.scrollWidth") <= width, path
        assert said == []
        browser.close()
    services.close_streams()
    server.shutdown()
    server.server_close()
