"""Group H: settings that anybody may try to spoil, and a clock that jumps."""

from __future__ import annotations

import json
import re
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from html import unescape
from http.client import HTTPException
from typing import Any
from zoneinfo import ZoneInfo

import browser
import plans
import processes
from checks import check, expect
from client import HOST, Answer
from clock import Clock
from harness import World

from sprintrunner.settings import FIELDS, FieldInfo

NUMERIC = tuple(info for info in FIELDS if info.kind in ("int", "number") and info.editable_over_http)
WHOLE = tuple(info for info in NUMERIC if info.kind == "int")
#: What a form can no longer be told once it has come from the environment is left alone by the bench.
_BUSY = ("stop_grace_seconds", "retry_backoff_seconds")
_URL = "/api/settings"


# H1-H9: values


def _put(world: World, name: str, value: str) -> Answer:
    """Send one setting; ``value`` is JSON text, so that it may be no JSON at all."""
    body = f'{{"{name}": {value}}}'.encode()
    return world.request("PUT", _URL, body, headers={"Content-Type": "application/json"})


def _refused(answer: Answer, name: str, *words: str) -> None:
    """400, and the field is named with a reason that holds these words."""
    expect(answer.status == 400, f"{name} was answered {answer.status}: {answer.text[:150]}")
    told = answer.json
    why = told.get("fields", {}).get(name, "")
    expect(why, f"{name} is not named: {answer.text[:150]}")
    expect(all(word in why for word in words), f"{name}: {why!r} says nothing of {words}")
    expect(isinstance(told["error"], str) and "Traceback" not in answer.text, f"{name}: no sentence")


def _garbage(value: str, fields: Sequence[FieldInfo], bounds: bool = False) -> None:
    """Send the value for each of the fields; each is refused by name and nothing is saved."""
    with World() as world:
        world.serve()
        before = world.request("GET", _URL)
        for info in fields:
            low, high = info.bounds or (0, 0)
            words = (f"{low:g}" if low % 1 else str(int(low)), str(int(high))) if bounds else ("must be",)
            _refused(_put(world, info.name, value), info.name, *words)
        after = world.request("GET", _URL)
        expect(after.json == before.json, "a setting was changed")
        expect(after.headers["ETag"] == before.headers["ETag"], "something was saved")
        expect(not (world.state / "settings.json").exists(), "a file of saved settings was written")


@check("H1", "keys to_dict, __class__, __dict__, an unknown one")
def strange_keys() -> None:
    with World() as world:
        world.serve()
        before = world.get(_URL)
        for name in ("to_dict", "__class__", "__dict__", "model_fields", "no_such_setting", ""):
            _refused(_put(world, name, '"x"'), name, "not a setting")
        expect(world.get(_URL) == before, "the settings are other ones")
        expect(world.request("GET", "/settings").status == 200, "the form is broken")


@check("H2", "boolean")
def boolean() -> None:
    _garbage("true", NUMERIC)


@check("H3", "fraction")
def fraction() -> None:
    _garbage("2.5", WHOLE)


@check("H4", "text")
def text() -> None:
    _garbage('"5"', NUMERIC)


@check("H5", "null")
def null() -> None:
    _garbage("null", [info for info in NUMERIC if not info.optional])


@check("H6", "list")
def a_list() -> None:
    _garbage("[5]", NUMERIC)


@check("H7", "NaN")
def not_a_number() -> None:
    _garbage("NaN", NUMERIC)


@check("H8", "10^13")
def huge() -> None:
    _garbage(str(10**13), NUMERIC, bounds=True)


@check("H9", "-1")
def negative() -> None:
    _garbage("-1", NUMERIC, bounds=True)


