"""One commit as a page: its files with their changes, cut where they would be too long to read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ...errors import GitError
from ...git import Commit, Git

#: Lines of changes in all, and characters of one line, that are shown.
MOST_LINES, MOST_CHARACTERS = 4_000, 400
#: A commit that changes more lines is only listed; git would need long to write it.
_MOST_CHANGED = 40_000

_SHA = re.compile(r"[0-9a-f]{7,64}")
_KINDS = {"+": "added", "-": "removed", "@": "place", "\\": "place"}


@dataclass(frozen=True, slots=True)
class FileChange:
    """One file: its path and counts (None: binary), and the changed lines as pairs of kind and text."""

    path: str
    added: int | None
    removed: int | None
    lines: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class CommitPage:
    """The page. ``message`` is the body below the subject; ``cut``: not all lines are shown."""

    commit: Commit
    author: str
    message: str
    files: tuple[FileChange, ...]
    cut: bool


def files_of(root: Path, sha: str) -> tuple[FileChange, ...]:
    """Read the files of a commit with their counts, without their lines."""
    out = Git(root).run("show", "--format=", "--numstat", "-z", "--no-renames", sha, "--").stdout
    entries = [entry.split("\t", 2) for entry in out.decode("utf-8", "replace").split("\0")]
    return tuple(
        FileChange(path, _count(added), _count(removed))
        for added, removed, path in (entry for entry in entries if len(entry) == 3)
    )


def _count(text: str) -> int | None:
    return int(text) if text.strip().isdigit() else None


def commit_page(root: Path, sha: str) -> CommitPage | None:
    """Read the page of a commit, None where git knows none of that name."""
    git = Git(root)
    try:
        if not _SHA.fullmatch(sha) or git.text("cat-file", "-t", sha) != "commit":
            return None
        found = git.commits([sha])
        author, _, message = git.text("show", "--no-patch", "--format=%an%n%b", sha, "--").partition("\n")
        files = files_of(root, sha)
    except GitError:
        return None
    if not found:
        return None
    changed = sum((one.added or 0) + (one.removed or 0) for one in files)
    if changed > _MOST_CHANGED:
        return CommitPage(found[0], author, message.strip(), files, True)
    shown, cut = _with_lines(git, sha, files)
    return CommitPage(found[0], author, message.strip(), shown, cut)


def _with_lines(git: Git, sha: str, files: Iterable[FileChange]) -> tuple[tuple[FileChange, ...], bool]:
    # A repository's own settings must start no program and hide nothing.
    how = ("--no-color", "--no-ext-diff", "--no-textconv", "--no-renames", "--format=", "--unified=3")
    patch = git.run("show", *how, sha, "--").stdout.decode("utf-8", "replace")
    parts = [part for part in re.split(r"(?m)^(?=diff --git )", patch) if part.strip()]
    left, shown, cut = MOST_LINES, [], False
    for one, part in zip(files, parts, strict=False):
        body = part.split("\n@@", 1)
        lines = f"@@{body[1]}".rstrip("\n").split("\n") if len(body) > 1 else []
        cut = cut or len(lines) > left
        kept = tuple((_KINDS.get(line[:1], ""), line[:MOST_CHARACTERS]) for line in lines[:left])
        left -= len(kept)
        shown.append(FileChange(one.path, one.added, one.removed, kept))
    return tuple(shown), cut
