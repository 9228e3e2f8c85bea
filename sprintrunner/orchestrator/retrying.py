"""A person's retry: the story goes back to a phase, its kept work returns to the tree."""

from __future__ import annotations

from typing import Any

from ..errors import Conflict
from ..events import EventType
from ..sprint import Command, Entry, StatusClass, StoryStatus, story_status
from ..store import FindingRow, StoryRow, Tx
from ..workflow import STATUS_AT, STORY_COMMANDS, reaches
from .asked import Asked
from .blocking import is_kept, restore
from .board import Board
from .house import Batch, House


def default_phase(house: House, key: str, status: StoryStatus | None) -> Command:
    """Where a story goes on when a person names no phase: at its last command, else by its status."""
    rows = [
        row
        for row in house.store.commands_of_story(key)
        if row.command in STORY_COMMANDS and not row.background
    ]
    if rows and status in (StoryStatus.BLOCKED, StoryStatus.IN_PROGRESS, StoryStatus.REVIEW):
        return Command(rows[-1].command)
    return {
        StoryStatus.READY_FOR_DEV: Command.DEV_STORY,
        StoryStatus.IN_PROGRESS: Command.DEV_STORY,
        StoryStatus.REVIEW: Command.CODE_REVIEW,
        StoryStatus.DONE: Command.CODE_REVIEW,
    }.get(status or StoryStatus.BACKLOG, Command.CREATE_STORY)


class Retrying:
    """Prepares retried stories when their cycle begins: then no agent works in the tree."""

    def __init__(self, batch: Batch, board: Board) -> None:
        self.batch = batch
        self.board = board
        self.house = batch.house

    async def take(self, asked: Asked) -> None:
        """Prepare the next asked story; one that cannot go on stays as it is, with a warning."""
        while asked:
            key, phase = asked.first()
            try:
                await self._prepare(key, phase)
                return
            except Conflict as error:
                asked.drop(key)
                self.batch.warn(error.sentence, story_key=key)

    async def _prepare(self, key: str, named: str | None) -> None:
        entry = (await self.board.read()).entry(key)
        if entry is None or _put_aside(entry):
            raise Conflict(
                f"{key} cannot be retried: it is {entry.raw_status if entry else 'not in the status file'}."
            )
        earlier = self.house.store.latest_record(key)
        phase = Command(named) if named else default_phase(self.house, key, entry.status)
        snapshot = earlier.snapshot if earlier and entry.status is not StoryStatus.DONE else None
        if earlier and earlier.blocked_ref:
            async with self.batch.undisturbed():
                # Others were committed since it blocked: its work counts from the tree as it is now.
                snapshot = await self.batch.off(self.house.git.snapshot)
                await self.batch.off(self._restore, earlier, phase)
        self._write_row(key, entry.epic or "", phase, earlier, snapshot)
        await self.board.force(key, STATUS_AT[phase])

    def _restore(self, earlier: StoryRow, phase: Command) -> None:
        """Put kept work back, unless the story begins anew with an agent that wants a clean tree."""
        key = earlier.story_key
        if not is_kept(self.house.git, earlier):
            gone = f"The kept work of {key} ({earlier.blocked_ref}) is gone from the repository"
            if not reaches(phase, Command.DEV_STORY):
                raise Conflict(f"{gone}; retry it at dev-story to have it done anew.")
            self.batch.warn(f"{gone}; {key} is developed anew.", story_key=key)
        elif self.batch.pipeline.has_begun(key, self.batch.known_keys):
            restore(self.house.git, self.house.project, earlier)
        else:
            told = f"{key} begins anew; its earlier work stays in {earlier.blocked_ref}."
            self.batch.warn(told, story_key=key)

    def _write_row(
        self, key: str, epic: str, phase: Command, earlier: StoryRow | None, snapshot: str | None
    ) -> None:
        """The story's row in this batch, at the phase; counters start again, numbers go on."""
        store, now = self.house.store, self.house.store.now()
        keeps = phase is Command.COMMIT and earlier is not None
        fresh: dict[str, Any] = {
            "status": STATUS_AT[phase],
            "retry_phase": str(phase),
            "attempts_reset_at": now,
            "ended_at": None,
            "reason": None,
            "blocked_ref": None,
            "acknowledged": 0,
            "cycle": None,
            "snapshot": snapshot,
            "evidence": earlier.evidence if keeps and earlier else {},
        }
        own = store.story_record(self.batch.id, key)
        old = story_status(earlier.status) if earlier else STATUS_AT[phase]
        with store.transaction() as tx:
            if own is not None:
                row_id = own.id
                tx.update_story(row_id, **fresh)
                for finding in store.findings(own.id):
                    _copy_finding(tx, row_id, finding)
            else:
                kept = _carried(earlier) if earlier else {}
                row_id = tx.insert_story(
                    batch_id=self.batch.id, story_key=key, epic_id=epic, started_at=now, **fresh, **kept
                )
                for finding in store.findings(earlier.id) if earlier else ():
                    _copy_finding(tx, row_id, finding)
            payload = {"story_key": key, "old_status": str(old), "new_status": str(STATUS_AT[phase])}
            told = {"epic_id": epic, "reason": f"retried at {phase} by a person"}
            tx.append(EventType.STORY_STATUS, {**payload, **told}, batch_id=self.batch.id, story_id=row_id)


def _copy_finding(tx: Tx, row_id: int, finding: FindingRow) -> None:
    """A finding goes on after a retry, in this batch or a new one; its count of reviews begins anew."""
    tx.upsert_finding(
        row_id,
        finding.identity,
        severity=finding.severity,
        title=finding.title,
        file=finding.file,
        line=finding.line,
        status=finding.status,
        seen=0,
    )


def _put_aside(entry: Entry) -> bool:
    """Held or dropped by a person's own word; ``blocked`` is ours and may be retried."""
    return entry.status is None and entry.status_class in (StatusClass.HELD, StatusClass.DROPPED)


def _carried(earlier: StoryRow) -> dict[str, Any]:
    return {
        "title": earlier.title,
        "tech_spec": earlier.tech_spec,
        "created_by_us": int(earlier.created_by_us),
    }
