"""What an agent does right now, in plain words: verb and object of a tool call."""

from __future__ import annotations

import os.path
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .base import ToolStarted
from .lines import one_line

#: Longest description, in characters (the limit of a task message in the contract).
LIMIT = 150

# Names are compared in lower case without separators: Claude's, then those of other CLIs.
_VERBS: Mapping[str, tuple[str, str]] = {
    "edit": ("Editing", "path"),
    "multiedit": ("Editing", "path"),
    "notebookedit": ("Editing", "path"),
    "replace": ("Editing", "path"),
    "patch": ("Editing", "path"),
    "applypatch": ("Editing", "path"),
    "filechange": ("Editing", "path"),
    "write": ("Writing", "path"),
    "writefile": ("Writing", "path"),
    "read": ("Reading", "path"),
    "readfile": ("Reading", "path"),
    "readmanyfiles": ("Reading", "path"),
    "notebookread": ("Reading", "path"),
    "ls": ("Listing", "path"),
    "list": ("Listing", "path"),
    "listdirectory": ("Listing", "path"),
    "glob": ("Looking for", "pattern"),
    "grep": ("Searching", "pattern"),
    "grepsearch": ("Searching", "pattern"),
    "searchfilecontent": ("Searching", "pattern"),
    "bash": ("Running", "command"),
    "shell": ("Running", "command"),
    "runshellcommand": ("Running", "command"),
    "commandexecution": ("Running", "command"),
    "bashoutput": ("Reading", "output"),
    "taskoutput": ("Reading", "output"),
    "killshell": ("Ending", "background"),
    "task": ("Delegating", "task"),
    "agent": ("Delegating", "task"),
    "webfetch": ("Fetching", "url"),
    "websearch": ("Searching the web for", "query"),
    "googlewebsearch": ("Searching the web for", "query"),
    "todowrite": ("Updating", "plan"),
    "todolist": ("Updating", "plan"),
    "taskcreate": ("Updating", "plan"),
    "taskupdate": ("Updating", "plan"),
    "skill": ("Using skill", "skill"),
    "toolsearch": ("Looking for tools", ""),
    "structuredoutput": ("Giving", "verdict"),
}
_FIELDS: Mapping[str, tuple[str, ...]] = {
    "path": ("file_path", "notebook_path", "path", "filePath", "absolute_path", "dir_path"),
    "pattern": ("pattern", "query", "regex"),
    "command": ("command", "cmd"),
    "task": ("description", "subagent_type", "prompt"),
    "url": ("url", "prompt"),
    "query": ("query",),
    "skill": ("skill", "command", "name"),
}
_FIXED = {
    "plan": "the plan",
    "verdict": "the verdict",
    "output": "command output",
    "background": "a background command",
}
_SHELL_WRAP = re.compile(r"^(?:/usr)?(?:/bin/)?(?:ba|z|da)?sh -l?c (['\"])(.*)\1$", re.DOTALL)


def action(event: ToolStarted, root: Path) -> tuple[str, str]:
    """Verb and object of a tool call; paths are relative to ``root`` where they lie in it."""
    verb, kind = _VERBS.get(re.sub(r"[^a-z]", "", event.name[:80].lower()), ("", ""))
    if not verb:
        return "Using", _tool_name(event.name)
    if kind in _FIXED:
        return verb, _FIXED[kind]
    found = _first(event.input, _FIELDS.get(kind, ()))
    if kind == "path":
        return verb, _relative(found, root) or "a file"
    if kind == "command":
        return verb, _command(found, root) or "a command"
    return verb, one_line(found, LIMIT)


def describe(event: ToolStarted, root: Path) -> str:
    """One short line such as ``Editing src/app.py`` or ``Running pytest -q``, at most 150 characters."""
    return one_line(" ".join(filter(None, action(event, root))), LIMIT)


def _first(given: Mapping[str, Any], names: tuple[str, ...]) -> str:
    for name in names:
        value = given.get(name)
        if isinstance(value, str) and value.strip():
            return value[: LIMIT * 8]
        # Some CLIs give a command as its list of arguments.
        if isinstance(value, list) and value and all(isinstance(item, str) for item in value[:50]):
            return " ".join(value[:50])
    return ""


def _relative(path: str, root: Path) -> str:
    flat = one_line(path, LIMIT * 4)
    base = str(root)
    if flat == base:
        return "."
    if flat.startswith(base + os.path.sep):
        return flat[len(base) + 1 :]
    return flat


def _command(command: str, root: Path) -> str:
    wrapped = _SHELL_WRAP.match(command.strip())
    inner = wrapped[2] if wrapped else command
    # The folder is always the project's; naming it says nothing.
    inner = re.sub(rf"^cd {re.escape(str(root))} && ", "", inner.strip())
    return one_line(inner.replace(f"{root}{os.path.sep}", ""), LIMIT)


def _tool_name(name: str) -> str:
    # mcp__server__tool
    parts = [part for part in name[:200].split("__") if part]
    shown = f"{parts[-1]} of {parts[1]}" if len(parts) >= 3 and parts[0] == "mcp" else name
    return one_line(shown, LIMIT) or "a tool"
