"""What the agent is asked to do: the facts block of the prompt, or else what the environment tells."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

BLOCK = re.compile(r"^<facts>\s*$(.*?)^</facts>\s*$", re.MULTILINE | re.DOTALL)
#: epic, number and slug of a key: ``2a-1-user-login`` is story 1 of epic 2a.
KEY = re.compile(r"([0-9]+[a-z]?|[A-Za-z]+[0-9]*)-([0-9]+[a-z]?)(?:-(.+))?")
ARTEFACTS = "_bmad-output/implementation-artifacts"


class Story(NamedTuple):
    """One story of the command; paths are relative to the working directory unless absolute."""

    key: str
    epic: str
    number: str
    slug: str
    title: str
    story_file: Path
    discovery_file: Path
    tech_spec_file: Path


class Facts(NamedTuple):
    """The task. ``command`` is empty when the prompt is just a question."""

    command: str
    attempt: int
    stories: tuple[Story, ...]
    project: Mapping[str, Any]
    open_findings: tuple[Mapping[str, Any], ...]
    failure: str
    verify: tuple[str, ...]
    #: The skill that the prompt drives, as a person calls it, and the spec it goes on with.
    skill: str = ""
    spec: str = ""

    @property
    def keys(self) -> list[str]:
        return [story.key for story in self.stories]


def raw_block(*texts: str) -> dict[str, Any]:
    """The values of the last facts block in the first text that has one; {} when none has."""
    for text in texts:
        blocks = BLOCK.findall(text)
        if blocks:
            return _values(blocks[-1])
    return {}


def _values(block: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for line in block.splitlines():
        name, colon, value = line.partition(":")
        if not colon:
            continue
        try:
            found[name.strip()] = json.loads(value)
        except ValueError:
            continue
    return found


def gather(raw: Mapping[str, Any], env: Mapping[str, str] = os.environ) -> Facts:
    """Complete the facts of the prompt with those of the environment.

    The attempt of the environment wins: it is the number of this very spawn, also when a session is resumed.
    """
    keys = [key for key in env.get("SPRINTRUNNER_STORY_KEYS", "").split(",") if key]
    stories = _list(raw.get("stories")) or [{"key": key} for key in keys]
    number = env.get("SPRINTRUNNER_ATTEMPT") or raw.get("attempt") or 1
    return Facts(
        command=str(raw.get("command") or env.get("SPRINTRUNNER_COMMAND", "")),
        attempt=int(number) if str(number).isdecimal() else 1,
        stories=tuple(story_of(story) for story in stories if story.get("key")),
        project=raw.get("project") if isinstance(raw.get("project"), dict) else {},  # type: ignore[arg-type]
        open_findings=tuple(_list(raw.get("open_findings"))),
        failure=str(raw.get("failure") or ""),
        verify=tuple(command for command in raw.get("verify") or () if isinstance(command, str)),
        skill=str(raw.get("skill") or ""),
        spec=str(raw.get("spec") or ""),
    )


def _list(value: object) -> Sequence[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def story_of(raw: Mapping[str, Any]) -> Story:
    """A story from its facts; what is missing follows from its key."""
    key = str(raw["key"])
    match = KEY.fullmatch(key)
    epic, number, slug = (match[1], match[2], match[3] or key) if match else ("", "", key)

    def path(name: str, usual: str) -> Path:
        return Path(str(raw.get(name) or f"{ARTEFACTS}/{usual}"))

    return Story(
        key=key,
        epic=str(raw.get("epic") or epic),
        number=number,
        slug=slug,
        title=str(raw.get("title") or slug.replace("-", " ").capitalize()),
        story_file=path("story_file", f"{key}.md"),
        discovery_file=path("discovery_file", f"{key}-discovery.md"),
        tech_spec_file=path("tech_spec_file", f"tech-spec-{key}.md"),
    )
