"""One shim killed at the moment it writes its verdict (B8)."""

from __future__ import annotations

import os
import secrets
import signal
import threading
from collections.abc import Callable
from pathlib import Path

from checks import expect

from sprintrunner.process import Exit, Limits, Spec, Supervised
from sprintrunner.process.spec import parse_exit

_OLD = b'{"code": 7, "signal": null, "ended_by": "itself", "err_path": "/nowhere"}'


def kill_at_rename(folder: Path, *, old: bool) -> bool:
    """Run ``true`` under a real shim, killed once its draft is there; returns whether the draft was left.

    Fails when the verdict file is neither the old one, if any, nor a whole new one.
    """
    folder.mkdir()
    verdict, ended = folder / "exit.json", threading.Event()
    if old:
        verdict.write_bytes(_OLD)
    run = Supervised(
        _spec(folder), Limits(None, None, None, 1.0), on_lines=lambda _: None, on_exit=_told(ended)
    )
    shim = run.spawn()
    run.go()
    while not ended.is_set():
        if any(name.endswith(".tmp") for name in os.listdir(folder)):
            os.kill(shim.pid, signal.SIGKILL)
            break
    expect(ended.wait(10), "the end was not reported")
    left = any(name.endswith(".tmp") for name in os.listdir(folder))
    data = verdict.read_bytes() if verdict.exists() else None
    whole = data is None or data == _OLD or parse_exit(data) is not None
    expect(whole, f"half a verdict: {data!r}")
    expect(data is not None or not old, "the old verdict is gone and there is no new one")
    return left


def _told(ended: threading.Event) -> Callable[[Exit], None]:
    def told(_: Exit) -> None:
        ended.set()

    return told


def _spec(folder: Path) -> Spec:
    return Spec(
        argv=["/bin/true"],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin"},
        run_id=secrets.token_hex(16),
        stdin_path=None,
        out_path=folder / "out",
        err_path=folder / "err",
        exit_path=folder / "exit.json",
    )
