"""Projects of all eras on disk: found, their configuration read, their documents matched and kept inside."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from sprintrunner import project as projects
from sprintrunner.errors import ProjectError
from sprintrunner.project import Project, story_outline

STATUS = "development_status:\n  epic-1: backlog\n  1-1-user-login: backlog\n"

STORY = """\
# Story 1.2: Log users in

**Status:** Ready for Review <!-- hint -->

```
Status: quoted
```

## Story

As a **visitor**,
I want to log in,
so that I see my page.

## Acceptance Criteria

1. **Given** a password, it is checked.
   - by its hash
2. A wrong one is refused.

## Tasks / Subtasks

- [x] Write the form (AC: 1)
  - [ ] and its test
- [ ] Check the `hash`

## Dev Notes

- [ ] no task
"""

EPICS = """\
# Epics

## Epic List

### Epic 1: Accounts
Short.

## Epic 1: Accounts

The whole of it.

### Story 1.1: User login

As a visitor I log in.

```
## Epic 2: quoted
```

## Epic 2: Reports

Numbers.

### Story 2.1: Show totals
Totals are shown.

## Epic 3.5 – Between

Inserted.
"""


def write(path: Path, text: str = STATUS) -> Path:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project of the present era."""
    root = tmp_path / "shop"
    write(
        root / "_bmad/bmm/config.yaml",
        "# BMM\nproject_name: Web Shop  # ours\noutput_folder: '{project-root}/_bmad-output'\n"
        'planning_artifacts: "{output_folder}/planning-artifacts"\n'
        "implementation_artifacts: {output_folder}/implementation-artifacts\n",
    )
    write(root / "_bmad-output/implementation-artifacts/sprint-status.yaml")
    write(root / "_bmad-output/planning-artifacts/epics.md", EPICS)
    return root


@pytest.fixture
def project(root: Path) -> Project:
    """The same, loaded."""
    return projects.load(root)


# Finding


def test_the_root_is_the_nearest_folder_above_that_holds_a_project(root: Path) -> None:
    deep = root / "src/shop/pages"
    deep.mkdir(parents=True)
    assert projects.find_root(deep) == root
    assert projects.find_root(root / "_bmad-output/implementation-artifacts") == root


def test_a_repository_with_a_status_file_in_a_known_place_is_a_project(tmp_path: Path) -> None:
    write(tmp_path / "docs/stories/sprint-status.yaml")
    (tmp_path / ".git").mkdir()
    assert projects.find_root(tmp_path / "docs/stories") == tmp_path


def test_a_project_inside_another_repository_is_found_first(root: Path) -> None:
    write(root / "apps/inner/_bmad/bmm/config.yaml", "project_name: Inner\n")
    assert projects.find_root(root / "apps/inner/_bmad/bmm") == root / "apps/inner"


def test_no_project_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "bmad").mkdir()
    with pytest.raises(ProjectError, match=r"No BMAD project was found in .* use --project DIR\."):
        projects.find_root(tmp_path)


