"""A batch whose database takes nothing for a while: what must hold meanwhile, and that it goes on (R11)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import plans
from checks import expect
from client import StreamClient
from harness import PATIENCE, G, World

from sprintrunner import control
from sprintrunner.errors import SprintRunnerError

#: The first attempt at the story hangs until it is ended; the next one works.
FAULT = "hang@dev-story:1"
STORIES = ((plans.STORY, "ready-for-dev"),)
#: How soon the program must have noticed, in seconds: a sign of life, and the wait for a lock.
NOTICED = 20.0


def report(world: World, message: str) -> str:
    """Report a task as the running agent does; returns why it was refused, empty when it was recorded."""
    rows = world.rows("SELECT * FROM commands WHERE status = 'running' ORDER BY id DESC LIMIT 1")
    told = {
        "epic_id": "1",
        "story_id": plans.STORY,
        "command": "dev-story",
        "task_id": "implement",
        "status": "start",
        "message": message,
        "run_id": rows[0]["run_id"] if rows else "",
    }
    try:
        control.request(world.state, "log", told, timeout=30)
    except SprintRunnerError as error:
        return error.sentence
    return ""


def starve(
    world: World, hurt: Callable[[], None], heal: Callable[[], None], words: Sequence[str], hold: float = 2.0
) -> None:
    """Start a batch, take the database away, look, give it back, and wait for the batch to end well."""
    stream = world.stream()
    world.start()
    world.agent_runs("dev-story")
    hurt()
    try:
        began = time.monotonic()
        _notices(world, words)
        _keeps_still(world, max(hold - (time.monotonic() - began), 1.0))
    finally:
        heal()
    _goes_on(world, stream)


def _notices(world: World, words: Sequence[str]) -> None:
    world.wait(lambda: not world.healthy(), NOTICED, "the trouble to be noticed: /healthz is still 200")
    world.wait(lambda: not world.agents(), G + 10.0, "the running agent to be ended")
    page = world.wait(lambda: _page(world, words), 10.0, f"the page to say {' or '.join(words)}")
    expect("Database" in page, "the page does not name the database")


def _page(world: World, words: Sequence[str]) -> str:
    answer = world.request("GET", "/")
    return answer.text if any(word in answer.text for word in words) else ""


def _keeps_still(world: World, seconds: float) -> None:
    runs = len(world.runs())
    answer = world.request("POST", "/api/orchestrator/start", {"batch_size": 1})
    expect(answer.status in (409, 503), f"a start was answered {answer.status}: {answer.text[:200]}")
    expect(answer.json["error"], "a start was refused without a word")
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        expect(len(world.runs()) == runs and not world.agents(), "an agent was started meanwhile")
        time.sleep(0.2)


def _goes_on(world: World, stream: StreamClient) -> None:
    world.wait(world.healthy, NOTICED, "/healthz to be 200 again")
    row = world.wait(lambda: _completed(world), 2 * PATIENCE, "the batch to go on and end")
    expect(row["id"] == 1, "another batch was made")
    expect(plans.status_of(world.root, plans.STORY) == "done", "the story is not done")
    world.sound()
    known = {event["id"]: event["event_type"] for event in world.events()}
    stream.wait(lambda: stream.cursor == max(known), 5)
    lost = [event for event in stream.events if known.get(event["id"]) != event["type"]]
    expect(not lost, f"{len(lost)} published events are not recorded: {lost[:2]}")
    ids = [event["id"] for event in stream.events]
    expect(ids == sorted(set(ids)), "the stream repeats itself")
    told = " ".join(str(event["payload"].get("warning", "")) for event in world.events("batch:warning"))
    expect("takes records again" in told, f"no event tells of it: {told[-300:]}")


def _completed(world: World) -> dict[str, object] | None:
    row = world.batch()
    return row if row["status"] in ("completed", "all_done") else None
