"""Opens regular files without hanging or leaving a folder, replaces them atomically, and locks."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import Refused

#: Seconds between two tries for a lock; short against the few milliseconds a holder needs.
_LOCK_POLL = 0.003

_WHY = {
    errno.ENOENT: "does not exist",
    errno.ENOTDIR: "does not exist",
    errno.EACCES: "cannot be opened: permission denied",
    errno.EPERM: "cannot be opened: permission denied",
    errno.ELOOP: "is a symbolic link that leads nowhere",
    errno.ENAMETOOLONG: "has too long a name",
    errno.ENXIO: "is not a regular file",
}


def why(error: OSError) -> str:
    """Say in a few words, to follow a file's name, what the system refused."""
    return _WHY.get(error.errno or 0, f"cannot be used: {error.strerror or error}")


def real_path(path: Path, root: Path | None, error: type[Refused]) -> Path:
    """Follow symbolic links; raise ``error`` when that leads out of ``root``."""
    if "\0" in str(path):
        raise error("The file name holds a NUL character.")
    real = Path(os.path.realpath(path))
    if root is not None and not real.is_relative_to(os.path.realpath(root)):
        raise error(f"{path} leads out of the project ({real}); it is not used.")
    return real


def _open(real: Path, error: type[Refused]) -> int:
    # O_NONBLOCK: opening a FIFO without a writer would wait for ever.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC
    try:
        return os.open(real, flags)
    except OSError as problem:
        raise error(f"{real} {why(problem)}.") from None


def _check(
    descriptor: int, real: Path, limit: int, root: Path | None, error: type[Refused]
) -> os.stat_result:
    found = os.fstat(descriptor)
    if stat.S_ISDIR(found.st_mode):
        raise error(f"{real} is a directory, not a file.")
    if not stat.S_ISREG(found.st_mode):
        raise error(f"{real} is not a regular file.")
    if found.st_size > limit:
        raise error(f"{real} is too large: {found.st_size:,} bytes, the limit is {limit:,}.")
    opened = Path(f"/proc/self/fd/{descriptor}")
    # A folder on the way may have become a link between resolving and opening.
    if root is not None and opened.is_symlink():
        real_path(opened, root, error)
    return found


def read_regular(
    path: Path, limit: int, root: Path | None, error: type[Refused]
) -> tuple[bytes, os.stat_result]:
    """Return the bytes of a regular file and its stat as it was when opened.

    At most ``limit`` bytes; raises ``error`` with one sentence for anything else: missing, folder, FIFO,
    device, no permission, too large, or outside ``root``. Never blocks.
    """
    real = real_path(path, root, error)
    descriptor = _open(real, error)
    try:
        found = _check(descriptor, real, limit, root, error)
        with open(descriptor, "rb", closefd=False) as stream:
            data = stream.read(limit + 1)
    except OSError as problem:
        raise error(f"{real} {why(problem)}.") from None
    finally:
        os.close(descriptor)
    if len(data) > limit:
        raise error(f"{real} is too large: it grew over {limit:,} bytes while it was read.")
    return data, found


def _copy_attributes(source: Path, descriptor: int) -> None:
    """Carry access lists and other extended attributes over, where the file system has them."""
    with suppress(OSError):
        for name in os.listxattr(source):
            with suppress(OSError):
                os.setxattr(descriptor, name, os.getxattr(source, name))


def _fill(descriptor: int, data: bytes, real: Path, like: os.stat_result) -> None:
    with os.fdopen(descriptor, "wb") as stream:
        made = os.fstat(descriptor)
        if (made.st_uid, made.st_gid) != (like.st_uid, like.st_gid):
            os.fchown(descriptor, like.st_uid, like.st_gid)
        _copy_attributes(real, descriptor)
        os.fchmod(descriptor, stat.S_IMODE(like.st_mode))
        stream.write(data)
        stream.flush()
        os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Make a rename inside ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep_drafts(real: Path) -> int:
    """Remove drafts of the file at ``real`` whose writers were killed; return how many.

    A killed writer leaves its draft beside the file, in a person's tree, where it could be committed.
    """
    draft = re.compile(re.escape(f".{real.name[:100]}.") + r"(\d+)-[0-9a-f]+\.tmp")
    gone = 0
    with suppress(OSError):
        for path in list(real.parent.iterdir()):
            found = draft.fullmatch(path.name)
            if found and not Path(f"/proc/{found[1]}").exists():
                path.unlink(missing_ok=True)
                gone += 1
    return gone


def replace(real: Path, data: bytes, like: os.stat_result, unchanged: Callable[[], bool]) -> bool:
    """Put ``data`` in the place of the file at ``real``, with the owner and mode of ``like``.

    ``unchanged`` is asked at the last moment; when it says no, nothing happens and False is returned.
    Raises OSError, with the old file untouched, when the system refuses (disk full, owner cannot be kept).
    """
    new = real.with_name(f".{real.name[:100]}.{os.getpid()}-{time.monotonic_ns():x}.tmp")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        _fill(descriptor, data, real, like)
        if not unchanged():
            return False
        new.replace(real)
    finally:
        # After the replace there is nothing left under this name.
        new.unlink(missing_ok=True)
    sync_folder(real.parent)
    return True


def keep(path: Path, data: bytes) -> None:
    """Put a private file (0600) of ours in place as a whole: a crash leaves the old one or the new one.

    For one writer at a time. Raises OSError.
    """
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(fresh, flags, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    # The rename itself is only on the disk once the folder is.
    sync_folder(path.parent)


@contextmanager
def locked(path: Path, seconds: float, error: type[Refused]) -> Iterator[int]:
    """Hold the lock file ``path`` (made with mode 0600), waiting for it up to ``seconds``.

    Yields the open descriptor. Works between threads and processes, as each opens the file anew.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as problem:
        raise error(f"The lock file {path} {why(problem)}.") from None
    try:
        _acquire(descriptor, path, time.monotonic() + seconds, error)
        yield descriptor
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, path: Path, deadline: float, error: type[Refused]) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise error(f"Another program has held the lock {path} for too long; try again.") from None
            time.sleep(_LOCK_POLL)