def test_a_link_to_the_project_gives_its_real_path(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    assert projects.find_root(tmp_path / "link") == root
    assert projects.load(tmp_path / "link").root == root


# Configuration


def test_placeholders_are_expanded_also_unquoted_and_nested(project: Project, root: Path) -> None:
    assert project.name == "Web Shop"
    assert project.implementation == root / "_bmad-output/implementation-artifacts"
    assert project.planning == root / "_bmad-output/planning-artifacts"
    assert project.status_path == project.implementation / "sprint-status.yaml"
    assert projects.context_file(project) == project.planning / "project-context.md"


def test_layers_of_toml_override_each_other_and_the_yaml(root: Path) -> None:
    write(root / "_bmad/config.toml", '[core]\nproject_name = "A"\n[modules.bmm]\nplanning_artifacts = "a"\n')
    write(root / "_bmad/config.user.toml", '[core]\nproject_name = "B"\nuser_name = "U"\n')
    write(
        root / "_bmad/custom/config.toml", '[modules.bmm]\nimplementation_artifacts = "{project-root}/impl"\n'
    )
    write(root / "_bmad/custom/config.user.toml", '[core]\nproject_name = "D"\n')
    write(root / "impl/sprint-status.yaml")
    loaded = projects.load(root)
    assert (loaded.name, loaded.config["user_name"], loaded.era) == ("D", "U", "6.11")
    assert (loaded.planning, loaded.implementation) == (root / "a", root / "impl")
    assert loaded.status_path == root / "impl/sprint-status.yaml"


def test_broken_toml_is_named_in_one_sentence(root: Path) -> None:
    write(root / "_bmad/config.toml", "[core\n")
    with pytest.raises(ProjectError, match=r"config\.toml is not valid TOML"):
        projects.load(root)


@pytest.mark.parametrize("place", ["/etc", "C:\\work\\docs", "../../other", "{unknown}/docs", "~/docs"])
def test_a_folder_of_another_machine_is_not_used(root: Path, place: str) -> None:
    write(
        root / "_bmad/bmm/config.yaml",
        f"implementation_artifacts: '{place}'\nplanning_artifacts: '{place}'\n",
    )
    loaded = projects.load(root)
    assert loaded.implementation == root / "_bmad-output/implementation-artifacts"
    assert loaded.planning.is_relative_to(root)


@pytest.mark.parametrize(
    ("folder", "manifest", "era"),
    [
        ("bmad/_cfg", "6.0.0-alpha.5", "alpha-7"),
        (".bmad/_cfg", "6.0.0-alpha.12", "alpha-17"),
        ("_bmad/_config", "6.0.0-alpha.22", "alpha-23"),
        ("_bmad/_config", "6.0.0-Beta.2", "6.0"),
        ("_bmad/_config", "6.3.0", "6.2"),
        ("_bmad/_config", "6.11.0", "6.11"),
    ],
)
def test_the_era_is_that_of_the_installed_version(
    tmp_path: Path, folder: str, manifest: str, era: str
) -> None:
    write(tmp_path / folder / "manifest.yaml", f"installation:\n  version: {manifest}\n")
    write(tmp_path / "docs/sprint-status.yaml")
    assert projects.load(tmp_path).era == era


def test_the_first_era_keeps_its_files_in_docs(tmp_path: Path) -> None:
    write(tmp_path / "bmad/bmm/config.yaml", "output_folder: '{project-root}/docs'\n")
    write(tmp_path / "docs/sprint-status.yaml", "story_location: '{project-root}/docs/stories'\n" + STATUS)
    story = write(tmp_path / "docs/stories/1-1-user-login.md", STORY)
    loaded = projects.load(tmp_path)
    assert loaded.status_path == tmp_path / "docs/sprint-status.yaml"
    assert projects.story_file(loaded, "1-1-user-login", ["1-1-user-login"]) == story


# The status file


@pytest.mark.parametrize(
    "place", ["docs/sprint-artifacts", "docs", ".bmad", "docs/stories", ".bmad-ephemeral", "."]
)
def test_every_known_place_is_looked_into(tmp_path: Path, place: str) -> None:
    path = write(tmp_path / place / "sprint-status.yml")
    assert projects.load(tmp_path).status_path == path


def test_several_different_status_files_are_a_question_in_one_sentence(tmp_path: Path) -> None:
    write(tmp_path / "docs/sprint-status.yaml")
    write(tmp_path / "docs/stories/sprint-status.yaml", STATUS + "  1-2-more: backlog\n")
    with pytest.raises(ProjectError) as question:
        projects.load(tmp_path)
    assert "(docs/sprint-status.yaml, docs/stories/sprint-status.yaml)" in str(question.value)


def test_copies_of_the_same_file_are_no_question(tmp_path: Path) -> None:
    write(tmp_path / "docs/stories/sprint-status.yaml")
    first = write(tmp_path / "docs/sprint-status.yaml")
    write(tmp_path / "docs/archive/sprint-status.yaml", "other: 1\n")
    assert projects.load(tmp_path).status_path == first


def test_the_configured_place_wins_over_all_others(root: Path) -> None:
    write(root / "docs/sprint-status.yaml", STATUS + "  1-2-more: backlog\n")
    assert projects.load(root).status_path.parent.name == "implementation-artifacts"


def test_the_file_of_one_application_in_a_repository_is_found(tmp_path: Path) -> None:
    write(tmp_path / "archive/_bmad-output/implementation-artifacts/sprint-status.yaml", "old: 1\n")
    path = write(tmp_path / "app/_bmad-output/implementation-artifacts/sprint-status.yaml")
    assert projects.load(tmp_path).status_path == path


def test_no_status_file_is_one_sentence_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "_bmad").mkdir()
    with pytest.raises(ProjectError, match="sprint-planning workflow"):
        projects.load(tmp_path)


