"""Steps 4 and 5 of the workflow: develop a story, then review it until it is done or blocked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any

from .. import project
from ..pipelines import Developed
from ..sprint import Command, CommandStatus, Severity, StoryStatus
from ..store import CommandRow
from ..verdict import (
    Decision,
    Finding,
    InvalidVerdict,
    Review,
    open_findings,
    read_review,
    update_ledger,
)
from ..verify import Verified
from ..workflow import INVALID_REVIEWS, reaches
from .blocking import Blocking, is_artefact
from .board import Board
from .documents import Documents
from .house import Batch, Story, StoryOver
from .orders import Order, read_document
from .ownership import changed_at, nested_repositories
from .records import Ended
from .runner import Runner
from .tidying import own_commits, tidy
from .verifying import Verdict, run_verify

_VERIFY_FINDING = "verify"
_NO_JUDGEMENT = (CommandStatus.RUNNING, CommandStatus.STOPPED, CommandStatus.INTERRUPTED)


class Developing:
    """Carries one story from its documents to a passed review."""

    def __init__(
        self, batch: Batch, board: Board, runner: Runner, blocking: Blocking, documents: Documents
    ) -> None:
        self.batch = batch
        self.board = board
        self.runner = runner
        self.blocking = blocking
        self.documents = documents

    async def develop(self, story: Story, cycle: int) -> bool:
        """Develop and review one story; return whether it may be committed."""
        if story.evidence.get("review_passed"):
            return True  # passed before an interruption: only its commit is left
        if not story.snapshot:
            story.snapshot = await self.batch.off(self.batch.house.git.snapshot)
            self.board.note(story, snapshot=story.snapshot)
        wanted = reaches(story.phase, Command.DEV_STORY)
        if wanted and not self.documents.runner_has(Command.DEV_STORY, story):
            proved = await self._implement(story, cycle)
            if not proved:
                return False
        if story.status is not StoryStatus.REVIEW:
            await self.board.set_status(story, StoryStatus.REVIEW)
        return await self._review_loop(story, cycle)

    async def _implement(self, story: Story, cycle: int) -> bool:
        if story.status not in (StoryStatus.IN_PROGRESS, StoryStatus.REVIEW):
            await self.board.set_status(story, StoryStatus.IN_PROGRESS)
        values = self.batch.layers().values
        maximum, idle = values.max_dev_attempts, 0
        why = failure = _told(self.documents.rows(Command.DEV_STORY, story))
        tree = await self.batch.off(self.batch.house.git.snapshot)
        while self.documents.tries(Command.DEV_STORY, story) < maximum:
            order = Order(
                Command.DEV_STORY,
                [story],
                failure=failure,
                findings=open_findings(story.ledger),
                max_attempts=maximum,
                cycle=cycle,
            )
            await self._tidy(story)
            ended = await self.runner.run(order)
            await self.board.reconcile()
            why, failure = await self._prove(story, ended)
            if not failure:
                return True
            before, tree = tree, await self.batch.off(self.batch.house.git.snapshot)
            idle = idle + 1 if tree == before else 0
            if values.no_progress_attempts <= idle < maximum:
                reason = f"no progress: {idle} dev-story attempts changed nothing: {_first_line(why)}"
                await self.blocking.block(story, reason)
                return False
        await self.blocking.block(story, f"dev-story failed {maximum} times: {_first_line(why)}")
        return False

    async def _prove(self, story: Story, ended: Ended) -> tuple[str, str]:
        """Close the attempt with its evidence; return why it failed and what the next one is told."""
        evidence: dict[str, Any] = {"agent": str(ended.result.outcome), "unticked": self._unticked(story)}
        if not ended.succeeded:
            self.runner.close(ended, ended.status, ended.reason, evidence=evidence)
            return ended.reason, ended.reason
        made = await self.batch.off(self._developed, story)
        evidence |= made.evidence
        if made.state != "done":
            return await self._unfinished(story, ended, made, evidence)
        reason = await self.batch.off(self._lacks, story, made, evidence)
        if reason:
            self.runner.close(ended, CommandStatus.FAILED, reason, evidence=evidence)
            return reason, reason
        verdict = await run_verify(self.batch, self.runner, ended.command_id, ended.order, ended.attempt)
        evidence["verify"] = verdict.as_json()
        red = CommandStatus.STOPPED if verdict.stopped else CommandStatus.FAILED
        status = CommandStatus.SUCCEEDED if verdict.ok else red
        self.runner.close(
            ended,
            status,
            verdict.sentence or ended.reason,
            verdict=ended.result.structured,
            evidence=evidence,
        )
        story.evidence["dev"] = evidence
        return verdict.sentence, verdict.report

    def _developed(self, story: Story) -> Developed:
        batch = self.batch
        return batch.pipeline.developed(story.key, batch.known_keys, story.since)

    async def _unfinished(
        self, story: Story, ended: Ended, made: Developed, evidence: dict[str, Any]
    ) -> tuple[str, str]:
        """The pipeline's own record says that it is not done: another try, or none where it is stuck."""
        self.runner.close(ended, CommandStatus.FAILED, made.reason, evidence=evidence)
        if made.state == "blocked":
            raise StoryOver(story.key, made.reason)
        if made.state == "in-review" and story.status is not StoryStatus.REVIEW:
            await self.board.set_status(story, StoryStatus.REVIEW)
        return made.reason, made.reason

    def _lacks(self, story: Story, made: Developed, evidence: dict[str, Any]) -> str:
        """Look for the work in tree and history, note it; return what is not there."""
        changed = self._changed(story)
        evidence["changed"] = changed[:200]
        if nested := self._nested(story):
            return f"{nested} is a git repository of its own, so it cannot be committed; its .git must go"
        if not changed:
            return "the agent reports success but changed nothing outside the artefact folders"
        commits, why = own_commits(self.batch.house.git, made.baseline)
        evidence |= {"commits": commits} if commits else {}
        return why

    def _nested(self, story: Story) -> str:
        """A repository that this story's agent made within ours: git would keep nothing of its files."""
        house, began = self.batch.house, self.documents.rows(Command.DEV_STORY, story)[0].started_at
        new = (path for path in nested_repositories(house.git.dirty()) if path not in self.batch.dirty_before)
        return next((p for p in new if changed_at(house.project.root / p) >= began), "")

    async def _tidy(self, story: Story) -> None:
        """Make the tree clean where the pipeline's agent demands it."""
        begun = await self.batch.off(self._begun, story)
        await tidy(self.batch, story, begun=begun)

    def _begun(self, story: Story) -> bool:
        return self.batch.pipeline.has_begun(story.key, self.batch.known_keys)

    def _changed(self, story: Story) -> list[str]:
        git = self.batch.house.git
        paths = git.changed(story.snapshot or git.head_tree(), git.snapshot())
        return [path for path in paths if not is_artefact(self.batch.house.project, path)]

    def _unticked(self, story: Story) -> list[str]:
        path = self.board.story_file(story)
        outline = project.story_outline(read_document(self.batch, path)) if path else None
        return [text for done, text in outline.tasks if not done][:50] if outline else []

    async def _review_loop(self, story: Story, cycle: int) -> bool:
        if not await self._reviewable(story):
            return True
        invalid = _invalid(self.documents.rows(Command.CODE_REVIEW, story))
        while True:
            values = self.batch.layers().values
            number = self._valid_reviews(story) + 1
            order = Order(
                Command.CODE_REVIEW,
                [story],
                cheap=number >= values.haiku_after_review,
                findings=open_findings(story.ledger),
                unticked=self._unticked(story),
                max_attempts=values.max_code_review_attempts,
                cycle=cycle,
            )
            await self._tidy(story)
            ended = await self.runner.run(order)
            await self.board.reconcile()
            made = await self.batch.off(self.batch.pipeline.reviewed, story.key, self.batch.known_keys)
            try:
                review = self._read(ended, story, made)
            except InvalidVerdict as error:
                invalid += 1
                self._close_invalid(ended, str(error))
                if made.state == "blocked":
                    raise StoryOver(story.key, made.reason) from error
                if invalid >= INVALID_REVIEWS:
                    await self.blocking.block(
                        story, f"{invalid} code reviews in a row gave no verdict: {error}"
                    )
                    return False
                continue
            invalid = 0
            decision = await self._conclude(story, ended, review, number, values.max_code_review_attempts)
            if decision.step == "block":
                await self.blocking.block(story, decision.reason)
            if decision.step != "next":
                return decision.step == "pass"

    async def _reviewable(self, story: Story) -> bool:
        """Whether a review follows; a pipeline that has reviewed the story itself may want none."""
        pipeline, keys = self.batch.pipeline, self.batch.known_keys
        if await self.batch.off(pipeline.wants_review, story.key, keys):
            return True
        story.evidence |= {"review_passed": True, "review": f"none of ours: {pipeline.name} wants none"}
        self.board.note(story, evidence=story.evidence)
        return False

    def _read(self, ended: Ended, story: Story, made: Developed) -> Review:
        if not ended.succeeded:
            raise InvalidVerdict(ended.reason)
        if made.state != "done":
            raise InvalidVerdict(made.reason)
        return read_review(ended.result.structured, story.ledger)

    def _close_invalid(self, ended: Ended, why: str) -> None:
        status = ended.status if not ended.succeeded else CommandStatus.FAILED
        self.runner.close(ended, status, f"not a review: {why}", verdict=ended.result.structured)

    def _valid_reviews(self, story: Story) -> int:
        rows = self.batch.house.store.commands_of_story(story.key)
        return sum(
            1
            for row in rows
            if row.command == Command.CODE_REVIEW
            and row.status == CommandStatus.SUCCEEDED
            and row.batch_id == self.batch.id
            and row.started_at >= story.since
        )

    async def _conclude(
        self, story: Story, ended: Ended, review: Review, number: int, maximum: int
    ) -> Decision:
        """Settle a valid review: ledger, decision, verify where it would pass, and the record of all that."""
        ledger = update_ledger(story.ledger, review)
        decision = self._decide(review, ledger, number, maximum)
        evidence: dict[str, Any] = {
            "review": number,
            "severity": str(review.severity),
            "decision": decision.step,
        }
        if decision.step == "pass":
            verdict = await run_verify(self.batch, self.runner, ended.command_id, ended.order, ended.attempt)
            evidence["verify"] = verdict.as_json()
            if verdict.stopped:
                return self._stopped(ended, verdict, evidence)
            if not verdict.ok:
                ledger = _with_verify_finding(story.ledger, ledger, verdict)
                decision = self._after_red_verify(ledger, number, maximum)
            evidence["decision"] = decision.step
        passed = decision.step == "pass"
        if passed:
            story.evidence |= {"review_passed": True, "review": evidence}
        story.ledger = ledger
        self._record(story, ended, evidence, passed)
        if passed and open_findings(ledger):
            await self.batch.off(self._note_rest, story)
        return decision

    def _stopped(self, ended: Ended, verdict: Verdict, evidence: dict[str, Any]) -> Decision:
        """A person ended the verify run: the attempt is stopped and counts as no review."""
        answer = ended.result.structured
        evidence["decision"] = "next"
        self.runner.close(ended, CommandStatus.STOPPED, verdict.sentence, verdict=answer, evidence=evidence)
        return Decision("next")

    def _decide(self, review: Review, ledger: tuple[Finding, ...], number: int, maximum: int) -> Decision:
        return self.batch.pipeline.decide(review, ledger, valid_reviews=number, maximum=maximum)

    def _after_red_verify(self, ledger: tuple[Finding, ...], number: int, maximum: int) -> Decision:
        red = replace(ledger[-1])
        # Judged like any review that leaves this finding open: streak rule and maximum apply to it too.
        return self._decide(Review(Severity.HIGH, (red,), ""), ledger, number, maximum)

    def _record(self, story: Story, ended: Ended, evidence: dict[str, Any], passed: bool) -> None:
        def also(tx: Any) -> None:
            for finding in story.ledger:
                finding_id = tx.upsert_finding(
                    story.row_id,
                    finding.identity,
                    severity=str(finding.severity),
                    title=self.runner.records.clean(finding.title),
                    file=self.runner.records.clean(finding.file),
                    line=finding.line,
                    status=finding.status,
                    seen=finding.streak,
                )
                tx.add_finding_round(finding_id, ended.command_id, finding.status)
            if passed:
                tx.update_story(story.row_id, evidence=story.evidence)

        self.runner.close(
            ended,
            CommandStatus.SUCCEEDED,
            ended.reason,
            verdict=ended.result.structured,
            evidence=evidence,
            also=also,
        )

    def _note_rest(self, story: Story) -> None:
        """What is left open goes into the story file, as BMAD's own review does it."""
        path = self.board.story_file(story)
        if path is None:
            return
        rest = "".join(_follow_up(finding) for finding in open_findings(story.ledger))
        with path.open("a", encoding="utf-8") as handle:
            handle.write(f"\n### Review Follow-ups (AI)\n\n{rest}")


