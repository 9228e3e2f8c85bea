"""What the engine makes of agents, trees and services that fail: the outcome in file, database and git."""

from __future__ import annotations

import pytest
from engine import (
    ARTEFACTS,
    FIRST,
    IN_REVIEW,
    READY,
    REHEARSE,
    SECOND,
    STATUS,
    Engine,
    Make,
    agent_script,
    git,
    hook,
    statuses,
    until,
)

from sprintrunner.errors import Refused
from sprintrunner.sprint import BatchStatus, CommandStatus


def never_done(engine: Engine, key: str = FIRST) -> None:
    """Whatever happened, nothing says done and nothing was committed for it."""
    assert engine.raw_status(key) != "done"
    assert engine.story(key).status != "done"
    assert "Sprint-Story" not in git(engine.root, "log", "--format=%B")


# code review: what is not a review never passes (R10)


def test_three_crashed_reviews_in_a_row_block_and_never_pass(make: Make) -> None:
    engine = make(IN_REVIEW)
    row = engine.run(FIRST, fault="review-crash")
    never_done(engine)
    assert row.status == BatchStatus.ALL_DONE
    reviews = engine.commands(row.id, "code-review")
    assert [r.status for r in reviews] == [CommandStatus.FAILED] * 3
    assert engine.raw_status(FIRST) == "blocked"
    reason = engine.story(FIRST).reason or ""
    assert "3 code reviews in a row gave no verdict" in reason
    assert "\n" not in reason


def test_a_quoted_clean_verdict_counts_for_nothing(make: Make) -> None:
    engine = make(IN_REVIEW, toml='verify = ["true"]\nmax_code_review_attempts = 2\n')
    row = engine.run(FIRST, fault="A17")
    never_done(engine)
    assert [r.verdict["highest_severity"] for r in engine.commands(row.id, "code-review")] == ["HIGH"] * 2
    assert "2 reviews" in (engine.story(FIRST).reason or "")


def test_crash_high_crash_is_one_review_and_no_pass(make: Make) -> None:
    engine = make(IN_REVIEW)
    row = engine.run(FIRST, fault="A18,review-crash@code-review:4,review-crash@code-review:5")
    never_done(engine)
    assert [str(r.status) for r in engine.commands(row.id, "code-review")][:3] == [
        "failed",
        "succeeded",
        "failed",
    ]
    assert [f.severity for f in engine.live.store.findings(engine.story(FIRST).id)] == ["HIGH"]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("success-with-is_error", "error"),
        ("exit-1-after-success", "exit status 1"),
        ("no-output", "without a final line"),
        ("half-line", "without a final line"),
        ("no-schema", "structured"),
        ("low-claim", "claims NONE but lists a HIGH"),
        ("permission-denied", "denied"),
    ],
)
def test_a_review_that_proves_nothing_is_no_review(make: Make, fault: str, words: str) -> None:
    engine = make(IN_REVIEW)
    row = engine.run(FIRST, fault=f"{fault}@code-review")
    never_done(engine)
    assert engine.raw_status(FIRST) == "blocked"
    # A missing answer alone is asked for once more in the same session, which counts as no review.
    reviews = [r for r in engine.commands(row.id, "code-review") if r.counted]
    assert [r.status for r in reviews] == [CommandStatus.FAILED] * 3
    assert all(words in str(r.reason) for r in reviews), reviews[0].reason
    assert words in str(engine.story(FIRST).reason)


def test_the_same_finding_three_times_blocks_and_is_named(make: Make) -> None:
    engine = make(IN_REVIEW)
    row = engine.run(FIRST, fault="same-finding@code-review")
    never_done(engine)
    assert len(engine.commands(row.id, "code-review")) == 3
    assert engine.story(FIRST).reason == (
        "Open after 3 reviews: The result depends on the order of the input, README.md:1"
    )


def test_minor_findings_pass_with_the_third_review_and_are_noted_in_the_story(make: Make) -> None:
    engine = make(IN_REVIEW)
    row = engine.run(FIRST, fault="review-medium")
    assert engine.raw_status(FIRST) == "done"
    assert len(engine.commands(row.id, "code-review")) == 3
    models = ["haiku" in str(r.model) for r in engine.commands(row.id, "code-review")]
    assert models == [False, True, True]


