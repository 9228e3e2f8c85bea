"""Stories carried to done by the project's own BMAD skills, through the real engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bmad_skills import auto, classic
from engine import (
    ARTEFACTS,
    FIRST,
    SECOND,
    STATUS,
    Engine,
    agent_script,
    engine_in,
    git,
    statuses,
    until,
)

from sprintrunner.errors import Refused
from sprintrunner.sprint import BatchStatus

TOML = 'pipeline = "bmad"\nverify = ["python3 -m unittest"]\n'
SPEC = ARTEFACTS / f"spec-{FIRST}.md"


def begin(home: Path, **given: Any) -> Any:
    return engine_in(home, toml=TOML, statuses=statuses(**(given or {"first": "backlog"})))


def install(engine: Engine, kind: str, **more: Any) -> None:
    (classic if kind == "classic" else auto)(engine.root, **more)
    git(engine.root, "add", "-A")
    git(engine.root, "commit", "-q", "-m", "Install the skills")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with begin(tmp_path) as made:
        yield made


def ran(engine: Engine, batch: int) -> list[str]:
    return [row.command for row in engine.commands(batch)]


def prompt(engine: Engine, command_id: int) -> str:
    return (engine.state / "runs" / str(command_id) / "prompt.md").read_text()


def test_the_classic_skills_carry_two_stories_to_done(tmp_path: Path) -> None:
    with begin(tmp_path, first="backlog", second="backlog") as engine:
        install(engine, "classic")
        row = engine.run()
        assert row.status == BatchStatus.ALL_DONE, row.reason
        assert set(ran(engine, row.id)) == {"create-story", "dev-story", "code-review", "commit"}
        assert engine.raw_status(FIRST) == engine.raw_status(SECOND) == "done"
        assert f"Sprint-Story: {FIRST}" in engine.trailers() and engine.dirty() == []
        for command in engine.commands(row.id):
            if command.command != "commit":
                assert f"`/bmad-{command.command}`" in prompt(engine, command.id)
        assert engine.story(FIRST).tech_spec == "SKIP"


def test_build_auto_carries_a_story_to_done_beside_our_status_file(engine: Engine) -> None:
    install(engine, "auto")
    before = git(engine.root, "rev-parse", "HEAD")
    row = engine.run()
    assert row.status == BatchStatus.ALL_DONE, row.reason
    assert set(ran(engine, row.id)) == {"dev-story", "code-review", "commit"}
    assert engine.raw_status(FIRST) == "done" and engine.dirty() == []
    subjects = git(engine.root, "log", "--format=%s", f"{before}..HEAD").splitlines()
    assert subjects[-1] == f"chore(1): sprint records before {FIRST}"
    assert f"feat: {FIRST}" in subjects and subjects[0] == f"feat(1): implement stories {FIRST}"
    evidence = engine.commands(row.id, "dev-story")[0].evidence or {}
    assert evidence["spec"] == SPEC.as_posix() and evidence["spec_status"] == "done"
    assert evidence["commits"] and evidence["verify"]
    assert f"Sprint-Story: {FIRST}" in engine.trailers()


def test_build_auto_takes_one_story_a_cycle(tmp_path: Path) -> None:
    with begin(tmp_path, first="backlog", second="ready-for-dev") as engine:
        install(engine, "auto")
        row = engine.run()
        assert row.status == BatchStatus.ALL_DONE, row.reason
        assert row.cycles_completed == 2 and engine.raw_status(SECOND) == "done"


def test_a_spec_that_is_not_finished_is_gone_on_with_by_its_path(engine: Engine) -> None:
    install(engine, "auto")
    engine.env(REHEARSAL_SPEC="draft,in-review,done")
    row = engine.run()
    assert row.status == BatchStatus.ALL_DONE, row.reason
    first, second, third = engine.commands(row.id, "dev-story")
    assert [r.status for r in (first, second, third)] == ["failed", "failed", "succeeded"]
    assert "says draft" in (first.reason or "") and "still in review" in (second.reason or "")
    assert f"<intent>\n{SPEC.as_posix()}\n</intent>" in prompt(engine, third.id)
    moved = [(p["old_status"], p["new_status"]) for p in engine.payloads(row.id, "story:status")]
    assert ("in-progress", "review") in moved and moved[-1] == ("review", "done")


def test_a_spec_that_never_gets_finished_blocks_the_story(engine: Engine) -> None:
    install(engine, "auto")
    engine.env(REHEARSAL_SPEC="in-progress", SPRINTRUNNER_NO_PROGRESS_ATTEMPTS="10")
    row = engine.run()
    assert engine.ran("dev-story") == 3
    assert "says in-progress" in (engine.story(FIRST).reason or "")
    assert engine.raw_status(FIRST) == "blocked" and row.status == BatchStatus.ALL_DONE


def test_a_blocked_spec_blocks_the_story_at_once_with_its_condition(engine: Engine) -> None:
    install(engine, "auto")
    engine.env(REHEARSAL_SPEC="blocked: intent gap")
    engine.run()
    assert engine.ran("dev-story") == 1
    reason = engine.story(FIRST).reason or ""
    assert reason == f"Build Auto is blocked: intent gap; see {SPEC.as_posix()}."


def test_a_blocked_story_is_begun_anew_by_a_retry(engine: Engine) -> None:
    install(engine, "auto")
    engine.env(REHEARSAL_SPEC="blocked: intent gap,done")
    engine.run()
    answer = engine.submit("retry", key=FIRST, phase="dev-story")
    engine.wait(answer["batch_id"])
    assert engine.raw_status(FIRST) == "done"
    assert (engine.root / ARTEFACTS / f"spec-{FIRST}-2.md").is_file()


def test_a_chat_that_says_done_without_a_spec_is_not_done(engine: Engine) -> None:
    install(engine, "auto")
    spoil = f'exit=0; claude-rehearsal "$@" || exit=$?; rm -f {SPEC}; exit $exit'
    agent_script(engine.home, spoil)
    engine.run()
    assert engine.raw_status(FIRST) == "blocked"
    assert "no spec" in (engine.story(FIRST).reason or "")


def test_history_that_was_rewritten_is_not_done(engine: Engine) -> None:
    install(engine, "auto")
    lost = "0" * 39 + "1"
    spoil = (
        f'claude-rehearsal "$@" || exit; sed -i "s/^baseline_revision: .*/baseline_revision: {lost}/" {SPEC}'
    )
    agent_script(engine.home, spoil)
    engine.run()
    assert "not reachable from HEAD" in (engine.story(FIRST).reason or "")


def test_without_a_review_skill_there_is_one_follow_up_of_its_own(engine: Engine) -> None:
    install(engine, "auto", review=False)
    row = engine.run()
    assert row.status == BatchStatus.ALL_DONE, row.reason
    (review,) = engine.commands(row.id, "code-review")
    assert "fresh review pass" in prompt(engine, review.id)
    assert (review.verdict or {})["highest_severity"] == "HIGH" and engine.raw_status(FIRST) == "done"
    findings = engine.live.store.findings(engine.story(FIRST).id)
    assert [finding.status for finding in findings] == ["fixed"]


def test_work_of_others_in_the_tree_refuses_the_start_even_where_it_is_allowed(engine: Engine) -> None:
    install(engine, "auto")
    engine.env(SPRINTRUNNER_DIRTY_TREE="allow")
    (engine.root / "notes.txt").write_text("mine")
    with pytest.raises(Refused, match=r"notes\.txt"):
        engine.start()


def test_a_start_without_skills_is_refused_in_one_sentence(engine: Engine) -> None:
    with pytest.raises(Refused, match="install BMAD's skills, or set pipeline to builtin"):
        engine.start()
    assert engine.live.store.latest_batch() is None


def test_with_both_ways_the_batch_says_how_to_choose(engine: Engine) -> None:
    classic(engine.root)
    install(engine, "auto")
    row = engine.run()
    assert "sprintrunner_pipeline" in engine.warnings(row.id)
    assert "create-story" in ran(engine, row.id)


def test_the_status_file_is_ours_whatever_a_skill_writes(engine: Engine) -> None:
    install(engine, "classic")
    spoil = f'case $SPRINTRUNNER_COMMAND in dev-story) sed -i "s/{FIRST}: .*/{FIRST}: done/" {STATUS};; esac'
    agent_script(engine.home, f'{spoil}\nexec claude-rehearsal "$@"')
    row = engine.run()
    assert row.status == BatchStatus.ALL_DONE and "set back to in-progress" in engine.warnings(row.id)


def test_after_an_ordered_stop_a_half_built_story_goes_on_upon_the_agents_own_commits(engine: Engine) -> None:
    install(engine, "auto")
    go = engine.home / "go"
    waits = f"case $SPRINTRUNNER_COMMAND in code-review) while [ ! -e {go} ]; do sleep 0.02; done;; esac"
    agent_script(engine.home, f'{waits}\nexec claude-rehearsal "$@"')
    batch = engine.start()
    until(lambda: engine.commands(batch, "code-review"))
    engine.close()
    go.touch()
    engine.open(resume=True)
    row = engine.wait(batch)
    assert row.status == BatchStatus.ALL_DONE, row.reason
    assert engine.ran("dev-story") == 1 and engine.raw_status(FIRST) == "done"
