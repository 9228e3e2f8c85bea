"""docs/deploy.md, tried: its nginx block with TLS in front of gunicorn, as people and programs meet it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psutil
import pytest
from deployment import BEARER, NAME, SILENCE, TOKEN, Site, Stream, needs
from engine import until

from sprintrunner.web.login import issue_code

FORM = ("-H", "Accept: text/html", "-H", "Sec-Fetch-Site: same-origin")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    needs("nginx", "openssl", "curl")
    found = Site(tmp_path_factory.mktemp("site"))
    try:
        found.up()
        found.proxy()
        yield found
    finally:
        found.end()


@pytest.fixture(scope="module")
def patient(site: Site) -> Iterator[Stream]:
    """A stream that is opened early, so that its test need not wait long."""
    stream = site.stream("/api/events/stream")
    yield stream
    stream.close()


def quiet(site: Site) -> None:
    """End what runs."""
    if site.status()["status"] != "idle":
        site.curl("/api/orchestrator/stop", *BEARER, "-X", "POST")
        until(lambda: site.status()["status"] == "idle", 20)


def test_the_token_of_a_file_logs_in_by_form_and_by_link(site: Site, patient: Stream) -> None:
    asked = site.curl("/")
    assert (asked.status, asked.header("Location")) == (303, "/login?next=%2F")
    assert site.curl("/login", "-d", "token=wrong").status == 401
    by_form = site.curl("/login", *FORM, "-H", f"Origin: {site.url}", "-d", f"token={TOKEN}")
    by_link = site.curl(f"/login?code={issue_code(site.state)}")
    for answer in (by_form, by_link):
        assert (answer.status, answer.header("Location")) == (303, "/")
        words = answer.header("Set-Cookie").split("; ")
        assert {"Secure", "HttpOnly", "SameSite=Strict", "Path=/"} <= set(words)
        assert site.curl("/", "-H", f"Cookie: {words[0]}").status == 200
    assert site.curl("/api/events", *BEARER).status == 200
    assert site.curl("/api/events").status == 401


def delay(site: Site) -> float:
    """How long it takes at most until a stream begins, or tells of what happened, in seconds."""
    quiet(site)
    streams = [site.stream("/api/events/stream"), site.stream("/events")]
    try:
        until(lambda: all(one.lines for one in streams), 20)
        delays = [one.lines[0][0] - one.asked for one in streams]
        before = [len(one.lines) for one in streams]
        assert site.curl("/api/orchestrator/start", *BEARER, "-X", "POST").status == 202
        began = time.time()
        until(lambda: all(len(one.lines) > had for one, had in zip(streams, before, strict=True)), 20)
        delays += [one.lines[had][0] - began for one, had in zip(streams, before, strict=True)]
        until(lambda: [told for _, told in streams[0].events() if told["type"] == "cycle:start"], 20)
        events = [(when, told) for when, told in streams[0].events() if told.get("timestamp")]
        return max(delays + [when - told["timestamp"] / 1000 for when, told in events])
    finally:
        for one in streams:
            one.close()
        quiet(site)


def test_both_streams_come_through_unbuffered(site: Site) -> None:
    # A proxy that buffers delays each of them; a busy machine only some.
    assert any(delay(site) < 1 for _ in range(3))


def test_start_and_stop_by_form_and_from_no_other_origin(site: Site) -> None:
    quiet(site)
    cookie = site.curl("/login", "-d", f"token={TOKEN}").header("Set-Cookie").split(";")[0]
    person = (*FORM, "-H", f"Cookie: {cookie}", "-d", "batch_size=1")
    start, stop = "/api/orchestrator/start", "/api/orchestrator/stop"
    for origin in (f"http://{NAME}:{site.public}", "https://evil.example", f"https://{NAME}:1", "null"):
        assert site.curl(start, *person, "-H", f"Origin: {origin}").status == 403
    assert site.status()["status"] == "idle"
    assert site.curl(start, *person, "-H", f"Origin: {site.url}").status == 303
    until(lambda: site.status()["status"] == "running", 10)
    assert site.curl(stop, *person, "-H", f"Origin: {site.url}").status == 303
    until(lambda: site.status()["status"] == "idle", 20)


def test_a_wrong_name_and_forged_forwarding_do_not_get_in(site: Site) -> None:
    assert site.curl("/healthz", "-H", "Host: evil.example").status == 421
    assert site.curl("/healthz", "-H", f"X-Forwarded-Host: {NAME}", "-H", "Host: evil.example").status == 421
    # nginx puts its own words in the place of a visitor's.
    assert site.curl("/healthz", "-H", "X-Forwarded-For: 1.2.3.4, 5.6.7.8").status == 200
    for name in ("For", "Proto", "Host"):
        assert site.direct("/healthz", "-H", f"X-Forwarded-{name}: a, b").status == 400
    assert site.direct("/", "-H", "X-Forwarded-Host: evil.example").status == 421


def test_nginx_may_be_reloaded_under_a_stream(site: Site) -> None:
    stream = site.stream("/api/events/stream")
    try:
        until(lambda: stream.lines, 5)
        site.proxy("-s", "reload")
        reloaded = time.time()
        until(lambda: stream.lines[-1][0] > reloaded + 0.5, 5)
        assert site.curl("/healthz").status == 200
    finally:
        stream.close()


def test_a_silent_stream_outlives_the_proxy_by_its_heartbeats_alone(site: Site, patient: Stream) -> None:
    quiet(site)
    until(lambda: time.time() - patient.asked > 1.5 * SILENCE, 2 * SILENCE)
    assert patient.open
    slower = site.curl("/api/settings", *BEARER, "-X", "PUT", "--json", '{"heartbeat_seconds": 30}')
    assert slower.status == 200
    # Without them it is cut, so it was they that kept it.
    until(lambda: not patient.open, 3 * SILENCE)
    site.curl("/api/settings/heartbeat_seconds", *BEARER, "-X", "DELETE")


def test_a_stop_of_gunicorn_ends_batch_and_agents_in_order(site: Site) -> None:
    quiet(site)
    assert site.curl("/api/orchestrator/start", *BEARER, "-X", "POST").status == 202
    assert site.gunicorn is not None
    whole = psutil.Process(site.gunicorn.pid)
    until(lambda: [one for one in whole.children(recursive=True) if _is_shim(one)], 10)
    tree = whole.children(recursive=True)
    stream = site.stream("/events")
    until(lambda: stream.lines, 5)
    assert site.down() < 12
    stream.close()
    assert [one for one in tree if _works(one)] == []
    site.up()
    newest = site.curl("/api/batches?limit=1", *BEARER).body
    assert '"status":"interrupted"' in newest.replace(" ", "")


def test_a_killed_first_process_is_a_crash_after_which_the_batch_goes_on(site: Site) -> None:
    quiet(site)
    assert site.curl("/api/orchestrator/start", *BEARER, "-X", "POST").status == 202
    until(lambda: site.status()["status"] == "running", 10)
    assert site.gunicorn is not None
    workers = psutil.Process(site.gunicorn.pid).children()
    site.gunicorn.kill()
    site.gunicorn.wait()
    psutil.wait_procs(workers, 10)
    site.up()
    until(lambda: site.status()["status"] == "running", 5)


def test_a_browser_sees_the_page_live_over_tls_and_after_a_restart(site: Site, chromium: str) -> None:
    from playwright.sync_api import sync_playwright

    quiet(site)
    with sync_playwright() as driver:
        words = ["--no-sandbox", f"--host-resolver-rules=MAP {NAME} 127.0.0.1"]
        browser = driver.chromium.launch(executable_path=chromium, args=words)
        page = browser.new_context(ignore_https_errors=True).new_page()
        page.goto(f"{site.url}/")
        page.fill("input[name=token]", TOKEN)
        page.click("main button")
        page.wait_for_url(f"{site.url}/")
        page.click("form[action='/api/orchestrator/start'] button")
        page.wait_for_selector("form[action='/api/orchestrator/stop']", state="attached", timeout=8_000)
        site.down()
        assert site.curl("/healthz").status == 502
        site.up()
        # No click: the page finds the server again and tells that the batch waits for one.
        page.wait_for_selector("form[action='/api/orchestrator/resume']", state="attached", timeout=15_000)
        browser.close()


def _works(process: psutil.Process) -> bool:
    """Whether it is there and no zombie, which the next look at it may find gone."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False


def _is_shim(process: psutil.Process) -> bool:
    try:
        return "shim.py" in " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False
