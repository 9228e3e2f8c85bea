"""Reads ``sprint-status.yaml`` and changes single values in it without touching anything else."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from .. import files
from ..errors import StatusFileError, StatusFileRefused
from ..sprint import Entry, EntryKind
from .edit import apply, moment_of, plan, prove
from .reading import Content, analyse

__all__ = ["MAX_BYTES", "SprintStatus", "default_lock", "read", "write", "write_many"]

#: Larger files are refused before they are parsed; the largest seen in real use has 873 KB.
MAX_BYTES = 2_000_000

#: A file changed less than this many seconds ago may be in the middle of being rewritten in place.
_FRESH = 0.1
_SETTLE_TRIES = 4
#: An empty file is looked at again this often, this many seconds apart.
_EMPTY_TRIES, _EMPTY_WAIT = 3, 0.1
_COMPARE_TRIES = 5
_LOCK_SECONDS = 15.0

#: Digests of what this process wrote by atomic replace: such a file is complete however young it is.
_ours: deque[bytes] = deque(maxlen=64)


@dataclass(frozen=True)
class SprintStatus:
    """One version of the status file.

    ``refusal`` says why it must not be written (None: it may), ``digest`` is the SHA-256 of ``raw`` in hex,
    ``shape`` one of flat, nested, flow, foreign, empty, none.
    """

    path: Path
    entries: tuple[Entry, ...]
    warnings: tuple[str, ...]
    refusal: str | None
    digest: str
    shape: str
    raw: bytes

    @property
    def writable(self) -> bool:
        """Whether single values of it can be changed safely."""
        return self.refusal is None

    @property
    def stories(self) -> tuple[Entry, ...]:
        """The entries that are stories, in the order of the file."""
        return tuple(entry for entry in self.entries if entry.kind is EntryKind.STORY)

    @property
    def epics(self) -> tuple[str, ...]:
        """The ids of all epics, declared or only belonged to, in the order they are met."""
        return tuple(dict.fromkeys(entry.epic for entry in self.entries if entry.epic))

    def entry(self, key: str) -> Entry | None:
        """Return the entry with exactly this key."""
        return next((entry for entry in self.entries if entry.key == key), None)


@dataclass(frozen=True)
class _Version:
    """The bytes of the file with what proves that they are still there."""

    real: Path
    raw: bytes
    stat: os.stat_result
    settled: bool

    @property
    def stamp(self) -> tuple[int, int, int]:
        return (self.stat.st_ino, self.stat.st_size, self.stat.st_mtime_ns)

    def content(self) -> Content:
        return analyse(self.raw)


def _load(path: Path, root: Path | None) -> _Version:
    raw, found = files.read_regular(path, MAX_BYTES, root, StatusFileError)
    real = files.real_path(path, root, StatusFileError)
    return _Version(real, raw, found, True)


def _digest(raw: bytes) -> bytes:
    return hashlib.sha256(raw).digest()


def _may_be_partial(version: _Version, known: bytes) -> bool:
    age = abs(time.time() - version.stat.st_mtime)
    digest = _digest(version.raw)
    return age < _FRESH and digest != known and digest not in _ours


def _settled(path: Path, root: Path | None, known: bytes = b"") -> _Version:
    """Read the file; when it was changed just now, until two readings some time apart are the same.

    Editors truncate and rewrite in place, and half a file is valid YAML with fewer stories.
    """
    version = _load(path, root)
    for _ in range(_SETTLE_TRIES):
        if not _may_be_partial(version, known):
            return version
        time.sleep(_FRESH)
        again = _load(path, root)
        if again.stamp == version.stamp and again.raw == version.raw:
            return again
        version = again
    return _Version(version.real, version.raw, version.stat, False)


def _not_empty(path: Path, root: Path | None, known: bytes = b"") -> _Version:
    """Read the file; one that was emptied within the last second is given time to be filled."""
    version = _settled(path, root, known)
    for _ in range(_EMPTY_TRIES):
        young = abs(time.time() - version.stat.st_mtime) < 1
        if not young or version.content().shape != "empty":
            break
        time.sleep(_EMPTY_WAIT)
        version = _settled(path, root, known)
    return version


def _status(path: Path, version: _Version) -> SprintStatus:
    content = version.content()
    refusal = content.refusal
    if not version.settled:
        refusal = "Another program is rewriting the file right now; try again."
    digest = hashlib.sha256(version.raw).hexdigest()
    return SprintStatus(path, content.entries, content.warnings, refusal, digest, content.shape, version.raw)


def read(path: Path, root: Path | None = None) -> SprintStatus:
    """Read the status file at ``path``, which must lie inside ``root`` when that is given.

    Raises StatusFileError with one sentence when there is no readable regular file of at most 2 MB. What is
    wrong with its content becomes ``warnings`` and ``refusal``; whatever can be read is in ``entries``.
    Waits up to 0.6 s for a file that is just being rewritten.
    """
    return _status(path, _not_empty(path, root))


def default_lock(path: Path) -> Path:
    """Return a status file's lock: in the temporary folder, named by its real path and the user."""
    name = hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:24]
    return Path(tempfile.gettempdir()) / f"sprintrunner-{os.getuid()}-{name}.lock"


