"""Every address of the API, the actions and the data files, with what is refused."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient
from web_project import Orders, make_project, make_services

from sprintrunner import create_app
from sprintrunner.errors import Conflict, Refused
from sprintrunner.services import Services, open_services

HOST = {"Host": "localhost"}
HUGE = "1" + "0" * 23
BAD_NUMBERS = [HUGE, "-1", "", "١٢", "1.0", "0x1", " 1", "abc"]


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    made = make_services(make_project(tmp_path / "project"), tmp_path / "state")
    yield made
    made.close_streams()
    made.store.close()


@pytest.fixture
def client(services: Services) -> FlaskClient:
    return create_app(services).test_client()


@pytest.fixture
def orders(services: Services) -> Orders:
    assert isinstance(services.submit, Orders)
    return services.submit


def get(client: FlaskClient, path: str, **headers: str) -> Any:
    return client.get(path, headers={**HOST, **headers})


def post(client: FlaskClient, path: str, value: Any = None, **headers: str) -> Any:
    body = {} if value is None else {"json": value}
    return client.post(path, headers={**HOST, **headers}, **body)


def a_batch(services: Services, **columns: Any) -> int:
    with services.store.transaction() as tx:
        return tx.insert_batch(**{"max_cycles": 2, "status": "running", "state": "running", **columns})


def a_story(services: Services, batch_id: int, key: str, **columns: Any) -> int:
    with services.store.transaction() as tx:
        values = {"epic_id": key.split("-")[0], "status": "in-progress", "started_at": 1000, **columns}
        return tx.insert_story(batch_id=batch_id, story_key=key, **values)


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = "('flask', 'sqlalchemy', 'pydantic')"
    code = f"import sprintrunner, sys; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize(
    ("sent", "size"), [({"batch_size": 3}, 3), ({"batch_size": "all"}, None), ({}, 2), (None, 2)]
)
def test_start_passes_on_what_was_asked(
    client: FlaskClient, orders: Orders, sent: Any, size: int | None
) -> None:
    answer = post(client, "/api/orchestrator/start", sent)
    assert answer.status_code == 202
    assert answer.json["status"] == "started"
    assert orders.taken == [("start", {"batch_size": size, "stories": None})]


def test_start_may_name_stories(client: FlaskClient, orders: Orders) -> None:
    post(client, "/api/orchestrator/start", {"batch_size": 1, "stories": ["1-2-user-login"]})
    form = {"batch_size": "2", "stories": ["a", "b"]}
    client.post("/api/orchestrator/start", data=form, headers=HOST)
    assert [arguments["stories"] for _, arguments in orders.taken] == [["1-2-user-login"], ["a", "b"]]


@pytest.mark.parametrize("size", [0, -1, 999, 10**23, 1.5, True, [], {}, "three", "3 ", "٣", HUGE])
def test_a_batch_size_out_of_bounds_is_refused(client: FlaskClient, orders: Orders, size: Any) -> None:
    answer = post(client, "/api/orchestrator/start", {"batch_size": size})
    assert answer.status_code == 400
    assert "batch_size" in answer.json["error"]
    assert orders.taken == []


@pytest.mark.parametrize("stories", ["1-1", [], [1], [""], {}, [None]])
def test_stories_must_be_a_list_of_keys(client: FlaskClient, orders: Orders, stories: Any) -> None:
    assert post(client, "/api/orchestrator/start", {"stories": stories}).status_code == 400
    assert orders.taken == []


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "1", '{"a": NaN}', '{"a": ' + "9" * 5000 + "}", "[" * 30_000, "\xff", "null", '{"a":1}x'],
)
def test_a_body_that_is_no_json_object_is_refused(client: FlaskClient, text: str) -> None:
    headers = {**HOST, "Content-Type": "application/json"}
    answer = client.post("/api/orchestrator/start", data=text.encode("latin-1"), headers=headers)
    assert answer.status_code == 400
    assert list(answer.json) == ["error"]


def test_a_refusal_keeps_its_status_and_sentence(client: FlaskClient, orders: Orders) -> None:
    orders.error = Conflict("A batch is running.")
    answer = post(client, "/api/orchestrator/start")
    assert (answer.status_code, answer.json) == (409, {"error": "A batch is running."})
    orders.error = Refused("There is no story x.")
    assert post(client, "/api/orchestrator/start").status_code == 400


@pytest.mark.parametrize(
    ("path", "sent", "status", "taken"),
    [
        ("/api/orchestrator/stop", None, 202, ("stop", {"after_story": False})),
        ("/api/orchestrator/stop", {"after_story": True}, 202, ("stop", {"after_story": True})),
        ("/api/orchestrator/resume", None, 202, ("resume", {})),
        ("/api/stories/1-1/retry", None, 202, ("retry", {"key": "1-1", "phase": None})),
        (
            "/api/stories/1-1/retry",
            {"phase": "dev-story"},
            202,
            ("retry", {"key": "1-1", "phase": "dev-story"}),
        ),
        ("/api/stories/1-1/done", None, 200, ("done", {"key": "1-1"})),
        ("/api/stories/1-1/skip", {}, 200, ("skip", {"key": "1-1"})),
        ("/api/commands/12/stop", None, 202, ("stop_command", {"id": 12})),
    ],
)
def test_each_action_reaches_the_orchestrator(
    client: FlaskClient, orders: Orders, path: str, sent: Any, status: int, taken: Any
) -> None:
    assert post(client, path, sent).status_code == status
    assert orders.taken == [taken]


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/api/orchestrator/stop", {"after_story": "maybe"}),
        ("/api/orchestrator/stop", {"after_story": 1}),
        ("/api/stories/1-1/retry", {"phase": "lunch"}),
        ("/api/stories/1-1/retry", {"phase": ["dev-story"]}),
    ],
)
def test_wrong_values_of_an_action_are_refused(client: FlaskClient, path: str, sent: Any) -> None:
    assert post(client, path, sent).status_code == 400


@pytest.mark.parametrize(
    "key",
    ["a/b", "/lead", "a//b", "../../etc/passwd", "ключ", "1-1 x", "a\nb", "x/retry", "🙂", "%41", "?a#b"],
)
def test_any_text_can_be_a_story_key(client: FlaskClient, orders: Orders, key: str) -> None:
    assert post(client, f"/api/stories/{quote(key, safe='')}/skip").status_code == 200
    assert orders.taken == [("skip", {"key": key})]


@pytest.mark.parametrize("number", ["0", *BAD_NUMBERS])
def test_ids_that_cannot_be_are_not_found(client: FlaskClient, number: str) -> None:
    quoted = quote(number, safe="")
    assert get(client, f"/api/batches/{quoted}").status_code in (404, 405)
    assert post(client, f"/api/commands/{quoted}/stop").status_code in (404, 405)


@pytest.mark.parametrize("number", BAD_NUMBERS)
@pytest.mark.parametrize(
    "address", ["events?after=", "events?limit=", "events?batch_id=", "batches?limit=", "batches?offset="]
)
def test_numbers_that_cannot_be_are_refused(client: FlaskClient, address: str, number: str) -> None:
    answer = get(client, f"/api/{address}{quote(number, safe='')}")
    assert answer.status_code == 400
    assert list(answer.json) == ["error"]


def test_limits_have_bounds(client: FlaskClient) -> None:
    for address in ("batches?limit=0", "batches?limit=101", "events?limit=0", "events?limit=1001"):
        assert get(client, f"/api/{address}").status_code == 400
    for address in ("batches?limit=100&offset=9000000000000000000", "events?after=9223372036854775807"):
        assert get(client, f"/api/{address}").status_code == 200


def test_forms_go_back_to_their_page_and_htmx_gets_nothing(client: FlaskClient) -> None:
    html = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    answer = client.post("/api/stories/1-1/skip", data={"next": "/stories/1-1"}, headers={**HOST, **html})
    assert (answer.status_code, answer.location) == (303, "/stories/1-1")
    assert post(client, "/api/orchestrator/stop", **html).location == "/"
    referred = post(client, "/api/orchestrator/stop", **html, Referer="http://localhost/batches/3")
    assert referred.location == "/batches/3"
    foreign = post(client, "/api/orchestrator/stop", **html, Referer="http://localhost.evil.example/x")
    assert foreign.location == "/"
    assert post(client, "/api/orchestrator/stop", **html, **{"HX-Request": "true"}).status_code == 204


def test_errors_take_the_form_the_client_reads(client: FlaskClient, orders: Orders) -> None:
    orders.error = Conflict("<b>no</b>")
    html = {"Accept": "text/html"}
    page = post(client, "/api/orchestrator/stop", **html)
    assert page.status_code == 409
    assert page.mimetype == "text/html"
    assert "&lt;b&gt;no&lt;/b&gt;" in page.text
    assert post(client, "/api/orchestrator/stop", **html, **{"HX-Request": "true"}).json
    assert get(client, "/api/nothing", **html).json == {"error": get(client, "/api/nothing").json["error"]}
    assert get(client, "/nothing").mimetype == "text/html"
    assert get(client, "/nothing").status_code == 404


def test_the_status_when_nothing_runs(client: FlaskClient) -> None:
    assert get(client, "/api/orchestrator/status").json == {
        "status": "idle",
        "batch_id": None,
        "cycles_completed": 0,
        "max_cycles": None,
        "current_stories": [],
    }


def test_the_status_of_a_batch(client: FlaskClient, services: Services) -> None:
    batch_id = a_batch(services, state="waiting", resumes_at=99, max_cycles=None)
    a_story(services, batch_id, "1-1-first")
    a_story(services, batch_id, "1-0-done", status="done", ended_at=2000)
    with services.store.transaction() as tx:
        names = {"story_keys": "1-2-b,1-1-first", "command": "create-story", "task_id": "create-story"}
        tx.insert_command(batch_id=batch_id, started_at=1000, status="running", attempt=1, **names)
    assert get(client, "/api/orchestrator/status").json == {
        "status": "waiting",
        "batch_id": batch_id,
        "cycles_completed": 0,
        "max_cycles": None,
        "current_stories": ["1-2-b", "1-1-first"],
        "resumes_at": 99,
    }


def test_batches_are_listed_newest_first(client: FlaskClient, services: Services) -> None:
    first = a_batch(services, status="completed", state="ended", started_at=1000, ended_at=61_000)
    second = a_batch(services)
    a_story(services, first, "1-1-first")
    told = get(client, "/api/batches?limit=5").json
    assert told["total"] == 2
    assert [batch["id"] for batch in told["batches"]] == [second, first]
    older = told["batches"][1]
    assert older["duration_seconds"] == 60
    assert older["story_count"] == 1
    assert {"status", "started_at", "ended_at", "max_cycles", "cycles_completed", "cost_usd"} <= older.keys()
    assert [one["id"] for one in get(client, "/api/batches?limit=1&offset=1").json["batches"]] == [first]


def test_one_batch_holds_its_stories_and_their_commands(client: FlaskClient, services: Services) -> None:
    batch_id = a_batch(services)
    ids = [a_story(services, batch_id, key) for key in ("1-1-first", "1-2-b")]
    with services.store.transaction() as tx:
        names = {"story_keys": "1-1-first,1-2-b", "command": "create-story", "task_id": "create-story"}
        more = {"started_at": 1000, "status": "running", "attempt": 1, "run_id": "unguessable"}
        command = tx.insert_command(batch_id=batch_id, story_ids=ids, **names, **more)
    answer = get(client, f"/api/batches/{batch_id}")
    told = answer.json
    assert told["batch"]["id"] == batch_id
    assert [story["story_key"] for story in told["stories"]] == ["1-1-first", "1-2-b"]
    assert all([one["id"] for one in story["commands"]] == [command] for story in told["stories"])
    assert told["stats"]["commands"] == 1
    assert "unguessable" not in answer.text
    assert get(client, "/api/batches/99").status_code == 404


def test_events_are_paged_by_their_cursor(client: FlaskClient, services: Services) -> None:
    batch_id = a_batch(services)
    with services.store.transaction() as tx:
        for number in range(5):
            payload = {"type": "t", "message": str(number)}
            tx.append("error", payload, batch_id=batch_id if number % 2 else None)
    page = get(client, "/api/events?limit=2").json
    assert [event["id"] for event in page["events"]] == [1, 2]
    assert page["last_id"] == 2
    assert set(page["events"][0]) == {"id", "type", "timestamp", "payload"}
    assert get(client, "/api/events?after=5").json == {"events": [], "last_id": 5}
    assert [one["id"] for one in get(client, f"/api/events?batch_id={batch_id}").json["events"]] == [2, 4]


def test_the_status_file_is_told_as_it_was_understood(client: FlaskClient) -> None:
    told = get(client, "/api/sprint-status").json
    assert told["path"] == "_bmad-output/implementation-artifacts/sprint-status.yaml"
    assert told["writable"] is True
    assert told["epics"] == ["1"]
    by_key = {story["key"]: story for story in told["stories"]}
    login = by_key["1-2-user-login"]
    assert (login["epic"], login["status"], login["raw_status"]) == ("1", "ready-for-dev", "ready-for-dev")
    assert login["class"] == "open"
    assert (by_key["1-3-with-pause"]["status"], by_key["1-3-with-pause"]["class"]) == (None, "held")


def test_a_status_file_that_cannot_be_read_is_one_sentence(client: FlaskClient, services: Services) -> None:
    path = services.project.status_path
    path.unlink()
    assert get(client, "/api/sprint-status").status_code == 404
    assert get(client, "/sprint-status.yaml").status_code == 404
    path.mkdir()
    answer = get(client, "/api/sprint-status")
    assert answer.status_code == 409
    assert list(answer.json) == ["error"]
    assert get(client, "/sprint-status.yaml").status_code == 404


def test_stories_have_descriptions(client: FlaskClient) -> None:
    assert "As a user I log in." in get(client, "/story-descriptions.json").json["1-2-user-login"]


def put(client: FlaskClient, value: Any, **headers: str) -> Any:
    return client.put("/api/settings", json=value, headers={**HOST, **headers})


def test_settings_are_read_changed_and_forgotten(client: FlaskClient) -> None:
    first = get(client, "/api/settings")
    assert first.json["default_max_cycles"] == 2
    changed = put(client, {"default_max_cycles": 5}, **{"If-Match": first.headers["ETag"]})
    assert changed.status_code == 200
    assert changed.json["default_max_cycles"] == 5
    assert changed.headers["ETag"] != first.headers["ETag"]
    stale = put(client, {"default_max_cycles": 6}, **{"If-Match": first.headers["ETag"]})
    assert stale.status_code == 412
    forgotten = client.delete("/api/settings/default_max_cycles", headers=HOST)
    assert forgotten.json["default_max_cycles"] == 2


def test_wrong_settings_are_named_and_nothing_is_saved(client: FlaskClient) -> None:
    answer = put(client, {"default_max_cycles": 5, "heartbeat_seconds": "x", "agents": {}, "to_dict": "x"})
    assert answer.status_code == 400
    assert set(answer.json) == {"error", "fields"}
    assert set(answer.json["fields"]) == {"heartbeat_seconds", "agents", "to_dict"}
    assert get(client, "/api/settings").json["default_max_cycles"] == 2
    assert client.delete("/api/settings/nothing", headers=HOST).status_code == 400
    assert client.put("/api/settings", data={"a": "1"}, headers=HOST).status_code == 400


def test_what_is_no_number_is_refused_by_the_name_of_its_setting(client: FlaskClient) -> None:
    for text in ("NaN", "Infinity", "-Infinity"):
        body = f'{{"max_dev_attempts": {text}}}'
        answer = client.put("/api/settings", data=body, content_type="application/json")
        assert answer.status_code == 400
        assert "whole number" in answer.json["fields"]["max_dev_attempts"]


def test_the_named_files_are_served_and_no_other(client: FlaskClient, services: Services) -> None:
    assert get(client, "/sprint-status.yaml").data == services.project.status_path.read_bytes()
    for name in ("orchestrator.csv", "orchestrator.md", "orchestrator-sample.md"):
        assert get(client, f"/{name}").status_code == 404
    (services.project.root / "orchestrator.md").write_text("# héllo\r\n", newline="")
    assert get(client, "/orchestrator.md").data == "# héllo\r\n".encode()
    for name in ("package.json", "sprint-runner.db", "a.csv", "b.yaml", "README.md", "..yaml", "a b.md"):
        assert get(client, f"/{quote(name)}").status_code == 403
    for name in ("package.txt", "folder/package.json", "package", ".env"):
        assert get(client, f"/{name}").status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.yaml",
        "/..%2fsecret.yaml",
        "/%2e%2e%2fsecret.yaml",
        "/..\\secret.yaml",
        "//etc/passwd.md",
        "/secret%00.md",
        "/..secret.md",
        "/static/../../secret.yaml",
        "/static/%2e%2e/secret.yaml",
    ],
)
def test_no_path_leads_out(client: FlaskClient, services: Services, path: str) -> None:
    (services.project.root.parent / "secret.yaml").write_text("secret: yes\n")
    answer = get(client, path)
    assert answer.status_code in (403, 404)
    assert "secret: yes" not in answer.text


def test_a_link_out_of_the_project_is_not_followed(client: FlaskClient, services: Services) -> None:
    outside = services.project.root.parent / "secret.md"
    outside.write_text("secret")
    (services.project.root / "orchestrator.md").symlink_to(outside)
    assert get(client, "/orchestrator.md").status_code == 404


def test_the_task_log_is_made_from_the_events(client: FlaskClient, services: Services) -> None:
    names = {"story_key": "1-2-user-login", "command": "dev-story", "epic_id": "1"}
    with services.store.transaction() as tx:
        tx.append("command:start", {**names, "task_id": "dev-story"})
        progress = {**names, "task_id": "tests"}
        tx.append("command:progress", {**progress, "status": "start", "message": 'a "b", c\nd'})
        tx.append("command:progress", {**progress, "message": "reading a file"})
        tx.append("command:end", {**names, "task_id": "dev-story", "status": "failed", "reason": "no"})
    answer = get(client, "/sprint-runner.csv")
    assert answer.mimetype == "text/csv"
    rows = list(csv.reader(io.StringIO(answer.text, newline="")))
    assert [row[1:] for row in rows] == [
        ["1", "1-2-user-login", "dev-story", "dev-story", "start", ""],
        ["1", "1-2-user-login", "dev-story", "tests", "start", 'a "b", c\nd'],
        ["1", "1-2-user-login", "dev-story", "dev-story", "end", "no"],
    ]
    assert all(len(row[0]) == 10 and row[0].isdigit() for row in rows)


def test_a_task_log_in_the_project_is_served_as_it_is(client: FlaskClient, services: Services) -> None:
    (services.project.root / "sprint-runner.csv").write_text("1,2\n")
    assert get(client, "/sprint-runner.csv").text == "1,2\n"


def test_health_needs_the_orchestrator_and_the_database(client: FlaskClient, services: Services) -> None:
    assert get(client, "/healthz").text == "ok\n"
    services.alive = lambda: False
    assert get(client, "/healthz").status_code == 503
    services.alive = lambda: True
    services.store.path.unlink()
    assert get(client, "/healthz").status_code == 503
    answer = get(client, "/api/batches")
    assert answer.status_code == 503
    assert list(answer.json) == ["error"]


def test_without_an_orchestrator_everything_is_shown_and_nothing_done(tmp_path: Path) -> None:
    names = {
        "SPRINTRUNNER_PROJECT": str(make_project(tmp_path / "p")),
        "SPRINTRUNNER_STATE_DIR": str(tmp_path / "s"),
    }
    services = open_services(names)
    client = create_app(services).test_client()
    assert get(client, "/api/sprint-status").status_code == 200
    assert post(client, "/api/orchestrator/start").status_code == 409
    assert get(client, "/healthz").status_code == 503
    services.store.close()


def test_json_survives_any_text(client: FlaskClient, services: Services) -> None:
    with services.store.transaction() as tx:
        tx.append("error", {"type": "t", "message": "</script>\u2028‮\x1b[31m{{7*7}}"})
    message = json.loads(get(client, "/api/events").data)["events"][0]["payload"]["message"]
    assert message == "</script>\u2028‮\x1b[31m{{7*7}}"
