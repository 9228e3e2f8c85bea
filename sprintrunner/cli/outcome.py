"""The exit status of ``run`` from how its batch ended (pure, contract section 3)."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ..sprint import BatchStatus, StoryStatus

DONE = 0
UNEXPECTED = 1
USAGE = 2
STOPPED = 3
BLOCKED = 4
LIMITED = 5

_BY_BATCH = {
    BatchStatus.FAILED: UNEXPECTED,
    BatchStatus.STOPPED: STOPPED,
    BatchStatus.INTERRUPTED: STOPPED,
    BatchStatus.LIMIT: LIMITED,
}


def exit_status(batch_status: str, stories: Iterable[tuple[str, str]], selected: Collection[str] = ()) -> int:
    """Return the status of a run; the first of 1, 3, 5, 4, 0 that fits.

    ``stories`` are the (key, status) of all that the batch took up, ``selected`` the keys asked for by name.
    A story asked for by name that the batch never took up, a blocked one for instance, is not done.
    """
    by_key = dict(stories)
    ended = _BY_BATCH.get(BatchStatus(batch_status))
    if ended is not None:
        return ended
    if StoryStatus.BLOCKED in by_key.values():
        return BLOCKED
    # A batch of N cycles may end before it came to the last of the named stories: that is no failure.
    if batch_status == BatchStatus.ALL_DONE and any(by_key.get(key) != StoryStatus.DONE for key in selected):
        return BLOCKED
    return DONE
