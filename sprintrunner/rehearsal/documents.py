"""The commands about documents: reviews of stories, tech specs, and reviews of tech specs."""

from __future__ import annotations

import re
from typing import Any

from .desk import Desk
from .epics import wish_of
from .facts import Story
from .recipes import recipe_for
from .verdicts import Verdict, document_review, plain

SPEC = """# Tech Spec: {title}

Story: {key}

## Problem

{problem}

## Decisions

{decisions}

## Plan

{plan}

## Tests

- `{tests}`: one test for each acceptance criterion, run by the project's own test command.
"""


def story_review(desk: Desk) -> Verdict:
    """Compare each story file with the epics, criterion by criterion, and repair what is missing."""
    desk.task("setup", "Reading the stories")
    findings: list[dict[str, Any]] = []
    for story in desk.facts.stories:
        text = desk.read(story.story_file)
        desk.task("analyze", f"Comparing {story.key} with the epics")
        findings += _repair(desk, story, text)
    desk.task("validate", "Reading once more")
    if findings:
        return document_review(f"Found and fixed {len(findings)} critical issue(s) in the stories.", findings)
    desk.say("Every criterion of the epics is in the stories, numbered and testable.")
    return document_review("The stories are complete and consistent with the epics.", [])


def _repair(desk: Desk, story: Story, text: str) -> list[dict[str, Any]]:
    wish = wish_of(desk.facts, story)
    missing = [one for one in wish.criteria if wish.found and one not in text]
    section = re.search(r"^## Acceptance Criteria\n+((?:\d+\. .*\n)+)", text, re.MULTILINE)
    if not missing or not section:
        return []
    desk.task("fix", f"Adding what {story.key} left out")
    listed = section[1]
    first = listed.count("\n") + 1
    added = "".join(f"{first + n}. {one}\n" for n, one in enumerate(missing))
    desk.edit(story.story_file, listed, listed + added)
    return [
        {
            "severity": "CRITICAL",
            "title": f"{story.key} leaves out an acceptance criterion of the epic: {re.sub('[*]+', '', one)}"[
                :200
            ],
            "file": story.story_file.as_posix(),
            "line": text[: section.end()].count("\n") + 1,
            "status": "fixed",
        }
        for one in missing
    ]


def create_tech_spec(desk: Desk) -> Verdict:
    """Write the tech spec of each story of the command."""
    desk.task("setup", "Reading the story")
    for story in desk.facts.stories:
        desk.read(story.story_file)
        desk.task("discover", "Weighing the ways to do it")
        desk.say("The decisions here outlive the story, so I'll write them down before any code.")
        desk.task("write", f"Writing {story.tech_spec_file.name}")
        desk.write(story.tech_spec_file, _spec(desk, story))
    desk.task("validate", "Checking it against the criteria")
    return plain(f"Wrote the tech spec of {', '.join(desk.facts.keys)}.")


def _spec(desk: Desk, story: Story) -> str:
    recipe = recipe_for(story)
    wish = wish_of(desk.facts, story)
    decisions = recipe.decisions or (f"One module, `{recipe.module}`, that depends on nothing new.",)
    return SPEC.format(
        title=wish.title,
        key=story.key,
        problem=wish.user_story,
        decisions="\n".join(f"{n}. {text}" for n, text in enumerate(decisions, 1)),
        plan="\n".join(f"- {task}" for task in recipe.tasks),
        tests=recipe.tests,
    )


def tech_spec_review(desk: Desk) -> Verdict:
    """Read each tech spec against its story."""
    desk.task("setup", "Reading the tech spec")
    lost = []
    for story in desk.facts.stories:
        text = desk.read(story.tech_spec_file)
        desk.read(story.story_file)
        desk.task("analyze", "Looking for decisions that are missing")
        if "## Decisions" not in text:
            lost.append(story)
    for story in lost:
        desk.task("fix", "Writing the decisions down")
        desk.write(story.tech_spec_file, _spec(desk, story))
    desk.task("validate", "Reading once more")
    findings: list[dict[str, Any]] = [
        {
            "severity": "CRITICAL",
            "title": "The tech spec decides nothing",
            "file": story.tech_spec_file.as_posix(),
            "line": 1,
            "status": "fixed",
        }
        for story in lost
    ]
    desk.say("I have compared every decision with the acceptance criteria.")
    words = f"Fixed {len(lost)} tech spec(s)." if lost else "The tech spec covers every criterion."
    return document_review(words, findings)
