"""What the figures were measured on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import shutil
import sqlite3
import subprocess
from pathlib import Path

PACKAGES = ("flask", "gunicorn", "sqlalchemy", "aiohttp", "starlette", "sse-starlette", "uvicorn", "uvloop")


def load_average() -> float:
    """The load of the last minute."""
    return os.getloadavg()[0]


def raise_descriptor_limit() -> None:
    """Thousands of connections need it; the servers we start inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 16384 if hard == resource.RLIM_INFINITY else min(16384, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def describe() -> list[str]:
    """Sentences: processor, memory, system, versions."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = [f"{name} {version}" for name in PACKAGES if (version := _version(name))]
    return [
        f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB",
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}, "
        f"SQLite {sqlite3.sqlite_version}",
        ", ".join([*versions, *_programs()]),
    ]


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _programs() -> list[str]:
    found = []
    for name, flag in (("nginx", "-v"), ("chromium", "--version")):
        if path := shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin"):
            said = subprocess.run([path, flag], capture_output=True, text=True, check=False)
            words = (said.stdout + said.stderr).strip().splitlines()
            found.append(words[-1].removeprefix("nginx version: ") if words else name)
    return found