@check("H10", "one good and one bad key")
def all_or_nothing() -> None:
    with World() as world:
        world.serve()
        good, bad = {"max_dev_attempts": 5}, {"max_code_review_attempts": 0}
        for values in ({**good, **bad}, {**bad, **good}, {**good, "no_such_setting": 1}):
            answer = world.request("PUT", _URL, values)
            expect(answer.status == 400, f"it was answered {answer.status}")
            expect("max_dev_attempts" not in answer.json["fields"], "the good one is called bad")
            expect(world.get(_URL)["max_dev_attempts"] == 3, "the good one was saved")
        alone = world.request("PUT", _URL, good)
        expect(alone.status == 200 and world.get(_URL)["max_dev_attempts"] == 5, "the good one is not good")


# H11-H14: saving


def _sets() -> tuple[dict[str, Any], dict[str, Any]]:
    """Two complete sets of the numeric settings that differ in each."""
    free = [info for info in WHOLE if info.bounds and not info.optional and info.name not in _BUSY]
    low = {info.name: int(info.bounds[0]) + 1 for info in free if info.bounds}
    return low, {name: value + 1 for name, value in low.items()}


def _save_for_ever(world: World, over: threading.Event, broken: list[str]) -> None:
    """Save one set after the other until the server is gone under it."""
    sets = _sets()
    for number in range(100_000):
        if over.is_set():
            return
        try:
            world.request("PUT", _URL, sets[number % 2], timeout=5)
        except (OSError, HTTPException) as error:
            broken.append(type(error).__name__)
            return


@check("H11", "kill -9 during a save")
def killed_while_saving() -> None:
    with World() as world:
        old, new = _sets()
        caught = 0
        for life in range(8):
            world.serve()
            over, broken = threading.Event(), list[str]()
            saver = threading.Thread(target=_save_for_ever, args=(world, over, broken), daemon=True)
            saver.start()
            file = world.state / "settings.json"
            world.wait(file.exists, 20, "a first save")
            time.sleep(0.05 + life * 0.013)
            world.kill_group()
            over.set()
            saver.join(10)
            caught += bool(broken)
            saved = json.loads(file.read_text())
            expect(saved in (old, new), f"life {life}: a mixture was left: {str(saved)[:200]}")
        expect(caught, "no kill ever met a save")
        world.serve()
        now = world.get(_URL)
        expect({name: now[name] for name in old} in (old, new), "what was saved is not in force")


@check("H12", "broken sprintrunner.toml at start")
def broken_file() -> None:
    cases = (
        ('order = "file"\nmax_dev_attempts = [3\n', "line 3"),
        ('order = "file"\nmax_dev_attempts = 99\n', "line 2"),
        ('[agents.claude]\npath = "relative/claude"\n', "line 2"),
        ("# fine\n\nno_such_setting = 1\n", "line 3"),
    )
    for told, line in cases:
        with World(toml=told) as world:
            done = world.run("serve", "--port", str(world.port))
            expect(done.returncode != 0, "the server started with defaults")
            lines = done.stderr.strip().splitlines()
            expect(len(lines) == 1 and "sprintrunner.toml" in lines[0], f"it said {done.stderr[:300]!r}")
            expect(re.search(rf"\b{line}\b", lines[0]), f"the line is not named: {lines[0]!r}")
            expect(not world.healthy(), "a server is there")


@check("H13", "two open settings forms, both saved")
def two_forms() -> None:
    with World() as world:
        world.serve()
        address = f"http://{HOST}:{world.port}/settings"
        with browser.opened() as first, browser.opened() as second:
            for one in (first, second):
                one.page.goto(address)
            first.page.fill("#max_dev_attempts", "5")
            first.page.click("#save")
            first.page.wait_for_url("**/settings?saved=1")
            second.page.fill("#max_code_review_attempts", "7")
            with second.page.expect_navigation():
                second.page.click("#save")
            alert = second.page.inner_text("[role=alert]:not([hidden])")
            expect(
                "changed" in alert.lower() or "meanwhile" in alert.lower(),
                f"the conflict is told as {alert!r}",
            )
            kept = second.page.input_value("#max_code_review_attempts")
            expect(kept == "7", f"what was typed is gone: {kept!r}")
        now = world.get(_URL)
        expect((now["max_dev_attempts"], now["max_code_review_attempts"]) == (5, 10), "the second one won")
        tag = world.request("GET", _URL).headers["ETag"]
        one, two = (
            world.request("PUT", _URL, {"max_dev_attempts": n}, headers={"If-Match": tag}).status
            for n in (6, 7)
        )
        expect((one, two) == (200, 412), f"two PUTs with one ETag were answered {one} and {two}")


