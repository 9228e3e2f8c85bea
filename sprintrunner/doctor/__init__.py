"""Checks everything a night's run needs; each check answers in one line, with the remedy."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from .. import pipelines, project, status_file
from ..errors import SprintRunnerError
from ..sprint import StatusClass
from ..store import DATABASE, Store
from ..terminal import count, printable
from . import machine
from .agent import login, other_agents, program
from .base import Check, Patient, Status

#: Words of the shell and of the environment that may stand before the program of a verify command.
_SHELL_WORDS = frozenset(
    {"cd", "env", "exec", "if", "test", "[", "set", "export", "time", ".", "(", "{", "!"}
)


def examine(start: Path, env: Mapping[str, str]) -> list[Check]:
    """Return all checks of the project that holds ``start``; starts no work and leaves the tree alone."""
    try:
        found = project.load(project.find_root(start))
    except SprintRunnerError as error:
        remedy = "Run this inside a project with a sprint-status.yaml, or name it with --project."
        return [Check("project", Status.FAIL, error.sentence, remedy), machine.sqlite()]
    patient = Patient(found, env)
    return [
        Check("project", Status.OK, f"{found.name} in {found.root}"),
        *(_guarded(name, look, patient) for name, look in _CHECKS.items()),
        *other_agents(patient),
        machine.sqlite(),
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


def _guarded(name: str, look: Callable[[Patient], Check], patient: Patient) -> Check:
    """One check; what it raises is its answer, so that the others still speak."""
    try:
        return look(patient)
    except SprintRunnerError as error:
        return Check(name, Status.FAIL, error.sentence)
    except OSError as error:
        return Check(name, Status.FAIL, f"The system refused: {error}.")


def _configuration(patient: Patient) -> Check:
    sources = [name for name, source in patient.layers.sources.items() if source != "default"]
    return Check(
        "configuration", Status.OK, f"valid, {count(len(sources), 'setting')} changed from the default"
    )


def _status(patient: Patient) -> Check:
    found = status_file.read(patient.project.status_path, patient.project.root)
    if found.refusal:
        return Check(
            "status file", Status.FAIL, found.refusal, "It is shown but cannot be worked on until then."
        )
    if not _can_write(found.path):
        remedy = f"Make {found.path} and its folder writable."
        return Check("status file", Status.FAIL, "It cannot be written.", remedy)
    open_stories = sum(entry.status_class is StatusClass.OPEN for entry in found.stories)
    told = f"{count(len(found.stories), 'story', 'stories')}, {open_stories} open"
    if found.warnings:
        return Check("status file", Status.WARN, f"{told}; {found.warnings[0]}", _more(found.warnings))
    return Check("status file", Status.OK, told)


def _can_write(path: Path) -> bool:
    # It is replaced, not written over: the folder it really lies in has to let us.
    real = path.resolve()
    return os.access(real, os.W_OK) and os.access(real.parent, os.W_OK | os.X_OK)


def _more(warnings: Sequence[str]) -> str:
    return f"(and {len(warnings) - 1} more)" if len(warnings) > 1 else ""


def _repository(patient: Patient) -> Check:
    if not patient.git.is_repository():
        return Check("git", Status.FAIL, "The project is not a git repository.", "Run git init and commit.")
    if patient.git.head() is None:
        return Check("git", Status.FAIL, "The repository has no commit yet.", "Commit once.")
    branch = patient.git.branch()
    if branch is None:
        remedy = "Commits made there are easily lost: switch to a branch."
        return Check("git", Status.WARN, "HEAD is detached.", remedy)
    return Check("git", Status.OK, f"on branch {branch}")


def _identity(patient: Patient) -> Check:
    if patient.git.has_identity():
        return Check("git identity", Status.OK, "name and e-mail are set")
    remedy = "Set them: git config user.name … and git config user.email …"
    return Check("git identity", Status.FAIL, "git does not know who commits.", remedy)


def _tree(patient: Patient) -> Check:
    dirty = patient.git.dirty()
    if not dirty:
        return Check("working tree", Status.OK, "clean")
    told = f"{count(len(dirty), 'path')} not committed, {dirty[0]} for one"
    if patient.layers.values.dirty_tree == "allow":
        return Check("working tree", Status.WARN, told, "They will never be committed by a batch.")
    remedy = "Unless an earlier batch left them none will start: commit, stash, or set dirty_tree to allow."
    return Check("working tree", Status.WARN, told, remedy)


def _verify(patient: Patient) -> Check:
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


def _program_exists(command: str, patient: Patient) -> bool:
    """Whether the first word of a shell command can be run; what only a shell understands is trusted."""
    word = command.split(maxsplit=1)[0] if command.split() else ""
    if not word or word in _SHELL_WORDS or any(mark in word for mark in "=$`'\"(;|&"):
        return bool(word)
    if "/" in word:
        return os.access(patient.project.root / word, os.X_OK)
    return shutil.which(word, path=patient.env.get("PATH")) is not None


def _pipeline(patient: Patient) -> Check:
    """What drives the stories, and what of BMAD is there for it."""
    setting = patient.layers.values.pipeline
    installed = pipelines.find(patient.project.root)
    calls = ", ".join(skill.call for skill in installed.skills.values()) or "no skills of it"
    told = f"BMAD {patient.project.era}: {calls}"
    problem = installed.problems[0] if installed.problems else ""
    if setting == "builtin":
        return Check("pipeline", Status.OK, f"builtin ({told})")
    chosen = pipelines.choose(patient.project, setting)
    told = f"{chosen.name} ({told})"
    if _needs_uv(installed) and shutil.which("uv", path=patient.env.get("PATH")) is None:
        remedy = "Install uv: without it they stop at their first step."
        return Check("pipeline", Status.WARN, f"{told}; its skills call uv, which was not found.", remedy)
    if problem or chosen.advice():
        return Check("pipeline", Status.WARN, told, problem or chosen.advice())
    return Check("pipeline", Status.OK, told)


def _needs_uv(installed: pipelines.Installed) -> bool:
    return any("uv run" in skill.text for skill in installed.skills.values())


def _database(patient: Patient) -> Check:
    path = patient.state_dir / DATABASE
    if not path.exists():
        return Check("database", Status.OK, f"none yet; it will be {path}")
    store = Store.open(path)
    try:
        store.check()
        return Check("database", Status.OK, f"{count(store.count_batches(), 'batch', 'batches')} in {path}")
    finally:
        store.close()


_CHECKS: Mapping[str, Callable[[Patient], Check]] = {
    "configuration": _configuration,
    "status file": _status,
    "git": _repository,
    "git identity": _identity,
    "working tree": _tree,
    "pipeline": _pipeline,
    "agent": program,
    "login": login,
    "verify": _verify,
    "database": _database,
    "disk": machine.disk,
    "port": machine.port,
    "sleep": machine.sleep,
    "clock": machine.clock,
}


__all__ = ["Check", "Status", "examine", "is_healthy", "lines"]
