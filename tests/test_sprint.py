"""The rules of keys, epics and statuses, tried on the forms met in real files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sprintrunner import status_file
from sprintrunner.errors import InvalidStatus
from sprintrunner.sprint import (
    Entry,
    EntryKind,
    StatusClass,
    StoryStatus,
    assign_epics,
    epic_id,
    is_startable_key,
    kind_of,
    natural_key,
    normalise,
    slug_title,
    story_status,
)

OPEN, DONE, HELD = StatusClass.OPEN, StatusClass.DONE, StatusClass.HELD
DROPPED, UNKNOWN = StatusClass.DROPPED, StatusClass.UNKNOWN


def entries(keys: str) -> tuple[Entry, ...]:
    """Entries of these keys, with their epics."""
    listed = keys.split()
    return assign_epics(Entry(k, kind_of(k), None, "done", None, DONE, n) for n, k in enumerate(listed, 1))


@pytest.mark.parametrize(
    ("raw", "status", "status_class"),
    [
        ("backlog", "backlog", OPEN),
        ("NOT_STARTED", "backlog", OPEN),
        ("drafted", "ready-for-dev", OPEN),
        ("in progress", "in-progress", OPEN),
        ("Ready for Review", "review", OPEN),
        ("done-unreviewed", "review", OPEN),
        ("done(carryover)", "done", DONE),
        ("done ✅ shipped", "done", DONE),
        ("✅ Complete", "done", DONE),
        ("ｄｏｎｅ", "done", DONE),
        ("blocked", "blocked", HELD),
        ("optional", "optional", HELD),
        ("on hold until May", None, HELD),
        ("awaiting-operator", None, HELD),
        ("won't do", None, DROPPED),
        ("wont-do", None, DROPPED),
        ("moved-to-epic-4", None, DROPPED),
        ("migrated", None, DROPPED),
        ("back", None, UNKNOWN),
        ("ready-to-merge", None, UNKNOWN),
        ("not done", None, UNKNOWN),
        ("donee", None, UNKNOWN),
        ("archive/epic-1.yaml", None, UNKNOWN),
        ("", None, UNKNOWN),
    ],
)
def test_a_raw_status_is_normalised(raw: str, status: str | None, status_class: StatusClass) -> None:
    assert normalise(raw, EntryKind.STORY) == (status, status_class)


def test_contexted_and_optional_mean_something_else_for_other_kinds() -> None:
    assert normalise("contexted", EntryKind.EPIC) == (StoryStatus.IN_PROGRESS, OPEN)
    assert normalise("contexted", EntryKind.STORY) == (StoryStatus.READY_FOR_DEV, OPEN)
    assert normalise("optional", EntryKind.RETROSPECTIVE) == (StoryStatus.OPTIONAL, OPEN)
    assert normalise("completed", EntryKind.RETROSPECTIVE) == (StoryStatus.DONE, DONE)


@given(st.text())
def test_every_text_has_a_class_and_only_one_of_the_seven_statuses(raw: str) -> None:
    status, status_class = normalise(raw, EntryKind.STORY)
    assert status is None or status in StoryStatus
    assert (status is None) == (
        status_class in (DROPPED, UNKNOWN) or (status_class is HELD and status is None)
    )


def test_a_status_that_may_not_be_stored_is_an_error_that_lists_the_seven() -> None:
    with pytest.raises(
        InvalidStatus, match="backlog, ready-for-dev, in-progress, review, done, blocked, optional"
    ):
        story_status("finished")


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("epic-1", EntryKind.EPIC),
        ("EPIC-2a", EntryKind.EPIC),
        ("epic_3", EntryKind.EPIC),
        ("epic-29-chatwoot", EntryKind.EPIC),
        ("v2-epic-6", EntryKind.EPIC),
        ("orch-epic-1", EntryKind.EPIC),
        ("epic-1-retrospective", EntryKind.RETROSPECTIVE),
        ("dm-1-Retro", EntryKind.RETROSPECTIVE),
        ("orch-epic-1-retrospective", EntryKind.RETROSPECTIVE),
        ("epic-4-retro-item-2-fix-it", EntryKind.RETROSPECTIVE),
        ("1-2-user-login", EntryKind.STORY),
        ("2-spike-cdp", EntryKind.STORY),
        ("cc-foundation", EntryKind.STORY),
        ("1-1-epic-adventure", EntryKind.STORY),
        ("epic", EntryKind.STORY),
    ],
)
def test_the_kind_is_told_by_the_key(key: str, kind: EntryKind) -> None:
    assert kind_of(key) is kind


def test_an_epic_is_named_by_what_is_left_of_its_key() -> None:
    assert [epic_id(k) for k in ("epic-2a", "epic-3-5-retrospective", "orch-epic-1", "epic-2.5")] == [
        "2a",
        "3-5",
        "orch-1",
        "2.5",
    ]


@pytest.mark.parametrize(
    ("keys", "story", "epic"),
    [
        ("epic-1 1-2-a epic-12 12-1-b", "12-1-b", "12"),
        ("epic-2 epic-2a 2a-1-a", "2a-1-a", "2a"),
        ("epic-3 3-5-help-overlay epic-3-5 3-5-0-x", "3-5-help-overlay", "3"),
        ("epic-3 3-5-help-overlay epic-3-5 3-5-0-x", "3-5-0-x", "3-5"),
        ("epic-2 epic-2.5 2.5-1-a", "2.5-1-a", "2.5"),
        ("epic-5-SR 5-sr-3-core", "5-sr-3-core", "5-SR"),
        ("orch-epic-1 orch-1-1-a", "orch-1-1-a", "orch-1"),
        ("epic-29-chatwoot 29-1-a epic-29-favorites 29-2-b", "29-1-a", "29-chatwoot"),
        ("epic-29-chatwoot 29-1-a epic-29-favorites 29-2-b", "29-2-b", "29-favorites"),
        ("epic-5 epic-6 epic-7 6-session-glance", "6-session-glance", "6"),
        ("epic-1 CORE-001 epic-2", "CORE-001", "1"),
        ("CORE-001 epic-1", "CORE-001", None),
        ("epic-15 1-1-define", "1-1-define", "15"),
        ("epic-1 epic-15 1-1-define", "1-1-define", "1"),
    ],
)
def test_a_story_belongs_to_the_longest_declared_prefix(keys: str, story: str, epic: str | None) -> None:
    assert {e.key: e.epic for e in entries(keys)}[story] == epic


def test_natural_order_counts_numbers() -> None:
    keys = ["2a-10-x", "10-1-a", "2-2-a", "2a-2-x", "2-10-a", "2.5-1-a", "2a-1-x"]
    assert sorted(keys, key=natural_key) == [
        "2-2-a",
        "2-10-a",
        "2.5-1-a",
        "2a-1-x",
        "2a-2-x",
        "2a-10-x",
        "10-1-a",
    ]


@given(st.lists(st.text(alphabet="0129a-. é", max_size=12), unique=True))
def test_two_keys_never_tie_in_natural_order(keys: list[str]) -> None:
    assert len({natural_key(key) for key in keys}) == len(keys)
    sorted(keys, key=natural_key)


def test_a_key_of_ten_thousand_digits_can_be_sorted() -> None:
    assert sorted(["9" * 10_000, "1"], key=natural_key)[0] == "1"


@pytest.mark.parametrize(
    "key", ["1-2-user-login", "3-1-YouTube API & more", "1-10-语义", "1-1-שלום", "CORE-001"]
)
def test_opaque_keys_may_be_started(key: str) -> None:
    assert is_startable_key(key)


UNFIT = [
    "",
    "../../etc/passwd",
    "..name",
    "a/b",
    "a\\b",
    "a%2Fb",
    "/etc/passwd",
    "a\0b",
    "a\nb",
    "1-1-a,1-2-b",
]


@pytest.mark.parametrize("key", [*UNFIT, "-x", " a", "\ud800", "9-9-" + "x" * 200, "1-1-" + "语" * 80])
def test_keys_that_are_unfit_for_a_file_name_are_never_started(key: str) -> None:
    assert not is_startable_key(key)


def test_a_title_is_made_of_the_words_after_the_number() -> None:
    wanted = {
        "1-2-user-login": "User login",
        "2a-1-session_list": "Session list",
        "5-sr-3-python-core": "Python core",
        "1-2-3rd-party": "3rd party",
        "CORE-001": "CORE-001",
        "cc-foundation": "Cc foundation",
    }
    assert {key: slug_title(key) for key in wanted} == wanted


def test_every_story_status_of_the_real_files_is_understood(shared: object) -> None:
    folder = shared / "status-files"  # type: ignore[operator]
    unknown = [
        (path.name, entry.key, entry.raw_status)
        for path in sorted(folder.glob("*.yaml"))
        for entry in status_file.read(path).stories
        if entry.status_class is UNKNOWN
    ]
    assert unknown == []
