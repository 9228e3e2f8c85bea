"""The commands before the code: project context, story files, discovery notes."""

from __future__ import annotations

import ast
from pathlib import Path

from .desk import Desk
from .epics import Wish, wish_of
from .facts import Story
from .recipes import package_folder, recipe_for
from .verdicts import Verdict, plain

STORY = """# Story {number}: {title}

Status: ready-for-dev

## Story

{user_story}

## Acceptance Criteria

{criteria}

## Tasks / Subtasks

{tasks}

## Dev Notes

{notes}

## Dev Agent Record

### Agent Model Used

{model}

### Completion Notes List

### File List

### Review Findings
"""

CONTEXT = """# Project Context for AI Agents

What an agent must know about {name} before it touches it.

## Technology

- Python, standard library only; no dependency is added without a story that asks for it.
- Tests: `{verify}`, run from the root. They must pass after every change.

## Layout

{layout}

## Rules

- Tests come first; a test's name is a sentence about behaviour.
- Every module opens with a docstring that says its one job; public functions are annotated.
- Days are `datetime.date`; nothing reads the clock, today is always an argument.
- The files under `_bmad-output/` are the plan. The status of the sprint is not edited by agents.
"""


def generate_context(desk: Desk) -> Verdict:
    """Write ``project-context.md`` from what is really there."""
    desk.say("I'll look at the project and write down what every later command needs to know.")
    desk.bash("git log --oneline -5; ls", "Look around")
    if Path("README.md").exists():
        desk.read(Path("README.md"))
    verify = " && ".join(desk.facts.verify) or "python3 -m unittest"
    name = str(desk.facts.project.get("name") or Path.cwd().name)
    place = Path(
        str(desk.facts.project.get("context_file") or "_bmad-output/planning-artifacts/project-context.md")
    )
    desk.write(place, CONTEXT.format(name=name, verify=verify, layout=_layout()))
    return plain(f"Wrote {place}: technology, layout and rules of {name}.")


def _layout() -> str:
    lines = [f"- `{path.as_posix()}`: {summary(path)}" for path in modules()]
    return "\n".join(lines) or "- nothing yet"


def modules() -> list[Path]:
    """The modules of the project's package."""
    return sorted(package_folder().glob("*.py"))


def summary(path: Path) -> str:
    """The first line of a module's docstring."""
    tree = _tree(path)
    text = (ast.get_docstring(tree) if tree else None) or "no docstring"
    return text.splitlines()[0]


def names(path: Path) -> list[str]:
    """The public classes and functions of a module."""
    tree = _tree(path)
    kinds = (ast.ClassDef, ast.FunctionDef)
    found = [node.name for node in tree.body if isinstance(node, kinds)] if tree else []
    return [name for name in found if not name.startswith("_")]


def _tree(path: Path) -> ast.Module | None:
    try:
        return ast.parse(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, SyntaxError, ValueError):
        return None


def create_story(desk: Desk) -> Verdict:
    """Write each story's file from its section of the epics, and decide about tech specs."""
    desk.task("setup", "Reading the epics")
    desk.say("I'll turn the epic's text into story files a developer can work from.")
    desk.read(Path(str(desk.facts.project.get("planning") or "_bmad-output/planning-artifacts")) / "epics.md")
    decisions = []
    for position, story in enumerate(desk.facts.stories):
        wish = wish_of(desk.facts, story)
        desk.task("generate", f"Criteria and tasks of {story.key}")
        decisions.append(
            {"key": story.key, "tech_spec": "REQUIRED" if recipe_for(story).tech_spec else "SKIP"}
        )
        if position and "forget-second" in desk.modes:
            continue
        desk.task("write", f"Writing {story.story_file.name}")
        desk.write(story.story_file, story_text(desk, story, wish))
    desk.task("validate", "Comparing with the epics")
    marks = " ".join(f"{one['key']} [TECH-SPEC-DECISION: {one['tech_spec']}]" for one in decisions)
    words = f"Created {len(decisions)} story file(s): {', '.join(desk.facts.keys)}."
    if "no-decision" in desk.modes:
        return Verdict(words, {"stories": [], "summary": words})
    return Verdict(words, {"stories": decisions, "summary": words}, marks)


def story_text(desk: Desk, story: Story, wish: Wish) -> str:
    """A whole story file."""
    recipe = recipe_for(story)
    criteria = wish.criteria
    if recipe.forgets_last_criterion and len(criteria) > 1:
        # The slip that the story's review is there to catch.
        criteria = criteria[:-1]
    source = "its section of the epics" if wish.found else "its name; the epics do not mention it"
    notes = [f"- Source: {source}.", f"- Code: `{recipe.module}`, tests: `{recipe.tests}`.", "- Tests first."]
    return STORY.format(
        number=f"{story.epic}.{story.number}" if story.number else story.key,
        title=wish.title,
        user_story=wish.user_story,
        criteria="\n".join(f"{n}. {text}" for n, text in enumerate(criteria, 1)),
        tasks="\n".join(f"- [ ] Task {n}: {text}" for n, text in enumerate(recipe.tasks, 1)),
        notes="\n".join(notes),
        model=desk.stream.model,
    )


def discovery(desk: Desk) -> Verdict:
    """Write down what in the code base matters to each story."""
    desk.task("setup", "Looking for the code the stories touch")
    desk.say("I'll explore the code base with the stories in mind.")
    desk.bash("git ls-files | head -50", "List the files")
    desk.task("explore", "Reading the modules")
    for path in modules()[:3]:
        desk.read(path)
    desk.task("write", "Writing the notes")
    for story in desk.facts.stories:
        desk.write(story.discovery_file, _notes(story))
    return plain(f"Explored the code base for {', '.join(desk.facts.keys)}.")


def _notes(story: Story) -> str:
    recipe = recipe_for(story)
    lines = [f"# Discovery: {story.title}", "", "## Code that matters", ""]
    lines += [
        f"- `{path}`: {summary(path)} Public: {', '.join(names(path)) or 'nothing'}." for path in modules()
    ]
    lines += [
        "",
        "## Where the story goes",
        "",
        f"- New module `{recipe.module}`, with tests in `{recipe.tests}`.",
    ]
    lines += ["- Nothing that exists has to change.", "", "## Conventions seen", ""]
    return "\n".join([*lines, "- unittest, test names are sentences, no fixtures outside the test file.", ""])
