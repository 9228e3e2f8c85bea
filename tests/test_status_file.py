"""Drives the reading and editing of status files: real ones, look-alikes of them, and hostile ones."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sprintrunner import files, status_file
from sprintrunner.errors import InvalidStatus, StatusFileError, StatusFileRefused
from sprintrunner.sprint import Entry, EntryKind, StatusClass, StoryStatus
from sprintrunner.status_file import SprintStatus, edit
from sprintrunner.status_file.scan import scan

PACKAGE_ROOT = Path(__file__).resolve().parent.parent

PLAIN = """\
# Sprint status of a look-alike
# STATUS DEFINITIONS:
#	- done: a tab stands before this dash
generated: 2026-01-20
last_updated: 2026-01-22   # by hand
project: look-alike
story_location: "docs/stories"

development_status:
  # Epic 1: Letting people in
  epic-1: backlog
  1-1-user-login: done  # merged, see #12
  1-2-user-logout:   ready-for-dev
  epic-1-retrospective: optional

# A note at column 0, inside the map
  epic-2: in-progress
  2-1-ünïcode-语义: backlog
  2-10-later: 'backlog'   # quoted
  "2-11-quoted": "backlog"
  2-2-held: deferred
  epic-2-retrospective: optional

action_items:
  - epic: 1
    action: "Check 1-2-user-logout: done"
    status: open
"""

NESTED = """\
development_status:
  epic-1:
    status: in-progress
    title: "Foundation"

  1-1-first-thing:
    status: done
    tags: [a, b]
    title: "The first thing"
  1-2-second-thing:
    title: "The second thing"
    status: backlog   # waits
    stories:
      1-2-1-inner:
        status: backlog
"""

#: name → text; each is read in full and every key of it can be written.
LOOK_ALIKES = {
    "plain": PLAIN,
    "nested": NESTED,
    "unquoted placeholder": PLAIN.replace('"docs/stories"', "{project-root}/docs/stories"),
    "colon in last_updated": PLAIN.replace("2026-01-22   # by hand", "2026-03-29 (Epic 18 added: more)"),
    "indent of four": "\n".join("  " + line if line.startswith("  ") else line for line in PLAIN.split("\n")),
    "leading dashes": "---\n" + PLAIN,
    "crlf": PLAIN.replace("\n", "\r\n"),
    "bom": "\ufeff" + PLAIN,
    "no final newline": PLAIN.split("\naction_items")[0].rstrip("\n"),
    "words": (
        "development_status:\n  no: done\n  on: backlog\n  12:30: review\n  1_0: done\n  2026-01-02: done\n"
        "  017: backlog\n  A b & c: backlog\n"
    ),
    "no space at end": "development_status:\n  1-1-a: done # x\n  1-2-b: backlog\n",
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A settled status file: as old as one a person saved a minute ago."""
    return put(tmp_path / "sprint-status.yaml", PLAIN)


