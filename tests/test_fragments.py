"""Fragments: the same HTML as the page's, addressed, escaped, and all that an event changes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import face
import pytest
from jinja2 import UndefinedError

from sprintrunner import create_app
from sprintrunner.services import Services
from sprintrunner.store import Store
from sprintrunner.web import assets, fragments, samples
from sprintrunner.web.render import environment, render
from sprintrunner.web.views import dashboard, now

_SLOT = re.compile(r'<template hx-swap-oob="innerMorph:#?([^"]+)">(.*?)</template>\n', re.DOTALL)


@pytest.fixture
def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    made = face.make_services(tmp_path)
    face.running(made)
    moment = made.store.now()
    # Clocks are part of what is compared here.
    monkeypatch.setattr(Store, "now", staticmethod(lambda: moment))
    yield made
    made.store.close()


def page(services: Services, path: str = "/") -> str:
    return create_app(services).test_client().get(path).text


def slots(text: str) -> dict[str, str]:
    found = dict(_SLOT.findall(text))
    rest = _SLOT.sub("", text)
    assert not rest or re.fullmatch(r'<link id="icon" [^>]* hx-swap-oob="outerMorph">\n?', rest), rest
    return found


def test_the_snapshot_replaces_each_slot_with_exactly_what_the_page_shows(services: Services) -> None:
    html, sent = page(services), slots(fragments.snapshot(services))
    names = {slot.name for slot in dashboard.SLOTS}
    assert set(sent) == names | {"board", "checks", "mark", "[data-dashboard] head title"}
    assert sent.pop("checks") == ""
    assert sent.pop("board") in page(services, "/?view=board")
    assert f"<title>{sent.pop('[data-dashboard] head title')}</title>" in html
    for name, content in sent.items():
        if name != "pill":
            assert f'id="{name}"' in html
            assert content in html


def test_the_state_pill_of_other_pages_is_the_one_of_the_stream(services: Services) -> None:
    assert slots(fragments.snapshot(services))["pill"] in page(services, "/settings")


@pytest.mark.parametrize("what", ["end", "start", "status", "warning", "cycle", "batch end", "progress"])
def test_a_page_that_took_the_changes_is_the_page_that_never_left(services: Services, what: str) -> None:
    before, cursor = page(services), services.store.last_event_id()
    _do(services, what)
    sent = slots(fragments.changes(services, services.store.events_after(cursor)))
    fresh = page(services)
    for name, content in _contents(fresh).items():
        unchanged = content in before
        assert unchanged or any(content in piece for piece in _covering(sent, name)), name


def _do(services: Services, what: str) -> None:
    store, key = services.store, "2a-3-pdf-rendering"
    batch = store.live_batch()
    assert batch is not None
    command = store.running_commands()[0]
    at = {"batch_id": batch.id}
    told = {"story_key": key, "command": "dev-story", "task_id": "dev-story", "attempt": 1}
    with store.transaction() as tx:
        if what == "end":
            tx.update_command(command.id, status="failed", ended_at=store.now(), reason="exit 1")
            tx.append("command:end", {**told, "status": "failed", "reason": "exit 1"}, **at)
        elif what == "start":
            row = store.story_record(batch.id, "2a-4-email-delivery")
            assert row is not None
            tx.insert_command(
                batch_id=batch.id,
                story_id=row.id,
                story_ids=[row.id],
                story_keys=row.story_key,
                command="dev-story",
                task_id="dev-story",
                started_at=store.now(),
                status="running",
                attempt=1,
            )
            tx.append("command:start", {**told, "story_key": row.story_key}, **at)
        elif what == "status":
            row = store.story_record(batch.id, key)
            assert row is not None
            tx.update_story(row.id, status="blocked", reason="Two reviews found the same bug")
            changed = {"story_key": key, "old_status": "in-progress", "new_status": "blocked"}
            tx.append("story:status", changed, **at)
        elif what == "warning":
            tx.append("batch:warning", {"batch_id": batch.id, "warning": "the disk is nearly full"}, **at)
        elif what == "cycle":
            tx.update_batch(batch.id, cycles_completed=3)
            tx.append("cycle:end", {"cycle_number": 3, "completed_stories": [key]}, **at)
        elif what == "batch end":
            tx.update_batch(batch.id, status="stopped", state="ended", ended_at=store.now())
            ended = {"batch_id": batch.id, "cycles_completed": 2, "status": "stopped"}
            tx.append("batch:end", ended, **at)
        else:
            tx.update_command(command.id, last_action="running pytest -q", last_action_at=store.now())
            tx.append("command:progress", {**told, "message": "running pytest -q"}, **at)


def _contents(html: str) -> dict[str, str]:
    """The pieces of a page that may change, by the id of their place."""
    found = dict(
        re.findall(r'<(?:tbody|article[^>]*) id="([\w-]+)">(.*?)</(?:tbody|article)>', html, re.DOTALL)
    )
    for name in ("verdict", "night", "needs", "happened", "commits", "last-event", "summary"):
        start = html.index(">", html.index(f'id="{name}"')) + 1
        found[name] = html[start : html.index("</", start)]
    return found


def _covering(sent: dict[str, str], name: str) -> list[str]:
    inside = {"last-event": ["verdict"], "summary": ["grid"]}
    return [sent[one] for one in (name, *inside.get(name, ["grid", "now"])) if one in sent]


def test_progress_sends_one_card_and_the_time_of_the_last_event_and_no_more(services: Services) -> None:
    cursor = services.store.last_event_id()
    _do(services, "progress")
    sent = slots(fragments.changes(services, services.store.events_after(cursor)))
    command = services.store.running_commands()[0]
    assert set(sent) == {"last-event", now.slot_of(command.id)}
    assert "Running <span>pytest -q</span>" in sent[now.slot_of(command.id)]


def test_hostile_keys_are_text_in_every_fragment(tmp_path: Path) -> None:
    made = face.make_services(tmp_path, {face.HOSTILE: "backlog", "1-1-a": "backlog"})
    script = face.Script(made)
    script.cycle(1, face.HOSTILE)
    script.command(
        "dev-story", face.HOSTILE, status="running", seconds=9, last_action=f"editing {face.HOSTILE}"
    )
    script.status(face.HOSTILE, "blocked", reason=face.HOSTILE)
    text = fragments.snapshot(made) + fragments.changes(made, made.store.events_after(0))
    assert "<img" not in text
    assert "x&#34;&gt;&lt;img src=x onerror=alert(1)&gt;" in text
    made.store.close()


def test_an_address_cannot_be_closed_by_what_it_names() -> None:
    assert fragments.oob('a">', "x") == '<template hx-swap-oob="innerMorph:#a&#34;&gt;">x</template>\n'


def test_every_partial_has_samples_and_renders_alone_from_what_its_contract_names() -> None:
    partials = {path.name for path in (assets.TEMPLATES / "partials").glob("*.html")}
    assert partials == {sample.partial for sample in samples.samples()}
    for sample in samples.samples():
        name = f"partials/{sample.partial}"
        contract = (assets.TEMPLATES / name).read_text().splitlines()[0]
        assert contract.startswith("{# ")
        assert all(f"{variable}:" in contract or f"{variable}," in contract for variable in sample.values), (
            name
        )
        assert render(name, **sample.values).strip() or sample.values == {"night": None}
        with pytest.raises(UndefinedError):
            render(name)


def test_the_pattern_page_is_for_development_only(services: Services) -> None:
    app = create_app(services)
    assert app.test_client().get("/patterns").status_code == 404
    app.config["PATTERNS"] = True
    answer = app.test_client().get("/patterns")
    assert answer.status_code == 200
    assert all(sample.partial in answer.text for sample in samples.samples())


def test_templates_hold_no_inline_script_style_or_handler() -> None:
    for name in environment().list_templates():
        source = (assets.TEMPLATES / name).read_text()
        assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son[a-z]+=|\|\s*safe", source), name
