"""The inside holds its shape: who may import whom, how long things may be, what templates may contain."""

from __future__ import annotations

import ast
import re
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "sprintrunner"
TEMPLATES = PACKAGE.parent / "templates"
README = PACKAGE.parent / "README.md"

#: Module → the modules it may import. The leaves are for everybody.
LEAVES = {"errors", "files", "ours", "terminal"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "files": set(),
    "ours": set(),
    "terminal": set(),
    "sprint": set(),
    "events": {"sprint"},
    "workflow": {"sprint"},
    "scheduler": {"workflow", "settings", "sprint"},
    "verdict": {"sprint", "workflow"},
    "limits": {"settings", "sprint"},
    "budget": {"settings", "sprint"},
    "tasklog": set(),
    "settings": {"sprint"},
    "project": {"settings", "sprint"},
    "status_file": {"sprint"},
    "context": {"project"},
    "prompts": {"sprint"},
    "pipelines": {"project", "prompts", "sprint", "verdict"},
    "redact": set(),
    "inhibit": set(),
    "git": {"gitlock"},
    "gitlock": set(),
    "peers": {"process"},
    "housekeeping": {"events", "retention", "store"},
    "retention": {"store"},
    "shim": set(),
    "process": {"shim"},
    "agents": {"process", "events", "settings"},
    "transcript_text": set(),
    "transcript": {"agents", "redact", "transcript_text"},
    "indexing": {"agents", "events", "project", "redact", "sprint", "store", "transcript", "transcript_text"},
    "store": {"sprint", "events"},
    "control": {"events"},
    "verify": {"process", "project", "store"},
    "report": {"process", "project", "store", "sprint"},
    "doctor": {
        "agents",
        "git",
        "inhibit",
        "pipelines",
        "project",
        "services",
        "settings",
        "sprint",
        "status_file",
        "store",
    },
    "leftover": {"events", "process", "sprint", "store"},
    "recovery": {"control", "leftover", "process", "store", "git", "status_file", "sprint", "events"},
    "rehearsal": {"project"},
    "services": {"project", "settings", "store", "web"},
    "web": {
        "agents",
        "events",
        "git",
        "project",
        "redact",
        "scheduler",
        "services",
        "settings",
        "sprint",
        "status_file",
        "store",
        "tasklog",
        "transcript",
        "workflow",
    },
    "server": {
        "control",
        "doctor",
        "project",
        "recovery",
        "redact",
        "runtime",
        "services",
        "settings",
        "store",
        "web",
    },
    "demo": {"control", "rehearsal"},
}
#: These wire the rest and may import all that does not import them.
COMPOSING = {
    "orchestrator": {"cli", "demo", "doctor", "report", "runtime", "server", "services", "web"},
    "runtime": {"cli", "demo", "doctor", "report", "server"},
    "cli": set[str](),
    "__init__": set[str](),
    "__main__": set[str](),
}
MAY_IMPORT_FLASK = {"web", "services", "server", "__init__"}
LONGEST_MODULE = 400
LONGEST_FUNCTION = 40
MEDIAN_FUNCTION = 10


def _sources() -> list[Path]:
    found = (path for path in PACKAGE.rglob("*.py") if not {"data", "__pycache__"} & set(path.parts))
    return sorted(found)


def _name(path: Path) -> str:
    """The path of a source inside the package, for messages."""
    return path.relative_to(PACKAGE).as_posix()


