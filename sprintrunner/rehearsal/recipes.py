"""What the agent knows how to build: the sample's five stories, and something for any other key."""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .facts import Story

DATA = Path(__file__).resolve().parent / "data" / "stories"


class Recipe(NamedTuple):
    """Code with its one bug, tests that miss it, the test that shows it, and its mending."""

    module: Path
    tests: Path
    code: str
    test_code: str
    reveal: str
    wrong: str
    right: str
    finding: str
    criterion: int
    tasks: tuple[str, ...]
    decisions: tuple[str, ...]
    tech_spec: bool
    forgets_last_criterion: bool

    @property
    def right_code(self) -> str:
        return self.code.replace(self.wrong, self.right)


def recipe_for(story: Story) -> Recipe:
    """The recipe of a story of the sample (in the sample only), else one made from its slug."""
    known = (DATA / story.key / "recipe.json") if re.fullmatch(r"[\w-]+", story.key) else None
    if known is not None and known.is_file() and Path("windowsill/plant.py").is_file():
        return _recipe(known.parent, {}, {})
    package = package_folder()
    name = _module_name(story, package)
    words = {
        "title": _plain(story.title),
        "key": _plain(story.key),
        "literal": json.dumps(_plain(story.title)),
        "name": name,
        "class": "".join(part.capitalize() for part in name.split("_")),
        "package": package.name,
    }
    places = {"module": f"{package}/{name}.py", "tests": f"tests/test_{name}.py"}
    return _recipe(DATA / "generic", places, words)


def _recipe(folder: Path, places: Mapping[str, str], words: Mapping[str, str]) -> Recipe:
    known: dict[str, Any] = {**json.loads((folder / "recipe.json").read_text(encoding="utf-8")), **places}

    def text(name: str) -> str:
        raw = (folder / f"{name}.py.txt").read_text(encoding="utf-8")
        return re.sub(r"\{\{(\w+)\}\}", lambda match: words[match[1]], raw)

    return Recipe(
        module=Path(known["module"]),
        tests=Path(known["tests"]),
        code=text("code"),
        test_code=text("tests"),
        reveal=text("reveal"),
        wrong=known["wrong"],
        right=known["right"],
        finding=known["finding"],
        criterion=known["criterion"],
        tasks=tuple(known["tasks"]),
        decisions=tuple(known.get("decisions", ())),
        tech_spec=bool(known.get("tech_spec")),
        forgets_last_criterion=bool(known.get("forgets_last_criterion")),
    )


def package_folder() -> Path:
    """The project's Python package; ``rehearsal`` where it has none."""
    found = sorted(path.parent for path in Path().glob("*/__init__.py"))
    usable = [path for path in found if path.name.isidentifier() and path.name not in ("tests", "test")]
    return usable[0] if usable else Path("rehearsal")


def _module_name(story: Story, package: Path) -> str:
    """A free module name from the slug; the one the story already has when its code is there."""
    slug = _identifier(story.slug)
    for name in (slug, _identifier(f"{slug}_{story.epic}_{story.number}"), _identifier(story.key)):
        module = package / f"{name}.py"
        if not module.exists() or f"(story {_plain(story.key)})" in _head(module):
            return name
    return _identifier(f"story_{story.key}")


def _head(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")[:400]


def _identifier(text: str) -> str:
    name = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:60] or "story"
    return name if name.isidentifier() and not keyword.iskeyword(name) else f"story_{name}"


def _plain(text: str) -> str:
    """Text that can stand in a docstring: a key may hold quotes, backslashes or worse."""
    return re.sub(r"[^\w .,:;!?()+-]", "_", text)[:100]