def test_a_red_verify_after_a_clean_review_is_a_finding_of_its_own(make: Make) -> None:
    engine = make(IN_REVIEW, toml="verify = ['test -n \"$INSIDE\" || { echo dark outside; false; }']\n")
    agent_script(engine.home, f"export INSIDE=1\n{REHEARSE}")
    row = engine.run(FIRST)
    never_done(engine)
    story = engine.story(FIRST)
    findings = {f.identity: f for f in engine.live.store.findings(story.id)}
    assert (findings["verify"].severity, findings["verify"].status) == ("HIGH", "open")
    assert "verify failed" in str(story.reason) and "dark outside" in str(story.reason)
    asked = engine.commands(row.id, "code-review")[-1]
    assert "dark outside" in (engine.state / "runs" / str(asked.id) / "prompt.md").read_text()


# development


@pytest.mark.parametrize(
    ("patience", "attempts", "words"),
    [(2, 2, "no progress: 2 dev-story attempts changed nothing"), (10, 3, "dev-story failed 3 times: ")],
)
def test_a_developer_that_changed_nothing_did_not_develop(
    make: Make, patience: int, attempts: int, words: str
) -> None:
    engine = make(READY)
    engine.env(SPRINTRUNNER_NO_PROGRESS_ATTEMPTS=str(patience))
    row = engine.run(FIRST, fault="no-change")
    never_done(engine)
    rows = engine.commands(row.id, "dev-story")
    assert [r.attempt for r in rows] == list(range(1, attempts + 1))
    assert "changed nothing" in str(rows[0].reason)
    assert words in str(engine.story(FIRST).reason)
    assert engine.story(FIRST).blocked_ref is None


def test_a_red_verify_is_told_to_the_next_attempt_and_blocks_in_the_end(make: Make) -> None:
    engine = make(READY, toml='verify = ["echo the-lamp-is-broken; exit 3"]\n')
    row = engine.run(FIRST)
    never_done(engine)
    attempts = engine.commands(row.id, "dev-story")
    assert [r.status for r in attempts] == [CommandStatus.FAILED] * 3
    prompts = [(engine.state / "runs" / str(r.id) / "prompt.md").read_text() for r in attempts]
    assert ["the-lamp-is-broken" in prompt.split("failure:")[-1].split("\n")[0] for prompt in prompts] == [
        False,
        True,
        True,
    ]
    assert attempts[0].evidence["verify"][0]["tail"] == "the-lamp-is-broken\n"
    assert "the-lamp-is-broken" in str(engine.story(FIRST).reason)
    assert "fails already before the batch" in engine.warnings(row.id)


@pytest.mark.parametrize("fault", ["crash", "success-with-is_error", "exit-1-after-success", "no-schema"])
def test_a_failed_attempt_at_development_is_followed_by_another(make: Make, fault: str) -> None:
    engine = make(READY)
    row = engine.run(FIRST, fault=f"{fault}@dev-story:1")
    assert engine.raw_status(FIRST) == "done"
    assert [str(r.status) for r in engine.commands(row.id, "dev-story")] == ["failed", "succeeded"]


def test_a_denied_tool_fails_the_attempt_by_name(make: Make) -> None:
    engine = make(READY)
    row = engine.run(FIRST, fault="permission-denied@dev-story:1")
    first = engine.commands(row.id, "dev-story")[0]
    assert first.status == CommandStatus.FAILED
    assert "denied" in str(first.reason) and "Write" in str(first.reason)


