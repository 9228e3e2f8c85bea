"""Installs one exact version of Claude Code from npm, once, into a cache outside the repository."""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Pinned: every release may behave differently, and a test must say which one it proved.
VERSION = "2.1.331"
#: Longest time for the download and its unpacking, about 400 MB, in seconds.
PATIENCE = 300
_MACHINES = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}


class Unavailable(Exception):
    """Claude Code cannot be had on this machine; the text says why."""


def program() -> Path:
    """The absolute path of the pinned `claude`, installed where it was not yet.

    Raises Unavailable. Several test runs may ask at once; one of them installs.
    """
    package = _package()
    home = _cache() / f"{package.partition('/')[2]}-{VERSION}"
    installed = home / "node_modules" / package / "claude"
    home.parent.mkdir(parents=True, exist_ok=True)
    with _lock(home.with_name(f"{home.name}.lock")):
        if not installed.is_file():
            # Nobody downloads 400 MB by the way: CI asks for it, and a developer who wants these tests.
            if os.environ.get("REQUIRE_REAL_CLI") != "1":
                raise Unavailable(
                    "it is not installed yet; REQUIRE_REAL_CLI=1 make test installs it (400 MB)"
                )
            _install(package, home)
    return installed


def _package() -> str:
    """The platform's own package: the general one gives an older version to an older Node."""
    arch = _MACHINES.get(platform.machine().lower())
    if sys.platform != "linux" or arch is None:
        raise Unavailable(f"no package of it is known for {sys.platform} on {platform.machine()}")
    libc = "" if platform.libc_ver()[0] == "glibc" else "-musl"
    return f"@anthropic-ai/claude-code-linux-{arch}{libc}"


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "sprintrunner-tests"


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _install(package: str, home: Path) -> None:
    """Install beside the final place and rename, so that a broken download is never taken for a program."""
    shutil.rmtree(home, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=home.parent) as folder:
        _npm(f"{package}@{VERSION}", Path(folder))
        found = Path(folder) / "node_modules" / package / "claude"
        said = _said([str(found), "--version"], 30)
        if not said.startswith(f"{VERSION} "):
            raise Unavailable(f"npm gave {said!r} for {package}@{VERSION}")
        Path(folder).rename(home)
        # The context manager takes away the folder that it made.
        Path(folder).mkdir()


def _npm(wanted: str, folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise Unavailable("npm is not installed")
    # No scripts: the package is its binary, and nothing else of it may run.
    options = ["--ignore-scripts", "--no-save", "--no-audit", "--no-fund", "--no-update-notifier"]
    _said([npm, "install", "--prefix", str(folder), *options, wanted], PATIENCE)


def _said(argv: list[str], seconds: float) -> str:
    try:
        ended = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(str(error)) from error
    if ended.returncode != 0:
        raise Unavailable(f"{Path(argv[0]).name} failed: {(ended.stderr or ended.stdout).strip()[-500:]}")
    return ended.stdout.strip()
