"""For agents that want a clean tree: our records are committed before they start, theirs found after."""

from __future__ import annotations

import re

from ..errors import GitError
from ..git import Git
from .blocking import is_artefact
from .house import Batch, Story, StoryOver

_REVISION = re.compile(r"[0-9a-f]{7,64}", re.IGNORECASE)
_MOST_COMMITS = 50


async def tidy(batch: Batch, story: Story, *, begun: bool) -> None:
    """Commit what we and earlier commands changed in the artefact folders, the status file first of all.

    The commit carries the batch's trailer and no story's, so that it is known as ours and ends no story.
    ``begun``: other changes are the story's own work so far. Raises StoryOver where they cannot be, and
    where git refuses.
    """
    if not batch.pipeline.wants_clean_tree:
        return
    async with batch.undisturbed():
        try:
            others = await batch.off(_commit_records, batch, story)
        except GitError as error:
            raise StoryOver(
                story.key, f"The sprint's records cannot be committed: {error.sentence}"
            ) from error
    if others and not begun:
        named = f"{others[0]} and {len(others) - 1} more" if len(others) > 1 else others[0]
        raise StoryOver(
            story.key,
            f"{batch.pipeline.name} needs a clean working tree: commit or stash {named}, then retry.",
        )


def _commit_records(batch: Batch, story: Story) -> list[str]:
    """Commit the artefacts; return what else is not committed."""
    git, project = batch.house.git, batch.house.project
    dirty = git.dirty()
    records = [path for path in dirty if is_artefact(project, path) and path not in batch.dirty_before]
    if records:
        epic = " ".join(story.epic.split())
        subject = f"chore({epic}): sprint records before {' '.join(story.key.split())}"
        git.commit(f"{subject}\n\nSprint-Batch: {batch.id}\n", records)
    return [path for path in dirty if path not in records]


def own_commits(git: Git, baseline: str) -> tuple[list[str], str]:
    """The commits since the revision a spec names, newest first, and why not to trust them ("" = fine)."""
    if not _REVISION.fullmatch(baseline):
        return [], ""
    if not git.reachable(baseline):
        return [], f"the revision {baseline[:9]} that the spec began at is not reachable from HEAD"
    listed = git.text("rev-list", f"--max-count={_MOST_COMMITS}", f"{baseline}..HEAD")
    return listed.split(), ""