def _owner(path: Path) -> str:
    """The module of the table that a source belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def _imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Every module a source imports, as a dotted name, and whether the import happens when it is loaded."""
    tree = _tree(path)
    lazy = {id(inner) for node in ast.walk(tree) if _is_lazy(node) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        at_load = id(node) not in lazy
        if isinstance(node, ast.Import):
            yield from ((alias.name, at_load) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((name, at_load) for name in _imported_names(path, node))


def _is_lazy(node: ast.AST) -> bool:
    """Whether what stands below the node runs later than the load: a function, or ``if TYPE_CHECKING``."""
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def _imported_names(path: Path, node: ast.ImportFrom) -> list[str]:
    if not node.level:
        return [node.module or ""]
    parts = path.relative_to(PACKAGE.parent).parts
    base = ".".join(parts[: len(parts) - node.level])
    if node.module:
        base = f"{base}.{node.module}"
    # ``from . import store`` names modules, ``from .store import Store`` names things of one module.
    return [f"{base}.{alias.name}" for alias in node.names] if _is_package(base) else [base]


def _is_package(dotted: str) -> bool:
    return (PACKAGE.parent / Path(*dotted.split("."))).is_dir()


def _used_modules(path: Path) -> set[str]:
    """The modules of the table that a source imports, itself left out."""
    used = {name.split(".")[1] for name, _ in _imports(path) if name.startswith("sprintrunner.")}
    modules = {_owner(source) for source in _sources()}
    return (used & modules) - {_owner(path)}


@pytest.mark.parametrize("path", _sources(), ids=_name)
def test_a_module_imports_only_what_the_table_allows(path: Path) -> None:
    owner = _owner(path)
    assert owner in ALLOWED or owner in COMPOSING, (
        f"{owner} is not in the table; give it a row here and in README.md"
    )
    allowed = ALLOWED.get(owner)
    used = _used_modules(path) - LEAVES
    surplus = used & COMPOSING[owner] if allowed is None else used - allowed
    assert not surplus, f"{_name(path)} must not import {', '.join(sorted(surplus))}"


def test_the_table_names_only_modules_that_exist() -> None:
    existing = {_owner(path) for path in _sources()}
    assert set(ALLOWED) | set(COMPOSING) <= existing


def test_the_readme_names_every_module_and_no_other() -> None:
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", README.read_text("utf-8"), re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)} - {"serve", "run", "stop"}
    existing = {_owner(path) for path in _sources()} - {"__init__", "__main__"}
    assert existing <= named, f"not in the README: {existing - named}"
    assert named - existing <= {"status", "report", "doctor", "demo", "log"}


def test_nothing_imports_in_a_circle_at_load() -> None:
    graph = {_dotted(path): _loads(path) for path in _sources()}
    assert _circle(graph) == []


def _dotted(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def _loads(path: Path) -> set[str]:
    dotted = {_dotted(source) for source in _sources()}
    return {name for name, at_load in _imports(path) if at_load and name in dotted} - {_dotted(path)}


def _circle(graph: dict[str, set[str]]) -> list[str]:
    """One circle of imports, or nothing."""
    finished: set[str] = set()

    def follow(name: str, trail: list[str]) -> list[str]:
        if name in trail:
            return [*trail[trail.index(name) :], name]
        for other in sorted(graph.get(name, set()) - finished):
            if found := follow(other, [*trail, name]):
                return found
        finished.add(name)
        return []

    return next((found for name in sorted(graph) if (found := follow(name, []))), [])


@pytest.mark.parametrize("path", _sources(), ids=_name)
def test_flask_stays_in_its_folder(path: Path) -> None:
    used = {name.split(".")[0] for name, _ in _imports(path)}
    if used & {"flask", "werkzeug"}:
        assert _owner(path) in MAY_IMPORT_FLASK


def test_the_shim_and_the_rehearsal_agent_start_without_anything_of_ours() -> None:
    for program in (PACKAGE / "shim.py", PACKAGE / "rehearsal" / "agent.py"):
        assert not [name for name, _ in _imports(program) if name.startswith("sprintrunner")]


@pytest.mark.parametrize("path", _sources(), ids=_name)
def test_a_module_says_its_one_job_and_is_short(path: Path) -> None:
    text = path.read_text("utf-8")
    said = ast.get_docstring(ast.parse(text))
    assert said or not text.strip(), f"{_name(path)} has no docstring"
    assert len(text.splitlines()) <= LONGEST_MODULE


def test_functions_are_short() -> None:
    lengths = dict(_function_lengths())
    assert statistics.median(lengths.values()) < MEDIAN_FUNCTION
    too_long = {name: length for name, length in lengths.items() if length > LONGEST_FUNCTION}
    assert not too_long


def _function_lengths() -> Iterator[tuple[str, int]]:
    for path in _sources():
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                last = node.end_lineno or node.lineno
                yield f"{_name(path)}:{node.lineno} {node.name}", last - node.lineno + 1


@pytest.mark.parametrize("path", _sources(), ids=_name)
def test_only_the_store_opens_the_database(path: Path) -> None:
    if _owner(path) == "store":
        return
    opened = [ast.unparse(node.func) for node in ast.walk(_tree(path)) if isinstance(node, ast.Call)]
    assert not {"sqlite3.connect", "sqlalchemy.create_engine", "sa.create_engine", "create_engine"} & set(
        opened
    )
    assert not [name for name, _ in _imports(path) if name.split(".")[0] in ("sqlalchemy", "alembic")]


@pytest.mark.parametrize("path", sorted(TEMPLATES.rglob("*.html")), ids=lambda path: path.name)
def test_a_template_trusts_no_text_and_holds_no_code(path: Path) -> None:
    text = re.sub(r"\{#.*?#\}", "", path.read_text("utf-8"), flags=re.DOTALL)
    assert not re.search(r"\|\s*safe\b|\bautoescape\s+false\b", text)
    assert not re.search(r"<script(?![^>]*\bsrc=)[^>]*>", text), "inline script"
    assert not re.search(r"<style\b|\sstyle\s*=", text), "inline style"
    assert not re.search(r"\s(on[a-z]+|hx-on[:\w-]*)\s*=\s*[\"']", text), "inline handler"
    assert "javascript:" not in text
