"""git as the engine uses it, on real repositories: the top of one, a folder in one, empty ones, odd names."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from engine import hook

from sprintrunner.errors import GitError
from sprintrunner.git import Git


def make(folder: Path, commit: bool = True) -> Git:
    folder.mkdir(parents=True, exist_ok=True)
    for words in (
        ["init", "-q", "-b", "main"],
        ["config", "user.name", "Kim"],
        ["config", "user.email", "kim@example.org"],
    ):
        subprocess.run(["git", *words], cwd=folder, check=True)
    if commit:
        (folder / "kept.txt").write_text("one\n")
        (folder / ".gitignore").write_text("*.log\n")
        subprocess.run(["git", "add", "-A"], cwd=folder, check=True)
        subprocess.run(["git", "commit", "-q", "-m", "first"], cwd=folder, check=True)
    return Git(folder)


@pytest.fixture
def repo(tmp_path: Path) -> Git:
    return make(tmp_path / "repo")


def test_a_folder_outside_any_repository_is_none(tmp_path: Path) -> None:
    assert not Git(tmp_path).is_repository()


def test_git_that_is_not_installed_is_said_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(GitError, match="install it"):
        Git(tmp_path, {"PATH": str(tmp_path)}).branch()


def test_an_outer_git_does_not_lead_to_another_repository(tmp_path: Path, repo: Git) -> None:
    env = {"GIT_DIR": str(tmp_path / "nowhere"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    assert Git(repo.root, env).branch() == "main"


def test_identity_is_missing_where_git_cannot_name_an_author(tmp_path: Path, repo: Git) -> None:
    assert repo.has_identity()
    bare = tmp_path / "bare"
    bare.mkdir()
    subprocess.run(["git", "init", "-q"], cwd=bare, check=True)
    subprocess.run(["git", "config", "user.useConfigOnly", "true"], cwd=bare, check=True)
    assert not Git(bare, {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}).has_identity()


def test_a_repository_without_a_commit_has_no_head_and_takes_snapshots(tmp_path: Path) -> None:
    git = make(tmp_path / "new", commit=False)
    before = git.snapshot()
    (git.root / "a").write_text("x")
    assert git.head() is None
    assert git.branch() == "main"
    assert git.changed(git.head_tree(), git.snapshot()) == ["a"]
    sha = git.commit("first", ["a"])
    assert git.head() == sha
    assert git.changed(before, git.head_tree()) == ["a"]


def test_a_detached_head_has_no_branch(repo: Git) -> None:
    repo.run("checkout", "-q", "--detach")
    assert repo.branch() is None


ODD = ["with space.txt", "tab\there", 'quote".txt', "new\nline", "ümlaut", "-dash", "*.star", ":colon"]


@pytest.mark.parametrize("name", ODD)
def test_odd_file_names_are_seen_committed_and_put_back(repo: Git, name: str) -> None:
    before = repo.snapshot()
    (repo.root / name).write_text("odd\n")
    assert repo.dirty() == [name]
    assert repo.changed(before, repo.snapshot()) == [name]
    repo.put_back(before, [name])
    assert not (repo.root / name).exists()
    (repo.root / name).write_text("odd\n")
    repo.commit("odd", [name])
    assert repo.dirty() == []


def test_dirty_lists_untracked_files_one_by_one_and_no_ignored_ones(repo: Git) -> None:
    (repo.root / "new").mkdir()
    (repo.root / "new" / "a").write_text("")
    (repo.root / "x.log").write_text("")
    (repo.root / "kept.txt").unlink()
    assert repo.dirty() == ["kept.txt", "new/a"]


def test_a_snapshot_leaves_the_index_of_a_person_as_it_is(repo: Git) -> None:
    (repo.root / "staged").write_text("s")
    repo.run("add", "staged")
    (repo.root / "kept.txt").write_text("two\n")
    before = repo.text("status", "--porcelain")
    repo.snapshot()
    assert repo.text("status", "--porcelain") == before


def test_putting_back_restores_changed_deleted_and_new_files(repo: Git) -> None:
    before = repo.snapshot()
    (repo.root / "kept.txt").unlink()
    (repo.root / "deep").mkdir()
    (repo.root / "deep" / "new").write_text("n")
    paths = repo.changed(before, repo.snapshot())
    repo.put_back(before, paths)
    assert (repo.root / "kept.txt").read_text() == "one\n"
    assert not (repo.root / "deep").exists()
    assert repo.dirty() == []


def test_putting_back_undoes_a_file_that_became_a_folder_and_the_reverse(repo: Git) -> None:
    (repo.root / "folder").mkdir()
    (repo.root / "folder" / "inner").write_text("i")
    before = repo.snapshot()
    (repo.root / "folder" / "inner").unlink()
    (repo.root / "folder").rmdir()
    (repo.root / "folder").write_text("now a file")
    (repo.root / "kept.txt").unlink()
    (repo.root / "kept.txt").mkdir()
    (repo.root / "kept.txt" / "inside").write_text("x")
    repo.put_back(before, repo.changed(before, repo.snapshot()))
    assert (repo.root / "folder" / "inner").read_text() == "i"
    assert (repo.root / "kept.txt").read_text() == "one\n"
    assert repo.snapshot() == before


def test_putting_back_nothing_changes_nothing(repo: Git) -> None:
    repo.put_back(repo.snapshot(), [])
    assert repo.dirty() == []


def test_kept_work_can_be_applied_again_with_binary_files(repo: Git) -> None:
    before = repo.snapshot()
    (repo.root / "picture").write_bytes(bytes(range(256)))
    (repo.root / "kept.txt").write_text("one\ntwo\n")
    now = repo.snapshot()
    commit = repo.keep("refs/sprintrunner/1/x", before, now, "work")
    repo.put_back(before, repo.changed(before, now))
    assert repo.text("rev-parse", "refs/sprintrunner/1/x") == commit
    repo.apply(repo.patch(before, now))
    assert repo.snapshot() == now


def test_a_patch_that_does_not_fit_changes_nothing(repo: Git) -> None:
    before = repo.snapshot()
    (repo.root / "kept.txt").write_text("two\n")
    (repo.root / "also").write_text("new")
    patch = repo.patch(before, repo.snapshot())
    repo.put_back(before, ["kept.txt", "also"])
    (repo.root / "kept.txt").write_text("a person was here\n")
    with pytest.raises(GitError, match=r"kept\.txt"):
        repo.apply(patch)
    assert not (repo.root / "also").exists()


def test_a_commit_holds_its_paths_and_nothing_that_was_staged_beside_them(repo: Git) -> None:
    (repo.root / "mine").write_text("m")
    (repo.root / "staged").write_text("s")
    repo.run("add", "staged")
    (repo.root / "kept.txt").unlink()
    sha = repo.commit("feat: mine", ["mine", "kept.txt"])
    assert repo.text("show", "--format=", "--name-only", sha).split() == ["kept.txt", "mine"]
    assert repo.text("status", "--porcelain") == "A  staged"


def test_a_hook_that_refuses_gives_its_last_line_and_keeps_the_work(repo: Git) -> None:
    hook(repo.root, "echo first; echo 'lint: line too long' >&2; exit 1")
    (repo.root / "mine").write_text("m")
    head = repo.head()
    with pytest.raises(GitError, match="lint: line too long"):
        repo.commit("feat", ["mine"])
    assert repo.head() == head
    assert (repo.root / "mine").read_text() == "m"


def test_an_empty_commit_stands_on_head_whatever_is_staged(repo: Git) -> None:
    (repo.root / "staged").write_text("s")
    repo.run("add", "staged")
    head = repo.head()
    sha = repo.commit_empty("nothing\n\nSprint-Batch: 1\n")
    assert repo.text("rev-parse", f"{sha}^") == head
    assert repo.text("show", "--format=", "--name-only", sha) == ""
    assert repo.text("status", "--porcelain") == "A  staged"
    assert repo.reachable(sha)


def with_trailers(repo: Git, batch: int, key: str) -> str:
    return repo.commit_empty(f"feat\n\nSprint-Batch: {batch}\nSprint-Story: {key}\n")


def test_a_commit_of_ours_is_found_by_its_whole_trailers(repo: Git) -> None:
    sha = with_trailers(repo, 1, "2a-1")
    with_trailers(repo, 1, "2a-10")
    with_trailers(repo, 11, "2a-1")
    assert repo.find_commit(1, "2a-1") == sha
    assert repo.find_commit(1, "2a") is None
    assert repo.find_commit(2, "2a-1") is None
    assert repo.carries_batch(sha, 1)
    assert not repo.carries_batch(sha, 11)


def test_a_trailer_that_stands_in_the_text_of_a_commit_is_none(repo: Git) -> None:
    repo.commit_empty("feat\n\nSprint-Batch: 1\nSprint-Story: x\n\nThat is how trailers look.\n")
    assert repo.find_commit(1, "x") is None


def test_a_commit_before_the_given_moment_is_not_found(repo: Git) -> None:
    sha = with_trailers(repo, 1, "x")
    when = repo.commits([sha])[0].when
    assert repo.find_commit(1, "x", since=when) == sha
    assert repo.find_commit(1, "x", since=when + 1000) is None


def test_a_commit_of_another_branch_is_neither_found_nor_reachable(repo: Git) -> None:
    repo.run("checkout", "-q", "-b", "side")
    sha = with_trailers(repo, 1, "x")
    repo.run("checkout", "-q", "main")
    assert repo.find_commit(1, "x") is None
    assert not repo.reachable(sha)


def test_commits_tell_subject_time_and_size(repo: Git) -> None:
    (repo.root / "mine").write_text("a\nb\n")
    sha = repo.commit("feat: two lines", ["mine"])
    (found,) = repo.commits([sha, "0" * 40])
    assert (found.sha, found.subject, found.added, found.removed) == (sha, "feat: two lines", 2, 0)
    assert len(str(found.when)) == 13
    assert repo.ahead() is None


# a project in a folder of a larger repository


@pytest.fixture
def inner(tmp_path: Path) -> Git:
    top = make(tmp_path / "mono")
    folder = top.root / "apps" / "web"
    folder.mkdir(parents=True)
    (folder / "page").write_text("p\n")
    top.run("add", "-A")
    top.run("commit", "-q", "-m", "web")
    return Git(folder)


def test_in_a_folder_of_a_repository_paths_are_those_of_the_folder(inner: Git) -> None:
    before = inner.snapshot()
    (inner.root / "page").write_text("changed\n")
    (inner.root / "new").write_text("n")
    (inner.root.parent.parent / "kept.txt").write_text("somebody else's\n")
    assert inner.dirty() == ["new", "page"]
    assert inner.changed(before, inner.snapshot()) == ["new", "page"]


def test_in_a_folder_of_a_repository_work_is_kept_put_back_and_applied(inner: Git) -> None:
    before = inner.snapshot()
    (inner.root / "page").write_text("changed\n")
    (inner.root / "new").write_text("n")
    now = inner.snapshot()
    paths = inner.changed(before, now)
    patch = inner.patch(before, now, paths)
    inner.put_back(before, paths)
    assert (inner.root / "page").read_text() == "p\n"
    assert not (inner.root / "new").exists()
    inner.apply(patch)
    assert inner.snapshot() == now


def test_in_a_folder_of_a_repository_only_its_paths_are_committed(inner: Git) -> None:
    (inner.root / "new").write_text("n")
    (inner.root.parent.parent / "kept.txt").write_text("somebody else's\n")
    sha = inner.commit("feat", ["new"])
    assert inner.text("show", "--format=", "--name-only", sha) == "apps/web/new"