def _with_verify_finding(
    before: tuple[Finding, ...], ledger: tuple[Finding, ...], verdict: Verdict
) -> tuple[Finding, ...]:
    old = next((f for f in before if f.identity == _VERIFY_FINDING and f.status == "open"), None)
    red = Finding(
        _VERIFY_FINDING,
        Severity.HIGH,
        verdict.sentence[:500],
        status="open",
        streak=(old.streak if old else 0) + 1,
    )
    return (*(f for f in ledger if f.identity != _VERIFY_FINDING), red)


def _told(attempts: Sequence[CommandRow]) -> str:
    """What the next attempt is told where a restart came between it and the failed one before."""
    last = attempts[-1] if attempts else None
    if last is None or not last.counted or last.status not in (CommandStatus.FAILED, CommandStatus.TIMED_OUT):
        return ""
    runs = (last.evidence or {}).get("verify")
    red = Verdict(tuple(Verified(**run) for run in runs)).report if isinstance(runs, list) else ""
    return red or last.reason or ""


def _invalid(attempts: Sequence[CommandRow]) -> int:
    """How many of the last reviews in a row gave no verdict; those of before a restart count too."""
    ended = [row for row in attempts if row.counted and row.status not in _NO_JUDGEMENT]
    return len(list(takewhile(lambda row: row.status != CommandStatus.SUCCEEDED, reversed(ended))))


def _follow_up(finding: Finding) -> str:
    place = f" [{finding.place}]" if finding.place else ""
    return f"- [ ] [AI-Review][{finding.severity.capitalize()}] {_first_line(finding.title)}{place}\n"


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0][:300] if text.strip() else ""
