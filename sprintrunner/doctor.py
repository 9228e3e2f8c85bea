"""Checks everything a night's run needs; each check answers in one line, with the remedy."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path

from . import agents, project, settings, status_file
from .errors import SprintRunnerError
from .git import Git
from .settings import Layers
from .sprint import StatusClass
from .store import Store
from .terminal import count, printable

#: Free space below which nothing should start, and below which a night may not fit (bytes).
_DISK_FAIL = 200 * 1024**2
_DISK_WARN = 2 * 1024**3
#: How long an agent may take to tell its version, in seconds; Node starts slowly on a cold disk.
_VERSION_TIMEOUT = 30
#: Words of the shell and of the environment that may stand before the program of a verify command.
_SHELL_WORDS = frozenset(
    {"cd", "env", "exec", "if", "test", "[", "set", "export", "time", ".", "(", "{", "!"}
)


class Status(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at; ``remedy`` says what to do and is empty where nothing is."""

    name: str
    status: Status
    message: str
    remedy: str = ""

    def as_json(self) -> dict[str, str]:
        """The check as plain values."""
        return {name: str(value) for name, value in asdict(self).items()}


def examine(start: Path, env: Mapping[str, str]) -> list[Check]:
    """Return all checks of the project that holds ``start``; starts no work and leaves the tree alone."""
    try:
        found = project.load(project.find_root(start))
    except SprintRunnerError as error:
        remedy = "Run this inside a project with a sprint-status.yaml, or name it with --project."
        return [Check("project", Status.FAIL, error.sentence, remedy), _sqlite()]
    patient = _Patient(found, env)
    return [
        Check("project", Status.OK, f"{found.name} in {found.root}"),
        *(_guarded(name, look, patient) for name, look in _CHECKS.items()),
        _sqlite(),
    ]


def is_healthy(checks: Iterable[Check]) -> bool:
    """Whether nothing fails; warnings are allowed."""
    return all(check.status is not Status.FAIL for check in checks)


def lines(checks: Sequence[Check]) -> list[str]:
    """Return one line a check, and a last one that sums them up."""
    width = max(len(check.name) for check in checks)
    failed = sum(check.status is Status.FAIL for check in checks)
    warned = sum(check.status is Status.WARN for check in checks)
    verdict = f"{count(failed, 'check')} failed." if failed else "Ready for the night."
    doubts = f" {count(warned, 'warning')}." if warned else ""
    return [*(_line(check, width) for check in checks), verdict + doubts]


def _line(check: Check, width: int) -> str:
    remedy = f" {printable(check.remedy, 300)}" if check.remedy else ""
    return f"{check.status:<4}  {check.name:<{width}}  {printable(check.message, 300)}{remedy}"


class _Patient:
    """The project and what several checks need of it, each read once."""

    def __init__(self, found: project.Project, env: Mapping[str, str]) -> None:
        self.project = found
        self.env = env
        self.git = Git(found.root)

    @cached_property
    def state_dir(self) -> Path:
        """The project's state folder."""
        return project.state_dir(self.project.root, self.env)

    @cached_property
    def layers(self) -> Layers:
        """The settings in force."""
        return settings.load(self.project.root, self.state_dir, self.env)


def _guarded(name: str, look: Callable[[_Patient], Check], patient: _Patient) -> Check:
    """One check; what it raises is its answer, so that the others still speak."""
    try:
        return look(patient)
    except SprintRunnerError as error:
        return Check(name, Status.FAIL, error.sentence)
    except OSError as error:
        return Check(name, Status.FAIL, f"The system refused: {error}.")


def _configuration(patient: _Patient) -> Check:
    sources = [name for name, source in patient.layers.sources.items() if source != "default"]
    return Check(
        "configuration", Status.OK, f"valid, {count(len(sources), 'setting')} changed from the default"
    )


def _status(patient: _Patient) -> Check:
    found = status_file.read(patient.project.status_path, patient.project.root)
    if found.refusal:
        return Check(
            "status file", Status.FAIL, found.refusal, "It is shown but cannot be worked on until then."
        )
    open_stories = sum(entry.status_class is StatusClass.OPEN for entry in found.stories)
    told = f"{count(len(found.stories), 'story', 'stories')}, {open_stories} open"
    if found.warnings:
        return Check("status file", Status.WARN, f"{told}; {found.warnings[0]}", _more(found.warnings))
    return Check("status file", Status.OK, told)


def _more(warnings: Sequence[str]) -> str:
    return f"(and {len(warnings) - 1} more)" if len(warnings) > 1 else ""


def _repository(patient: _Patient) -> Check:
    if not patient.git.is_repository():
        return Check("git", Status.FAIL, "The project is not a git repository.", "Run git init and commit.")
    if patient.git.head() is None:
        return Check("git", Status.FAIL, "The repository has no commit yet.", "Commit once.")
    branch = patient.git.branch()
    if branch is None:
        remedy = "Commits made there are easily lost: switch to a branch."
        return Check("git", Status.WARN, "HEAD is detached.", remedy)
    return Check("git", Status.OK, f"on branch {branch}")


