"""A whole batch of the sample project, run once for real and looked at from all sides."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from engine import (
    ALL,
    ARTEFACTS,
    CONTEXT,
    FIFTH,
    FIRST,
    FOURTH,
    SECOND,
    STATUS,
    THIRD,
    Engine,
    agent_script,
    engine_in,
    git,
)

from sprintrunner.events import REQUIRED_KEYS, EventType
from sprintrunner.sprint import BatchStatus, Command, CommandStatus

PAIRS = [[FIRST, SECOND], [THIRD], [FOURTH, FIFTH]]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    home = tmp_path_factory.mktemp("batch")
    with engine_in(home, toml='verify = ["python3 -m unittest"]\n', context=False) as made:
        # An instant agent could end before its partner has begun.
        slowly = "case $SPRINTRUNNER_COMMAND in create-story*) export REHEARSAL_SPEED=0.15;; esac"
        agent_script(home, f'export REHEARSAL_TASKS=none\n{slowly}\nexec claude-rehearsal "$@"')
        made.before = (made.root / STATUS).read_text()  # type: ignore[attr-defined]
        made.row = made.run()  # type: ignore[attr-defined]
        yield made


def test_the_batch_ends_all_done_with_its_numbers(engine: Engine) -> None:
    assert engine.row.status == BatchStatus.ALL_DONE
    assert engine.row.reason == "5 of 5 stories done, 0 blocked, 0 on hold"
    assert engine.row.cycles_completed == 3
    assert engine.submit("status")["status"] == "idle"


def test_every_event_carries_its_keys_and_a_time_in_milliseconds(engine: Engine) -> None:
    events = engine.events(1)
    assert len({event.id for event in events}) == len(events)
    for event in events:
        assert REQUIRED_KEYS[event.type] <= event.payload.keys()
        assert len(str(event.timestamp)) == 13
    moments = [event.timestamp for event in events]
    assert moments == sorted(moments)
    expected = {
        EventType.BATCH_START,
        EventType.BATCH_END,
        EventType.CYCLE_START,
        EventType.CYCLE_END,
        EventType.COMMAND_START,
        EventType.COMMAND_PROGRESS,
        EventType.COMMAND_END,
        EventType.STORY_STATUS,
        EventType.CONTEXT_CREATE,
    }
    assert {event.type for event in events} == expected


def test_the_batch_begins_and_ends_once(engine: Engine) -> None:
    types = [event.type for event in engine.events(1)]
    assert types[0] == EventType.BATCH_START
    assert types[-1] == EventType.BATCH_END
    assert types.count(EventType.BATCH_START) == types.count(EventType.BATCH_END) == 1
    end = engine.events(1)[-1].payload
    assert (end["batch_id"], end["cycles_completed"], end["status"]) == (1, 3, "all_done")
    assert engine.payloads(1, "batch:start")[0]["max_cycles"] is None


def test_cycles_take_two_stories_of_one_epic(engine: Engine) -> None:
    assert [p["story_keys"] for p in engine.payloads(1, "cycle:start")] == PAIRS
    assert [p["completed_stories"] for p in engine.payloads(1, "cycle:end")] == PAIRS
    assert [p["cycle_number"] for p in engine.payloads(1, "cycle:start")] == [1, 2, 3]


def test_each_command_starts_then_reports_then_ends(engine: Engine) -> None:
    per_command: dict[tuple[str, str, int], list[str]] = {}
    for event in engine.events(1, "command:start", "command:end"):
        p = event.payload
        per_command.setdefault((p["story_key"], p["command"], p["attempt"]), []).append(event.type)
    assert set(map(tuple, per_command.values())) == {("command:start", "command:end")}
    assert len(per_command) == len(engine.commands(1))
    assert {p["task_id"] == p["command"] for p in engine.payloads(1, "command:start")} == {True}


def test_all_commands_succeeded_and_their_rows_tell_all(engine: Engine) -> None:
    for row in engine.commands(1):
        assert row.status == CommandStatus.SUCCEEDED
        assert row.ended_at is not None and row.ended_at >= row.started_at
        assert len(str(row.started_at)) == 13
        if row.command == Command.COMMIT:
            continue
        assert row.agent == "claude"
        assert row.model and row.session_id and row.run_id and row.pid and row.boot_id
        assert row.exit_code == 0
        assert (row.cost_usd or 0) > 0 and (row.tokens_out or 0) > 0
        transcript = engine.state / "transcripts" / str(row.transcript)
        assert '"type":' in transcript.read_text()


def test_stories_walk_through_their_statuses(engine: Engine) -> None:
    for key in ALL:
        steps = [
            (p["old_status"], p["new_status"])
            for p in engine.payloads(1, "story:status")
            if p["story_key"] == key
        ]
        path = ["backlog", "ready-for-dev", "in-progress", "review", "done"]
        assert steps == list(pairwise(path))
        row = engine.story(key)
        assert row.status == "done" and row.commit_sha and row.ended_at


def test_the_status_file_differs_in_values_alone(engine: Engine) -> None:
    before, after = engine.before.splitlines(), (engine.root / STATUS).read_text().splitlines()
    assert len(before) == len(after)
    changed = {
        new.split(":")[0].strip(): (old, new) for old, new in zip(before, after, strict=True) if old != new
    }
    assert set(changed) - {"last_updated"} == {*ALL, "epic-1", "epic-2"}
    for key in ALL:
        assert changed[key][1] == changed[key][0].replace("backlog", "done")
    for key in ("epic-1", "epic-2"):
        assert changed[key][1] == changed[key][0].replace("backlog", "in-progress")


def test_each_cycle_is_one_commit_with_trailers(engine: Engine) -> None:
    log = git(engine.root, "log", "--format=%H", "-3").split()
    for sha, keys in zip(reversed(log), PAIRS, strict=True):
        assert engine.trailers(sha) == ["Sprint-Batch: 1", *(f"Sprint-Story: {key}" for key in keys)]
        subject = git(engine.root, "log", "-1", "--format=%s", sha)
        assert subject == f"feat({keys[0][0]}): implement stories {', '.join(keys)}"
        assert {engine.story(key).commit_sha for key in keys} == {sha}
        files = git(engine.root, "show", "--format=", "--name-only", sha).split()
        assert {str(ARTEFACTS / f"{key}.md") for key in keys} <= set(files)
        assert str(STATUS) in files


def test_the_tree_is_clean_and_nothing_of_ours_lies_in_it(engine: Engine) -> None:
    assert engine.dirty() == []
    assert engine.row.left_paths == {}
    assert not list(engine.root.rglob("*.db"))


def test_the_sample_is_green_at_head(engine: Engine, tmp_path: Path) -> None:
    subprocess.run(["git", "clone", "-q", str(engine.root), str(tmp_path / "clone")], check=True)
    done = subprocess.run(
        ["python3", "-m", "unittest"], cwd=tmp_path / "clone", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(re.search(r"Ran (\d+) tests", done.stderr)[1]) > 10  # type: ignore[index]


def test_create_and_discovery_run_side_by_side_once_a_cycle(engine: Engine) -> None:
    spans: dict[str, list[tuple[int, int]]] = {}
    ends = {line["pid"]: line["ns"] for line in engine.runs("end")}
    for run in engine.runs():
        spans.setdefault(run["command"], []).append((run["ns"], ends[run["pid"]]))
    pairs = list(zip(spans["create-story"], spans["create-story-discovery"], strict=True))
    assert len(pairs) == 3
    for (a, b), (c, d) in pairs:
        assert max(a, c) < min(b, d)
    assert [run["keys"] for run in engine.runs() if run["command"] == "create-story"] == PAIRS


def test_only_what_the_workflow_lets_run_together_did(engine: Engine) -> None:
    ends = {line["pid"]: line["ns"] for line in engine.runs("end")}
    background = {r.run_id for r in engine.commands(1) if r.background}
    rows = [r for r in engine.runs() if r["run_id"] not in background]
    together = {frozenset(("create-story", "create-story-discovery"))}
    for one in rows:
        for other in rows:
            if one["pid"] < other["pid"] and max(one["ns"], other["ns"]) < min(
                ends[one["pid"]], ends[other["pid"]]
            ):
                assert frozenset((one["command"], other["command"])) in together


def test_a_tech_spec_is_written_where_required_and_nowhere_else(engine: Engine) -> None:
    specs = {path.name for path in (engine.root / ARTEFACTS).glob("tech-spec-*.md")}
    required = {key for key in ALL if engine.story(key).tech_spec == "REQUIRED"}
    assert required == {FOURTH}
    assert specs == {f"tech-spec-{FOURTH}.md"}
    assert {row.story_keys for row in engine.commands(1, "tech-spec-review")} == required
    assert {engine.story(key).tech_spec for key in ALL} == {"REQUIRED", "SKIP"}


def test_a_background_review_ran_on_the_cheap_model_and_beside_the_work(engine: Engine) -> None:
    (row,) = [row for row in engine.commands(1) if row.background]
    assert (row.command, row.attempt) == ("story-review", 2)
    assert "haiku" in str(row.model)
    (task,) = engine.live.store.background_tasks(1)
    assert (task.task_type, task.status) == ("story-review", "succeeded")
    assert task.completed_at is not None and task.completed_at >= task.spawned_at
    (run,) = [r for r in engine.runs() if r["run_id"] == row.run_id]
    assert any("--model" in word for word in run["argv"])


def test_the_cheap_model_reviews_from_the_second_time_on(engine: Engine) -> None:
    for row in engine.commands(1, "code-review"):
        assert ("haiku" in str(row.model)) is (row.attempt >= 2)


def test_reviews_are_kept_in_a_ledger_with_rounds(engine: Engine) -> None:
    total = 0
    for key in ALL:
        story = engine.story(key)
        findings = engine.live.store.findings(story.id)
        total += len(findings)
        assert {finding.status for finding in findings} <= {"fixed"}
        rounds = engine.live.store.finding_rounds(story.id)
        assert {r.finding_id for r in rounds} == {f.id for f in findings}
    assert total >= 3
    reviews = [row for row in engine.commands(1, "code-review") if row.evidence]
    assert {row.evidence["decision"] for row in reviews} == {"next", "pass"}


def test_done_is_proved_by_change_and_by_our_own_verify(engine: Engine) -> None:
    for key in ALL:
        evidence = engine.story(key).evidence
        assert evidence["review_passed"] is True
        for run in (*evidence["dev"]["verify"], *evidence["review"]["verify"]):
            assert (run["command"], run["ok"]) == ("python3 -m unittest", True)
            assert "OK" in run["tail"]
        assert any(path.endswith(".py") for path in evidence["dev"]["changed"])
        assert evidence["commit"] == engine.story(key).commit_sha


def test_progress_is_in_plain_words_and_names_verify_as_a_task(engine: Engine) -> None:
    progress = engine.payloads(1, "command:progress")
    assert {"verify"} <= {p["task_id"] for p in progress}
    messages = [p["message"] for p in progress]
    assert any(m.startswith(("Editing ", "Writing ", "Running ")) for m in messages)
    assert all(message and "\n" not in message for message in messages)


def test_the_project_context_was_made_first_and_is_injected(engine: Engine) -> None:
    assert [p["status"] for p in engine.payloads(1, "context:create")] == ["start", "complete"]
    assert (engine.root / CONTEXT).is_file()
    first = engine.commands(1)[0]
    assert (first.command, first.story_id, first.story_keys) == ("generate-project-context", None, "")
    create = engine.commands(1, "create-story")[0]
    injected = (engine.state / "runs" / str(create.id) / "context.md").read_text()
    assert "Python, standard library only" in injected


def test_nothing_injected_travels_in_an_argument(engine: Engine) -> None:
    assert max(run["argv_bytes"] for run in engine.runs()) < 16_000
    assert not any("Python, standard library only" in word for run in engine.runs() for word in run["argv"])


def test_commands_for_two_stories_are_listed_under_both(engine: Engine) -> None:
    store = engine.live.store
    for key in (FIRST, SECOND):
        commands = {row.command for row in store.commands_of_story(key)}
        assert set(Command) - commands == {
            Command.GENERATE_PROJECT_CONTEXT,
            Command.CREATE_TECH_SPEC,
            Command.TECH_SPEC_REVIEW,
        }


def test_another_batch_finds_nothing_left_to_do(engine: Engine) -> None:
    head = git(engine.root, "rev-parse", "HEAD")
    runs = len(engine.runs())
    row = engine.run()
    assert row.status == BatchStatus.ALL_DONE
    assert row.cycles_completed == 0
    assert len(engine.runs()) == runs
    assert git(engine.root, "rev-parse", "HEAD") == head


def test_a_sixth_story_added_by_hand_is_done_too(engine: Engine) -> None:
    path = engine.root / STATUS
    hostile = '2-3-x"><img src=x onerror=alert(1)>'
    text = path.read_text().replace("  epic-2-retro", f"  '{hostile}': backlog\n  epic-2-retro")
    path.write_text(text)
    git(engine.root, "commit", "-qam", "Another wish")
    row = engine.run()
    assert row.status == BatchStatus.ALL_DONE, (row.reason, engine.warnings(row.id))
    assert engine.raw_status(hostile) == "done"
    assert engine.trailers()[1] == f"Sprint-Story: {hostile}"
    assert (engine.root / ARTEFACTS / f"{hostile}.md").is_file()
    assert engine.dirty() == []
    assert engine.payloads(row.id, "cycle:end")[0]["completed_stories"] == [hostile]
