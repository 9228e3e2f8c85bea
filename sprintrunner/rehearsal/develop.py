"""dev-story: tests first, then the code, then the boxes and the file list of the story."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from .desk import Desk
from .facts import Story
from .recipes import Recipe, recipe_for
from .verdicts import Verdict, plain

BOX = re.compile(r"^([ \t]*- )\[ \]( .*)$", re.MULTILINE)


def dev_story(desk: Desk) -> Verdict:
    """Implement each story of the command."""
    desk.task("setup", "Reading the story")
    done = [_develop(desk, story) for story in desk.facts.stories]
    return plain(" ".join(done))


def _develop(desk: Desk, story: Story) -> str:
    text = desk.read(story.story_file)
    if story.tech_spec_file.exists():
        desk.read(story.tech_spec_file)
    if "no-change" in desk.modes:
        desk.say("Everything the story asks for is already there.")
        return f"{story.key} is implemented."
    recipe = recipe_for(story)
    desk.task("implement", f"Tests and code of {recipe.module}")
    files = build(desk, recipe, recipe.code)
    desk.task("lint", "Compiling every file")
    desk.bash(f"python3 -m py_compile {recipe.module} {recipe.tests}", "Compile the new files")
    desk.task("validate", "Ticking the tasks, listing the files")
    tick(desk, story.story_file, text)
    _record(desk, story.story_file, files)
    return f"{story.key} is implemented in {recipe.module}, its tests pass."


def build(desk: Desk, recipe: Recipe, code: str) -> Sequence[Path]:
    """Write tests and code where they are missing and see the tests pass; returns the story's files."""
    files = [*_packages(desk, recipe), recipe.tests, recipe.module]
    if not recipe.module.exists() or not recipe.tests.exists():
        desk.write(recipe.tests, recipe.test_code)
        desk.run_tests()  # red: the code is not there yet
        desk.write(recipe.module, code)
    elif desk.facts.failure:
        desk.say("The attempt before left something red; I'll see what it is.")
    desk.task("tests", "Running the whole suite")
    if desk.run_tests().code:
        desk.say("The suite is red. I'll put right what this story brought.")
        desk.write(recipe.module, recipe.right_code)
        desk.run_tests()
    return files


def _packages(desk: Desk, recipe: Recipe) -> list[Path]:
    """Make the folders of module and tests packages, where they are not."""
    added = []
    for folder in (recipe.module.parent, recipe.tests.parent):
        if not (folder / "__init__.py").exists():
            desk.write(folder / "__init__.py", f'"""The package {folder.name}."""\n')
            added.append(folder / "__init__.py")
    return added


def tick(desk: Desk, story_file: Path, text: str) -> None:
    """Tick every open box of the story, one after the other."""
    for match in BOX.finditer(text):
        desk.edit(story_file, match[0], f"{match[1]}[x]{match[2]}")


def _record(desk: Desk, story_file: Path, files: Sequence[Path]) -> None:
    text = story_file.read_text(encoding="utf-8", errors="replace") if story_file.exists() else ""
    listed = [f"- {path.as_posix()}\n" for path in files if f"- {path.as_posix()}\n" not in text]
    if "### File List\n" in text and listed:
        desk.edit(story_file, "### File List\n", "### File List\n\n" + "".join(listed))
    if "\nStatus: ready-for-dev\n" in text:
        desk.edit(story_file, "\nStatus: ready-for-dev\n", "\nStatus: review\n")
