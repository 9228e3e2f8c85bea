"""Group C: who gets in. The gate in front of every request, the token, and the five hostile pages."""

from __future__ import annotations

import json
import random
import re
import stat
import string
import time
from collections.abc import Mapping
from typing import Any

import browser
import plans
import processes
import raw_http
from checks import check, expect
from client import HOST, Answer
from harness import World
from raw_http import START

TOKEN = "bench-token-3f9c2ab8d1e64c57"
_FORM = "application/x-www-form-urlencoded"


# C1-C8: the Host header


def _page(world: World, host: str) -> Answer:
    return raw_http.send(world.port, raw_http.head("GET", "/", [("Host", host), ("Connection", "close")]))


def _served(*hosts: str) -> None:
    with World() as world:
        world.serve()
        for host in hosts:
            answer = _page(world, host.replace("PORT", str(world.port)))
            expect(answer.status == 200, f"Host {host} was answered {answer.status}")
            expect("Sprint Runner" in answer.text, f"Host {host} did not get the dashboard")


def _misdirected(host: str, **headers: str) -> None:
    """The host is refused for the page, the streams and a start, and no batch begins."""
    with World() as world:
        world.serve()
        name = host.replace("PORT", str(world.port))
        expect(_page(world, f"{HOST}:{world.port}").status == 200, "the page is not served at all")
        answer = _page(world, name)
        expect(answer.status == 421, f"it was answered {answer.status}")
        expect("Sprint" not in answer.text, "the dashboard was sent along")
        started = _start(world, {"Host": name, **headers})
        expect(started.status == 421, f"a start was answered {started.status}")
        _nothing_started(world)


@check("C1", "Host localhost, LOCALHOST")
def localhost() -> None:
    _served("localhost:PORT", "LOCALHOST:PORT")


@check("C2", "Host 127.0.0.1, [::1]")
def loopback() -> None:
    _served("127.0.0.1:PORT", "[::1]:PORT")


@check("C3", "Host evil.example (DNS rebinding)")
def rebinding() -> None:
    _misdirected("evil.example:PORT", Origin="http://evil.example:PORT")


@check("C4", "Host 127.0.0.1.nip.io")
def nip_io() -> None:
    _misdirected("127.0.0.1.nip.io")


@check("C5", "Host localhost.evil.example")
def localhost_prefix() -> None:
    _misdirected("localhost.evil.example")


@check("C6", "Host 0.0.0.0")
def unspecified() -> None:
    _misdirected("0.0.0.0:PORT")


@check("C7", "Host with user information")
def user_information() -> None:
    _misdirected("localhost@evil.example")


@check("C8", "malformed IPv6 Host")
def malformed_host() -> None:
    _misdirected("[::1")


# C9-C22: a start


def _start(world: World, headers: Mapping[str, str], body: bytes | None = b"{}") -> Answer:
    """A start with exactly these headers besides what every request has."""
    sent = {"Host": f"{HOST}:{world.port}", "Content-Type": "application/json", **headers}
    if body is None:
        sent.pop("Content-Type")
        body = b""
    filled = [(name, value.replace("PORT", str(world.port))) for name, value in sent.items()]
    top = raw_http.head("POST", START, [*filled, ("Content-Length", str(len(body))), ("Connection", "close")])
    return raw_http.send(world.port, top + body)


def _nothing_started(world: World) -> None:
    expect(not world.rows("SELECT 1 FROM batches"), "a batch was started")
    expect(not world.runs(), "an agent was started")
    now = world.get("/api/orchestrator/status")["status"]
    expect(now == "idle", f"the status is {now}")


def _accepted(**headers: str) -> None:
    with World() as world:
        world.serve()
        answer = _start(world, _named(headers))
        expect(answer.status == 202, f"it was answered {answer.status}: {answer.text[:100]}")
        expect(world.rows("SELECT 1 FROM batches"), "no batch was recorded")


def _refused(status: int = 403, **headers: str) -> None:
    with World() as world:
        world.serve()
        answer = _start(world, _named(headers))
        expect(answer.status == status, f"it was answered {answer.status}: {answer.text[:100]}")
        _nothing_started(world)
        # The same request without what was wrong: it was not something else that refused it.
        again = _start(world, {})
        expect(again.status == 202, f"a good start was answered {again.status}")