def test_a_fifo_in_place_of_the_status_file_does_not_hang(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    os.mkfifo(tmp_path / "docs/sprint-status.yaml")
    started = time.monotonic()
    assert projects.load(tmp_path).status_path.name == "sprint-status.yaml"
    assert time.monotonic() - started < 1


# The state folder


def test_the_state_folder_is_private_and_one_for_each_real_path(root: Path, tmp_path: Path) -> None:
    env = {"XDG_STATE_HOME": str(tmp_path / "state")}
    folder = projects.state_dir(root, env)
    (tmp_path / "link").symlink_to(root)
    assert folder == projects.state_dir(tmp_path / "link", env)
    assert folder.parent == tmp_path / "state/sprintrunner" and folder.name.startswith("shop-")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert folder != projects.state_dir(tmp_path / "shop2", env)


def test_the_state_folder_can_be_named_and_keeps_the_mode_it_has(root: Path, tmp_path: Path) -> None:
    named = tmp_path / "named"
    env = {"SPRINTRUNNER_STATE_DIR": str(named)}
    assert projects.state_dir(root, env) == named and named.stat().st_mode & 0o777 == 0o700
    named.chmod(0o755)
    projects.state_dir(root, env)
    assert named.stat().st_mode & 0o777 == 0o755


def test_the_state_folder_is_never_inside_the_project(root: Path) -> None:
    with pytest.raises(ProjectError, match="inside the project"):
        projects.state_dir(root, {"SPRINTRUNNER_STATE_DIR": str(root / ".state")})


def test_without_xdg_the_state_is_under_the_home_folder(root: Path, tmp_path: Path) -> None:
    folder = projects.state_dir(root, {"HOME": str(tmp_path / "home"), "XDG_STATE_HOME": "relative"})
    assert folder.is_relative_to(tmp_path / "home/.local/state/sprintrunner")


# Story files


def test_a_story_file_is_matched_by_its_whole_key(project: Project) -> None:
    keys = ["2a-1-list", "2a-10-list", "12a-1-list", "2a-1"]
    for key in ("2a-10-list", "12a-1-list"):
        write(project.implementation / f"{key}.md", key)
    assert projects.story_file(project, "2a-1-list", keys) is None
    assert projects.story_file(project, "2a-1", keys) is None
    found = projects.story_file(project, "2a-10-list", keys)
    assert found is not None and found.read_text() == "2a-10-list"


@pytest.mark.parametrize(
    "name",
    [
        "1-2-user-login.md",
        "story-1-2-user-login.md",
        "stories/1-2-user-login.md",
        "stories/epic-1/1-2-user-login.md",
        "epic-1/1-2-user-login.md",
        "story-1.2.md",
        "story-1.2-log-in.md",
        "1.2.story.md",
        "1-2-an-older-title.md",
        "sprint-1-2.md",
    ],
)
def test_known_forms_of_names_are_found(project: Project, name: str) -> None:
    path = write(project.implementation / name, STORY)
    assert projects.story_file(project, "1-2-user-login", ["1-2-user-login", "1-20-other", "11-2-x"]) == path


@pytest.mark.parametrize(
    "name",
    [
        "1-20-user-login.md",
        "11-2-user-login.md",
        "0-1-2-user-login.md",
        "1-2-3-user-login.md",
        "2026-1-2.md",
        "1-2-user-login-discovery.md",
        "1-2-user-login.context.xml",
        "1-2-discovery-story.md",
        "tech-spec-1-2-user-login.md",
        "1-2-user-login-review.md",
        "1-2b-other.md",
    ],
)
def test_files_that_only_resemble_the_key_are_not_taken(project: Project, name: str) -> None:
    write(project.implementation / name, STORY)
    assert projects.story_file(project, "1-2-user-login", ["1-2-user-login", "1-20-other", "11-2-x"]) is None


def test_an_ambiguous_number_is_nobodys(project: Project) -> None:
    path = write(project.implementation / "story-1.2.md", STORY)
    assert projects.story_file(project, "1-2-a", ["1-2-a", "1-2-b"]) is None
    assert projects.story_file(project, "1-2-a", ["1-2-a"]) == path
    write(project.implementation / "1-2-another.md", STORY)
    assert projects.story_file(project, "1-2-a", ["1-2-a"]) is None


@pytest.mark.parametrize("key", ["../../etc/passwd", "/etc/passwd", "..", "a\0b", "1-1-" + "x" * 300])
def test_a_key_unfit_for_a_name_opens_nothing(project: Project, key: str) -> None:
    assert projects.story_file(project, key, [key]) is None
    with pytest.raises(ProjectError):
        projects.artefact(project, key, "story")


def test_a_story_file_that_links_out_of_the_project_is_not_taken(project: Project, tmp_path: Path) -> None:
    outside = write(tmp_path / "secret.md", "secret")
    (project.implementation / "1-1-user-login.md").symlink_to(outside)
    assert projects.story_file(project, "1-1-user-login", ["1-1-user-login"]) is None


def test_artefacts_have_fixed_names(project: Project) -> None:
    names = [projects.artefact(project, "1-1-a", kind).name for kind in ("story", "discovery", "tech-spec")]
    assert names == ["1-1-a.md", "1-1-a-discovery.md", "tech-spec-1-1-a.md"]


def test_a_folder_of_a_thousand_files_and_five_thousand_keys_is_quick(project: Project) -> None:
    keys = [f"{epic}-{n}-story" for epic in range(50) for n in range(100)]
    for key in keys[:1000]:
        write(project.implementation / f"{key}.md", STORY)
    started = time.monotonic()
    assert len(projects.descriptions(project, keys)) == 1000 + len(
        {"1-1-story", "2-1-story"} - set(keys[:1000])
    )
    assert time.monotonic() - started < 3


# Reading


def test_nothing_outside_of_the_project_is_read(root: Path, tmp_path: Path) -> None:
    outside = write(tmp_path / "secret.txt", "secret")
    (root / "file-link").symlink_to(outside)
    (root / "folder-link").symlink_to(tmp_path)
    for path in (root / "file-link", root / "folder-link/secret.txt", root / "../secret.txt", outside):
        with pytest.raises(ProjectError, match="leads out of the project"):
            projects.read_inside(root, path)


def test_links_inside_the_project_are_followed(root: Path) -> None:
    write(root / "real.md", "text")
    (root / "link.md").symlink_to("real.md")
    assert projects.read_inside(root, root / "link.md") == "text"


def test_fifos_folders_and_large_files_are_one_sentence_each(root: Path) -> None:
    os.mkfifo(root / "fifo")
    write(root / "large", "x" * 101)
    for name, why in {
        "fifo": "regular file",
        "src": "does not exist",
        "_bmad": "directory",
        "large": "large",
    }.items():
        with pytest.raises(ProjectError, match=why):
            projects.read_inside(root, root / name, limit=100)


def test_a_fifo_with_a_waiting_writer_is_not_read_either(root: Path) -> None:
    fifo = root / "fifo"
    os.mkfifo(fifo)
    holder = os.open(fifo, os.O_RDWR)

    def read() -> None:
        with pytest.raises(ProjectError):
            projects.read_inside(root, fifo)

    reader = threading.Thread(target=read)
    reader.start()
    reader.join(2)
    os.close(holder)
    assert not reader.is_alive()


def test_what_is_not_utf_8_is_replaced(root: Path) -> None:
    (root / "latin").write_bytes(b"\xef\xbb\xbfcaf\xe9")
    assert projects.read_inside(root, root / "latin") == "caf\ufffd"


# Documents


def test_the_outline_tells_title_criteria_tasks_and_status() -> None:
    outline = story_outline(STORY)
    assert outline.title == "Log users in"
    assert outline.description == "As a visitor, I want to log in, so that I see my page."
    assert outline.criteria == ("Given a password, it is checked.", "A wrong one is refused.")
    assert outline.tasks == (
        (True, "Write the form (AC: 1)"),
        (False, "and its test"),
        (False, "Check the hash"),
    )
    assert outline.status == "Ready for Review"


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("# S\nStatus: done\n", "done"),
        ("---\nstatus: 'review'\n---\n", "review"),
        ("# S\n- **Status**: drafted\n", "drafted"),
        ("> **Status:** ✅ Complete\n", "✅ Complete"),
        ("## Status\n\nready-for-dev\n", "ready-for-dev"),
        ("## Status: done\n", "done"),
        ("```\nStatus: done\n```\nStatus: review\n", "review"),
        ("\n" * 20 + "Status: done\n", ""),
        ("", ""),
    ],
)
def test_the_first_status_line_near_the_top_counts(text: str, status: str) -> None:
    assert story_outline(text).status == status


