"""The project's own verify commands: how one is run, and what its end says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .process import Exit, Limits, Spec

#: What of the output is kept with the evidence and handed to the next attempt.
TAIL_BYTES = 6000


@dataclass(frozen=True, slots=True)
class Verified:
    """One verify command as it ended; ``seconds`` on the monotonic clock."""

    command: str
    ok: bool
    seconds: float
    tail: str
    reason: str = ""
    #: Ended by a person's word: it says nothing about the work.
    stopped: bool = False

    def as_json(self) -> dict[str, Any]:
        """The form stored as evidence."""
        return asdict(self)

    @property
    def last_line(self) -> str:
        """The last line that says something."""
        lines = [line for line in self.tail.splitlines() if line.strip()]
        return lines[-1].strip()[:300] if lines else self.reason


def spec_for(
    command: str,
    *,
    root: Path,
    env: Mapping[str, str],
    run_id: str,
    folder: Path,
    number: int,
    lock_fd: int | None,
) -> Spec:
    """How to run one verify command: a shell in the project root, without input, under the shim."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    # After a crash the same command is verified again; the end of the first run is not the end of this one.
    (folder / f"verify-{number}.json").unlink(missing_ok=True)
    return Spec(
        argv=("/bin/sh", "-c", f"exec 2>&1\n{command}"),
        cwd=root,
        env=env,
        run_id=run_id,
        stdin_path=None,
        out_path=folder / f"verify-{number}.txt",
        err_path=folder / f"verify-{number}.err",
        exit_path=folder / f"verify-{number}.json",
        lock_fd=lock_fd,
    )


def limits_for(timeout_minutes: float, grace_seconds: float) -> Limits:
    """Verify has a wall clock only: a test suite may be silent for long."""
    return Limits(wall=timeout_minutes * 60, idle=None, after_result=None, grace=grace_seconds)


def judge(command: str, spec: Spec, ended: Exit) -> Verified:
    """What the end of a verify command says; only exit status 0 is green."""
    ok = ended.ended_by == "itself" and ended.code == 0
    reason = ""
    if ended.ended_by == "stop":
        reason = "stopped on request"
    elif ended.ended_by == "wall":
        reason = "it ran longer than verify_timeout_minutes allows"
    elif not ok:
        reason = ended.error or (
            f"exit status {ended.code}" if ended.code is not None else f"signal {ended.signal}"
        )
    return Verified(
        command, ok, round(ended.seconds, 3), _tail(spec.out_path), reason, ended.ended_by == "stop"
    )


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as handle:
            handle.seek(0, 2)
            handle.seek(max(handle.tell() - TAIL_BYTES, 0))
            return handle.read().decode("utf-8", "replace")
    except OSError:
        return ""
