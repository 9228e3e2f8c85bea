"""Makes the sample project: a tiny Python package under git, with a BMAD plan of five stories."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

DATA = Path(__file__).resolve().parent / "data" / "sample"
#: Files that would mean something where they are kept go by another name there.
RENAMED = {"gitignore.txt": ".gitignore"}
IDENTITY = {"user.name": "Robin Windowsill", "user.email": "robin@windowsill.example"}
#: The user's own git configuration must not sign, convert or hook the commits of a sample.
HABITS = {
    "commit.gpgsign": "false",
    "tag.gpgsign": "false",
    "core.autocrlf": "false",
    "core.hooksPath": ".git/hooks",
    "gc.auto": "0",
}


def create(folder: Path) -> Path:
    """Make the sample project in ``folder`` with one commit on ``main``; returns the folder.

    Raises FileExistsError when the folder holds anything, subprocess.CalledProcessError when git fails and
    FileNotFoundError without git. Needs neither a HOME nor a git identity of the user.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty; the sample project needs a folder of its own")
    for source in sorted(path for path in DATA.rglob("*") if path.is_file()):
        _copy(source, folder)
    _git(folder, "init", "-q", "-b", "main", "--template=")
    for name, value in {**IDENTITY, **HABITS}.items():
        _git(folder, "config", name, value)
    _git(folder, "add", "-A")
    _git(folder, "commit", "-q", "-m", "Begin with a plant and a plan")
    return folder


def _copy(source: Path, folder: Path) -> None:
    name = RENAMED.get(source.name, source.name.removesuffix(".txt"))
    target = folder / source.relative_to(DATA).with_name(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    text = source.read_text(encoding="utf-8").replace("{{now}}", time.strftime("%m-%d-%Y %H:%M"))
    target.write_text(text, encoding="utf-8")


def _git(folder: Path, *words: str) -> None:
    # A GIT_DIR of whoever calls us (a git hook, say) would send the commit somewhere else.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    subprocess.run(
        ["git", *words], cwd=folder, env=clean, check=True, stdin=subprocess.DEVNULL, capture_output=True
    )