def _identity(patient: _Patient) -> Check:
    if patient.git.has_identity():
        return Check("git identity", Status.OK, "name and e-mail are set")
    remedy = "Set them: git config user.name … and git config user.email …"
    return Check("git identity", Status.FAIL, "git does not know who commits.", remedy)


def _tree(patient: _Patient) -> Check:
    dirty = patient.git.dirty()
    if not dirty:
        return Check("working tree", Status.OK, "clean")
    told = f"{count(len(dirty), 'path')} not committed, {dirty[0]} for one"
    if patient.layers.values.dirty_tree == "allow":
        return Check("working tree", Status.WARN, told, "They will never be committed by a batch.")
    remedy = "Unless an earlier batch left them none will start: commit, stash, or set dirty_tree to allow."
    return Check("working tree", Status.WARN, told, remedy)


def _agent(patient: _Patient) -> Check:
    layers = patient.layers
    name = layers.values.agent
    program = agents.find_program(agents.by_name(name), layers.agents.get(name), patient.env)
    version = _version_of(program, patient)
    if version is None:
        remedy = f"Try it by hand: {program} --version"
        return Check("agent", Status.FAIL, f"{program} does not tell its version.", remedy)
    return Check("agent", Status.OK, f"{name} {version} ({program})")


def _version_of(program: str, patient: _Patient) -> str | None:
    """The first line of ``--version``, or None when the program fails or hangs."""
    try:
        ended = subprocess.run(
            [program, "--version"],
            cwd=patient.project.root,
            env=dict(patient.env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_VERSION_TIMEOUT,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return printable(ended.stdout.decode("utf-8", "replace").partition("\n")[0], 80) or None


def _verify(patient: _Patient) -> Check:
    commands = patient.layers.values.verify
    if not commands:
        remedy = (
            'Name your tests in sprintrunner.toml: verify = ["…"]; until then stories are "not verified".'
        )
        return Check("verify", Status.WARN, "no verify command is set.", remedy)
    lost = [command for command in commands if not _program_exists(command, patient)]
    if lost:
        return Check(
            "verify", Status.FAIL, f"the program of {lost[0]!r} was not found.", "Install it or correct it."
        )
    return Check("verify", Status.OK, "; ".join(commands))


def _program_exists(command: str, patient: _Patient) -> bool:
    """Whether the first word of a shell command can be run; what only a shell understands is trusted."""
    word = command.split(maxsplit=1)[0] if command.split() else ""
    if not word or word in _SHELL_WORDS or any(mark in word for mark in "=$`'\"(;|&"):
        return bool(word)
    if "/" in word:
        return os.access(patient.project.root / word, os.X_OK)
    return shutil.which(word, path=patient.env.get("PATH")) is not None


def _database(patient: _Patient) -> Check:
    from .services import DATABASE

    path = patient.state_dir / DATABASE
    if not path.exists():
        return Check("database", Status.OK, f"none yet; it will be {path}")
    store = Store.open(path)
    try:
        store.check()
        return Check("database", Status.OK, f"{count(store.count_batches(), 'batch', 'batches')} in {path}")
    finally:
        store.close()


def _disk(patient: _Patient) -> Check:
    places = (patient.project.root, patient.state_dir)
    free = min(shutil.disk_usage(place).free for place in places)
    told = f"{free / 1024**3:.1f} GB free"
    if free < _DISK_FAIL:
        return Check("disk", Status.FAIL, told, "Make room: a batch stops when the disk is full.")
    if free < _DISK_WARN:
        return Check("disk", Status.WARN, told, "Transcripts of a long night may not fit.")
    return Check("disk", Status.OK, told)


def _port(patient: _Patient) -> Check:
    port = patient.layers.values.server_port
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            told = f"{port} cannot be used: {error.strerror}."
            return Check(
                "port", Status.WARN, told, "Fine if it is this project's own server; else serve --port N."
            )
    return Check("port", Status.OK, f"{port} is free")


def _sleep(patient: _Patient) -> Check:
    inhibitor = shutil.which("systemd-inhibit", path=patient.env.get("PATH"))
    if inhibitor:
        return Check("sleep", Status.OK, f"{inhibitor} can keep the machine awake")
    return Check(
        "sleep", Status.WARN, "systemd-inhibit was not found.", "Keep the machine from sleeping yourself."
    )


def _sqlite() -> Check:
    return Check("sqlite", Status.OK, f"SQLite {sqlite3.sqlite_version}")


_CHECKS: Mapping[str, Callable[[_Patient], Check]] = {
    "configuration": _configuration,
    "status file": _status,
    "git": _repository,
    "git identity": _identity,
    "working tree": _tree,
    "agent": _agent,
    "verify": _verify,
    "database": _database,
    "disk": _disk,
    "port": _port,
    "sleep": _sleep,
}
