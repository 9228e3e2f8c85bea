"""Renders the prompt of a command, and holds the schema its answer must meet."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import DictLoader, StrictUndefined, TemplateError, TemplateSyntaxError
from jinja2.sandbox import SandboxedEnvironment

from ..errors import ProjectError
from .schemas import SCHEMAS

#: The commands that have a prompt.
COMMANDS: tuple[str, ...] = tuple(SCHEMAS)
#: What of the last failure's output goes into a prompt, in characters, from its end.
FAILURE_CHARS = 12_000
#: What of an epic's text goes into a prompt, in characters.
EPIC_CHARS = 60_000
_OVERRIDE_BYTES = 200_000
_FACTS = ("command", "attempt", "stories", "project", "open_findings", "failure", "verify")
#: Facts that are there only where a pipeline gives them: the skill that is driven, the spec to go on with.
_OWN_FACTS = ("skill", "spec")
_STORY_FACTS = ("key", "epic", "title", "story_file", "discovery_file", "tech_spec_file", "tech_spec")
_TAGS = re.compile(r"<(?=\s*/?\s*(?:facts|epic|failure|git-status|injected|skill|intent)\b)", re.IGNORECASE)
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class PromptError(ProjectError):
    """A prompt template of the project cannot be used."""


def _inert(value: Any, limit: int = 10**6) -> str:
    """Text from the project or an agent, unable to close the element it is put into; its end is kept."""
    text = _UNSTORABLE.sub("\ufffd", str(value or ""))
    shown = text if len(text) <= limit else "[…]\n" + text[-limit:]
    return _TAGS.sub("&lt;", shown)


def _line(value: Any) -> str:
    """The same on one line, for titles and names."""
    return " ".join(_inert(value, 2000).split())


def facts_block(values: Mapping[str, Any]) -> str:
    """The block of facts for programs that read the prompt: one ``name: JSON`` a line.

    ASCII only and without ``<``, so that no value can close the block.
    """
    chosen = {name: values.get(name) for name in _FACTS}
    chosen |= {name: values[name] for name in _OWN_FACTS if name in values}
    chosen["stories"] = [
        {name: story.get(name, "") for name in _STORY_FACTS} for story in values.get("stories") or ()
    ]
    chosen["failure"] = str(values.get("failure") or "")[-FAILURE_CHARS:]
    lines = [f"{name}: {json.dumps(value, default=str)}" for name, value in chosen.items()]
    return "\n".join(["<facts>", *(line.replace("<", "\\u003c") for line in lines), "</facts>"])


def _package_sources() -> dict[str, str]:
    return {path.name: path.read_text("utf-8") for path in Path(__file__).parent.glob("*.md")}


def _override(folder: Path | None, command: str) -> str | None:
    """The project's own template of a command; a link, a pipe or an overlong file is refused by name."""
    path = folder / f"{command}.md" if folder is not None else None
    if path is None or not os.path.lexists(path):
        return None
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode) or found.st_size > _OVERRIDE_BYTES:
        raise PromptError(f"The prompt {path} must be a plain file of at most {_OVERRIDE_BYTES // 1000} KB.")
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(f"The prompt {path} cannot be read: {error}") from None


def _environment(sources: Mapping[str, str]) -> SandboxedEnvironment:
    # Sandboxed: a template comes from the project and gets values, nothing of the program.
    environment = SandboxedEnvironment(
        loader=DictLoader(sources),
        undefined=StrictUndefined,
        # A prompt is no HTML; what is inserted passes the two filters below.
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(inert=_inert, line=_line)
    return environment


@cache
def _ours() -> SandboxedEnvironment:
    """Our own templates: compiled once, which is most of the time of a rendering."""
    return _environment(_package_sources())


def _given(command: str, values: Mapping[str, Any], facts: str) -> dict[str, Any]:
    """All that a template may name; what the caller left out is there and empty."""
    lists: dict[str, Any] = {
        name: [] for name in ("stories", "open_findings", "verify", "injected", "unticked")
    }
    texts = {"failure": "", "git_status": "", "schema": json.dumps(SCHEMAS[command]), "skill": "", "spec": ""}
    limits = {"failure_chars": FAILURE_CHARS, "epic_chars": EPIC_CHARS}
    given = {
        "attempt": 1,
        "max_attempts": 0,
        "project": {},
        "tasks": [],
        "commits": False,
        **lists,
        **texts,
        **limits,
        **values,
    }
    blank = {**dict.fromkeys(_STORY_FACTS, ""), "epic_text": "", "snapshot": ""}
    stories = [{**blank, **story} for story in given["stories"]]
    return {**given, "stories": stories, "command": command, "facts": facts}


def render(
    command: str, values: Mapping[str, Any], overrides: Path | None = None, template: str | None = None
) -> str:
    """The prompt of ``command``: the project's template in ``overrides`` where it has one, else ours.

    ``template`` names another one than the command does. A template may extend ``_base.md`` and use
    ``{{ facts }}``; where it does not, the facts come last. Raises PromptError with file and line when a
    template cannot be used, KeyError for a command without prompt.
    """
    if command not in SCHEMAS:
        raise KeyError(command)
    name = template or command
    own = _override(overrides, name)
    facts = facts_block(values)
    try:
        environment = _ours() if own is None else _environment({**_package_sources(), f"{name}.md": own})
        found = environment.get_template(f"{name}.md")
        text = found.render(_given(command, values, facts))
    except TemplateError as error:
        raise PromptError(f"The prompt {name}.md{_line_of(error)} cannot be used: {error.message}") from None
    except (ArithmeticError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise PromptError(f"The prompt {name}.md cannot be used: {error}") from None
    text = re.sub(r"\n{3,}", "\n\n", text).strip()
    return text + "\n" if facts in text else f"{text}\n\n{facts}\n"


def _line_of(error: TemplateError) -> str:
    return f", line {error.lineno}," if isinstance(error, TemplateSyntaxError) else ""


__all__ = ["COMMANDS", "SCHEMAS", "PromptError", "facts_block", "render"]