_FORBIDDEN: tuple[tuple[str, Any], ...] = (
    ("agents", {"claude": {"path": "/bin/sh"}}),
    ("commands", {"dev-story": {"agent": "codex"}}),
    ("agent", "/bin/sh"),
    ("agent", "sh"),
    ("model", "--dangerously-skip-permissions"),
    ("verify", ["touch /tmp/pwned"]),
    ("permission_mode", "plan"),
    ("env_drop", []),
    ("token_file", "/etc/passwd"),
    ("allowed_hosts", ["evil.example"]),
    ("trusted_proxies", 3),
    ("server_port", 81),
    ("project", "/"),
    ("cwd", "/"),
    ("path", "/bin/sh"),
    ("environment", {"PATH": "/tmp"}),
)


@check("H14", "agent program, working folder or environment over HTTP")
def programs_over_http() -> None:
    with World(speed=0.3) as world:
        world.serve()
        before = world.get(_URL)
        for name, value in _FORBIDDEN:
            answer = world.request("PUT", _URL, {name: value})
            expect(answer.status == 400 and name in answer.json["fields"], f"{name}: {answer.status}")
            world.request(
                "POST", "/settings", f"{name}=%2Fbin%2Fsh".encode(), headers={"Content-Type": _FORM}
            )
        expect(world.get(_URL) == before, "a setting was changed")
        extra = {
            "program": "/bin/sh",
            "path": "/bin/sh",
            "cwd": "/",
            "env": {"PATH": "/tmp"},
            "args": ["-c", "id"],
        }
        world.request("POST", "/api/orchestrator/start", {"batch_size": 1, **extra})
        agent = world.agent_runs("create-story")
        expect(any(word.endswith("/agent.py") for word in agent.words), f"the agent is {agent}")
        folder = plans.git(world.root, "rev-parse", "--show-toplevel").strip()
        expect(processes.works_in(agent.pid, world.root), f"the agent does not work in {folder}")
        expect("/tmp" not in processes.environment(agent.pid)["PATH"].split(":"), "the PATH was changed")


_FORM = "application/x-www-form-urlencoded"


# H15-H18: the clock


def _durations(told: Any) -> Iterator[float]:
    """Every duration in a JSON answer, in seconds."""
    if isinstance(told, dict):
        for name, value in told.items():
            if name in ("duration_seconds", "seconds") and value is not None:
                yield float(value)
            yield from _durations(value)
    elif isinstance(told, list):
        for value in told:
            yield from _durations(value)


def _clock_jumps(offset: float) -> None:
    """The limits of silence and of an attempt hold while the clock jumps, and no duration is negative."""
    settings = {"silence_timeout_minutes": 0.1, "command_timeout_minutes": 0.15, "max_retries": 0}
    for fault, limit, word in (
        ("A21@create-story", 6.0, "silen|idle|output"),
        ("A22@create-story", 9.0, "long|limit"),
    ):
        with World(fault, settings=settings) as world:
            clock = Clock(world)
            world.serve().start()
            world.agent_runs("create-story")
            began = time.monotonic()
            clock.set(offset)
            page = world.request("GET", "/healthz").headers["Date"]
            shown = datetime.strptime(page, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC).timestamp()
            expect(abs(shown - time.time() - offset) < 30, "the server's clock was not moved")
            row = world.ended("create-story", limit + 25)
            seconds = time.monotonic() - began
            expect(row["status"] == "timed_out", f"{fault}: {row['status']}: {row['reason']}")
            expect(
                limit - 2 < seconds < limit + 8, f"{fault}: ended after {seconds:.1f} s, the limit is {limit}"
            )
            expect(re.search(word, row["reason"]), f"{fault}: the reason is {row['reason']!r}")
            world.request("POST", "/api/orchestrator/stop", {})
            world.batch_end(30)
            found = [
                *_durations(world.get(f"/api/batches/{row['batch_id']}")),
                *_durations(world.get("/api/batches")),
            ]
            expect(found and min(found) >= 0, f"negative durations: {found}")
            for path in ("/", "/batches/1", f"/commands/{row['id']}", f"/stories/{plans.STORY}"):
                answer = world.request("GET", path)
                expect(answer.status == 200, f"{path} was answered {answer.status}")
                negative = re.search(r"[\s>][-−]\d+ (?:s|min|h)\b", answer.text)
                expect(not negative, f"{path} shows {negative and negative[0]!r}")