def write(
    path: Path,
    key: str,
    value: str,
    *,
    root: Path | None = None,
    expected: str | None = None,
    today: date | None = None,
    lock_path: Path | None = None,
    force: bool = False,
) -> SprintStatus:
    """Change the status of ``key`` to ``value`` and nothing else; see `write_many`."""
    wanted = {} if expected is None else {key: expected}
    return write_many(
        path, {key: value}, root=root, expected=wanted, today=today, lock_path=lock_path, force=force
    )


def write_many(
    path: Path,
    changes: Mapping[str, str],
    *,
    root: Path | None = None,
    expected: Mapping[str, str] | None = None,
    today: date | None = None,
    lock_path: Path | None = None,
    force: bool = False,
) -> SprintStatus:
    """Change the statuses of some keys, all or none, by one atomic replace, and return the new version.

    ``expected`` maps keys to the raw status that must stand there now. ``last_updated`` follows to ``today``
    (default: now) where it holds a plain date. ``force`` lets held, dropped and unknown statuses be replaced,
    which needs a person's word or our own record of a story of this batch. Raises StatusFileRefused when the
    file or a key cannot be edited safely, StatusFileError when it cannot be read or written, InvalidStatus.
    """
    with files.locked(lock_path or default_lock(path), _LOCK_SECONDS, StatusFileError) as lock:
        for _ in range(_COMPARE_TRIES):
            version = _not_empty(path, root, os.pread(lock, 32, 0))
            new = _changed(path, version, changes, expected or {}, today, force)
            if new == version.raw:
                return _status(path, version)
            if _put(version, new, root):
                _ours.append(_digest(new))
                os.pwrite(lock, _digest(new), 0)
                return _status(path, _Version(version.real, new, version.stat, True))
    raise StatusFileError(f"{path} is changed by another program again and again; nothing was written.")


def _changed(
    path: Path,
    version: _Version,
    changes: Mapping[str, str],
    expected: Mapping[str, str],
    today: date | None,
    force: bool,
) -> bytes:
    """Return the bytes with the changes made; raises StatusFileRefused."""
    status = _status(path, version)
    if status.refusal:
        raise StatusFileRefused(f"{path} was left untouched: {status.refusal}")
    before = version.content()
    edits = plan(before.scan, changes, expected, moment_of(today), force)
    bom = b"\xef\xbb\xbf" if version.raw.startswith(b"\xef\xbb\xbf") else b""
    new = bom + apply(before.scan, edits).encode()
    if edits:
        prove(before, analyse(new), edits)
    return new


def _put(version: _Version, new: bytes, root: Path | None) -> bool:
    """Replace the file if it is still the version that was read."""
    if not os.access(version.real, os.W_OK):
        raise StatusFileError(f"{version.real} is not writable; nothing was written.")

    def unchanged() -> bool:
        return _load(version.real, root).raw == version.raw

    try:
        return files.replace(version.real, new, version.stat, unchanged)
    except OSError as problem:
        raise StatusFileError(f"{version.real} {files.why(problem)}; nothing was written.") from None
