"""History, one batch, trends: the numbers, the filters, the paging, and that no read walks the whole past."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import face
import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from sprintrunner import create_app
from sprintrunner.services import Services
from sprintrunner.store import Store
from sprintrunner.store.reads_history import BatchFilter, EventFilter
from sprintrunner.web.views import history2, trends
from sprintrunner.web.views.reading import Reading


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    made = face.make_services(tmp_path)
    yield made
    made.store.close()


def client(services: Services) -> FlaskClient:
    return create_app(services).test_client()


def words(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def batch(services: Services, status: str, *, blocked: int = 0, done: int = 1, **more: Any) -> int:
    """A batch with these stories, two code reviews each and one failed dev-story."""
    script = face.Script(services, **more)
    keys = [f"{script.batch}-{number}-story" for number in range(1, blocked + done + 1)]
    script.cycle(1, *keys)
    for key in keys:
        script.command("dev-story", key, status="failed", cycle=1)
        script.command("dev-story", key, cycle=1)
        script.command("code-review", key, cycle=1)
        script.command("code-review", key, cycle=1)
    for key in keys[:blocked]:
        script.status(key, "blocked", reason="Open after 3 reviews")
    for key in keys[blocked:]:
        script.status(key, "done")
    script.end_cycle(1, *keys[blocked:])
    script.end(status, f"because {status}" if status not in ("completed", "all_done") else None)
    return script.batch


@pytest.fixture
def past(services: Services) -> Services:
    batch(services, "completed", done=2)
    batch(services, "completed", blocked=1, done=1)
    batch(services, "failed", done=0)
    batch(services, "stopped", agent="codex")
    return services


def test_each_batch_is_a_bar_and_a_row_with_its_outcome(past: Services) -> None:
    html = client(past).get("/batches").text
    assert re.findall(r'class="col"[^>]*href="/batches/(\d+)"', html) == ["1", "2", "3", "4"]
    assert re.search(r"<title>Batch 2, completed, \d+ min, 1 of 2 done, 1 blocked</title>", html)
    assert len(re.findall(r'class="col-blocked"', html)) == 1
    said = words(html)
    assert "because stopped" in said and "1 – 4 of 4" in said
    assert "All 4 With blocked 1 Completed 2 Stopped 1 Failed 1" in said


def test_the_sums_are_those_of_what_the_filter_chose(past: Services) -> None:
    everything = words(client(past).get("/batches").text)
    assert "These 4 batches Stories done 4 1 blocked" in everything
    assert "Without a person 1 of 4" in everything
    assert "Code reviews a story 2.0 median 2, longest 2" in everything
    chosen = words(client(past).get("/batches?outcome=blocked").text)
    assert "These 1 of 4 batches Stories done 1 1 blocked" in chosen
    assert "of the cost, 2 of 8 commands" in chosen
    codex = words(client(past).get("/batches?agent=codex").text)
    assert "Stories done 1" in codex and "because failed" not in codex


def test_a_filter_without_hits_says_the_filter_and_offers_to_clear_it(past: Services) -> None:
    html = client(past).get("/batches?outcome=limit").text
    assert "No batch fits “limit”." in html and 'href="/batches">Show all 4 batches' in html
    assert client(past).get("/batches?outcome=%3Cimg%3E").text.count("<img") == 0
    assert "No batch fits after the first 900." in words(client(past).get("/batches?offset=900").text)


def test_pages_lead_on_and_keep_the_filter(past: Services) -> None:
    past.save_settings({"default_batch_list_limit": 2}, None)
    first = client(past).get("/batches?agent=claude").text
    assert 'href="/batches?agent=claude&amp;offset=2" rel="next"' in first and 'rel="prev"' not in first
    second = client(past).get("/batches?agent=claude&offset=2").text
    assert 'href="/batches?agent=claude" rel="prev"' in second and 'rel="next"' not in second
    assert client(past).get("/batches?offset=x").status_code == 400


def test_before_the_first_batch_each_page_says_what_will_be_there(services: Services) -> None:
    browser = client(services)
    assert "No batch yet." in browser.get("/batches").text
    assert "Nothing to compare yet." in browser.get("/trends").text
    assert "No batch yet." in browser.get("/timeline").text
    assert "Nothing yet." in browser.get("/activity").text


def test_a_batch_page_leads_to_its_timeline_and_events(past: Services) -> None:
    html = client(past).get("/batches/2").text
    assert 'href="/timeline?batch=2"' in html and 'href="/activity?batch=2"' in html
    assert "2-1-story" in html and "Open after 3 reviews" in html
    assert client(past).get("/batches/99").status_code == 404


def test_trends_tell_the_median_of_what_succeeded_and_count_what_failed(past: Services) -> None:
    said = words(client(past).get("/trends").text)
    assert "dev-story Duration" not in said
    assert "dev-story 7:11 7:11 0.62 10 5" in said
    assert "code-review 2:28 2:28 0.21 10 0" in said
    assert "2 5" in said, "five stories with two reviews"


def test_the_burn_up_counts_stories_of_the_sprint_and_ends_in_a_table(services: Services) -> None:
    script = face.Script(services)
    script.finish_cycle(1, "1-3-password-reset", "1-4-session-expiry")
    script.end("completed")
    view = trends.trends_page(Reading(services)).burn
    assert view is not None and (view.done, view.total) == (6, 13)
    assert view.days[0][1:] == (2, 6)
    xs = [float(point.split(",")[0]) for point in view.line.split()]
    assert xs == sorted(xs) and xs[-1] == trends.WIDE


def test_how_much_is_left_is_a_range_and_only_told_from_three_batches_on(services: Services) -> None:
    for _ in range(2):
        batch(services, "completed", done=2)
    assert "more batch" not in client(services).get("/trends").text
    batch(services, "completed", done=1)
    script = face.Script(services)
    script.finish_cycle(1, "1-3-password-reset")
    script.end("completed")
    assert re.search(
        r"\d+ open, \d+ – \d+ more batches at the pace of the last 4", client(services).get("/trends").text
    )


def test_a_histogram_knows_its_median() -> None:
    assert history2.median({1: 1, 2: 3, 7: 1}) == 2
    assert history2.median({}) == 0


def test_bars_fit_their_plot_whatever_the_lengths(services: Services) -> None:
    for length in (0, 1, 60_000, 400 * 3_600_000):
        with services.store.transaction() as tx:
            tx.insert_batch(started_at=1_000, ended_at=1_000 + length, status="completed", state="ended")
    view = history2.history_page(Reading(services), history2.Wish())
    assert all(3 <= one.height <= history2.HEIGHT for one in view.columns)
    assert all(0 <= level.y <= history2.HEIGHT for level in view.levels) and len(view.levels) <= 5


READS: dict[str, Callable[[Store], Any]] = {
    "batches_where blocked": lambda store: store.batches_where(BatchFilter("blocked"), 20),
    "batches_where of a status": lambda store: store.batches_where(BatchFilter("failed"), 20),
    "batches_where of an agent": lambda store: store.batches_where(BatchFilter(agent="codex"), 20),
    "batch_agents": lambda store: store.batch_agents(),
    "story_counts": lambda store: store.story_counts(1, 3),
    "commands_after": lambda store: store.commands_after(1, 10),
    "command_sums": lambda store: store.command_sums(BatchFilter()),
    "command_sums of some": lambda store: store.command_sums(BatchFilter("failed")),
    "command_times": lambda store: store.command_times(1),
    "done_moments": lambda store: store.done_moments(),
    "joined_keys": lambda store: store.joined_keys("1-1-story"),
    "events_where": lambda store: store.events_where(EventFilter(), 100, 50),
    "events_where of a batch": lambda store: store.events_where(EventFilter(1), None, 50),
    "events_where of a type": lambda store: store.events_where(EventFilter(kind="batch:end"), None, 50),
    "events_where of progress": lambda store: store.events_where(
        EventFilter(kind="command:progress"), None, 50
    ),
    "events_where of a story": lambda store: store.events_where(EventFilter(keys=("a", "a,b")), None, 50),
    "events_where bad": lambda store: store.events_where(EventFilter(bad=True), None, 50),
    "events_where bad of a type": lambda store: store.events_where(
        EventFilter(kind="error", bad=True), None, 50
    ),
    "events_where by id": lambda store: store.events_where(EventFilter(ids=(1, 2)), None, 50),
    "newer_event": lambda store: store.newer_event(EventFilter(), 1, 50),
    "count_newer": lambda store: store.count_newer(EventFilter(), 1, 50),
}


@pytest.mark.parametrize("name", READS)
def test_a_read_of_the_history_goes_through_an_index(past: Services, name: str) -> None:
    asked: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, *_rest: Any) -> None:
        asked.append((statement, values))

    engine = past.store._connections().reader
    sa.event.listen(engine, "before_cursor_execute", note)
    READS[name](past.store)
    sa.event.remove(engine, "before_cursor_execute", note)
    with past.store._reading() as connection:
        for statement, values in [one for one in asked if one[0].startswith("SELECT")]:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all()
            steps = [row[3] for row in plan]
            scans = [step for step in steps if step.startswith("SCAN") and "anon" not in step]
            assert [step for step in scans if "INDEX" not in step] == [], steps
            wide = [
                step
                for step in steps
                if "commands" in step and "COVERING" not in step and "PRIMARY" not in step
            ]
            assert name not in ("command_sums", "command_times") or not wide, steps


def test_counts_agree_with_what_is_listed(past: Services) -> None:
    store = past.store
    for wanted in (
        EventFilter(),
        EventFilter(2),
        EventFilter(kind="command:progress"),
        EventFilter(kind="command:end"),
        EventFilter(bad=True),
        EventFilter(2, "story:status", bad=True),
        EventFilter(keys=store.joined_keys("2-1-story")),
    ):
        assert store.count_where(wanted) == len(store.events_where(wanted, None, 10_000))
    sums = store.batch_sums(BatchFilter())
    assert (sums.count, dict(sums.stories), sums.calm) == (4, {"blocked": 1, "done": 4}, 1)
    assert store.outcomes() == {"blocked": 1, "completed": 2, "failed": 1, "stopped": 1}
    assert store.review_rounds(BatchFilter()) == {2: 5}
