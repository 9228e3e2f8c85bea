"""The stories of a batch: their rows, their statuses in file and database, and who comes next."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from .. import project, scheduler, status_file
from ..errors import ProjectError, StatusFileError
from ..events import EventType
from ..sprint import Command, Entry, EntryKind, Severity, StoryStatus, story_status
from ..store import StoryRow
from ..verdict import Finding
from .house import Batch, BatchFailed, Story
from .orders import artefact

_READ_TRIES, _READ_PAUSE = 10, 0.5
_SETTLED = (StoryStatus.DONE, StoryStatus.BLOCKED)


class Board:
    """Reads the status file anew before each decision; writes it one value at a time."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.store = batch.house.store
        self.project = batch.house.project

    async def read(self) -> status_file.SprintStatus:
        """The status file as it is now; a rewrite by someone else is waited for.

        Raises BatchFailed where it stays unreadable or unsafe: nothing may be concluded from half a file.
        """
        for _ in range(_READ_TRIES):
            found = await self.batch.off(status_file.read, self.project.status_path, self.project.root)
            if found.writable:
                self.batch.known_keys = tuple(entry.key for entry in found.stories)
                return found
            await self.batch.pause(_READ_PAUSE)
        raise BatchFailed(found.refusal or "The status file cannot be edited safely.")

    async def cut_off_picks(self) -> list[Story]:
        """The stories whose cycle an interruption cut off: it is finished before anything else begins."""
        found = await self.read()
        return [await self._enter(entry) for entry in self._unfinished({e.key: e for e in found.stories})]

    async def next_picks(self) -> tuple[list[Story], bool]:
        """The stories of the next cycle (none = all done) and whether a person asked for this one."""
        batch, values = self.batch, self.batch.layers().values
        found = await self.read()
        entries = {entry.key: entry for entry in found.stories}
        if batch.retries:
            key, _ = batch.retries.first()
            batch.retries.drop(key)
            if key in entries:
                return [await self._enter(entries[key])], True
        open_ones = scheduler.candidates(
            found.entries,
            order=values.order,
            taken=self._taken(entries, values.blocked_in_status_file),
            only=batch.only,
        )
        picked = scheduler.choose(open_ones, pair=values.pair_stories and batch.pipeline.pairs)
        return [await self._enter(entry) for entry in picked], False

    def _unfinished(self, entries: dict[str, Entry]) -> list[Entry]:
        """Those of the newest cycle that this batch had begun in a former life and not settled."""
        rows = self.store.stories(self.batch.id)
        begun = [
            r
            for r in rows
            if r.status not in _SETTLED and r.story_key in entries and r.story_key not in self.batch.stories
        ]
        cycles = [r.cycle for r in begun if r.cycle is not None]
        newest = max(cycles, default=None)
        return [entries[r.story_key] for r in begun if r.cycle == newest]

    def _taken(self, entries: dict[str, Entry], written: bool) -> Collection[str]:
        """Keys that do not come back by themselves: settled in this batch, or blocked in the record alone."""
        mine = {row.story_key for row in self.store.stories(self.batch.id) if row.status in _SETTLED}
        if written:
            return mine
        blocked = {
            key for key, row in self.store.latest_records().items() if row.status == StoryStatus.BLOCKED
        }
        return mine | (blocked & entries.keys())

    async def _enter(self, entry: Entry) -> Story:
        row = self.store.story_record(self.batch.id, entry.key)
        earlier = row or self.store.latest_record(entry.key)
        has_file = project.story_file(self.project, entry.key, self.batch.known_keys) is not None
        if row and row.retry_phase:
            # Prepared, perhaps before a crash: its turn is now and not once more later.
            self.batch.retries.drop(entry.key)
        if row and (row.retry_phase or row.entry_phase):
            # It goes on where it entered; what is recorded as done since then is not run again. Its record
            # wins: the file may say anything by now, ``done`` too when a commit was cut off.
            status, phase = story_status(row.status), Command(row.retry_phase or row.entry_phase or "")
        else:
            status = story_status(str(entry.status))
            phase = scheduler.entry_phase(
                status,
                has_file=has_file,
                tech_spec=earlier.tech_spec if earlier else None,
                created_by_us=bool(earlier and earlier.created_by_us),
                has_tech_spec=artefact(self.batch, entry.key, "tech-spec").exists(),
            )
            phase = self.batch.pipeline.entry(phase, entry.key, self.batch.known_keys)
        story = self._open_row(entry, status, phase, row, earlier)
        self.batch.stories[entry.key] = story
        return story

    def _open_row(
        self,
        entry: Entry,
        status: StoryStatus,
        phase: Command,
        row: StoryRow | None,
        earlier: StoryRow | None,
    ) -> Story:
        now = self.store.now()
        shared: dict[str, Any] = {
            "status": status,
            "entry_phase": str(phase),
            "ended_at": None,
            "retry_phase": None,
        }
        with self.store.transaction() as tx:
            if row is None:
                row_id = tx.insert_story(
                    batch_id=self.batch.id,
                    story_key=entry.key,
                    epic_id=entry.epic or "",
                    started_at=now,
                    attempts_reset_at=now,
                    **shared,
                    **_known(entry, status, earlier),
                )
            else:
                row_id = row.id
                tx.update_story(row_id, **shared)
        fresh = self.store.story(row_id)
        assert fresh is not None
        return self.revive(fresh, status, phase)

    def revive(self, row: StoryRow, status: StoryStatus, phase: Command) -> Story:
        """The story as its row tells it, its ledger included."""
        return Story(
            row_id=row.id,
            key=row.story_key,
            epic=row.epic_id,
            title=row.title or "",
            status=status,
            phase=phase,
            since=row.attempts_reset_at or row.started_at or 0,
            tech_spec=row.tech_spec,
            created_by_us=bool(row.created_by_us),
            snapshot=row.snapshot,
            ledger=tuple(_finding(f) for f in self.store.findings(row.id)),
            evidence=dict(row.evidence or {}),
            commit_sha=row.commit_sha,
        )

    async def set_status(self, story: Story, new: StoryStatus, *, reason: str = "", **columns: Any) -> None:
        """Move a story: first the line in the file (a warning where it cannot be), then row and event."""
        old, reason = story.status, self.batch.house.clean(reason)
        write = new is not StoryStatus.BLOCKED or self.batch.layers().values.blocked_in_status_file
        if write and not story.put_aside:
            await self._write(story.key, str(new))
        story.status, story.reason = new, reason
        ended = {"ended_at": self.store.now()} if new in _SETTLED else {}
        payload: dict[str, Any] = {
            "story_key": story.key,
            "old_status": str(old),
            "new_status": str(new),
            "epic_id": story.epic,
        }
        with self.store.transaction() as tx:
            tx.update_story(story.row_id, status=new, reason=reason or None, **ended, **columns)
            if old is not new:
                tx.append(
                    EventType.STORY_STATUS,
                    payload | ({"reason": reason} if reason else {}),
                    batch_id=self.batch.id,
                    story_id=story.row_id,
                )

    async def force(self, key: str, value: StoryStatus) -> None:
        """Set the line of one key at a person's word, whatever stands there."""
        await self._write(key, str(value), force=True)

    async def _write(self, key: str, value: str, *, force: bool = False) -> None:
        path, root = self.project.status_path, self.project.root
        try:
            await self.batch.off(status_file.write, path, key, value, root=root, force=force)
        except StatusFileError as error:
            self.batch.warn(f"{key} could not be set to {value} in the status file: {error.sentence}")

    async def write_back(self, key: str, value: StoryStatus) -> None:
        """Set the line of one key without an event (a commit that failed takes its ``done`` back)."""
        await self._write(key, str(value))

    async def set_story_line(self, story: Story, value: StoryStatus) -> None:
        """Set the ``Status:`` line of the story's own file, as BMAD's review does, where there is one."""
        with contextlib.suppress(ProjectError):
            await self.batch.off(
                project.set_story_line, self.project, story.key, self.batch.known_keys, str(value)
            )

    async def lift_epic(self, story: Story) -> None:
        """The epic from backlog to in-progress when its first story starts; never to done."""
        found = await self.read()
        for entry in found.entries:
            if (
                entry.kind is EntryKind.EPIC
                and entry.epic == story.epic
                and entry.status is StoryStatus.BACKLOG
            ):
                await self._write(entry.key, str(StoryStatus.IN_PROGRESS))

    async def reconcile(self) -> None:
        """After a command: for stories of this batch our record wins and is put back with a warning."""
        await self.batch.off(self.batch.say_unfrozen)
        try:
            found = await self.read()
        except (StatusFileError, BatchFailed) as error:
            self.batch.warn(f"The status file cannot be read: {error.sentence}")
            return
        for story in self.batch.stories.values():
            entry = found.entry(story.key)
            if entry is None:
                self.batch.warn(f"{story.key} is no longer in the status file.", story_key=story.key)
            elif entry.status is None:
                self._respect(story, entry.raw_status)
            elif entry.status is not story.status and self._written(story):
                self.batch.warn(
                    f"The status file said {entry.raw_status} for {story.key}; set back to {story.status}.",
                    story_key=story.key,
                )
                await self._write(story.key, str(story.status))

    def _respect(self, story: Story, word: str) -> None:
        """A held, dropped or unknown status is never overwritten (contract section 9): the story stops."""
        if not story.put_aside and not story.settled:
            self.batch.warn(
                f"{story.key} was set to {word} in the status file while it was worked on; it stops here.",
                story_key=story.key,
            )
            story.put_aside = word

    def _written(self, story: Story) -> bool:
        return not story.blocked or self.batch.layers().values.blocked_in_status_file

    def note(self, story: Story, **columns: Any) -> None:
        """Write columns of the story's row that are no status."""
        with self.store.transaction() as tx:
            tx.update_story(story.row_id, **columns)

    def story_file(self, story: Story) -> Path | None:
        """The story's file, matched by whole key."""
        return project.story_file(self.project, story.key, self.batch.known_keys)

    def freeze_context(self) -> None:
        """Copy the project context for the batch, out of the agents' reach."""
        source = project.context_file(self.project)
        try:
            text = project.read_inside(self.project.root, source)
        except (OSError, ProjectError):
            return
        (self.batch.frozen / "project-context.md").write_text(text, "utf-8", "replace")


def _finding(row: Any) -> Finding:
    return Finding(
        row.identity,
        Severity(row.severity),
        row.title,
        row.file or "",
        row.line,
        "open" if row.status == "open" else "fixed",
        row.seen or 0,
    )


def _known(entry: Entry, status: StoryStatus, earlier: StoryRow | None) -> dict[str, Any]:
    """What an earlier batch recorded of a story goes on; its snapshot only where its work is in the tree."""
    if earlier is None:
        return {"title": entry.title or ""}
    begun = status in (StoryStatus.IN_PROGRESS, StoryStatus.REVIEW)
    return {
        "title": entry.title or earlier.title or "",
        "tech_spec": earlier.tech_spec,
        "created_by_us": earlier.created_by_us,
        "snapshot": earlier.snapshot if begun else None,
    }
