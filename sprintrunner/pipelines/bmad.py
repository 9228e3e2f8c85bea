"""The two ways of BMAD itself: create-story, dev-story and code-review, or Build Auto in one piece."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import prompts
from ..project import Project
from ..sprint import Command, Severity
from ..verdict import Decision, Finding, Review, decide, open_findings
from . import specs
from .base import Developed, Pipeline
from .skills import Skill
from .specs import Spec

#: Commands that only our own pipeline has.
_OURS_ALONE = frozenset(
    {
        Command.CREATE_STORY_DISCOVERY,
        Command.STORY_REVIEW,
        Command.CREATE_TECH_SPEC,
        Command.TECH_SPEC_REVIEW,
    }
)
_BEFORE_CODE = _OURS_ALONE | {Command.CREATE_STORY, Command.DEV_STORY}
_MINOR = (Severity.NONE, Severity.LOW, Severity.MEDIUM)


def _with_skill(
    template: str,
    command: str,
    values: Mapping[str, Any],
    overrides: Path | None,
    skill: Skill,
    spec: str = "",
) -> str:
    given = {"skill": skill.call, "spec": spec, "instructions": skill}
    return prompts.render(command, {**values, **given}, overrides, template=template)


class Classic(Pipeline):
    """create-story, dev-story and code-review as installed; what is not installed stays our own."""

    name = "bmad classic"

    def __init__(self, skills: Mapping[str, Skill], advice: str = "") -> None:
        self.skills = skills
        self._advice = advice

    def advice(self) -> str:
        """That there is another way, where there is one."""
        return self._advice

    def runs(self, command: Command) -> bool:
        """BMAD has no discovery, no tech spec and no review of documents."""
        return command not in _OURS_ALONE

    def render(
        self, command: str, values: Mapping[str, Any], overrides: Path | None, keys: Collection[str]
    ) -> str:
        """The skill's own text with our rules around it."""
        skill = self.skills.get(command)
        if skill is None:
            return prompts.render(command, values, overrides)
        return _with_skill(f"bmad-{command}", command, values, overrides, skill)


class BuildAuto(Pipeline):
    """One command a story that plans, builds, reviews and commits; its spec on disk says how far it came."""

    name = "bmad build-auto"
    pairs = False
    wants_clean_tree = True

    def __init__(self, project: Project, auto: Skill, review: Skill | None) -> None:
        self.project = project
        self.auto = auto
        self.review = review

    def runs(self, command: Command) -> bool:
        """It writes no story file: the spec takes its place."""
        return command not in _OURS_ALONE and command is not Command.CREATE_STORY

    def entry(self, phase: Command, key: str, keys: Collection[str]) -> Command:
        """Everything before the code is one command; only a finished spec goes straight to review."""
        spec = specs.find(self.project, key, keys)
        if phase in _BEFORE_CODE:
            return Command.CODE_REVIEW if spec and spec.status == "done" else Command.DEV_STORY
        if phase is Command.CODE_REVIEW and spec and spec.status not in ("done", ""):
            return Command.DEV_STORY
        return phase

    def render(
        self, command: str, values: Mapping[str, Any], overrides: Path | None, keys: Collection[str]
    ) -> str:
        """The skill with one intent: the spec's path to go on with, else the story itself."""
        if command not in (Command.DEV_STORY, Command.CODE_REVIEW):
            return prompts.render(command, values, overrides)
        spec = specs.find(self.project, values["stories"][0]["key"], keys)
        if command == Command.DEV_STORY:
            path = spec.path if spec and spec.status not in ("blocked", "") else ""
            return _with_skill("bmad-build-auto", command, values, overrides, self.auto, spec=path)
        given = spec.path if spec else ""
        if self.review is not None:
            return _with_skill("bmad-code-review", command, values, overrides, self.review, spec=given)
        if spec is None or spec.status != "done":
            return prompts.render(command, values, overrides)
        return _with_skill("bmad-follow-up", command, values, overrides, self.auto, spec=given)

    def has_begun(self, key: str, keys: Collection[str]) -> bool:
        """A spec that was begun and is gone on with: its work may lie uncommitted."""
        spec = specs.find(self.project, key, keys)
        return spec is not None and spec.status in ("in-progress", "in-review", "done")

    def developed(self, key: str, keys: Collection[str], since: int) -> Developed:
        """The spec's word, never the chat's."""
        spec = specs.find(self.project, key, keys)
        left = specs.result_since(self.project, since)
        if left is not None and (spec is None or left.mtime > spec.mtime):
            # It stopped before it had a spec of its own.
            spec = left
        if spec is None:
            where = self.project.implementation.name
            return Developed("unfinished", f"no spec of {key} was written to {where}")
        return _judge(spec)

    def wants_review(self, key: str, keys: Collection[str]) -> bool:
        """Without a review skill: its own follow-up, where it recommends one or does not say."""
        if self.review is not None:
            return True
        spec = specs.find(self.project, key, keys)
        return spec is None or spec.follow_up is not False

    def reviewed(self, key: str, keys: Collection[str]) -> Developed:
        """A follow-up of its own has to bring the spec back to ``done``."""
        spec = specs.find(self.project, key, keys) if self.review is None else None
        return _judge(spec) if spec else Developed()

    def decide(
        self, review: Review, ledger: Sequence[Finding], *, valid_reviews: int, maximum: int
    ) -> Decision:
        """It has reviewed itself before: one more pass is enough for findings that are minor."""
        if self.review is not None:
            return decide(review, ledger, valid_reviews=valid_reviews, maximum=maximum, lenient_from=1)
        # Its follow-ups always recommend another one, so there is one, and what it leaves open decides.
        still = open_findings(ledger)
        if all(finding.severity in _MINOR for finding in still):
            return Decision("pass", f"{len(still)} minor findings noted" if still else "")
        return Decision("block", f"Open after the follow-up review: {still[0].title}")


def _judge(spec: Spec) -> Developed:
    evidence: dict[str, Any] = {"spec": spec.path, "spec_status": spec.status or "none"}
    if spec.deferred:
        evidence["deferred"] = [dict(item) for item in spec.deferred]
    if spec.status == "blocked":
        condition = spec.condition or "no condition given"
        reason = f"Build Auto is blocked: {condition.rstrip('.')}; see {spec.path}."
        return Developed("blocked", reason, evidence=evidence | {"blocking_condition": condition})
    if spec.status == "done":
        return Developed("done", "", spec.baseline, evidence)
    if spec.status == "in-review":
        return Developed("in-review", f"{spec.path} is still in review", evidence=evidence)
    told = f"says {spec.status}" if spec.status else "tells no status"
    return Developed("unfinished", f"not finished: {spec.path} {told}", evidence=evidence)
