"""What a night needs of the machine: room, a port, a clock, and that it stays awake."""

from __future__ import annotations

import shutil
import socket
import sqlite3 as sqlite_library
import time

from .. import inhibit
from ..errors import GitError
from .base import Check, Patient, Status

#: Free space below which nothing should start, and below which a night may not fit (bytes).
_DISK_FAIL = 200 * 1024**2
_DISK_WARN = 3 * 1024**3 // 2
#: No release of this program is older: a clock before it was never set (2025-01-01, in s).
_BEFORE_US = 1_735_689_600
#: A commit further in the future than this was not made by a clock a little off, in s.
_AHEAD = 3600


def disk(patient: Patient) -> Check:
    """Room for transcripts, in the project and in the state folder."""
    places = (patient.project.root, patient.state_dir)
    free = min(shutil.disk_usage(place).free for place in places)
    told = f"{free / 1024**3:.1f} GB free"
    if free < _DISK_FAIL:
        return Check("disk", Status.FAIL, told, "Make room: a batch stops when the disk is full.")
    if free < _DISK_WARN:
        return Check("disk", Status.WARN, told, "Transcripts of a long night may not fit; 1.5 GB are enough.")
    return Check("disk", Status.OK, told)


def port(patient: Patient) -> Check:
    """Whether the dashboard's port can be had."""
    number = patient.layers.values.server_port
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", number))
        except OSError as error:
            told = f"{number} cannot be used: {error.strerror}."
            remedy = "Fine if it is this project's own server; else serve --port N."
            return Check("port", Status.WARN, told, remedy)
    return Check("port", Status.OK, f"{number} is free")


def sleep(patient: Patient) -> Check:
    """Whether something can keep the machine awake."""
    holder = inhibit.find(patient.env)
    if holder:
        return Check("sleep", Status.OK, f"{holder} keeps the machine awake during a batch, if it may")
    told = "neither systemd-inhibit nor caffeinate was found."
    return Check("sleep", Status.WARN, told, "Keep the machine from sleeping yourself.")


def clock(patient: Patient) -> Check:
    """Whether the clock can be believed: usage limits name the time at which they end."""
    now = time.time()
    remedy = "Set the clock: waits for usage limits and daily budgets depend on it."
    if now < _BEFORE_US:
        return Check("clock", Status.FAIL, f"it says {_date(now)}", remedy)
    try:
        newest = int(patient.git.text("log", "-1", "--format=%ct") or 0)
    except GitError:
        newest = 0
    if newest > now + _AHEAD:
        told = f"it says {_date(now)}, the last commit is of {_date(newest)}"
        return Check("clock", Status.WARN, told, remedy)
    return Check("clock", Status.OK, _date(now))


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M %Z", time.localtime(seconds))


def sqlite() -> Check:
    """The version of the database library."""
    return Check("sqlite", Status.OK, f"SQLite {sqlite_library.sqlite_version}")