def put(path: Path, content: str | bytes) -> Path:
    """Write a file and make it look old, so that nobody waits for it to settle."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    age(path)
    return path


def age(path: Path) -> None:
    """Date a file a minute back."""
    os.utime(path, (time.time() - 60,) * 2)


def other_value(entry: Entry) -> str:
    """A legal status the entry does not have now."""
    choices = {
        EntryKind.STORY: ("review", "done"),
        EntryKind.EPIC: ("in-progress", "backlog"),
        EntryKind.RETROSPECTIVE: ("optional", "done"),
    }[entry.kind]
    return next(value for value in choices if value != entry.raw_status)


def changed_lines(before: bytes, after: bytes) -> list[int]:
    """The numbers of the lines that differ; the number of lines must not."""
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    assert len(old) == len(new)
    return [number for number, (a, b) in enumerate(zip(old, new, strict=True), start=1) if a != b]


def check_key(original: bytes, before: SprintStatus, entry: Entry, path: Path) -> None:
    """Write one key: its line and at most ``last_updated`` may change; a key that stands twice is refused."""
    put(path, original)
    value = other_value(entry)
    if any(repr(entry.key) in warning and "several times" in warning for warning in before.warnings):
        with pytest.raises(StatusFileRefused, match="stands several times"):
            status_file.write(path, entry.key, value, force=True)
        assert path.read_bytes() == original
        return
    after = status_file.write(path, entry.key, value, force=True, today=date(2031, 5, 4))
    assert after.raw == path.read_bytes()
    assert only_line(original, after.raw, entry.line)
    assert [(e.key, e.raw_status, e.comment) for e in after.entries] == [
        (e.key, value if e.key == entry.key else e.raw_status, e.comment) for e in before.entries
    ]


def only_line(before: bytes, after: bytes, line: int) -> bool:
    """Tell whether this line changed, and besides it at most that of ``last_updated``."""
    numbers = changed_lines(before, after)
    others = [after.splitlines()[n - 1] for n in numbers if n != line]
    return line in numbers and len(others) <= 1 and all(o.startswith(b"last_updated:") for o in others)


# Reading


def test_entries_carry_status_class_comment_epic_and_line(path: Path) -> None:
    found = status_file.read(path)
    login = found.entry("1-1-user-login")
    assert login is not None
    assert (login.status, login.status_class, login.epic) == (StoryStatus.DONE, StatusClass.DONE, "1")
    assert (login.comment, login.line, login.title) == ("merged, see #12", 12, "User login")
    assert found.writable and found.shape == "flat" and not found.warnings
    assert found.epics == ("1", "2")
    assert [e.title for e in found.entries if e.kind is EntryKind.EPIC] == ["Letting people in", ""]
    assert found.digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_comments_at_column_zero_do_not_end_the_map(path: Path) -> None:
    assert [e.key for e in status_file.read(path).stories] == [
        "1-1-user-login",
        "1-2-user-logout",
        "2-1-ünïcode-语义",
        "2-10-later",
        "2-11-quoted",
        "2-2-held",
    ]


def test_nested_maps_give_status_and_title(tmp_path: Path) -> None:
    found = status_file.read(put(tmp_path / "s.yaml", NESTED))
    assert found.shape == "nested" and found.writable
    assert [(e.key, e.raw_status, e.title) for e in found.stories] == [
        ("1-1-first-thing", "done", "The first thing"),
        ("1-2-second-thing", "backlog", "The second thing"),
        ("1-2-1-inner", "backlog", "Inner"),
    ]


def test_words_that_yaml_takes_for_something_else_stay_text(tmp_path: Path) -> None:
    found = status_file.read(put(tmp_path / "s.yaml", LOOK_ALIKES["words"]))
    assert [e.key for e in found.entries] == ["no", "on", "12:30", "1_0", "2026-01-02", "017", "A b & c"]
    assert found.writable


@pytest.mark.parametrize("name", ["unquoted placeholder", "colon in last_updated"])
def test_a_file_yaml_cannot_parse_is_read_by_line_with_the_error_as_warning(
    tmp_path: Path, name: str
) -> None:
    found = status_file.read(put(tmp_path / "s.yaml", LOOK_ALIKES[name]))
    assert len(found.stories) == 6 and found.writable
    assert any("YAML cannot be parsed, line" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (
            "sprints:\n  - sprint_number: 1\n    stories:\n      - story_id: A\n        status: done\n",
            "sprints:",
        ),
        ("stories:\n  - id: 1-1\n    status: done\n", "stories:"),
        ("epics:\n  - id: 1\n", "epics:"),
        ("epic_1:\n  stories: []\n", "epic_1:"),
        ("development Status:\n  1-1-a: done\n", "development Status"),
        ("project: x\n", "no development_status"),
    ],
)
def test_another_format_is_named_in_one_sentence_and_never_written(
    tmp_path: Path, text: str, word: str
) -> None:
    path = put(tmp_path / "s.yaml", text)
    found = status_file.read(path)
    assert found.refusal is not None and word in found.refusal and found.refusal.count(". ") == 0
    with pytest.raises(StatusFileRefused):
        status_file.write(path, "1-1-a", "done")
    assert path.read_text() == text


def test_keys_that_could_leave_the_project_are_flagged_and_the_rest_works(tmp_path: Path) -> None:
    long = "9-9-" + "x" * 10_000
    text = f"{MAP}  ../../etc/passwd: backlog\n  {long}: backlog\n  ..b: done\n"
    path = put(tmp_path / "s.yaml", text)
    found = status_file.read(path)
    assert [e.startable for e in found.entries] == [True, False, False, False]
    assert len(found.warnings) == 4 and max(map(len, found.warnings)) < 200
    assert (
        status_file.write(path, "1-1-a", "done").raw == text.replace("1-1-a: backlog", "1-1-a: done").encode()
    )


def test_right_to_left_and_emoji_keys_are_compared_whole(tmp_path: Path) -> None:
    text = "development_status:\n  1-1-שלום: backlog\n  1-1-שלום-🚀: backlog\n"
    path = put(tmp_path / "s.yaml", text)
    after = status_file.write(path, "1-1-שלום", "done")
    assert [(e.key, e.raw_status) for e in after.entries] == [
        ("1-1-שלום", "done"),
        ("1-1-שלום-🚀", "backlog"),
    ]
    assert all(e.startable for e in after.entries)


# Writing


@pytest.mark.parametrize("name", sorted(LOOK_ALIKES))
def test_every_key_of_a_look_alike_changes_on_its_own_line_only(tmp_path: Path, name: str) -> None:
    original = LOOK_ALIKES[name].encode()
    before = status_file.read(put(tmp_path / "s.yaml", original))
    assert len(before.entries) >= 2
    for entry in before.entries:
        check_key(original, before, entry, tmp_path / "s.yaml")


def test_every_key_of_every_real_file_can_be_edited_on_its_own_line_only(shared: Path) -> None:
    edited = 0
    for name in sorted((shared / "status-files").glob("*.yaml")):
        original = name.read_bytes()
        before = status_file.read(name)
        found = scan(original.decode())
        for entry in before.entries:
            if "several times" not in "".join(w for w in before.warnings if repr(entry.key) in w):
                edits = edit.plan(found, {entry.key: other_value(entry)}, {}, datetime(2031, 5, 4), True)
                assert only_line(original, edit.apply(found, edits).encode(), entry.line)
                edited += 1
    # All keys of the twenty files with a map, but the two that stand twice.
    assert edited == 2410


def test_keys_of_real_files_are_written_and_proved_on_disk(shared: Path, tmp_path: Path) -> None:
    for name in sorted((shared / "status-files").glob("*.yaml")):
        original = name.read_bytes()
        before = status_file.read(name)
        doubtful = [e for e in before.entries if not e.startable or e.comment]
        for entry in {*before.entries[:: max(len(before.entries) // 12, 1)], *doubtful[:8]}:
            check_key(original, before, entry, tmp_path / "s.yaml")


def test_quotes_spacing_comment_and_line_end_stay(path: Path) -> None:
    status_file.write(path, "2-10-later", "done", today=date(2026, 1, 22))
    status_file.write(path, "2-11-quoted", "review", today=date(2026, 1, 22))
    after = status_file.write(path, "1-2-user-logout", "in-progress", today=date(2026, 1, 22)).raw.decode()
    assert "  2-10-later: 'done'   # quoted\n" in after
    assert '  "2-11-quoted": "review"\n' in after
    assert "  1-2-user-logout:   in-progress\n" in after
    assert changed_lines(PLAIN.encode(), after.encode()) == [13, 19, 20]


def test_the_key_in_another_block_is_never_touched(tmp_path: Path) -> None:
    text = "other:\n  1-1-a: backlog\n\ndevelopment_status:\n  1-1-a: backlog\n"
    path = put(tmp_path / "s.yaml", text)
    assert changed_lines(text.encode(), status_file.write(path, "1-1-a", "done").raw) == [5]


def test_keys_that_contain_each_other_are_never_mixed_up(tmp_path: Path) -> None:
    text = "development_status:\n  2a-10: backlog\n  12a-1: backlog\n  2a-1: backlog\n"
    path = put(tmp_path / "s.yaml", text)
    assert changed_lines(text.encode(), status_file.write(path, "2a-1", "done").raw) == [4]


def test_several_keys_change_together_or_not_at_all(path: Path) -> None:
    after = status_file.write_many(path, {"1-2-user-logout": "in-progress", "epic-1": "in-progress"})
    assert changed_lines(PLAIN.encode(), after.raw) == [5, 11, 13]
    with pytest.raises(StatusFileRefused, match="keys are never added"):
        status_file.write_many(path, {"1-2-user-logout": "review", "9-9-new": "backlog"})
    assert path.read_bytes() == after.raw


def test_writing_what_already_stands_there_does_not_touch_the_file(path: Path) -> None:
    before = path.stat()
    status_file.write(path, "1-1-user-login", "done")
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("2026-01-22", "2027-02-03"),
        ("'2026-01-22'", "'2027-02-03'"),
        ("01-22-2026 21:30", "02-03-2027 04:05"),
        ("2026-01-22T00:00:00Z", "2027-02-03T04:05:06Z"),
        ('"2026-07-07 13:35:57 +0700"', '"2027-02-03 11:05:06 +0700"'),
        ("2026-04-22T00:00:00-04:00", "2027-02-03T00:05:06-04:00"),
        ("22-01-2026", "22-01-2026"),
        ("2026-13-40", "2026-13-40"),
        ("today (all done)", "today (all done)"),
    ],
)
def test_last_updated_follows_in_its_own_format(tmp_path: Path, old: str, new: str) -> None:
    text = "last_updated: {}  # kept\ndevelopment_status:\n  1-1-a: {}\n"
    path = put(tmp_path / "s.yaml", text.format(old, "backlog"))
    moment = datetime(2027, 2, 3, 4, 5, 6, tzinfo=UTC)
    after = status_file.write(path, "1-1-a", "done", today=moment)
    assert after.raw.decode() == text.format(new, "done")


def test_last_updated_is_never_added_and_never_changed_where_it_stands_twice(tmp_path: Path) -> None:
    text = "last_updated: 2026-01-01\nlast_updated: 2026-01-01\ndevelopment_status:\n  1-1-a: backlog\n"
    path = put(tmp_path / "s.yaml", text)
    assert changed_lines(text.encode(), status_file.write(path, "1-1-a", "done").raw) == [4]


def test_held_dropped_and_unknown_statuses_are_not_overwritten_unasked(path: Path) -> None:
    with pytest.raises(StatusFileRefused, match="never overwritten"):
        status_file.write(path, "2-2-held", "in-progress")
    assert path.read_text() == PLAIN
    assert status_file.write(path, "2-2-held", "in-progress", force=True).writable


def test_a_blocked_story_can_be_written_again(path: Path) -> None:
    status_file.write(path, "1-2-user-logout", "blocked")
    after = status_file.write(path, "1-2-user-logout", "review", expected="blocked")
    assert after.entry("1-2-user-logout") is not None


def test_another_status_than_the_expected_one_is_left_alone(path: Path) -> None:
    with pytest.raises(StatusFileRefused, match="reads 'ready-for-dev' by now"):
        status_file.write(path, "1-2-user-logout", "review", expected="in-progress")
    assert path.read_text() == PLAIN


def test_only_the_seven_statuses_are_written_and_an_epic_is_never_done(path: Path) -> None:
    with pytest.raises(InvalidStatus, match="backlog, ready-for-dev"):
        status_file.write(path, "1-1-user-login", "finished")
    with pytest.raises(StatusFileRefused, match="never set to 'done'"):
        status_file.write(path, "epic-2", "done")
    assert path.read_text() == PLAIN


# Refusals

MAP = "development_status:\n  1-1-a: backlog\n"
REFUSED = {
    "duplicate key": (MAP + "  1-2-b: done\n  1-1-a: done\n", "lines 2 and 4"),
    "flow map": ("development_status: {1-1-a: backlog}\n", "flow style"),
    "flow value": (MAP.replace("backlog", "[backlog]"), "Line 2 is in flow style"),
    "empty map": ("development_status: {}\n", "flow style"),
    "anchor": (MAP + "  1-2-b: &x backlog\n", "Line 3 holds an anchor"),
    "alias": ("base: &x backlog\n" + MAP + "  1-2-b: *x\n", "Line 4 holds an alias"),
    "anchor elsewhere": (MAP + "other: &x 1\n", "Line 3 holds an anchor"),
    "tag": (MAP + "  1-2-b: !!str backlog\n", "Line 3 holds a tag"),
    "tag elsewhere": (MAP + "other: !!python/object:os.system {}\n", "Line 3 holds a tag"),
    "merge key": (MAP + "  <<: done\n", "Line 3 merges another map"),
    "key missing": ("development_status:\n  1-1-ab: backlog\n  1-1: backlog\n", "keys are never added"),
    "two documents": (MAP + "---\n" + MAP, "begins on line 3"),
    "document end": (MAP + "...\n" + MAP, "begins on line 3"),
    "conflict": (
        "development_status:\n<<<<<<< HEAD\n  1-1-a: backlog\n=======\n  1-1-a: done\n>>>>>>> b\n",
        "line 2",
    ),
    "two maps": (MAP + "\n" + MAP, "lines 1 and 4"),
    "entry at column 0": (MAP + "1-2-b: done\n  1-3-c: done\n", "Line 3 looks like an entry"),
    "deeper entry": (MAP + "    1-2-b: done\n", "Line 3 is indented deeper"),
    "shallower entry": (MAP.replace("  ", "    ") + "  1-2-b: done\n", "Line 3 is indented less"),
    "tab": (MAP + "\t1-2-b: done\n", "Line 3 is indented with a tab"),
    "list": (MAP + "  - 1-2-b: done\n", "Line 3 is not of the form"),
    "stray text": (MAP + "  and so on\n", "Line 3 is not of the form"),
    "several lines": (MAP + "  1-2-b: |\n    done\n", "Line 3 holds a value of several lines"),
    "second colon": (MAP + "  1-2-b: done: yes\n", "Line 3 holds a second colon"),
    "open quote": (MAP + "  1-2-b: 'done\n", "quote that is not closed"),
    "no nested value": ("development_status:\n  1-1-a:\n    status:  # later\n", "no status to replace"),
    "no value": ("development_status:\n  1-1-a:\n  1-2-b: done\n", "no status to replace"),
    "cut in a key": (MAP + "  1-2-b", "not of the form"),
    "cut in a value": (MAP + "  1-2-b: back", "half written"),
    "only comments": ("# generated: 2026\n", "only comments"),
    "empty": ("", "empty"),
    "NUL": (MAP + "# \0\n", "Line 3 holds a NUL"),
    "control character": (MAP + "# \x1b[1m\n", "Line 3 holds the control character"),
    "nested lists": ("x: " + "[" * 3000 + "]" * 3000 + "\n" + MAP, "Line 1 is nested more than 20"),
    "key without value before it": ("development_status:\n", "no entries"),
}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_cannot_be_edited_safely_is_refused_untouched_in_one_sentence(tmp_path: Path, name: str) -> None:
    text, why = REFUSED[name]
    path = put(tmp_path / "s.yaml", text)
    started = time.monotonic()
    with pytest.raises(StatusFileRefused) as refusal:
        status_file.write(path, "1-1-a", "done", force=True)
    assert time.monotonic() - started < 1
    assert why in str(refusal.value) and "\n" not in str(refusal.value)
    assert path.read_bytes() == text.encode()
    assert os.listdir(tmp_path) == ["s.yaml"]


@pytest.mark.parametrize(
    "raw", [PLAIN.encode("utf-16"), PLAIN.encode("utf-16-be"), b"\xff\xfe", MAP.encode() + b"#\xff\n"]
)
def test_what_is_not_utf_8_is_never_written(tmp_path: Path, raw: bytes) -> None:
    path = put(tmp_path / "s.yaml", raw)
    assert status_file.read(path).refusal
    with pytest.raises(StatusFileRefused):
        status_file.write(path, "1-1-a", "done")
    assert path.read_bytes() == raw


def test_a_map_that_yaml_reads_otherwise_is_not_written(tmp_path: Path) -> None:
    found = status_file.read(put(tmp_path / "s.yaml", "development_status:\n  1-\u20281-a: backlog\n"))
    assert found.refusal == "A YAML parser reads the map differently from line 2 on."


def test_an_alias_bomb_costs_nothing(tmp_path: Path) -> None:
    names = "abcdefghi"
    lines = ['a: &a ["x","x","x","x","x","x","x","x","x"]']
    lines += [f"{n}: &{n} [{','.join(['*' + m] * 9)}]" for m, n in itertools.pairwise(names)]
    started = time.monotonic()
    found = status_file.read(put(tmp_path / "s.yaml", "\n".join(lines) + "\n" + MAP))
    assert time.monotonic() - started < 0.5
    assert found.refusal == "Line 1 holds an anchor (&a)."


def test_duplicates_of_other_keys_are_only_a_warning(tmp_path: Path) -> None:
    text = "development_status:\n  epic-15: in-progress\n  15-1-a: backlog\n  epic-15: done\n"
    path = put(tmp_path / "s.yaml", text)
    found = status_file.read(path)
    assert found.warnings == ("'epic-15' stands several times, on lines 2 and 4; it is never written.",)
    assert [(e.key, e.raw_status, e.startable) for e in found.entries] == [
        ("epic-15", "done", False),
        ("15-1-a", "backlog", True),
    ]
    assert changed_lines(text.encode(), status_file.write(path, "15-1-a", "review").raw) == [3]


# What may stand in the place of the file


def test_a_fifo_a_folder_a_missing_file_and_20_mb_are_one_sentence_each(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "large").write_bytes(MAP.encode() + b"# x\n" * 5_000_000)
    (tmp_path / "loop").symlink_to("loop")
    wanted = {
        "fifo": "regular",
        "folder": "directory",
        "missing": "not exist",
        "large": "too large",
        "loop": "leads nowhere",
    }
    for name, word in wanted.items():
        started = time.monotonic()
        for action in (lambda p: status_file.read(p), lambda p: status_file.write(p, "1-1-a", "done")):
            with pytest.raises(StatusFileError, match=word) as refusal:
                action(tmp_path / name)
            assert "\n" not in str(refusal.value)
        assert time.monotonic() - started < 1


@pytest.fixture
def without_rights(tmp_path: Path) -> Iterator[None]:
    """Permissions count, also when the suite runs as root."""
    if os.geteuid() != 0:
        yield
        return
    for folder in (tmp_path, *tmp_path.parents):
        if folder.is_relative_to(tempfile.gettempdir()) and folder != Path(tempfile.gettempdir()):
            folder.chmod(folder.stat().st_mode | 0o055)
    os.seteuid(65534)
    yield
    os.seteuid(0)


def test_mode_000_is_one_sentence(path: Path, request: pytest.FixtureRequest) -> None:
    path.chmod(0)
    request.getfixturevalue("without_rights")
    with pytest.raises(StatusFileError) as refusal:
        status_file.read(path)
    assert str(refusal.value) == f"{path} cannot be opened: permission denied."


def test_a_file_without_write_permission_is_left_alone(path: Path, request: pytest.FixtureRequest) -> None:
    path.chmod(0o444)
    request.getfixturevalue("without_rights")
    with pytest.raises(StatusFileError, match=r"is not writable|permission denied"):
        status_file.write(path, "1-1-user-login", "review")
    assert path.read_text() == PLAIN


def test_mode_stays_and_no_temporary_file_is_left(path: Path) -> None:
    path.chmod(0o640)
    status_file.write(path, "1-1-user-login", "review")
    assert path.stat().st_mode & 0o777 == 0o640
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_owner_stays(path: Path) -> None:
    os.chown(path, 12345, 54321)
    status_file.write(path, "1-1-user-login", "review")
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 54321)


def test_a_link_inside_the_project_stays_a_link_and_its_target_is_edited(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target = put(tmp_path / "real" / "s.yaml", MAP)
    link = tmp_path / "s.yaml"
    link.symlink_to("real/s.yaml")
    status_file.write(link, "1-1-a", "done", root=tmp_path)
    assert link.is_symlink() and "1-1-a: done" in target.read_text()


def test_a_link_out_of_the_project_is_refused(tmp_path: Path) -> None:
    outside = put(tmp_path / "outside.yaml", MAP)
    root = tmp_path / "root"
    root.mkdir()
    (root / "s.yaml").symlink_to(outside)
    for action in (
        lambda: status_file.read(root / "s.yaml", root),
        lambda: status_file.write(root / "s.yaml", "1-1-a", "done", root=root),
    ):
        with pytest.raises(StatusFileError, match="leads out of the project"):
            action()
    assert outside.read_text() == MAP


def test_a_full_disk_leaves_the_file_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StatusFileError, match="No space left on device; nothing was written"):
        status_file.write(path, "1-1-user-login", "review")
    assert path.read_text() == PLAIN and os.listdir(path.parent) == [path.name]


# Concurrency

WRITER = """
import sys
from pathlib import Path
from sprintrunner import files, status_file
path, lock, number = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
for n in range(60):
    status_file.write(path, f"{number}-{n}-story", "done", expected="backlog", lock_path=lock)
