"""What an agent reports about a task is checked before it is believed, and quoted before it is written."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sprintrunner.tasklog import BadTaskReport, TaskReport, csv_line, parse

GOOD: dict[str, Any] = {
    "epic_id": "2a",
    "story_id": "2a-1",
    "command": "dev-story",
    "task_id": "implement",
    "status": "start",
}


def test_a_good_report_is_understood() -> None:
    report = parse(json.dumps(GOOD | {"message": "first test", "attempt": 2, "metrics": {"files": 3}}))
    assert report == TaskReport(
        "2a", "2a-1", "dev-story", "implement", "start", "first test", 2, {"files": 3}
    )


def test_fields_it_does_not_know_are_left_out() -> None:
    assert parse(json.dumps(GOOD | {"colour": "red"})) == parse(json.dumps(GOOD))


@pytest.mark.parametrize("name", sorted(GOOD))
def test_a_missing_field_is_named(name: str) -> None:
    with pytest.raises(BadTaskReport, match=name):
        parse(json.dumps({key: value for key, value in GOOD.items() if key != name}))


@pytest.mark.parametrize(
    "change",
    [
        {"status": "middle"},
        {"status": ["start"]},
        {"epic_id": 2},
        {"task_id": " "},
        {"command": "x" * 201},
        {"message": "x" * 151},
        {"message": 5},
        {"attempt": True},
        {"attempt": 0},
        {"metrics": [1]},
        {"task_id": "\ud800"},
        {"message": "a\0b"},
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any]) -> None:
    with pytest.raises(BadTaskReport, match=next(iter(change))):
        parse(json.dumps(GOOD | change))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "5", "null", "[" * 15_000, json.dumps(GOOD | {"x": "y" * 20_000})]
)
def test_what_is_no_report_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(BadTaskReport) as refused:
        parse(text)
    assert "\n" not in refused.value.sentence


def test_the_line_has_the_columns_of_the_log() -> None:
    line = csv_line(1700000000, parse(json.dumps(GOOD | {"message": 'says "hi", leaves'})))
    assert line == '1700000000,2a,2a-1,dev-story,implement,start,"says ""hi"", leaves"'


@pytest.mark.parametrize("start", ["=", "+", "-", "@"])
def test_a_spreadsheet_does_not_run_a_message(start: str) -> None:
    line = csv_line(1, parse(json.dumps(GOOD | {"message": f"{start}cmd|calc"})))
    assert next(csv.reader([line]))[6] == f"'{start}cmd|calc"


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=150))
def test_every_message_survives_the_trip_through_csv(message: str) -> None:
    line = csv_line(1, parse(json.dumps(GOOD | {"message": message})))
    cells = next(csv.reader(io.StringIO(line, newline=""), strict=True))
    assert cells[6] in (message, f"'{message}")
    assert cells[6][:1] not in ("=", "+", "-", "@", "\t", "\r")
