"""The search finds what agents and events said, marks it, keeps secrets out, and can be lost without harm."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import face
import pytest
from flask.testing import FlaskClient

from sprintrunner import create_app
from sprintrunner.errors import StoreError
from sprintrunner.indexing import Indexer
from sprintrunner.services import Services
from sprintrunner.store import search
from sprintrunner.store.search import Document, SearchIndex, SearchUnavailable, terms_of

SECRET = "sk-ant-api03-" + "a" * 60


def says(text: str) -> str:
    return json.dumps({"type": "assistant", "message": {"content": [{"type": "text", "text": text}]}}) + "\n"


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    made = face.make_services(tmp_path)
    (made.state_dir / "transcripts").mkdir()
    yield made
    made.store.close()


@pytest.fixture
def index(tmp_path: Path) -> SearchIndex:
    made = SearchIndex(tmp_path)
    made.prepare()
    return made


def client(services: Services) -> FlaskClient:
    return create_app(services).test_client()


def indexer(services: Services) -> Indexer:
    made = Indexer(services.store, services.state_dir, services.project.root, services.environ)
    made.index.prepare()
    return made


def transcribe(services: Services, command: int, *texts: str) -> Path:
    path = services.state_dir / "transcripts" / f"{command}.jsonl"
    with path.open("a") as file:
        file.write("".join(map(says, texts)))
    with services.store.transaction() as tx:
        tx.update_command(command, transcript=path.name)
    return path


def words(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def parts(index: SearchIndex, *texts: str) -> None:
    index.add([Document("part", 1, f"L{n}", n, text) for n, text in enumerate(texts, 1)], {})


def test_words_are_found_by_their_beginning_in_any_case_newest_first(index: SearchIndex) -> None:
    parts(index, "one Cent short", "ten cents", "accent", "render_cent_total")
    hits = index.find("CENT")
    assert [hit.slot for hit in hits.hits] == ["L4", "L2", "L1"] and hits.total == 3
    assert hits.hits[1].pieces == ("ten ", "cents", "")


def test_all_words_must_stand_there_and_phrases_in_their_order(index: SearchIndex) -> None:
    parts(index, "the cat sat", "sat the cat", "a dog")
    assert index.find("sat cat").total == 2
    assert index.find('"cat sat"').total == 1
    assert index.find("dog -cat").total == 0


@pytest.mark.parametrize(
    "query", ["", "  ", '"', "-", "* OR NEAR(", "a AND", "'; drop table documents", "((", "\x00"]
)
def test_no_query_is_an_error(index: SearchIndex, query: str) -> None:
    parts(index, "words")
    index.find(query)
    assert index.find("words").total == 1


def test_hits_are_paged_and_counted_up_to_a_bound(index: SearchIndex) -> None:
    parts(index, *["same words"] * 1_200)
    first = index.find("words", limit=10)
    assert first.total == search.MOST_COUNTED and len(first.hits) == 10
    assert index.find("words", limit=10, before=first.hits[-1].id).hits[0].id == first.hits[-1].id - 1
    assert index.find("words", kinds=("event",)).total == 0


def test_a_damaged_index_is_made_anew_and_one_of_another_version_too(tmp_path: Path) -> None:
    index = SearchIndex(tmp_path)
    index.path.write_text("this is no database " * 100)
    index.prepare()
    parts(index, "words")
    with sqlite3.connect(index.path) as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    index.prepare()
    assert index.find("words").total == 0


def test_what_cannot_be_added_leaves_no_place_behind(index: SearchIndex) -> None:
    with pytest.raises(ZeroDivisionError):
        index.add((Document("part", 1, "L1", 1, str(1 // n)) for n in (1, 0)), {"events": (9, 0)})
    assert index.place("events") == (0, 0) and index.find("1").total == 0


def test_terms_are_bounded() -> None:
    assert terms_of("a, b; ...") == ("a,", "b;")
    assert len(terms_of("x " * 200)) == 8
    assert max(map(len, terms_of("y" * 1_000))) == 80


def test_transcripts_and_events_are_indexed_once_and_without_secrets(services: Services) -> None:
    script = face.Script(services)
    script.cycle(1, "1-1-a")
    command = script.command("dev-story", "1-1-a", reason="verify: pytest failed")
    transcribe(services, command, f"the token is {SECRET}", "rounding loses a cent")
    ours = indexer(services)
    for _ in range(3):
        ours.catch_up()
    assert ours.index.find("cent", kinds=("part",)).total == 1
    assert ours.index.find("pytest", kinds=("event",)).total == 1
    assert ours.index.find("sk").total == 0 and ours.index.find("redacted").total == 1
    assert SECRET.encode() not in ours.index.path.read_bytes()


def test_a_running_command_is_read_on_from_where_it_was(services: Services) -> None:
    script = face.Script(services)
    script.cycle(1, "1-1-a")
    running = script.command("dev-story", "1-1-a", status="running", seconds=5)
    transcribe(services, running, "alpha")
    ours = indexer(services)
    ours.catch_up()
    assert ours.index.find("alpha").total == 1
    later = script.command("commit")
    transcribe(services, later, "gamma")
    transcribe(services, running, "beta")
    ours.catch_up()
    assert (
        ours.index.find("beta").total == ours.index.find("gamma").total == ours.index.find("alpha").total == 1
    )
    with services.store.transaction() as tx:
        tx.update_command(running, status="succeeded", ended_at=services.store.now())
    transcribe(services, running, "delta")
    ours.catch_up()
    assert ours.index.find("delta").total == 1
    assert ours.index.place("commands") == (later, 0)


def test_the_thread_indexes_what_comes_and_ends_at_once(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    from sprintrunner import indexing

    monkeypatch.setattr(indexing, "_PAUSE", 0.02)
    ours = Indexer(services.store, services.state_dir, services.project.root, services.environ)
    ours.start()
    try:
        script = face.Script(services)
        script.event("batch:warning", {"batch_id": script.batch, "warning": "the disk is nearly full"})
        deadline = time.monotonic() + 10
        while not ours.index.find("disk").total and time.monotonic() < deadline:
            time.sleep(0.01)
        assert ours.index.find("disk").total == 1
    finally:
        ours.stop()
        ours.stop()


def test_without_fts5_one_sentence_says_so_and_nothing_starts(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "available", lambda: False)
    ours = Indexer(services.store, services.state_dir, services.project.root, services.environ)
    ours.start()
    ours.stop()
    with pytest.raises(SearchUnavailable):
        ours.index.prepare()

    def refuses(*_args: object, **_more: object) -> None:
        raise SearchUnavailable()

    monkeypatch.setattr(SearchIndex, "find", refuses)
    browser = client(services)
    for path in ("/search?q=cent", "/activity?q=cent"):
        answer = browser.get(path)
        assert answer.status_code == 200
        assert "Search needs an SQLite with FTS5" in answer.text


def test_an_index_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be written"):
        SearchIndex(tmp_path / "nowhere").prepare()


@pytest.fixture
def found(services: Services) -> Callable[[str], str]:
    script = face.running(services)
    command = script.command("dev-story", "2a-4-email-delivery", reason=f"cent {face.HOSTILE}")
    transcribe(services, command, f"rounding loses a cent {face.HOSTILE}")
    indexer(services).catch_up()
    browser = client(services)
    return lambda path: browser.get(path).text


def test_the_page_shows_stories_transcripts_and_events_with_marks(found: Callable[[str], str]) -> None:
    html = found("/search?q=cent")
    assert "rounding loses a <mark>cent</mark> x&#34;&gt;" in html and "<img" not in html
    assert re.search(r'href="/commands/\d+\?line=1&amp;q=cent#L1"', html)
    assert "Transcripts 1" in words(html) and "Events 1" in words(html)
    stories = found("/search?q=invoice+model")
    assert "<mark>invoice</mark>-<mark>model</mark>" in stories and "Stories 1" in words(stories)


def test_a_search_without_hits_says_so_and_shows_a_way_on(found: Callable[[str], str]) -> None:
    html = found("/search?q=zebra%22%3E%3Cimg")
    assert "Nothing holds" in html and "<img" not in html
    assert "Finds words in the keys" in found("/search")


def test_every_page_has_the_field_and_it_works_without_script(found: Callable[[str], str]) -> None:
    assert '<form class="top-search" action="/search" method="get"' in found("/settings")


def test_activity_is_filtered_by_words(found: Callable[[str], str]) -> None:
    html = found("/activity?q=cent")
    assert "1 of 1" in words(html) and "<mark>cent</mark>" in html


def test_a_transcript_page_lists_hits_here_and_elsewhere(services: Services) -> None:
    script = face.Script(services)
    script.cycle(1, "1-1-a")
    other = script.command("dev-story", "1-1-a")
    here = script.command("code-review", "1-1-a")
    transcribe(services, other, "rounding loses a cent")
    transcribe(services, here, "a cent", "nothing", "two cents")
    indexer(services).catch_up()
    html = client(services).get(f"/commands/{here}?q=cent").text
    assert "2 here, 3 in the project" in words(html)
    assert 'href="#L1">line 1</a>' in html and 'href="#L3">line 3</a>' in html
    assert "1-1 dev-story 1, line 1" in words(html)
    assert "two <mark>cent</mark>s" in html
