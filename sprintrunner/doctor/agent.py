"""Whether the agents can do their work: found, able, and logged in as far as that is known for free."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from .. import agents
from ..errors import AgentMissing, SprintRunnerError
from .base import Check, Patient, Status

#: How long ``auth status`` may take, in seconds; Node starts slowly on a cold disk.
_AUTH_SECONDS = 20
_AUTH_COMMAND = re.compile(r"^\s{1,8}auth\b", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _Keys:
    """Where one agent keeps its login: variables that stand for one, files that hold one.

    ``folder`` is the variable that moves the files' folder, ``usual`` that folder below HOME.
    """

    variables: tuple[str, ...]
    folder: str
    usual: str
    files: tuple[str, ...]
    remedy: str


_LOGINS: Mapping[str, _Keys] = {
    "claude": _Keys(
        (
            "CLAUDE_CODE_OAUTH_TOKEN",
            "ANTHROPIC_AUTH_TOKEN",
            "ANTHROPIC_API_KEY",
            "CLAUDE_CODE_USE_BEDROCK",
            "CLAUDE_CODE_USE_VERTEX",
        ),
        "CLAUDE_CONFIG_DIR",
        ".claude",
        (".credentials.json",),
        "Start claude once and log in, or set CLAUDE_CODE_OAUTH_TOKEN.",
    ),
    "codex": _Keys(
        ("CODEX_API_KEY", "OPENAI_API_KEY"), "CODEX_HOME", ".codex", ("auth.json",), "Run codex login."
    ),
    "gemini": _Keys(
        ("GEMINI_API_KEY", "GOOGLE_API_KEY", "GOOGLE_GENAI_USE_VERTEXAI"),
        "",
        ".gemini",
        ("oauth_creds.json",),
        "Start gemini once and log in.",
    ),
    "opencode": _Keys(
        ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "OPENROUTER_API_KEY", "GEMINI_API_KEY"),
        "XDG_DATA_HOME",
        ".local/share",
        ("opencode/auth.json",),
        "Run opencode auth login.",
    ),
    "qwen": _Keys(
        ("OPENAI_API_KEY", "DASHSCOPE_API_KEY"),
        "",
        ".qwen",
        ("oauth_creds.json",),
        "Start qwen once and log in.",
    ),
}


def program(patient: Patient) -> Check:
    """The agent of the setting: its program, version and options."""
    return _program(patient, patient.layers.values.agent, "agent")


def login(patient: Patient) -> Check:
    """Its login, without asking its service: what cannot be known for free is a warning."""
    return _login(patient, patient.layers.values.agent, "login")


def other_agents(patient: Patient) -> Iterator[Check]:
    """The same for agents that only some commands use; nothing where the settings are not valid."""
    try:
        main, commands = patient.layers.values.agent, patient.layers.commands
    except SprintRunnerError:
        return  # said by the check of the configuration
    for name in sorted({own.agent for own in commands.values() if own.agent} - {main}):
        try:
            yield _program(patient, name, f"agent {name}")
            yield _login(patient, name, f"login {name}")
        except SprintRunnerError as error:
            yield Check(f"agent {name}", Status.FAIL, error.sentence)


def _program(patient: Patient, name: str, title: str) -> Check:
    adapter = agents.by_name(name)
    path = agents.find_program(adapter, patient.layers.agents.get(name), patient.env)
    known = agents.probe(path, patient.env)
    if known.trouble or not known.version:
        why = f": {known.trouble}" if known.trouble else "."
        remedy = f"Try it by hand: {path} --version"
        return Check(title, Status.FAIL, f"{path} does not tell its version{why}", remedy)
    objection = adapter.objection(known)
    if objection:
        return Check(title, Status.FAIL, objection)
    told = f"{name} {known.version} ({path})"
    if known.flags is None:
        return Check(title, Status.WARN, told, "Its help lists no options, so they are taken as usual.")
    return Check(title, Status.OK, f"{told}, {len(known.flags)} options known")


def _login(patient: Patient, name: str, title: str) -> Check:
    values, keys = patient.layers.values, _LOGINS.get(name)
    # As the agent itself will see it: a key that is dropped is no login.
    env = {key: value for key, value in patient.env.items() if key not in values.env_drop}
    if keys is None:
        return Check(title, Status.WARN, f"nothing is known about the login of {name}.")
    variable = next((key for key in keys.variables if env.get(key)), None)
    if variable:
        return Check(title, Status.OK, f"by {variable}")
    place = _place(keys, env)
    if place is not None:
        return Check(title, Status.OK, f"by {place}")
    asked = _auth_status(patient, name, env) if name == "claude" else None
    if asked is not None:
        return Check(title, Status.OK if asked else Status.FAIL, *_answer(asked, keys.remedy))
    dropped = [key for key in keys.variables if patient.env.get(key)]
    hint = f"{dropped[0]} is set but dropped by env_drop. " if dropped else ""
    return Check(title, Status.WARN, "no login was found; there may be one elsewhere.", hint + keys.remedy)


def _answer(logged_in: bool, remedy: str) -> tuple[str, str]:
    return ("it says so itself", "") if logged_in else ("it says that it is not logged in.", remedy)


def _place(keys: _Keys, env: Mapping[str, str]) -> Path | None:
    """The file with the login, which is not opened."""
    given = env.get(keys.folder, "") if keys.folder else ""
    home = env.get("HOME", "")
    folder = Path(given) if given else Path(home) / keys.usual if home else None
    files = [folder / name for name in keys.files] if folder else []
    return next((path for path in files if path.is_file() and path.stat().st_size), None)


def _auth_status(patient: Patient, name: str, env: Mapping[str, str]) -> bool | None:
    """What ``auth status`` answers, None where the program or such a command of it is missing."""
    try:
        path = agents.find_program(agents.by_name(name), patient.layers.agents.get(name), patient.env)
    except AgentMissing:
        return None  # said by the check of the program
    said = _run([path, "--help"], patient, env)
    if said is None or not _AUTH_COMMAND.search(said.stdout):
        return None
    answer = _run([path, "auth", "status"], patient, env)
    return None if answer is None else answer.returncode == 0


def _run(
    argv: list[str], patient: Patient, env: Mapping[str, str]
) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(
            argv,
            # Not in the project: a program that takes the words for a prompt finds nothing to work on.
            cwd=patient.state_dir,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_AUTH_SECONDS,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
