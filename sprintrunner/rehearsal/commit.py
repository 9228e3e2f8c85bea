"""The commit command: stage what the cycle changed and commit it."""

from __future__ import annotations

import os
import shlex

from .desk import Desk
from .verdicts import Verdict, plain


def commit(desk: Desk) -> Verdict:
    """Make one commit of everything in the tree."""
    desk.task("setup", "Looking at the changes")
    desk.bash("git status --short", "See what changed")
    desk.task("stage", "Staging the changes")
    desk.bash("git add -A", "Stage everything")
    desk.task("commit", "Committing")
    ran = desk.bash(commit_line(desk), "Commit")
    desk.task("validate", "Looking at the commit")
    seen = desk.bash("git log -1 --format='%h %s'", "Show the commit")
    return plain(f"Committed {seen.output}." if ran.code == 0 else f"The commit failed: {ran.output}"[:500])


def commit_line(desk: Desk) -> str:
    """The git command of a commit with the trailers by which Sprint Runner finds it again."""
    stories = desk.facts.stories
    epic = stories[0].epic if stories else ""
    keys = ", ".join(desk.facts.keys)
    trailers = [("Sprint-Batch", os.environ.get("SPRINTRUNNER_BATCH_ID", ""))]
    trailers += [("Sprint-Story", key) for key in desk.facts.keys]
    words = ["git", "commit", "-q", "-m", f"feat({epic}): implement stories {keys}"]
    for name, value in trailers:
        if value:
            words += ["--trailer", f"{name}: {value}"]
    return shlex.join(words)