def test_a_blocked_story_leaves_the_tree_to_the_next_and_comes_back_on_retry(make: Make) -> None:
    toml = 'verify = ["test ! -e windowsill/diary.py || test -e allowed"]\n'
    engine = make(statuses(first="ready-for-dev", second="ready-for-dev"), toml=toml)
    row = engine.run(FIRST, SECOND)
    story = engine.story(FIRST)
    assert (story.status, engine.raw_status(FIRST)) == ("blocked", "blocked")
    assert story.blocked_ref == f"refs/sprintrunner/{row.id}/{FIRST}"
    assert "windowsill/diary.py" in git(engine.root, "ls-tree", "-r", "--name-only", story.blocked_ref)
    # Gone from the tree, its own documents kept, and the next story was done upon a clean tree.
    assert not (engine.root / "windowsill/diary.py").exists()
    assert "[x]" in (engine.root / ARTEFACTS / f"{FIRST}.md").read_text()
    assert engine.raw_status(SECOND) == "done"
    committed = git(engine.root, "show", "--format=", "--name-only", "HEAD").split()
    assert not {path for path in committed if "diary" in path}

    # The person puts right what was wrong; the kept work returns and the story goes on where it was.
    git(engine.root, "config", "core.excludesFile", "/dev/null")
    (engine.root / ".git" / "info").mkdir(exist_ok=True)
    (engine.root / ".git" / "info" / "exclude").write_text("allowed\n")
    (engine.root / "allowed").touch()
    answer = engine.submit("retry", key=FIRST, phase=None)
    again = engine.wait(answer["batch_id"])
    assert engine.raw_status(FIRST) == "done", (again.reason, engine.warnings(again.id))
    assert (engine.root / "windowsill/diary.py").exists()
    dev = engine.commands(again.id, "dev-story")
    assert [r.attempt for r in dev] == [4]
    assert not engine.commands(again.id, "create-story")
    assert engine.dirty() == []
    assert (engine.root / "windowsill/schedule.py").exists() or engine.raw_status(SECOND) == "done"


def test_a_retried_story_that_blocks_again_takes_nothing_of_others_along(make: Make) -> None:
    toml = 'verify = ["test ! -e windowsill/diary.py"]\n'
    engine = make(statuses(first="ready-for-dev", second="ready-for-dev"), toml=toml)
    engine.run(FIRST, SECOND)
    head = git(engine.root, "rev-parse", "HEAD^{tree}")
    answer = engine.submit("retry", key=FIRST, phase="dev-story")
    again = engine.wait(answer["batch_id"])
    assert engine.raw_status(FIRST) == "blocked", again.reason
    code = [path for path in engine.dirty() if not path.startswith("_bmad-output/")]
    assert code == []
    assert git(engine.root, "rev-parse", "HEAD^{tree}") == head
    kept = git(
        engine.root,
        "diff",
        "--name-only",
        f"{engine.story(FIRST).blocked_ref}~1",
        engine.story(FIRST).blocked_ref or "",
    )
    assert not [path for path in kept.splitlines() if "schedule" in path or "thirst" in path]


def test_kept_work_that_no_longer_fits_is_one_sentence_and_the_story_stays(make: Make) -> None:
    engine = make(READY, toml='verify = ["test ! -e windowsill/diary.py"]\n')
    engine.run(FIRST)
    (engine.root / "windowsill/diary.py").write_text("a person wrote their own\n")
    set_aside = git(engine.root, "add", "windowsill/diary.py", check=False)
    assert set_aside == ""
    git(engine.root, "commit", "-qm", "Own diary", "windowsill/diary.py")
    answer = engine.submit("retry", key=FIRST, phase=None)
    row = engine.wait(answer["batch_id"])
    assert "no longer fits the tree" in engine.warnings(row.id)
    assert engine.raw_status(FIRST) == "blocked"
    assert (engine.root / "windowsill/diary.py").read_text() == "a person wrote their own\n"


# documents


def test_a_story_that_was_forgotten_is_repeated_alone(make: Make) -> None:
    engine = make(statuses(first="backlog", second="backlog"))
    row = engine.run(FIRST, SECOND, fault="forget-second@create-story:1")
    creates = engine.commands(row.id, "create-story")
    assert [(r.story_keys, str(r.status)) for r in creates] == [
        (f"{FIRST},{SECOND}", "failed"),
        (SECOND, "succeeded"),
    ]
    assert {engine.raw_status(FIRST), engine.raw_status(SECOND)} == {"done"}


def test_no_decision_is_taken_as_required_and_said(make: Make) -> None:
    engine = make(statuses(first="backlog"))
    row = engine.run(FIRST, fault="no-decision")
    assert engine.story(FIRST).tech_spec == "REQUIRED"
    assert "taken as REQUIRED" in engine.warnings(row.id)
    assert len(engine.commands(row.id, "create-tech-spec")) == 1


