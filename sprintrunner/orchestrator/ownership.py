"""Whose changes the work tree holds: what a batch of ours left is not a person's dirt."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from .. import ours
from ..errors import GitError, Refused
from ..git import Git
from ..ours import file_hash
from ..recovery import SIGN_MS
from ..store import BatchRow
from .house import House


def hashes(root: Path, paths: Iterable[str]) -> dict[str, str]:
    """Path to hash, for paths relative to ``root``."""
    return {path: file_hash(root / path) for path in paths}


def changed_by_us(house: House, dirty_before: Collection[str]) -> dict[str, str]:
    """What a batch leaves in the tree, with hashes; a person's paths of before are not ours."""
    return hashes(house.project.root, (p for p in house.git.dirty() if p not in dirty_before))


def changed_at(path: Path) -> int:
    """When a file, not what a link leads to, was last changed in any way (ms); 0 for what is gone."""
    try:
        return path.lstat().st_ctime_ns // 1_000_000
    except OSError:
        return 0


def changed_later(house: House, paths: Iterable[str], when: int) -> set[str]:
    """Those of the paths that were changed after a moment (ms); the status file, ours too, aside."""
    root = house.project.root
    named = (path for path in paths if root / path != house.project.status_path)
    return {path for path in named if changed_at(root / path) > when}


def nested_repositories(dirty: Iterable[str]) -> list[str]:
    """Of what git calls changed the folders: repositories of their own, whose files it does not list."""
    return [path for path in dirty if path.endswith("/")]


def foreign_changes(house: House, latest: BatchRow | None) -> list[str]:
    """Changed paths that no batch of ours left as they are now."""
    left = latest.left_paths if latest else None
    return list(ours.foreign(house.project.root, house.state_dir, house.git.dirty(), left))


def detached_ref(batch_id: int) -> str:
    """The ref that keeps the commits of a batch that began on a detached HEAD."""
    return f"refs/sprintrunner/{batch_id}/commits"


def allowed_dirt(house: House, latest: BatchRow | None, policy: str) -> list[str]:
    """The person's changed paths a batch may start upon; Refused with one sentence where it may not."""
    foreign = foreign_changes(house, latest)
    status_path = house.project.status_path
    name = (
        status_path.relative_to(house.project.root).as_posix()
        if status_path.is_relative_to(house.project.root)
        else ""
    )
    if name in foreign:
        raise Refused(f"{name} has changes that are not committed; commit or undo them first.")
    if foreign and policy != "allow":
        files = "1 changed file" if len(foreign) == 1 else f"{len(foreign)} changed files"
        raise Refused(
            f"The working tree has {files} ({', '.join(foreign[:3])}{' …' if len(foreign) > 3 else ''}). "
            "Commit or stash them, or set dirty_tree to allow."
        )
    return foreign


def has_moved(git: Git, row: BatchRow) -> str:
    """Why an interrupted batch must not go on by itself: HEAD or branch moved meanwhile; empty when not."""
    branch, head = git.branch(), git.head()
    if branch != row.branch:
        return (
            f"Batch {row.id} ran on {row.branch or 'a detached HEAD'}, "
            f"the branch is {branch or 'detached'} now."
        )
    if head != row.base_head and not (head and (git.carries_batch(head, row.id) or _by_our_agent(git, row))):
        return (
            f"Batch {row.id} stopped at {(row.base_head or 'no commit')[:9]}, "
            f"HEAD is {(head or 'none')[:9]} now."
        )
    return ""


def _by_our_agent(git: Git, row: BatchRow) -> bool:
    """Whether HEAD was moved by an agent that commits by itself, upon a commit of ours, while we lived."""
    if not row.base_head or not git.reachable(row.base_head):
        return False
    lines = git.text("log", "--reverse", "--format=%H %ct", f"{row.base_head}..HEAD").splitlines()
    first, newest = lines[0].split()[0], max(int(line.split()[1]) for line in lines)
    lived = (row.heartbeat_at or row.started_at) + SIGN_MS
    until = min(lived, row.ended_at) if row.ended_at else lived
    return git.carries_batch(first, row.id) and newest * 1000 <= until


def newer_changes(house: House, row: BatchRow) -> list[str]:
    """Paths a person changed since an interrupted batch stopped: shown, never committed by it."""
    if row.left_paths is None:
        return []
    return [path for path in foreign_changes(house, row) if path not in (row.dirty_paths or ())]


def is_ours(house: House, path: Path) -> bool:
    """Whether a file is as HEAD or a batch of ours left it: what we change in it then is ours as well."""
    if not path.is_relative_to(house.project.root):
        return False
    try:
        foreign = foreign_changes(house, house.store.latest_batch())
    except GitError:
        return False
    return path.relative_to(house.project.root).as_posix() not in foreign
