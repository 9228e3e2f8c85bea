"""The gate, the token and the headers: what is let in, and how the rest is answered."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from web_project import make_project, make_services
from web_server import Server
from werkzeug.datastructures import Headers

from sprintrunner import create_app
from sprintrunner.services import Services, WeakToken
from sprintrunner.web import gate, login
from sprintrunner.web.context import local_path

TOKEN = "a-token-of-the-test-1234"
START = "/api/orchestrator/start"
HERE = "http://127.0.0.1:8080"


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    made = make_services(make_project(tmp_path / "project"), tmp_path / "state")
    yield made
    made.close_streams()
    made.store.close()


@pytest.fixture
def app(services: Services) -> Flask:
    return create_app(services)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def locked(services: Services) -> FlaskClient:
    services.token = TOKEN
    return create_app(services).test_client()


def get(client: FlaskClient, path: str = "/healthz", **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.get(path, headers={"Host": "127.0.0.1:8080", **named})


def post(client: FlaskClient, path: str = START, data: Any = None, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(path, data=data, headers={"Host": "127.0.0.1:8080", **named})


@pytest.mark.parametrize(
    "host",
    ["localhost:8080", "LOCALHOST:1", "127.0.0.1:8080", "127.0.0.1", "[::1]:8080", "[::1]", "127.8.8.8"],
)
def test_hosts_that_name_this_machine_are_served(client: FlaskClient, host: str) -> None:
    assert client.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.nip.io",
        "localhost.evil.example",
        "0.0.0.0:8080",
        "localhost@evil.example",
        "evil.example@localhost",
        "[::1",
        "::1",
        "[127.0.0.1]",
        "[localhost]",
        "localhost:99999",
        "localhost:1:2",
        "localhost:",
        "localhost ",
        "localhost/",
        "localhost.",
        "127.1",
        "2130706433",
        "１２７.0.0.1".encode().decode("latin-1"),
        "",
    ],
)
def test_any_other_host_is_misdirected(client: FlaskClient, host: str) -> None:
    answer = client.get("/healthz", headers={"Host": host})
    assert answer.status_code == 421
    assert client.get("/events", headers={"Host": host}).status_code == 421


def test_a_request_without_a_host_is_misdirected() -> None:
    passed = gate.Gate(lambda environ, start: [b"let in"], ())
    told: list[str] = []
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "SERVER_NAME": "localhost"}
    passed(environ, lambda status, headers, exc=None: told.append(status))  # type: ignore[arg-type, return-value]
    assert told == ["421 Misdirected Request"]


def test_names_from_the_settings_and_the_bind_are_served() -> None:
    names = {"runner.example", "192.168.1.5"}
    assert gate.host_allowed("Runner.Example:443", names)
    assert gate.host_allowed("192.168.1.5:8080", names)
    assert not gate.host_allowed("192.168.1.6:8080", names)


def test_bound_to_all_addresses_only_the_one_reached_is_served() -> None:
    passed = gate.Gate(lambda environ, start: [b"let in"], ("0.0.0.0",))

    def answer(host: str) -> bytes:
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "HTTP_HOST": host, "gunicorn.socket": reached}
        return b"".join(passed(environ, lambda *told: None))  # type: ignore[arg-type, return-value]

    with socket.create_server(("127.0.0.2", 0)) as listener, socket.socket() as dialled:
        dialled.connect(listener.getsockname())
        reached, _ = listener.accept()
        with reached:
            assert answer("127.0.0.2:8080") == b"let in"
            assert answer("192.168.1.5:8080") != b"let in"
            assert answer("0.0.0.0:8080") != b"let in"
            assert gate.local_address({"gunicorn.socket": reached}) == {"127.0.0.2"}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec_Fetch_Site": "same-origin", "Origin": HERE},
        {"Sec_Fetch_Site": "none"},
        {"Origin": HERE},
        {"Origin": "HTTP://127.0.0.1:8080"},
    ],
)
def test_requests_of_our_own_pages_and_of_programs_are_accepted(
    client: FlaskClient, headers: dict[str, str]
) -> None:
    assert post(client, **headers).status_code == 202


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_Fetch_Site": "cross-site", "Origin": "http://evil.example"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site", "Origin": "http://127.0.0.1:9999"},
        {"Sec_Fetch_Site": ""},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "http://localhost:8080"},
        {"Origin": "https://127.0.0.1:8080"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Sec_Fetch_Site": "same-origin", "Origin": "http://evil.example"},
        {"Origin": "http://[::1"},
        {"Origin": "http://127.0.0.1:8080/"},
        {"Origin": "http://127.0.0.1:8080@evil.example"},
        {"Origin": "http://127.0.0.1:8080, http://evil.example"},
    ],
)
def test_requests_of_foreign_pages_are_refused_everywhere(
    client: FlaskClient, services: Services, headers: dict[str, str]
) -> None:
    assert post(client, **headers).status_code == 403
    assert get(client, "/events", **headers).status_code == 403
    assert get(client, "/api/events/stream", **headers).status_code == 403
    assert services.submit.taken == []  # type: ignore[attr-defined]


def test_default_ports_may_be_spelt_or_not() -> None:
    assert gate.same_origin("http://localhost", "http", "localhost:80")
    assert gate.same_origin("https://localhost:443", "https", "localhost")
    assert not gate.same_origin("http://localhost", "http", "localhost:443")


def test_a_body_is_a_form_or_json(client: FlaskClient) -> None:
    assert post(client, data="batch_size=1", Content_Type="text/plain").status_code == 415
    assert post(client, data="{}").status_code == 415
    assert post(client, data="{}", Content_Type="application/json; charset=utf-8").status_code == 202
    assert post(client, data={"batch_size": "1"}).status_code == 202
    assert post(client).status_code == 202


def test_a_body_has_a_limit(client: FlaskClient) -> None:
    assert post(client, data="x" * 70_000, Content_Type="application/json").status_code == 413
    assert post(client, data={"a": "x" * 70_000}).status_code == 413
    many = "&".join("a=1" for _ in range(1001))
    assert post(client, data=many, Content_Type="application/x-www-form-urlencoded").status_code == 413


def test_a_body_sent_in_chunks_has_the_same_limit(client: FlaskClient) -> None:
    import io

    stream = io.BytesIO(b"x" * 70_000)
    answer = client.post(
        START,
        input_stream=stream,
        headers={"Host": "localhost", "Transfer-Encoding": "chunked", "Content-Type": "application/json"},
        environ_overrides={"wsgi.input_terminated": True},
    )
    assert answer.status_code == 413


@pytest.mark.parametrize("length", ["abc", "-1", "1_0", "١", "9" * 30])
def test_a_strange_content_length_never_gives_500(client: FlaskClient, length: str) -> None:
    answer = client.post(START, headers={"Host": "localhost"}, environ_overrides={"CONTENT_LENGTH": length})
    assert answer.status_code in (400, 413)


def test_absolute_targets_and_websockets_are_refused(client: FlaskClient) -> None:
    absolute = {"RAW_URI": "http://evil.example/", "REQUEST_URI": "http://evil.example/"}
    answer = client.get("/healthz", headers={"Host": "localhost"}, environ_overrides=absolute)
    assert answer.status_code == 400
    assert get(client, "/", Upgrade="websocket", Connection="Upgrade").status_code == 400


def test_reading_never_changes_and_strange_methods_are_not_used(client: FlaskClient) -> None:
    for path in (START, "/api/orchestrator/stop", "/api/orchestrator/resume", "/api/stories/1-1/retry"):
        assert get(client, path).status_code == 405
    host = {"Host": "localhost"}
    assert client.open("/", method="TRACE", headers=host).status_code == 405
    assert client.open("/", method="PROPFIND", headers=host).status_code == 405


def test_there_is_no_cors_header(client: FlaskClient) -> None:
    headers = {"Host": "localhost", "Origin": "http://evil.example"}
    answer = client.options(START, headers={**headers, "Access-Control-Request-Method": "POST"})
    assert not [name for name, _ in answer.headers if name.startswith("Access-Control")]


@pytest.mark.parametrize(
    "path", ["/healthz", "/nothing-here", "/api/nothing", "/sprint-status.yaml", "/x.db"]
)
def test_every_answer_carries_the_security_headers(client: FlaskClient, path: str) -> None:
    for host in ("localhost", "evil.example"):
        check_headers(client.get(path, headers={"Host": host}).headers)


def check_headers(headers: Headers) -> None:
    for name, value in gate.SECURITY_HEADERS.items():
        assert headers[name] == value
    assert headers["Cache-Control"] == "no-store"


def test_an_error_inside_keeps_the_headers_and_says_nothing(
    client: FlaskClient, services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    services.submit.error = RuntimeError("secret detail")  # type: ignore[attr-defined]
    answer = post(client)
    assert answer.status_code == 500
    assert "secret detail" not in answer.text
    assert "secret detail" in caplog.text
    check_headers(answer.headers)


def test_forwarded_headers_are_ignored_without_a_proxy(client: FlaskClient) -> None:
    forged = {"X_Forwarded_Host": "evil.example", "X_Forwarded_Proto": "https", "X_Forwarded_For": "9.9.9.9"}
    assert get(client, **forged).status_code == 200
    assert post(client, Origin="https://evil.example", **forged).status_code == 403


def test_behind_a_proxy_its_host_and_scheme_count(tmp_path: Path) -> None:
    env = {"SPRINTRUNNER_TRUSTED_PROXIES": "1", "SPRINTRUNNER_ALLOWED_HOSTS": "runner.example"}
    services = make_services(make_project(tmp_path / "p"), tmp_path / "s", env)
    client = create_app(services).test_client()
    public = {
        "X_Forwarded_Host": "runner.example",
        "X_Forwarded_Proto": "https",
        "X_Forwarded_For": "9.9.9.9",
    }
    assert post(client, Origin="https://runner.example", **public).status_code == 202
    assert post(client, Origin="http://runner.example", **public).status_code == 403
    assert get(client, X_Forwarded_Host="evil.example").status_code == 421
    assert get(client, X_Forwarded_For="9.9.9.9, 8.8.8.8").status_code == 400
    services.store.close()


def test_a_short_token_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeakToken, match="16"):
        make_services(make_project(tmp_path / "p"), tmp_path / "s", token="short")


def test_without_the_token_programs_get_401_and_people_the_login_page(locked: FlaskClient) -> None:
    for path in ("/api/batches", "/api/events", "/events", "/api/events/stream", "/sprint-status.yaml"):
        assert get(locked, path).status_code == 401
        assert get(locked, path, Authorization="Bearer wrong").status_code == 401
    assert post(locked).status_code == 401
    answer = get(locked, "/batches?offset=20")
    assert answer.status_code == 303
    assert answer.location == "/login?next=%2Fbatches%3Foffset%3D20"
    assert get(locked, "/batches", Authorization="Bearer wrong").status_code == 401
    assert get(locked, "/nothing").status_code == 303


def test_health_and_the_login_page_need_no_token(locked: FlaskClient) -> None:
    assert get(locked).status_code == 200
    assert get(locked, "/login").status_code == 200
    assert TOKEN not in get(locked, "/login").text


def test_the_bearer_token_opens_everything(locked: FlaskClient) -> None:
    assert post(locked, Authorization=f"Bearer {TOKEN}").status_code == 202
    assert get(locked, "/api/batches", Authorization=f"bearer {TOKEN}").status_code == 200
    for wrong in (TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer", "Bearer \xe9"):
        assert get(locked, "/api/batches", Authorization=wrong).status_code == 401


def test_the_login_form_gives_a_session_and_keeps_the_token_to_itself(locked: FlaskClient) -> None:
    answer = post(locked, "/login", {"token": TOKEN, "next": "/batches"})
    assert (answer.status_code, answer.location) == (303, "/batches")
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith("sprintrunner_8080=")
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert "Secure" not in cookie
    assert TOKEN not in cookie
    value = cookie.split("=", 1)[1].split(";")[0]
    assert get(locked, "/api/batches", Cookie=f"sprintrunner_8080={value}").status_code == 200
    for forged in (value + "0", "9" + value, "", "a.b.c", "." * 3):
        jar = f"sprintrunner_8080={forged}"
        assert get(create_locked(locked), "/api/batches", Cookie=jar).status_code == 401


def create_locked(client: FlaskClient) -> FlaskClient:
    """A client of the same application without cookies."""
    return client.application.test_client()


def test_a_new_token_ends_old_sessions(tmp_path: Path) -> None:
    old = login.Sessions(tmp_path, TOKEN).issue()
    assert login.Sessions(tmp_path, TOKEN).accepts(old)
    assert not login.Sessions(tmp_path, TOKEN + "2").accepts(old)
    assert (tmp_path / "session-secret").stat().st_mode & 0o777 == 0o600


def test_a_login_link_works_once(locked: FlaskClient, services: Services) -> None:
    code = login.issue_code(services.state_dir)
    assert (services.state_dir / "login-code").stat().st_mode & 0o777 == 0o600
    host = {"Host": "127.0.0.1:8080"}
    assert locked.head(f"/login?code={code}", headers=host).status_code == 200
    first = get(locked, f"/login?code={code}")
    assert (first.status_code, first.location) == (303, "/")
    assert "Set-Cookie" in first.headers
    assert get(create_locked(locked), f"/login?code={code}").status_code == 401


def test_a_login_link_is_good_for_ten_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = login.issue_code(tmp_path)
    now = login.time.time()
    monkeypatch.setattr(login.time, "time", lambda: now + login.CODE_SECONDS + 1)
    assert not login.use_code(tmp_path, code)
    assert not login.use_code(tmp_path, "")


def test_after_five_failures_attempts_wait(locked: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(login.time, "sleep", waits.append)
    for _ in range(7):
        assert post(locked, "/login", {"token": "wrong"}).status_code == 401
    assert waits == [1.0, 1.0]
    assert post(locked, "/login", {"token": TOKEN}).status_code == 303
    assert post(locked, "/login", {"token": "wrong"}).status_code == 401
    assert len(waits) == 3


@pytest.mark.parametrize(
    "target", ["//evil.example", "/\\evil.example", "https://evil.example", "/\t/evil", "/a\nb", "evil", ""]
)
def test_next_never_leads_off_the_site(locked: FlaskClient, target: str) -> None:
    assert post(locked, "/login", {"token": TOKEN, "next": target}).location == "/"
    assert local_path(target) == "/"


def test_the_session_cookie_is_secure_behind_https(tmp_path: Path) -> None:
    env = {"SPRINTRUNNER_TRUSTED_PROXIES": "1", "SPRINTRUNNER_ALLOWED_HOSTS": "runner.example"}
    services = make_services(make_project(tmp_path / "p"), tmp_path / "s", env, token=TOKEN)
    client = create_app(services).test_client()
    public = {"X_Forwarded_Host": "runner.example", "X_Forwarded_Proto": "https"}
    assert "Secure" in post(client, "/login", {"token": TOKEN}, **public).headers["Set-Cookie"]
    services.store.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("server"))
    yield made
    made.stop()


CLOSE = "Connection: close\r\n\r\n"
FORM = "Content-Type: application/x-www-form-urlencoded\r\n"


@pytest.mark.parametrize(
    ("request_text", "statuses"),
    [
        (f"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n{CLOSE}", {400}),
        (f"GET / HTTP/1.1\r\nHost: evil.example\r\nHost: localhost\r\n{CLOSE}", {400}),
        (f"GET / HTTP/1.1\r\n{CLOSE}", {400, 421}),
        ("GET / HTTP/1.0\r\n\r\n", {400, 421}),
        (f"GET / HTTP/1.1\r\nHost: local\0host\r\n{CLOSE}", {400}),
        (f"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n{CLOSE}", {400}),
        (
            f"POST {START} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
            f"Content-Length: 3\r\n{CLOSE}",
            {400},
        ),
        (f"POST {START} HTTP/1.1\r\nHost: localhost\r\n{FORM}Content-Length: 1000000000\r\n{CLOSE}", {413}),
        (
            f"POST {START} HTTP/1.1\r\nHost: localhost\r\n{FORM}Transfer-Encoding: chunked\r\n{CLOSE}"
            + f"1000\r\n{'x' * 4096}\r\n" * 100,
            {413},
        ),
        (
            "GET /events HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            {400, 404},
        ),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello \r\n\r\n", {400}),
    ],
)
def test_raw_requests_are_refused(server: Server, request_text: str, statuses: set[int]) -> None:
    answer = server.raw(request_text.encode("latin-1"))
    assert int(answer.split(b" ", 2)[1]) in statuses
    assert b"evil.example" not in answer


def test_streams_pass_the_gate_over_a_real_server(server: Server) -> None:
    for path in gate.STREAMS:
        foreign = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n{CLOSE}"
        assert server.raw(foreign.encode()).startswith(b"HTTP/1.1 403")
        wrong_host = f"GET {path} HTTP/1.1\r\nHost: evil.example\r\n{CLOSE}"
        assert server.raw(wrong_host.encode()).startswith(b"HTTP/1.1 421")
        own = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: same-origin\r\n\r\n"
        head = server.raw(own.encode(), 0.5)
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"Content-Security-Policy: default-src 'none'" in head
        assert b"Transfer-Encoding" not in head