def test_create_story_that_always_crashes_blocks_after_three(make: Make) -> None:
    engine = make(statuses(first="backlog"))
    row = engine.run(FIRST, fault="crash@create-story")
    never_done(engine)
    assert len(engine.commands(row.id, "create-story")) == 3
    assert "create-story failed 3 times" in str(engine.story(FIRST).reason)
    assert not engine.commands(row.id, "dev-story")


@pytest.mark.parametrize("command", ["create-story-discovery", "story-review", "generate-project-context"])
def test_what_only_helps_fails_twice_with_a_warning_and_the_work_goes_on(make: Make, command: str) -> None:
    engine = make(statuses(first="backlog"), context=command != "generate-project-context")
    row = engine.run(FIRST, fault=f"crash@{command}")
    assert len(engine.commands(row.id, command)) == 2
    assert f"{command} failed 2 times, going on without" in engine.warnings(row.id)
    assert engine.raw_status(FIRST) == "done"


# commit


def test_a_failing_hook_takes_done_back_and_loses_nothing(make: Make) -> None:
    engine = make(READY)
    hook(engine.root, "echo 'hook: the moon is wrong' >&2; exit 1")
    head = git(engine.root, "rev-parse", "HEAD")
    row = engine.run(FIRST)
    never_done(engine)
    story = engine.story(FIRST)
    assert story.status == "blocked"
    assert "hook: the moon is wrong" in str(story.reason)
    assert (engine.root / "windowsill/diary.py").exists()
    assert git(engine.root, "rev-parse", "HEAD") == head
    (commit,) = engine.commands(row.id, "commit")
    assert commit.status == CommandStatus.FAILED

    # The hook is mended: a retry repeats the commit alone.
    hook(engine.root, "exit 0")
    again = engine.wait(engine.submit("retry", key=FIRST, phase=None)["batch_id"])
    assert [r.command for r in engine.commands(again.id)] == ["commit"]
    assert engine.raw_status(FIRST) == "done"
    assert engine.trailers() == [f"Sprint-Batch: {again.id}", f"Sprint-Story: {FIRST}"]
    assert engine.dirty() == []


def test_an_agent_that_commits_by_itself_gets_an_empty_commit_with_trailers(make: Make) -> None:
    engine = make(IN_REVIEW)
    row = engine.run(FIRST, fault="self-commit")
    assert engine.raw_status(FIRST) == "done"
    assert engine.trailers() == [f"Sprint-Batch: {row.id}", f"Sprint-Story: {FIRST}"]
    assert "windowsill/diary.py" not in git(engine.root, "show", "--format=", "--name-only", "HEAD")
    assert "windowsill/diary.py" in git(engine.root, "ls-tree", "-r", "--name-only", "HEAD")
    assert engine.story(FIRST).commit_sha == git(engine.root, "rev-parse", "HEAD")


def test_work_on_another_branch_is_not_committed_and_both_are_named(make: Make) -> None:
    engine = make(IN_REVIEW)
    engine.run(FIRST, fault="switch-branch@code-review:1")
    never_done(engine)
    reason = str(engine.story(FIRST).reason)
    assert "rehearsal-branch" in reason and "main" in reason
    assert git(engine.root, "rev-parse", "main") == git(engine.root, "rev-parse", "rehearsal-branch")


def test_the_status_file_is_put_back_with_a_warning_and_the_rest_of_it_kept(make: Make) -> None:
    engine = make(READY)
    row = engine.run(FIRST, fault="touches-status-file@dev-story")
    assert f"The status file said done for {FIRST}; set back to in-progress" in engine.warnings(row.id)
    assert "# seen by the agent" in (engine.root / STATUS).read_text()
    assert engine.raw_status(FIRST) == "done"


def test_cleaning_the_whole_tree_takes_nothing_of_ours_along(make: Make) -> None:
    engine = make(READY)
    row = engine.run(FIRST, fault="git-clean@code-review")
    assert engine.live.store.count_events(row.id) > 5
    assert all(
        (engine.state / "transcripts" / str(r.transcript)).exists()
        for r in engine.commands(row.id, "code-review")
    )
    assert row.status == BatchStatus.ALL_DONE