def _named(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


@check("C9", "neither Origin nor Sec-Fetch-Site")
def from_curl() -> None:
    _accepted()


@check("C10", "Sec-Fetch-Site same-origin, Origin equal")
def same_origin() -> None:
    _accepted(Sec_Fetch_Site="same-origin", Origin=f"http://{HOST}:PORT")


@check("C11", "Sec-Fetch-Site none, no Origin")
def typed_address() -> None:
    _accepted(Sec_Fetch_Site="none")


@check("C12", "Origin equal, no Sec-Fetch-Site")
def plain_http() -> None:
    _accepted(Origin=f"http://{HOST}:PORT")


@check("C13", "cross-site, foreign Origin")
def cross_site() -> None:
    _refused(Sec_Fetch_Site="cross-site", Origin="http://evil.example")


@check("C14", "cross-site, no Origin")
def cross_site_alone() -> None:
    _refused(Sec_Fetch_Site="cross-site")


@check("C15", "same-site, Origin of another localhost port")
def same_site() -> None:
    _refused(Sec_Fetch_Site="same-site", Origin=f"http://{HOST}:1")


@check("C16", "Origin with another port")
def other_port() -> None:
    _refused(Origin=f"http://{HOST}:1")


@check("C17", "Origin with another host or scheme")
def other_host() -> None:
    _refused(Origin="http://evil.example:PORT")
    _refused(Origin=f"https://{HOST}:PORT")


@check("C18", "Origin null")
def null_origin() -> None:
    _refused(Origin="null")


@check("C19", "same-origin beside a foreign Origin")
def contradiction() -> None:
    _refused(Sec_Fetch_Site="same-origin", Origin="http://evil.example")


@check("C20", "malformed Origin")
def malformed_origin() -> None:
    _refused(Origin="http://[::1")


@check("C21", "body as text/plain")
def text_plain() -> None:
    _refused(415, Content_Type="text/plain")


@check("C22", "body as JSON, as form, and none")
def bodies() -> None:
    for kind, body in (("application/json", b'{"batch_size": 1}'), (_FORM, b"batch_size=1"), ("", None)):
        with World() as world:
            world.serve()
            answer = _start(world, {"Content-Type": kind} if kind else {}, body)
            expect(answer.status == 202, f"{kind or 'no body'} was answered {answer.status}")


# C23-C25: the streams


def _stream(world: World, path: str, **headers: str) -> int:
    """The status of a stream, which is then left."""
    sent = {"Host": f"{HOST}:{world.port}", **_named(headers)}
    filled = [(name, value.replace("PORT", str(world.port))) for name, value in sent.items()]
    with raw_http.connect(world.port) as sock:
        sock.sendall(raw_http.head("GET", path, filled))
        return raw_http.parse(raw_http.read_head(sock), time.monotonic()).status


def _stream_refused(path: str, **headers: str) -> None:
    with World() as world:
        world.serve()
        expect(_stream(world, path) == 200, "the stream is not served at all")
        status = _stream(world, path, **headers)
        expect(status == 403, f"it was answered {status}")


@check("C23", "GET /events cross-site")
def events_cross_site() -> None:
    _stream_refused("/events", Sec_Fetch_Site="cross-site")


@check("C24", "GET /api/events/stream with a foreign Origin")
def stream_foreign() -> None:
    _stream_refused("/api/events/stream", Origin="http://evil.example")


@check("C25", "both streams: foreign Host; same origin")
def streams() -> None:
    with World() as world:
        world.serve()
        for path in ("/events", "/api/events/stream"):
            foreign = _stream(world, path, Host="evil.example:PORT")
            expect(foreign == 421, f"{path} with a foreign Host was answered {foreign}")
            own = _stream(world, path, Sec_Fetch_Site="same-origin", Origin=f"http://{HOST}:PORT")
            expect(own == 200, f"{path} of the same origin was answered {own}")


# C26-C36: raw requests


def _raw(data: bytes, *allowed: int) -> Answer:
    with World() as world:
        world.serve()
        answer = raw_http.send(world.port, data.replace(b"PORT", str(world.port).encode()))
        expect(answer.status in allowed, f"it was answered {answer.status}: {answer.text[:100]!r}")
        expect(world.healthy(), "the server is not healthy")
        _nothing_started(world)
        return answer


def _get(*headers: tuple[str, str], path: str = "/", version: str = "1.1") -> bytes:
    return raw_http.head("GET", path, [*headers, ("Connection", "close")], version)


@check("C26", "two Host headers, good one first")
def good_host_first() -> None:
    _raw(_get(("Host", "localhost:PORT"), ("Host", "evil.example")), 400)


@check("C27", "two Host headers, bad one first")
def bad_host_first() -> None:
    _raw(_get(("Host", "evil.example"), ("Host", "localhost:PORT")), 400)


@check("C28", "HTTP/1.1 without Host")
def no_host() -> None:
    _raw(_get(), 400, 421)


@check("C29", "HTTP/1.0 without Host")
def old_without_host() -> None:
    _raw(_get(version="1.0"), 400, 421)


@check("C30", "NUL in Host")
def nul_in_host() -> None:
    _raw(_get(("Host", "localhost\0:PORT")), 400)


@check("C31", "absolute form, http://evil.example/ with Host localhost")
def absolute_form() -> None:
    answer = _raw(_get(("Host", "localhost:PORT"), path="http://evil.example/"), 200, 400, 403, 421)
    expect("evil.example" not in answer.text, "it was served as evil.example")


@check("C32", "Transfer-Encoding together with Content-Length")
def smuggling() -> None:
    sent = [("Host", "localhost:PORT"), ("Content-Type", "application/json")]
    sent += [("Content-Length", "4"), ("Transfer-Encoding", "chunked")]
    _raw(raw_http.head("POST", START, sent) + b"2\r\n{}\r\n0\r\n\r\n", 400)


@check("C33", "TLS bytes on the plain port")
def tls_bytes() -> None:
    hello = bytes.fromhex("160301006c010000680303") + bytes(range(32)) + b"\0" * 60
    _raw(hello, 400)


def _malformed(seed: int) -> list[str]:
    """Fifty values that are no good Host or Origin, the same ones each time."""
    dice = random.Random(seed)
    known = ["", " ", ":", ":0", "[", "]", "[]", "[::1]x", "[::1]:99999", "a" * 5000, "localhost:-1", "%00"]
    known += ["http://", "://", "http://[", "http://]:1", "http://[::1", "http://a b", "http://\u00e9", "//x"]
    known += [
        "null, null",
        "http://localhost:1e3",
        "http://localhost:\u0661",
        "[fe80::1%25eth0]",
        "1.1.1.1.1.1",
    ]
    letters = string.printable[:95] + "\u00e9\u2028\ud83d\ude00".encode("utf-16", "surrogatepass").decode(
        "utf-16"
    )
    while len(known) < 50:
        known.append("".join(dice.choice(letters) for _ in range(dice.randint(1, 30))))
    return known


@check("C34", "50 malformed Host and Origin values")
def fuzz() -> None:
    with World() as world:
        world.serve()
        seen: dict[int, int] = {}
        for value in _malformed(20261125):
            good = f"{HOST}:{world.port}"
            for host, origin in ((value, None), (good, value)):
                headers = [("Host", host), ("Connection", "close"), ("Content-Length", "0")]
                headers += [("Origin", origin)] if origin is not None else []
                answer = raw_http.send(world.port, raw_http.head("POST", START, headers))
                seen[answer.status] = seen.get(answer.status, 0) + 1
                expect(400 <= answer.status < 500, f"{host[:40]!r}, {origin!r:.40}: {answer.status}")
        expect(sum(seen.values()) == 100, "not everything was sent")
        expect("Traceback" not in world.words(), "the log holds a traceback")
        _nothing_started(world)


@check("C35", "WebSocket upgrade")
def websocket() -> None:
    key = [("Upgrade", "websocket"), ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")]
    for path in ("/events", "/"):
        sent = [("Host", "localhost:PORT"), ("Connection", "Upgrade"), *key, ("Sec-WebSocket-Version", "13")]
        _raw(raw_http.head("GET", path, sent), 400, 404)


@check("C36", "OPTIONS with a foreign Origin")
def preflight() -> None:
    sent = [("Host", "localhost:PORT"), ("Origin", "http://evil.example"), ("Connection", "close")]
    sent += [("Access-Control-Request-Method", "POST"), ("Access-Control-Request-Headers", "content-type")]
    with World() as world:
        world.serve()
        for path in (START, "/", "/events", "/api/settings", "/static/app.css"):
            data = raw_http.head("OPTIONS", path, sent).replace(b"PORT", str(world.port).encode())
            answer = raw_http.send(world.port, data)
            expect(answer.status, f"{path} was not answered")
            cors = [name for name in answer.headers if name.lower().startswith("access-control-")]
            expect(not cors, f"{path} has {cors}")


@check("C37", "GET on every state-changing route")
def get_changes_nothing() -> None:
    key = plans.STORY
    paths = [f"/api/orchestrator/{name}" for name in ("start", "stop", "resume")]
    paths += [f"/api/stories/{key}/{name}" for name in ("retry", "done", "skip")]
    paths += ["/api/commands/1/stop", "/api/settings/agent", "/api/settings/agent/forget"]
    with World() as world:
        world.serve()
        for path in paths:
            for method in ("GET", "HEAD"):
                status = world.request(method, path).status
                expect(status == 405, f"{method} {path} was answered {status}")
        _nothing_started(world)
        expect(plans.status_of(world.root, key) == "backlog", "the status file was changed")


# C38, C39: proxies


@check("C38", "X-Forwarded-* without proxy configuration")
def forwarded_ignored() -> None:
    with World() as world:
        world.serve()
        evil = {"X-Forwarded-Host": "evil.example", "X-Forwarded-For": "1.2.3.4", "X-Forwarded-Port": "1"}
        expect(_start(world, {"Host": "evil.example", "X-Forwarded-Host": "localhost"}).status == 421, "host")
        secure = {"X-Forwarded-Proto": "https", "X-Forwarded-Ssl": "on", "X-Forwarded-Protocol": "ssl"}
        lied = _start(world, {**secure, "Origin": f"https://{HOST}:PORT"})
        expect(lied.status == 403, f"a forged scheme made a foreign origin ours: {lied.status}")
        paths = {"SCRIPT_NAME": "/x", "PATH_INFO": "/healthz", "X-Forwarded-Prefix": "/x"}
        page = world.request("GET", "/", headers={**evil, **paths, "Forwarded": "host=evil.example"})
        expect(page.status == 200 and "evil.example" not in page.text, f"the page: {page.status}")
        expect('href="/batches"' in page.text, "a forged path was believed")
        told = _start(world, {**evil, **secure, "Origin": f"http://{HOST}:PORT"})
        expect(told.status == 202, f"forwarded headers made a good start fail: {told.status}")


_PROXY = {"trusted_proxies": 1, "allowed_hosts": "sprint.example"}


@check("C39", "with proxy configuration")
def forwarded_obeyed() -> None:
    with World(settings=_PROXY, env={"SPRINTRUNNER_TOKEN": TOKEN}) as world:
        world.serve()
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        told = {
            "X-Forwarded-Host": "sprint.example",
            "X-Forwarded-Proto": "https",
            "X-Forwarded-For": "10.0.0.9",
        }
        for origin, status in (("http://sprint.example", 403), (f"http://{HOST}:PORT", 403)):
            found = _start(world, {**bearer, **told, "Origin": origin}).status
            expect(found == status, f"Origin {origin} behind https://sprint.example was answered {found}")
        evil = _start(world, {**bearer, **told, "X-Forwarded-Host": "evil.example"}).status
        expect(evil == 421, f"a foreign public name was answered {evil}")
        for name in ("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"):
            more = _start(world, {**bearer, **told, name: f"a, {told[name]}"}).status
            expect(more == 400, f"two hops in {name} were answered {more}")
        _nothing_started_with(world, bearer)
        login = world.request(
            "POST", "/login", f"token={TOKEN}".encode(), headers={**told, "Content-Type": _FORM}
        )
        cookie = login.headers.get("Set-Cookie", "")
        expect(login.status == 303 and "Secure" in cookie, f"the cookie is not Secure: {login.status}")
        found = _start(world, {**bearer, **told, "Origin": "https://sprint.example"}).status
        expect(found == 202, f"the right origin was answered {found}")


def _nothing_started_with(world: World, headers: Mapping[str, str]) -> None:
    status = world.request("GET", "/api/orchestrator/status", headers=headers).json["status"]
    expect(status == "idle" and not world.rows("SELECT 1 FROM batches"), "a batch was started")


# C40-C43: the token


@check("C40", "non-loopback bind without a token")
def bare_bind() -> None:
    with World() as world:
        for words in (("--host", "0.0.0.0"), ("--host", "::")):
            done = world.run("serve", "--port", str(world.port), *words)
            expect(done.returncode not in (0, None), f"serve {words[1]} ended with {done.returncode}")
            lines = done.stderr.strip().splitlines()
            expect(len(lines) == 1 and "token" in lines[0], f"it said {done.stderr[:200]!r}")
        world.env["SPRINTRUNNER_TRUSTED_PROXIES"] = "1"
        done = world.run("serve", "--port", str(world.port))
        expect(done.returncode and "token" in done.stderr, "with a trusted proxy it started without a token")
        del world.env["SPRINTRUNNER_TRUSTED_PROXIES"]
        world.serve("--host", "0.0.0.0", "--new-token")
        status = world.request("GET", "/api/orchestrator/status").status
        expect(status == 401, f"with a token made it serves, but asks for none: {status}")


_PROGRAM = ("/api/orchestrator/status", "/api/events", "/api/batches", "/api/batches/1", "/api/settings")
_PROGRAM += ("/api/sprint-status", "/story-descriptions.json", "/sprint-status.yaml", "/sprint-runner.csv")
_PROGRAM += ("/orchestrator.csv", "/orchestrator.md", "/x.db", "/events", "/api/events/stream", "/api/none")
_PAGES = ("/", "/batches", "/batches/1", f"/stories/{plans.STORY}", "/commands/1", "/commands/1/transcript")
_PAGES += ("/settings", "/nowhere")
_POSTS = (START, "/api/orchestrator/stop", "/api/orchestrator/resume", "/api/commands/1/stop", "/settings")
_POSTS += (f"/api/stories/{plans.STORY}/done", f"/api/stories/{plans.STORY}/retry")


def _locked_out(world: World, headers: Mapping[str, str], who: str) -> None:
    """401 everywhere; pages may send a person without any header to the login instead."""
    for method, paths in (("GET", _PROGRAM), ("POST", _POSTS)):
        for path in paths:
            status = world.request(method, path, headers=headers).status
            expect(status == 401, f"{who}: {method} {path} was answered {status}")
    for path in _PAGES:
        answer = world.request("GET", path, headers=headers)
        to_login = answer.headers.get("Location", "").startswith("/login") and "Authorization" not in headers
        expect(answer.status == 401 or (answer.status == 303 and to_login), f"{who}: {path} {answer.status}")
    status = world.request("PUT", "/api/settings", {"order": "status"}, headers=headers).status
    expect(status == 401, f"{who}: PUT settings {status}")


@check("C41", "wrong, missing or old token")
def locked() -> None:
    with World() as world:
        world.serve("--new-token")
        old = (world.state / "token").read_text()
        link = _link(world)
        session = _session(world.request("GET", link))
        expect(world.request("GET", "/", headers={"Cookie": session}).status == 200, "the session is no good")
        expect(world.request("GET", link).status == 401, "the login link works twice")
        _locked_out(world, {}, "no token")
        _locked_out(world, {"Authorization": f"Bearer {old}x"}, "wrong token")
        _locked_out(world, {"Cookie": re.sub(r"\.\w{4}", ".0000", session)}, "forged session")
        for path in ("/healthz", "/login"):
            status = world.request("GET", path).status
            expect(status == 200, f"{path} was answered {status}")
        world.end()
        world.serve("--new-token")
        new = (world.state / "token").read_text()
        expect(new != old, "the token is the same")
        _locked_out(world, {"Authorization": f"Bearer {old}"}, "old token")
        _locked_out(world, {"Cookie": session}, "old session")
        good = world.request("GET", "/api/settings", headers={"Authorization": f"Bearer {new}"})
        expect(good.status == 200, f"the new token was answered {good.status}")
        _nothing_started_with(world, {"Authorization": f"Bearer {new}"})


def _link(world: World) -> str:
    """The path of the newest login link the server printed."""
    world.wait(lambda: re.findall(r"/login\?code=[\w-]+", world.words()), 10, "the login link")
    return re.findall(r"/login\?code=[\w-]+", world.words())[-1]


def _session(answer: Answer) -> str:
    expect(answer.status == 303, f"the login was answered {answer.status}")
    cookie = answer.headers["Set-Cookie"]
    expect("HttpOnly" in cookie and "SameSite=Strict" in cookie, f"the cookie is {cookie}")
    return cookie.split(";")[0]


@check("C42", "where the token is")
def where_the_token_is() -> None:
    with World(speed=0.5, env={"SPRINTRUNNER_TOKEN": TOKEN}) as world:
        world.serve()
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        body = f"token={TOKEN}".encode()
        session = _session(world.request("POST", "/login", body, headers={"Content-Type": _FORM}))
        expect(TOKEN not in session, "the cookie is the token")
        world.request("POST", "/login", b"token=wrong-and-long-enough", headers={"Content-Type": _FORM})
        started = world.request("POST", START, {"batch_size": 1}, headers=bearer)
        expect(started.status == 202, f"the start was answered {started.status}")
        agent = world.agent_runs("create-story")
        told = processes.environment(agent.pid)
        expect(told.get("SPRINTRUNNER_RUN_ID"), "the agent's environment cannot be read")
        expect(TOKEN not in "\0".join(told.values()), "the agent's environment holds it")
        seen = [one for one in processes.everyone() if TOKEN in " ".join(one.words)]
        expect(not seen, f"ps shows it: {seen}")
        for path in (*_PAGES, "/login", "/api/settings", "/api/orchestrator/status"):
            text = world.request("GET", path, headers={"Cookie": session}).text
            expect(TOKEN not in text, f"{path} holds it")
        expect(TOKEN not in world.words(), "the log holds it")
        files = [
            path for path in world.state.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()
        ]
        expect(not files, f"files hold it: {files}")
    with World() as world:
        world.serve("--new-token")
        path = world.state / "token"
        expect(stat.S_IMODE(path.stat().st_mode) == 0o600, f"the token file has mode {path.stat().st_mode:o}")
        token = path.read_text()
        expect(token not in world.words(), "the printed link holds the token")
        expect(not [one for one in processes.everyone() if token in " ".join(one.words)], "ps shows it")


@check("C43", "login with next=//evil.example")
def open_redirect() -> None:
    targets = (
        "//evil.example",
        "/\\evil.example",
        "https://evil.example",
        "/%09/evil.example",
        "\\\\evil.example",
    )
    targets += (
        "///evil.example",
        "http:evil.example",
        "/\t/evil.example",
        "javascript:alert(1)",
        "%2F%2Fevil.example",
    )
    with World(env={"SPRINTRUNNER_TOKEN": TOKEN}) as world:
        world.serve()
        for target in targets:
            sent = json.dumps(target)[1:-1].replace("\\\\", "\\").replace("\\t", "%09")
            body = f"token={TOKEN}&next={sent}".encode()
            answer = world.request("POST", "/login", body, headers={"Content-Type": _FORM})
            place = answer.headers.get("Location", "")
            expect(answer.status == 303, f"next={target!r} was answered {answer.status}")
            local = re.fullmatch(r"/(?![/\\]).*", place) and "\\" not in place and "\t" not in place
            expect(local, f"next={target!r} leads to {place!r}")
        with browser.opened() as seen:
            seen.page.goto(f"http://{HOST}:{world.port}/login?next=//evil.test/away")
            seen.page.fill("input[name=token]", TOKEN)
            with seen.page.expect_navigation():
                seen.page.click("main button")
            expect(seen.page.url == f"http://{HOST}:{world.port}/", f"it ended at {seen.page.url}")


# C44: five hostile pages

_FETCH = """<script>
const body = '{"batch_size":1}';
for (const [mode, type] of [['no-cors','text/plain'],['cors','application/json'],['no-cors','%(form)s']])
  for (const credentials of ['include', 'omit'])
    fetch('%(url)s', {method:'POST', mode, credentials, headers:{'Content-Type':type}, body}).catch(() => 0);
navigator.sendBeacon('%(url)s', body);
</script>"""
_SUBMIT = """<form id=f method=post action="%(url)s"><input name=batch_size value=1></form>
<script>f.submit()</script>"""
_SOURCE = """<script>window.heard = [];
for (const path of ['/events', '/api/events/stream']) {
  const one = new EventSource('%(base)s' + path, {withCredentials: true});
  one.onmessage = one.onopen = event => heard.push(event.type);
}
new Image().src = '%(url)s?batch_size=1'; fetch('%(url)s', {mode: 'no-cors'}).catch(() => 0);
</script>"""


@check("C44", "Chromium opens five hostile pages")
def hostile_pages() -> None:
    with World() as world:
        world.serve()
        base = f"http://{HOST}:{world.port}"
        texts = {"base": base, "url": base + START, "form": _FORM}
        pages = {"/fetch": _FETCH % texts, "/form": _SUBMIT % texts, "/source": _SOURCE % texts}
        with browser.site(pages) as port:
            other_port, foreign = f"http://{HOST}:{port}", f"http://{browser.HOSTILE_NAME}:{port}"
            # Seven fetches, of which two ask before (OPTIONS) and are then not sent.
            _attack(world, f"{other_port}/fetch", {200, 403}, 7)
            _attack(world, f"{foreign}/form", {403}, 1)
            _attack(world, f"{foreign}/fetch", {200, 403}, 7)
            _attack(world, f"{foreign}/source", {403, 405}, 4)
        _rebind(world)
        _nothing_started(world)
        _own_page_starts(world, base)


def _attack(world: World, address: str, allowed: set[int], count: int) -> None:
    """Open a hostile page, see ``count`` requests arrive at our server and be refused."""
    ours = f":{world.port}/{'' if address.endswith('/source') else START[1:]}"
    with browser.opened() as seen:
        seen.page.goto(address)
        seen.wait(lambda: len(seen.answered(ours)) >= count, 15, f"the {count} requests of {address}")
        seen.linger(0.3)
        expect(set(seen.answered(ours)) <= allowed, f"{address}: answered {sorted(seen.answered(ours))}")
        heard = seen.page.evaluate("window.heard || []")
        expect(not heard, f"{address} heard {heard}")
    _nothing_started(world)


def _rebind(world: World) -> None:
    """The name led to the attacker when the page was loaded, and leads to us when it acts."""
    base = f"http://{browser.HOSTILE_NAME}:{world.port}"
    text = _FETCH % {"base": base, "url": base + START, "form": _FORM}
    with browser.opened() as seen:
        seen.page.route(f"{base}/page", lambda route: route.fulfill(body=text, content_type="text/html"))
        seen.page.goto(f"{base}/page")
        seen.wait(lambda: len(seen.answered(START)) >= 7, 15, "the requests of a rebound page")
        told = set(seen.answered(START))
        expect(told == {421}, f"a rebound page was answered {sorted(told)}")
        read: Any = seen.page.evaluate("fetch('/').then(a => a.text())")
        expect("Sprint Runner" not in read, "a rebound page could read the dashboard")
    _nothing_started(world)


def _own_page_starts(world: World, base: str) -> None:
    """The same act by our own page works: what was refused was not refused by accident."""
    script = f"fetch('{START}', {{method: 'POST'}}).then(a => a.status)"
    with browser.opened() as seen:
        seen.page.goto(base + "/")
        status = seen.page.evaluate(script)
        expect(status == 202, f"the own page was answered {status}")
