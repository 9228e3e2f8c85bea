"""Looks in the source for whoever opens the database: only the store may (static, G19)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import sprintrunner

_PACKAGE = Path(sprintrunner.__file__).parent
_STORE = _PACKAGE / "store"
#: What opens a database, and what opens, copies or hashes a file.
_DRIVERS = frozenset({"create_engine", "aiosqlite", "apsw", "_sqlite3"})
_TOUCHING = frozenset(
    {"open", "read_bytes", "write_bytes", "copyfile", "copy", "copy2", "rename", "replace", "unlink"}
)
_NAMES = ("sprint-runner.db", "DATABASE")


def outside_the_store() -> list[str]:
    """Places outside the store that use a database driver, or touch the database file itself."""
    files = [path for path in sorted(_PACKAGE.rglob("*.py")) if _STORE not in path.parents]
    return [f"{path.relative_to(_PACKAGE)}:{line}: {what}" for path in files for line, what in _found(path)]


def in_the_store() -> list[str]:
    """The same inside it, where there must be some."""
    return [what for path in _STORE.glob("*.py") for _, what in _found(path)]


def _found(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            if isinstance(node, ast.ImportFrom) and node.module == "sqlite3":
                yield node.lineno, "imports from sqlite3"
            names = {alias.name.partition(".")[0] for alias in node.names} | {
                getattr(node, "module", None) or ""
            }
            if drivers := names & _DRIVERS:
                yield node.lineno, f"imports {', '.join(sorted(drivers))}"
        elif isinstance(node, ast.Call):
            yield from _call(node)


def _call(node: ast.Call) -> Iterator[tuple[int, str]]:
    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if called == "create_engine" or ast.unparse(node.func) == "sqlite3.connect":
        yield node.lineno, "opens a database"
    touched = [node.func.value] if isinstance(node.func, ast.Attribute) else []
    text = " ".join(ast.unparse(part) for part in [*touched, *node.args])
    # Store.open(state_dir / DATABASE) is the store's own way in.
    if called in _TOUCHING and any(name in text for name in _NAMES) and not text.startswith("Store "):
        yield node.lineno, f"{called}({text[:60]})"
