"""Steps 4 and 5 of the workflow: develop a story, then review it until it is done or blocked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .. import project
from ..sprint import Command, CommandStatus, Severity, StoryStatus
from ..verdict import (
    Decision,
    Finding,
    InvalidVerdict,
    Review,
    decide,
    open_findings,
    read_review,
    update_ledger,
)
from ..workflow import INVALID_REVIEWS, reaches
from .blocking import Blocking, is_artefact
from .board import Board
from .documents import Documents
from .house import Batch, Story
from .orders import Order, read_document
from .records import Ended
from .runner import Runner
from .verifying import Verdict, run_verify

_VERIFY_FINDING = "verify"


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
        if story.status is not StoryStatus.IN_PROGRESS:
            await self.board.set_status(story, StoryStatus.IN_PROGRESS)
        values = self.batch.layers().values
        failure, why, maximum, idle = "", "", values.max_dev_attempts, 0
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
        changed = await self.batch.off(self._changed, story)
        evidence["changed"] = changed[:200]
        if not changed:
            reason = "the agent reports success but changed nothing outside the artefact folders"
            self.runner.close(ended, CommandStatus.FAILED, reason, evidence=evidence)
            return reason, reason
        verdict = await run_verify(self.batch, self.runner, ended.command_id, ended.order, ended.attempt)
        evidence["verify"] = verdict.as_json()
        status = CommandStatus.SUCCEEDED if verdict.ok else CommandStatus.FAILED
        self.runner.close(
            ended,
            status,
            verdict.sentence or ended.reason,
            verdict=ended.result.structured,
            evidence=evidence,
        )
        story.evidence["dev"] = evidence
        return verdict.sentence, verdict.report

    def _changed(self, story: Story) -> list[str]:
        git = self.batch.house.git
        paths = git.changed(story.snapshot or git.head_tree(), git.snapshot())
        return [path for path in paths if not is_artefact(self.batch.house.project, path)]

    def _unticked(self, story: Story) -> list[str]:
        path = self.board.story_file(story)
        outline = project.story_outline(read_document(self.batch, path)) if path else None
        return [text for done, text in outline.tasks if not done][:50] if outline else []

    async def _review_loop(self, story: Story, cycle: int) -> bool:
        invalid = 0
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
            ended = await self.runner.run(order)
            await self.board.reconcile()
            try:
                review = self._read(ended, story)
            except InvalidVerdict as error:
                invalid += 1
                self._close_invalid(ended, str(error))
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

    def _read(self, ended: Ended, story: Story) -> Review:
        if not ended.succeeded:
            raise InvalidVerdict(ended.reason)
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
        decision = decide(review, ledger, valid_reviews=number, maximum=maximum)
        evidence: dict[str, Any] = {
            "review": number,
            "severity": str(review.severity),
            "decision": decision.step,
        }
        if decision.step == "pass":
            verdict = await run_verify(self.batch, self.runner, ended.command_id, ended.order, ended.attempt)
            evidence["verify"] = verdict.as_json()
            if not verdict.ok:
                ledger = _with_verify_finding(story.ledger, ledger, verdict)
                decision = _after_red_verify(ledger, number, maximum)
            evidence["decision"] = decision.step
        passed = decision.step == "pass"
        if passed:
            story.evidence |= {"review_passed": True, "review": evidence}
        story.ledger = ledger
        self._record(story, ended, evidence, passed)
        if passed and open_findings(ledger):
            await self.batch.off(self._note_rest, story)
        return decision

    def _record(self, story: Story, ended: Ended, evidence: dict[str, Any], passed: bool) -> None:
        def also(tx: Any) -> None:
            for finding in story.ledger:
                finding_id = tx.upsert_finding(
                    story.row_id,
                    finding.identity,
                    severity=str(finding.severity),
                    title=self.runner.records.clean(finding.title),
                    file=finding.file,
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


def _after_red_verify(ledger: tuple[Finding, ...], number: int, maximum: int) -> Decision:
    red = replace(ledger[-1])
    # Judged like any review that leaves this finding open; the streak rule and the maximum apply to it too.
    return decide(Review(Severity.HIGH, (red,), ""), ledger, valid_reviews=number, maximum=maximum)


def _follow_up(finding: Finding) -> str:
    place = f" [{finding.place}]" if finding.place else ""
    return f"- [ ] [AI-Review][{finding.severity.capitalize()}] {_first_line(finding.title)}{place}\n"


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0][:300] if text.strip() else ""
