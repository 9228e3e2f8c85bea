"""Tells which run a local HTTP client belongs to, by the kernel's table of connections and the marker."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from . import process

_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
_ADDRESS, _PEER, _INODE = 1, 2, 9


def run_of_client(port: int, server_port: int, run_ids: Iterable[str]) -> str | None:
    """The run whose process tree holds the other end of a local connection, or None.

    ``port`` is the client's, ``server_port`` ours. Whoever has dropped the marker of its run is not found.
    """
    sockets = {f"socket:[{inode}]" for inode in _inodes(port, server_port)}
    if not sockets:
        return None
    return next(
        (run for run in run_ids if any(_holds(pid, sockets) for pid in process.find_marked(run))), None
    )


def _inodes(port: int, server_port: int) -> list[str]:
    wanted = (f":{port:04X}", f":{server_port:04X}")
    found = []
    for table in _TABLES:
        try:
            rows = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            if fields[_ADDRESS].endswith(wanted[0]) and fields[_PEER].endswith(wanted[1]):
                found.append(fields[_INODE])
    return found


def _holds(pid: int, sockets: set[str]) -> bool:
    with suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:
        return any(_target(entry) in sockets for entry in entries)
    return False


def _target(entry: os.DirEntry[str]) -> str:
    try:
        return os.readlink(entry.path)  # noqa: PTH115
    except OSError:
        return ""  # closed meanwhile
