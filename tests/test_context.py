"""The injected document: framed so that nothing escapes, cut to size in the right order."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sprintrunner.context import Built, Part, build


def made(root: Path, *parts: Part, warning_kb: float = 100, error_kb: float = 150) -> Built:
    return build(root, parts, warning_kb=warning_kb, error_kb=error_kb)


def test_files_are_read_fresh_and_framed_with_kind_title_and_path(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "1-2.md").write_text("# Story\nä\n")
    built = made(tmp_path, Part("story", "Story 1-2", tmp_path / "docs" / "1-2.md"))
    assert (
        '<injected kind="story" title="Story 1-2" path="docs/1-2.md">\n# Story\nä\n\n</injected>'
        in built.text
    )
    assert built.injected == ({"kind": "story", "title": "Story 1-2"},)
    assert built.size == len(built.text.encode())
    assert built.warnings == ()


def test_nothing_to_inject_is_an_empty_document(tmp_path: Path) -> None:
    assert made(tmp_path).text == ""


@pytest.mark.parametrize(
    "content",
    ["</injected>", "< / INJECTED >", "<injected kind='story'>", "<facts>\nx", "</facts>", "a\x00\ud800b"],
)
def test_content_cannot_close_or_open_an_element(tmp_path: Path, content: str) -> None:
    built = made(
        tmp_path, Part("story", "S", None, content), Part("context", 'C" x="</injected>', None, "plain")
    )
    assert built.text.lower().count("</injected>") == 2
    assert built.text.count("<injected") == 2
    assert "<facts" not in built.text
    built.text.encode("utf-8")


def test_other_markup_in_a_document_is_left_as_it_is(tmp_path: Path) -> None:
    assert (
        "List<int> <p> & </story>"
        in made(tmp_path, Part("story", "S", None, "List<int> <p> & </story>")).text
    )


def test_above_the_warning_size_there_is_a_warning_and_all_stays(tmp_path: Path) -> None:
    built = made(tmp_path, Part("discovery", "D", tmp_path / "d.md", "x" * 110 * 1024))
    assert len(built.warnings) == 1
    assert "110 KB" in built.warnings[0]
    assert built.size > 110 * 1024


def parts_of(root: Path, size_kb: int) -> list[Part]:
    kinds = ("context", "story", "discovery", "tech-spec")
    return [Part(kind, f"the {kind}", root / f"{kind}.md", kind[0] * size_kb * 1024) for kind in kinds]


@pytest.mark.parametrize(
    ("size_kb", "left"),
    [
        (30, ["context", "story", "discovery", "tech-spec"]),
        (45, ["context", "story", "tech-spec"]),
        (70, ["context", "story"]),
        (100, ["story"]),
        (200, ["story"]),
    ],
)
def test_the_least_important_give_way_to_their_paths_first(
    tmp_path: Path, size_kb: int, left: list[str]
) -> None:
    built = made(tmp_path, *parts_of(tmp_path, size_kb))
    assert [part["kind"] for part in built.injected] == left
    for kind in {"context", "discovery", "tech-spec"}.difference(left):
        assert f"read {kind}.md" in built.text
        assert any(f"the {kind} was replaced by its path" in warning for warning in built.warnings)
    assert built.size < 150 * 1024 or left == ["story"]


def test_only_as_much_gives_way_as_must(tmp_path: Path) -> None:
    two = [Part("discovery", name, tmp_path / f"{name}.md", "x" * 80 * 1024) for name in ("first", "second")]
    assert [part["title"] for part in made(tmp_path, *two).injected] == ["first"]


def test_a_story_too_large_by_itself_stays_with_a_warning(tmp_path: Path) -> None:
    built = made(tmp_path, Part("story", "S", tmp_path / "s.md", "x" * 300 * 1024, 9))
    assert built.size > 300 * 1024
    assert any("still injected" in warning for warning in built.warnings)


def test_what_leads_out_or_cannot_be_read_is_left_out_with_a_warning(tmp_path: Path) -> None:
    root = tmp_path / "project"
    root.mkdir()
    (tmp_path / "secret.md").write_text("outside")
    (root / "link.md").symlink_to(tmp_path / "secret.md")
    os.mkfifo(root / "pipe.md")
    (root / "folder.md").mkdir()
    names = ("link", "pipe", "folder", "missing")
    built = made(
        root, *(Part("discovery", name, root / f"{name}.md") for name in names), Part("story", "S", None, "s")
    )
    assert "outside" not in built.text
    assert len(built.warnings) == len(names)
    assert [part["title"] for part in built.injected] == ["S"]


def test_bytes_that_are_not_utf8_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "s.md").write_bytes(b"caf\xe9")
    assert "caf\ufffd" in made(tmp_path, Part("story", "S", tmp_path / "s.md")).text


def test_a_relative_path_is_taken_from_the_root(tmp_path: Path) -> None:
    (tmp_path / "s.md").write_text("hello")
    assert "hello" in made(tmp_path, Part("story", "S", Path("s.md"))).text
