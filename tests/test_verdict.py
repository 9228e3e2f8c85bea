"""Verdicts and the ledger of findings: the table of section 5, row by row, and answers that are none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sprintrunner.sprint import Severity
from sprintrunner.verdict import (
    Finding,
    InvalidVerdict,
    Review,
    decide,
    identity_of,
    open_findings,
    read_critical,
    read_review,
    read_tech_spec_decisions,
    update_ledger,
)

HIGH, MEDIUM, LOW, NONE = Severity.HIGH, Severity.MEDIUM, Severity.LOW, Severity.NONE


def found(title: str, severity: str = "HIGH", status: str = "open", **more: Any) -> dict[str, Any]:
    return {"title": title, "severity": severity, "status": status, "file": "a.py", **more}


def answer(*findings: Any, highest: str | None = None) -> dict[str, Any]:
    order = ("CRITICAL", "HIGH", "MEDIUM", "LOW")
    worst = next((s for s in order if any(f["severity"] == s for f in findings)), "NONE")
    return {"highest_severity": highest or worst, "findings": list(findings), "summary": "s"}


def reviewed(ledger: tuple[Finding, ...], *findings: Any) -> tuple[Review, tuple[Finding, ...]]:
    review = read_review(answer(*findings), ledger)
    return review, update_ledger(ledger, review)


def after(*rounds: tuple[dict[str, Any], ...], maximum: int = 10) -> tuple[str, str]:
    """The step and reason after so many valid reviews."""
    ledger: tuple[Finding, ...] = ()
    for number, findings in enumerate(rounds, 1):
        review, ledger = reviewed(ledger, *findings)
        decision = decide(review, ledger, valid_reviews=number, maximum=maximum)
        if number < len(rounds):
            assert decision.step == "next", (number, decision)
    return decision.step, decision.reason


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (None, "no structured verdict"),
        ("HIGHEST SEVERITY: NONE", "no structured verdict"),
        ([], "no structured verdict"),
        ({}, "unknown severity"),
        ({"findings": []}, "unknown severity"),
        ({"highest_severity": None, "findings": []}, "unknown severity"),
        ({"highest_severity": "NONE"}, "no list of findings"),
        ({"highest_severity": "NONE", "findings": "ZERO ISSUES"}, "no list of findings"),
        ({"highest_severity": "FINE", "findings": []}, "unknown severity"),
        ({"highest_severity": "HIGH", "findings": ["x"]}, "no title"),
        (answer(found("", "HIGH")), "no title"),
        (answer(found("x", "HIGH", status="maybe")), "neither open nor fixed"),
        (answer(found("x", "NONE"), highest="NONE"), "severity NONE"),
        (answer(found("x", "HIGH"), highest="NONE"), "claims NONE but lists a HIGH"),
        (answer(found("x", "CRITICAL", "fixed"), highest="LOW"), "claims LOW but lists a CRITICAL"),
    ],
)
def test_an_answer_that_is_no_verdict_is_refused_by_name(bad: Any, why: str) -> None:
    with pytest.raises(InvalidVerdict, match=why):
        read_review(bad)


def test_a_claim_above_the_findings_counts() -> None:
    assert read_review(answer(found("x", "LOW"), highest="HIGH")).severity is HIGH
    assert read_review(answer(highest="MEDIUM")).severity is MEDIUM


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda x: st.lists(x) | st.dictionaries(st.text(), x),
    )
)
def test_nothing_an_agent_may_answer_is_more_than_invalid(value: Any) -> None:
    for read in (read_review, read_critical):
        with pytest.raises(InvalidVerdict):
            read(value)
    assert read_tech_spec_decisions(value, ["a"]) == {}


def test_a_line_that_is_no_number_is_left_out() -> None:
    for line in (True, "7", -1, 0, 10**9, None, 1.5):
        assert read_review(answer(found("x", line=line))).findings[0].line is None
    assert read_review(answer(found("x", line=7))).findings[0].place == "a.py:7"


def test_the_same_words_about_the_same_file_are_the_same_finding() -> None:
    assert identity_of("Off by one!", "a.py") == identity_of("off by  one", "a.py")
    assert identity_of("Off by one", "a.py") != identity_of("Off by one", "b.py")


def test_a_number_an_agent_gives_itself_names_nothing() -> None:
    _, ledger = reviewed((), found("Leaks memory", id="F1"))
    _, ledger = reviewed(ledger, found("Fails on Sundays", id="F1"))
    assert [(f.title, f.streak) for f in ledger] == [("Leaks memory", 2), ("Fails on Sundays", 1)]


def test_an_open_finding_is_answered_by_its_id_alone() -> None:
    _, ledger = reviewed((), found("Leaks memory", line=3))
    given_id = ledger[0].identity
    _, ledger = reviewed(ledger, {"id": given_id, "severity": "HIGH", "status": "fixed"})
    assert ledger == (
        replace(ledger[0], status="fixed", streak=0, title="Leaks memory", file="a.py", line=3),
    )


def test_a_finding_left_out_stays_open_and_ages() -> None:
    _, ledger = reviewed((), found("Old"))
    _, ledger = reviewed(ledger, found("New", "LOW"))
    assert [(f.title, f.status, f.streak) for f in ledger] == [("Old", "open", 2), ("New", "open", 1)]


def test_none_closes_everything() -> None:
    _, ledger = reviewed((), found("Old"))
    review, ledger = reviewed(ledger)
    assert open_findings(ledger) == ()
    assert decide(review, ledger, valid_reviews=2, maximum=10).step == "pass"


def test_a_finding_listed_twice_in_one_review_is_open_if_one_of_them_is() -> None:
    for both in ((found("x"), found("x", "LOW", "fixed")), (found("x", "LOW", "fixed"), found("x"))):
        _, ledger = reviewed((), *both)
        assert [(f.severity, f.status) for f in ledger] == [(HIGH, "open")]


def test_a_fixed_finding_that_returns_starts_to_count_anew() -> None:
    _, ledger = reviewed((), found("x"))
    _, ledger = reviewed(ledger, found("x", status="fixed"))
    _, ledger = reviewed(ledger, found("x"))
    assert (ledger[0].status, ledger[0].streak) == ("open", 1)


def test_open_findings_come_worst_first() -> None:
    _, ledger = reviewed((), found("l", "LOW"), found("c", "CRITICAL"), found("m", "MEDIUM"))
    assert [f.title for f in open_findings(ledger)] == ["c", "m", "l"]


# the table of workflow section 5


def test_a_first_review_without_a_finding_passes() -> None:
    assert after(()) == ("pass", "")


def test_fixed_findings_still_ask_for_another_review() -> None:
    assert after((found("x", status="fixed"),))[0] == "next"
    assert after((found("x", "LOW", "fixed"),), (found("y", "LOW", "fixed"),))[0] == "next"


def test_the_third_review_passes_with_medium_findings_fixed_or_open() -> None:
    low = [(found(f"{n}", "MEDIUM", "fixed"),) for n in range(3)]
    assert after(*low) == ("pass", "")
    step, reason = after(*[(found(f"{n}", "MEDIUM"),) for n in range(3)])
    assert (step, reason) == ("pass", "3 minor findings noted")


def test_the_third_review_does_not_pass_while_something_high_is_open() -> None:
    assert after((found("big"), found("y")), (found("z", "LOW", "fixed"),), (found("w", "LOW"),))[0] != "pass"


def test_the_third_review_does_not_pass_when_it_found_something_high_even_if_fixed() -> None:
    assert after(*[(found(f"{n}", "HIGH", "fixed"),) for n in range(3)])[0] == "next"


def test_a_finding_open_in_three_reviews_blocks_and_is_named_with_its_place() -> None:
    step, reason = after(*[(found("Fails on Sundays", line=7),)] * 3)
    assert (step, reason) == ("block", "Open after 3 reviews: Fails on Sundays, a.py:7")


def test_a_medium_finding_open_in_three_reviews_is_only_noted() -> None:
    assert after(*[(found("x", "MEDIUM"),)] * 3)[0] == "pass"


def test_a_finding_open_twice_fixed_once_and_open_again_does_not_block() -> None:
    rounds = [found("x"), found("x"), found("x", status="fixed"), found("x")]
    assert after(*[(one,) for one in rounds])[0] == "next"


def test_the_last_review_blocks_and_says_how_many_there_were() -> None:
    rounds = [(found(f"way {n}", "CRITICAL", "fixed"),) for n in range(10)]
    assert after(*rounds) == ("block", "10 reviews and still CRITICAL findings")
    assert after(*rounds[:1], maximum=1)[0] == "block"


@given(
    st.lists(
        st.lists(
            st.tuples(
                st.sampled_from("abc"), st.sampled_from(["CRITICAL", "HIGH", "MEDIUM", "LOW"]), st.booleans()
            ),
            max_size=3,
        ),
        min_size=1,
        max_size=12,
    )
)
def test_no_sequence_of_reviews_passes_with_something_above_medium_open(rounds: list[Any]) -> None:
    ledger: tuple[Finding, ...] = ()
    for number, findings in enumerate(rounds, 1):
        items = [found(t, s, "open" if o else "fixed") for t, s, o in findings]
        review, ledger = reviewed(ledger, *items)
        decision = decide(review, ledger, valid_reviews=number, maximum=10)
        bad = [f for f in open_findings(ledger) if f.severity in (Severity.CRITICAL, HIGH)]
        assert not (decision.step == "pass" and bad)
        assert decision.step != "block" or decision.reason
        if number >= 10:
            assert decision.step != "next"
        assert len({f.identity for f in ledger}) == len(ledger)


# the other answers


def test_decisions_about_tech_specs_count_for_asked_keys_only() -> None:
    stories = [
        {"key": "a", "tech_spec": "REQUIRED"},
        {"key": "b", "tech_spec": "perhaps"},
        {"key": "other", "tech_spec": "SKIP"},
        "SKIP",
    ]
    assert read_tech_spec_decisions({"stories": stories}, ["a", "b"]) == {"a": "REQUIRED"}
    assert read_tech_spec_decisions({"stories": "a: SKIP"}, ["a"]) == {}


def test_a_document_review_says_yes_or_no_and_nothing_else() -> None:
    assert read_critical({"critical_issues": True}) is True
    assert read_critical({"critical_issues": False}) is False
    for bad in ({}, {"critical_issues": "NO"}, {"critical_issues": 0}, "NO"):
        with pytest.raises(InvalidVerdict):
            read_critical(bad)