"""


def test_four_processes_with_sixty_keys_each_lose_no_update(tmp_path: Path) -> None:
    keys = [f"{number}-{n}-story" for number in range(4) for n in range(60)]
    path = put(tmp_path / "s.yaml", "development_status:\n" + "".join(f"  {key}: backlog\n" for key in keys))
    lock = tmp_path / "lock"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(lock), str(n)], cwd=PACKAGE_ROOT)
        for n in range(4)
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0, 0]
    assert [e.key for e in status_file.read(path).stories if e.status is StoryStatus.DONE] == keys


def test_threads_of_one_process_exclude_each_other_too(path: Path) -> None:
    keys = ["1-1-user-login", "1-2-user-logout", "2-1-ünïcode-语义", "2-10-later"]
    threads = [threading.Thread(target=status_file.write, args=(path, key, "review")) for key in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = status_file.read(path)
    assert [e.key for e in found.stories if e.status is StoryStatus.REVIEW] == keys


@pytest.fixture
def editor(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A program that truncates and rewrites a file of 200 entries in place, in two halves, over and over."""
    path = tmp_path / "s.yaml"
    text = "development_status:\n" + "".join(f"  1-{n}-story: backlog\n" for n in range(200))
    put(path, text)
    code = (
        "import sys, time\n"
        "path, text = sys.argv[1], open(sys.argv[1]).read()\n"
        "print('go', flush=True)\n"
        "while True:\n"
        "    with open(path, 'w') as f:\n"
        "        f.write(text[:2000]); f.flush(); time.sleep(0.001); f.write(text[2000:])\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield path, process.pid
        process.kill()


def test_an_editor_that_rewrites_the_file_never_makes_us_act_on_half_of_it(editor: tuple[Path, int]) -> None:
    path, _ = editor
    for _ in range(5):
        found = status_file.read(path)
        assert len(found.stories) == 200 or not found.writable
    with pytest.raises(StatusFileRefused, match=r"rewriting the file|not of the form|half written"):
        status_file.write(path, "1-7-story", "done")


def test_a_file_emptied_for_a_moment_is_waited_for(path: Path) -> None:
    path.write_text("")
    refill = threading.Timer(0.12, lambda: path.write_text(PLAIN))
    refill.start()
    assert len(status_file.read(path).stories) == 6
    refill.join()


def test_a_change_by_somebody_else_between_read_and_write_survives(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = edit.plan
    interfere = [True]

    def meanwhile(*arguments: object) -> list[edit.Edit]:
        if interfere.pop() if interfere else False:
            put(path, PLAIN.replace("2-10-later: 'backlog'", "2-10-later: 'review'"))
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(status_file, "plan", meanwhile)
    after = status_file.write(path, "1-2-user-logout", "in-progress")
    assert [after.entry(k).raw_status for k in ("2-10-later", "1-2-user-logout")] == ["review", "in-progress"]  # type: ignore[union-attr]


# Speed


def test_five_thousand_entries_are_read_and_written_quickly(tmp_path: Path) -> None:
    lines = [
        f"  {epic}-{n}-a-story-with-a-name-of-some-length: backlog  # {'note ' * 20}\n"
        for epic in range(50)
        for n in range(100)
    ]
    path = put(tmp_path / "s.yaml", "development_status:\n" + "".join(lines))
    started = time.monotonic()
    found = status_file.read(path)
    assert len(found.stories) == 5000 and time.monotonic() - started < 2
    started = time.monotonic()
    status_file.read(path)
    assert time.monotonic() - started < 0.05


# Properties

MARKS = list(" \t:#'\"{[&*!|>-?%\\é\u2028\x85\n\r")
WORDS = ["  ", "\n  ", "1-1-a", "epic-1: ", "done", "back", "---", "<<<<<<< x", "status: ", "stories:\n    "]


@given(st.lists(st.sampled_from([*MARKS, *WORDS, "development_status:\n"]), max_size=60).map("".join))
@example("development_status:\n  1-1-a: done\u2028  1-2-b: done\n")
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_text_crashes_the_reader_and_no_edit_touches_another_line(tmp_path: Path, noise: str) -> None:
    original = (MAP + noise).encode()
    path = put(tmp_path / "s.yaml", original)
    found: SprintStatus = status_file.read(path)
    try:
        after = status_file.write(path, "1-1-a", "done", force=True, today=date(2026, 1, 1))
    except StatusFileRefused:
        assert path.read_bytes() == original
        return
    assert found.writable
    assert after.raw == original.replace(b"backlog", b"done", 1)
    assert [e.key for e in after.entries] == [e.key for e in found.entries]


def test_a_draft_of_a_killed_writer_is_swept_and_one_of_a_living_writer_is_not(tmp_path: Path) -> None:
    real = tmp_path / "sprint-status.yaml"
    real.write_text("development_status:\n  1-1-a: backlog\n")
    dead = tmp_path / ".sprint-status.yaml.4194304-1a2b.tmp"
    living = tmp_path / f".sprint-status.yaml.{os.getpid()}-1a2b.tmp"
    other = tmp_path / ".sprint-status.yaml.notes.tmp"
    for path in (dead, living, other):
        path.write_text("")
    assert files.sweep_drafts(real) == 1
    assert sorted(tmp_path.iterdir()) == sorted([real, living, other])
