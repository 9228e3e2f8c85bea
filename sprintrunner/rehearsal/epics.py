"""The planning artefacts as the agent reads them: one story's section of the epics."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from .facts import Facts, Story

PLANNING = "_bmad-output/planning-artifacts"
STEP = re.compile(r"^[-*\s]*\**(Given|When|Then|And|But)\b")
LISTED = re.compile(r"^\s*(?:\d+[.)]|[-*])\s+(?:\[.\]\s*)?(.+)$")


class Wish(NamedTuple):
    """What a story asks for; ``criteria`` are one line each."""

    title: str
    user_story: str
    criteria: tuple[str, ...]
    found: bool


def wish_of(facts: Facts, story: Story) -> Wish:
    """The story's own section of the epics; a modest wish made from its name where there is none."""
    section = _section(Path(str(facts.project.get("planning") or PLANNING)), story)
    if not section:
        return _modest(story)
    head, *lines = section.splitlines()
    title = head.partition(":")[2].strip() or story.title
    criteria = _criteria(lines)
    modest = _modest(story)
    return Wish(title, _user_story(lines) or modest.user_story, criteria or modest.criteria, True)


def _section(planning: Path, story: Story) -> str:
    if not story.number:
        return ""
    mark = re.escape(f"{story.epic}.{story.number}")
    pattern = re.compile(rf"^(#{{2,4}}) Story {mark}(?!\w|\.\d).*?(?=^#{{1,4}} |\Z)", re.M | re.S)
    files = [
        planning / "epics.md",
        *sorted(planning.glob("*epic*/*.md")),
        *sorted(planning.glob("*epic*.md")),
    ]
    for path in files:
        if path.is_file() and (match := pattern.search(path.read_text(encoding="utf-8", errors="replace"))):
            return match[0]
    return ""


def _user_story(lines: list[str]) -> str:
    text = " ".join(line.strip() for line in lines)
    match = re.search(r"\b(As an? .+?[Ss]o that .+?\.)(?:\s|$)", text)
    return match[1].replace(", So that", ", so that") if match else ""


def _criteria(lines: list[str]) -> tuple[str, ...]:
    found: list[list[str]] = []
    for line in lines:
        step = STEP.match(line)
        if step and (step[1] == "Given" or not found):
            found.append([])
        if step:
            found[-1].append(re.sub(r"^[-*\s]*(?=\*\*)", "", line).strip().rstrip(","))
    if found:
        return tuple(", ".join(steps) for steps in found)
    start = next((n for n, line in enumerate(lines) if "cceptance" in line), len(lines))
    return tuple(match[1].strip() for line in lines[start:] if (match := LISTED.match(line)))


def _modest(story: Story) -> Wish:
    name = story.title[:1].lower() + story.title[1:]
    return Wish(
        story.title,
        f"As a user of the project, I want {name}, so that I need not put it together by hand.",
        (
            f"**Given** labelled figures, **When** {name} is asked for, **Then** each has a line of its own",
            f"**Given** that there is nothing yet, **When** {name} is asked for, **Then** it says so",
        ),
        False,
    )