def test_edited_settings_are_not_obeyed_in_the_same_batch(make: Make) -> None:
    engine = make(READY)
    engine.run(FIRST, fault="edits-settings@dev-story")
    frozen = (engine.state / "batches" / "1" / "frozen" / "sprintrunner.toml").read_text()
    assert "the agent was here" not in frozen


# the service


def test_a_usage_limit_is_slept_through_and_the_session_goes_on_uncounted(make: Make) -> None:
    engine = make(READY)
    engine.env(REHEARSAL_RESET_SECONDS="1", REHEARSAL_FAULT="usage-limit@dev-story")
    batch = engine.start(FIRST)
    answer = until(lambda: (s := engine.submit("status"))["status"] == "waiting" and s)
    assert len(str(answer["resumes_at"])) == 13
    assert not [r for r in engine.commands(batch) if r.status == CommandStatus.RUNNING]
    row = engine.wait(batch)
    first, second = engine.commands(batch, "dev-story")
    assert (str(first.status), first.counted) == ("limited", 0)
    assert str(second.status) == "succeeded"
    assert first.session_id == second.session_id
    resumed = [r for r in engine.runs() if r["command"] == "dev-story"][1]
    assert "--resume" in resumed["argv"]
    assert "Woke up" in engine.warnings(batch)
    assert (row.status, row.resumes_at) == (BatchStatus.ALL_DONE, None)
    assert engine.raw_status(FIRST) == "done"


def test_two_commands_at_the_same_limit_sleep_once(make: Make) -> None:
    engine = make(statuses(first="backlog"))
    engine.env(REHEARSAL_RESET_SECONDS="1")
    row = engine.run(FIRST, fault="usage-limit@create-story,usage-limit@create-story-discovery")
    assert engine.warnings(row.id).count("Woke up") == 1
    assert engine.raw_status(FIRST) == "done"


def test_resume_ends_a_usage_limit_sleep_at_once(make: Make) -> None:
    engine = make(READY)
    engine.env(REHEARSAL_RESET_SECONDS="3600", REHEARSAL_FAULT="usage-limit@dev-story")
    batch = engine.start(FIRST)
    until(lambda: engine.submit("status")["status"] == "waiting")
    assert engine.submit("resume") == {"status": "started", "batch_id": batch}
    assert engine.wait(batch).status == BatchStatus.ALL_DONE
    assert engine.raw_status(FIRST) == "done"


def test_a_limit_beyond_the_longest_sleep_ends_the_batch_and_keeps_the_story(make: Make) -> None:
    engine = make(READY)
    engine.env(REHEARSAL_RESET_SECONDS="3600", SPRINTRUNNER_MAX_LIMIT_WAIT_HOURS="0")
    row = engine.run(FIRST, fault="usage-limit@dev-story")
    assert row.status == BatchStatus.LIMIT
    assert "max_limit_wait_hours" in str(row.reason)
    assert engine.raw_status(FIRST) == "in-progress"


def test_an_overloaded_service_is_tried_again_uncounted_until_one_error_counts(make: Make) -> None:
    engine = make(READY, toml='verify = ["true"]\nmax_retries = 2\nmax_dev_attempts = 1\n')
    row = engine.run(FIRST, fault="overloaded@dev-story")
    attempts = engine.commands(row.id, "dev-story")
    assert [r.counted for r in attempts] == [0, 0, 1]
    assert [r.attempt for r in attempts] == [1, 2, 3]
    assert engine.warnings(row.id).count("Trying again") == 2
    assert engine.raw_status(FIRST) == "blocked"


def test_without_a_login_the_batch_fails_and_the_story_keeps_its_status(make: Make) -> None:
    engine = make(READY)
    row = engine.run(fault="auth")
    assert row.status == BatchStatus.FAILED
    assert "not logged in" in str(row.reason).lower()
    assert engine.raw_status(FIRST) == "in-progress"
    assert engine.payloads(row.id, "error")
    (dev,) = engine.commands(row.id, "dev-story")
    assert dev.counted == 0
    assert engine.submit("status")["status"] == "idle"