@check("H15", "clock set back 1 h during a run")
def clock_back() -> None:
    _clock_jumps(-3600.0)


@check("H16", "clock set forward 1 day during a run")
def clock_forward() -> None:
    _clock_jumps(86400.0)


_TIME = re.compile(r'<time[^>]*datetime="([^"]+)"[^>]*>([^<]+)</time>')


@check("H17", "change of daylight saving time")
def daylight_saving() -> None:
    zone = ZoneInfo("Europe/Berlin")
    # At 01:00 UTC the clocks of Berlin go from 03:00 back to 02:00.
    change = datetime(2026, 10, 25, 1, 0, tzinfo=UTC).timestamp()
    with World(speed=0.7, env={"TZ": "Europe/Berlin"}) as world:
        clock = Clock(world)
        world.serve()
        clock.set(change - 2 - time.time())
        real = time.time()
        world.start("all")
        world.batch_end(90)
        lasted = time.time() - real
        stamps = [event["timestamp"] for event in world.events()]
        expect(stamps[0] < change * 1000 < stamps[-1], "the batch did not run across the change")
        expect(stamps == sorted(stamps), "the stored times are not in order")
        expect(stamps[-1] - stamps[0] < (lasted + 5) * 1000, "the batch took an hour more in the database")
        found = list(_durations(world.get("/api/batches")))
        expect(all(0 <= one < lasted + 5 for one in found), f"durations: {found}")
        shown = [
            pair for path in ("/", "/batches/1") for pair in _TIME.findall(world.request("GET", path).text)
        ]
        expect(shown, "no time is shown")
        hours = set()
        for utc, text in shown:
            local = datetime.fromisoformat(utc).astimezone(zone)
            told = unescape(text).strip()
            expect(f"{local:%H:%M}" in told, f"{utc} is shown as {told!r}")
            hours.add(local.hour)
        expect(len({utc for utc, _ in shown}) > 3, "hardly any time is shown")


def _state(pid: int) -> bytes:
    return processes.read(pid, "stat").rpartition(b")")[2].split()[0]


@check("H18", "server suspended for 60 s")
def suspended() -> None:
    with World("A22@create-story", settings={"silence_timeout_minutes": 0.2}) as world:
        world.serve().start()
        agent = world.agent_runs("create-story")
        assert world.server is not None
        both = [world.server.pid, world.worker.pid]
        worker = world.worker
        for pid in both:
            processes.kill(processes.look(pid) or worker, signal.SIGSTOP)
        world.wait(lambda: _state(worker.pid) == b"T", 5, "the worker to be stopped")
        time.sleep(60)
        for pid in both:
            processes.kill(processes.look(pid) or worker, signal.SIGCONT)
        world.wait(world.healthy, 15, "the server to be healthy again")
        limit = time.monotonic() + 15
        while time.monotonic() < limit:
            expect(
                processes.lives(agent),
                f"the healthy agent was killed: {world.commands('create-story')[-1]['reason']}",
            )
            time.sleep(0.2)
        expect(processes.lives(worker), "gunicorn replaced the worker")
        rows = world.commands("create-story")
        expect(len(rows) == 1 and rows[0]["ended_at"] is None, f"{len(rows)} attempts were made")