@pytest.mark.parametrize(
    "section",
    [
        "- one\n- two\n",
        "1. one\n2. two\n   3. inner\n",
        "### AC 1\none\n### AC 2\ntwo\n",
        "**AC1:** one\n\n**AC2:** two\n",
    ],
)
def test_acceptance_criteria_are_counted_in_all_their_forms(section: str) -> None:
    assert len(story_outline(f"# S\n\n## Acceptance Criteria\n\n{section}\n## Notes\n- x\n").criteria) == 2


def test_headings_of_other_forms_give_the_title_without_the_number() -> None:
    titles = {
        "1-2: Log in": "Log in",
        "Story 4.A.1 — Send": "Send",
        "Story B8.1: X": "X",
        "No number": "No number",
    }
    assert {text: story_outline(f"# {text}\n").title for text in titles} == titles


def test_an_epic_has_its_own_section_and_title(project: Project) -> None:
    text = projects.epic_text(project, "1")
    assert text is not None and text.startswith("## Epic 1: Accounts\n\nThe whole of it.")
    assert "## Epic 2: quoted" in text and "Reports" not in text
    assert projects.epic_text(project, "3-5") == "## Epic 3.5 – Between\n\nInserted."
    assert projects.epic_text(project, "9") is None
    assert projects.epic_titles(project) == {"1": "Accounts", "2": "Reports", "3-5": "Between"}


def test_epics_in_files_of_their_own_are_found(project: Project) -> None:
    (project.planning / "epics.md").unlink()
    write(project.planning / "epics/epic-1-accounts.md", "# Accounts\n\nNo number in the heading.\n")
    write(project.planning / "epics/epic-12-more.md", "# Epic 12: More\n")
    assert projects.epic_text(project, "1") == "# Accounts\n\nNo number in the heading.\n"
    assert projects.epic_text(project, "12") == "# Epic 12: More"


def test_descriptions_come_from_the_story_file_else_from_the_epics(project: Project) -> None:
    write(project.implementation / "1-2-log-in.md", STORY)
    found = projects.descriptions(project, ["1-1-user-login", "1-2-log-in", "2-1-show-totals", "9-9-none"])
    assert found == {
        "1-1-user-login": "As a visitor I log in.",
        "1-2-log-in": "As a visitor, I want to log in, so that I see my page.",
        "2-1-show-totals": "Totals are shown.",
    }