def test_an_agent_that_is_not_there_refuses_the_start(make: Make) -> None:
    engine = make(READY)
    for launcher in (engine.home / "bin").iterdir():
        launcher.unlink()
    engine.env(PATH=f"{engine.home / 'bin'}:/usr/bin:/bin")
    with pytest.raises(Refused, match="claude"):
        engine.start(FIRST)
    assert engine.live.store.latest_batch() is None


def test_an_agent_that_vanishes_fails_the_batch_and_the_story_keeps_its_status(make: Make) -> None:
    engine = make(READY)
    engine.env(PATH=f"{engine.home / 'bin'}:/usr/bin:/bin")
    gone = f'case $SPRINTRUNNER_COMMAND in dev-story) rm -f "$0";; esac\n{REHEARSE}'
    agent_script(engine.home, gone)
    row = engine.run(FIRST)
    assert row.status == BatchStatus.FAILED
    assert engine.raw_status(FIRST) == "review"
    assert engine.payloads(row.id, "error")
    never_done(engine)


def test_an_unusable_version_refuses_the_start(make: Make) -> None:
    engine = make(READY)
    agent_script(
        engine.home, 'case $1 in --version) echo "0.2.9 (Claude Code)";; *) echo " --output-format x";; esac'
    )
    with pytest.raises(Refused, match="too old"):
        engine.start(FIRST)
    assert engine.live.store.latest_batch() is None


# budgets


def test_a_batch_budget_ends_the_batch_and_keeps_the_story(make: Make) -> None:
    engine = make(READY)
    engine.env(SPRINTRUNNER_BUDGET_USD_PER_BATCH="0.000001")
    row = engine.run(FIRST)
    assert row.status == BatchStatus.LIMIT
    assert "budget of $1e-06 per batch reached" in str(row.reason)
    assert engine.raw_status(FIRST) in ("in-progress", "review")
    assert len(engine.commands(row.id)) == 1


def test_a_token_budget_ends_the_batch(make: Make) -> None:
    engine = make(READY)
    engine.env(SPRINTRUNNER_BUDGET_TOKENS_PER_BATCH="10")
    row = engine.run(FIRST)
    assert (row.status, row.reason) == (BatchStatus.LIMIT, "budget of 10 tokens per batch reached")


def test_a_story_budget_blocks_the_story_and_the_next_goes_on(make: Make) -> None:
    engine = make(statuses(first="review", second="review"))
    engine.env(SPRINTRUNNER_BUDGET_USD_PER_STORY="0.000001")
    row = engine.run(FIRST, SECOND)
    assert row.status == BatchStatus.ALL_DONE
    for key in (FIRST, SECOND):
        assert "per story reached" in str(engine.story(key).reason)
        assert len([r for r in engine.commands(row.id) if r.story_keys == key]) == 1


# watchdogs


@pytest.mark.parametrize(
    ("fault", "setting", "words"),
    [
        ("hang", "SPRINTRUNNER_SILENCE_TIMEOUT_MINUTES", "idle"),
        ("talk", "SPRINTRUNNER_COMMAND_TIMEOUT_MINUTES", "longer than"),
    ],
)
def test_an_attempt_that_does_not_end_is_ended_by_name(
    make: Make, fault: str, setting: str, words: str
) -> None:
    engine = make(READY)
    engine.env(**{setting: "0.05"})
    row = engine.run(FIRST, fault=f"{fault}@dev-story:1")
    first = engine.commands(row.id, "dev-story")[0]
    assert first.status == CommandStatus.TIMED_OUT
    assert words in str(first.reason)
    assert engine.leftovers(row.id) == []
    assert engine.raw_status(FIRST) == "done"


def test_an_agent_that_hangs_after_its_result_counts_as_done(make: Make) -> None:
    engine = make(READY)
    engine.env(SPRINTRUNNER_AFTER_RESULT_GRACE_SECONDS="1")
    row = engine.run(FIRST, fault="hang-after-result@dev-story:1")
    (dev,) = engine.commands(row.id, "dev-story")
    assert dev.status == CommandStatus.SUCCEEDED
    assert engine.leftovers(row.id) == []
