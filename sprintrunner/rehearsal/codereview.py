"""code-review: look for the bug, show it with a test, mend it, and answer what earlier reviews left open."""

from __future__ import annotations

from typing import Any

from .desk import Desk
from .develop import build, tick
from .facts import Story
from .recipes import Recipe, recipe_for
from .verdicts import Verdict, code_review


def review(desk: Desk) -> Verdict:
    """Review the code of each story of the command."""
    desk.task("setup", "Reading the story and its code")
    findings: list[dict[str, Any]] = []
    for story in desk.facts.stories:
        findings += _review(desk, story)
    findings += _answers(desk, findings)
    if not findings:
        desk.say("I went through every criterion and every ticked task and found nothing to object to.")
        return code_review("No issues: every criterion is met and tested.", [])
    listed = "; ".join(f"{one['severity']} {one['title']} ({one['status']})" for one in findings)
    return code_review(f"{len(findings)} finding(s): {listed}.", findings)


def _review(desk: Desk, story: Story) -> list[dict[str, Any]]:
    text = desk.read(story.story_file) if story.story_file.exists() else ""
    recipe = recipe_for(story)
    if not recipe.module.exists():
        return [_write_missing(desk, recipe)]
    code = desk.read(recipe.module)
    desk.task("analyze", "Checking each criterion against the code")
    if recipe.wrong in code:
        findings = _mend(desk, story, recipe, code)
    else:
        desk.task("test", "Running the whole suite")
        findings = _look_at_tests(desk, recipe)
    desk.task("validate", "Checking the ticked tasks")
    tick(desk, story.story_file, text)
    for finding in findings:
        _note(desk, story, finding)
    return findings


def _mend(desk: Desk, story: Story, recipe: Recipe, code: str) -> list[dict[str, Any]]:
    """Show the bug with a failing test, mend it, see the test pass."""
    desk.say(f"Acceptance criterion {recipe.criterion} looks broken. I'll write the test that would show it.")
    desk.task("fix", "Showing the bug with a test, then mending it")
    tests = recipe.tests.read_text(encoding="utf-8") if recipe.tests.exists() else recipe.test_code
    if recipe.reveal not in tests:
        desk.write(recipe.tests, tests.rstrip("\n") + "\n" + recipe.reveal)
    if desk.run_tests().code == 0:
        desk.say("The test passes, so the suspicion was wrong.")
        return []
    desk.edit(recipe.module, recipe.wrong, recipe.right)
    desk.task("test", "Running the whole suite")
    status = "fixed" if desk.run_tests().code == 0 else "open"
    line = code[: code.index(recipe.wrong)].count("\n") + 1
    return [_finding("HIGH", recipe.finding, recipe.module.as_posix(), line, status)]


def _look_at_tests(desk: Desk, recipe: Recipe) -> list[dict[str, Any]]:
    ran = desk.run_tests()
    if ran.code == 0:
        return []
    last = ran.output.splitlines()[-1] if ran.output else f"exit {ran.code}"
    return [_finding("HIGH", f"The tests fail: {last}"[:200], recipe.tests.as_posix(), 1, "open")]


def _write_missing(desk: Desk, recipe: Recipe) -> dict[str, Any]:
    desk.task("fix", "Writing the code that is missing")
    build(desk, recipe, recipe.right_code)
    return _finding("CRITICAL", "The story has no code", recipe.module.as_posix(), 1, "fixed")


def _answers(desk: Desk, findings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Answer the open findings of earlier reviews; one found again now carries its old id instead."""
    answers = []
    again = {finding["title"]: finding for finding in findings}
    asked = list(desk.facts.open_findings)
    green = not asked or desk.run_tests().code == 0
    for known in asked:
        if known.get("title") in again:
            again[known["title"]]["id"] = known.get("id")
            continue
        names = ("id", "severity", "title", "file", "line")
        kept = {name: known[name] for name in names if known.get(name) is not None}
        answers.append({"severity": "HIGH", "title": "", **kept, "status": "fixed" if green else "open"})
    return answers


def _note(desk: Desk, story: Story, finding: dict[str, Any]) -> None:
    mark = "x" if finding["status"] == "fixed" else " "
    head = "### Review Findings\n"
    if story.story_file.exists() and head in story.story_file.read_text(encoding="utf-8", errors="replace"):
        line = f"- [{mark}] [Review][Patch] {finding['title']} [{finding['file']}:{finding['line']}]\n"
        desk.edit(story.story_file, head, f"{head}\n{line}")


def _finding(severity: str, title: str, file: str, line: int, status: str) -> dict[str, Any]:
    return {"severity": severity, "title": title, "file": file, "line": line, "status": status}
