"""Opening the database file: what is refused and why, and the migrations that bring it up to date."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import exc

from ..errors import StoreRefused
from .connections import BUSY_MS, writer_engine
from .failures import code_of, sentence_of
from .schema import HEAD

#: The name of the database in the state folder (contract section 7).
DATABASE = "sprint-runner.db"
#: STRICT tables came with it.
OLDEST_SQLITE = (3, 37, 0)
#: Longest look at the whole file at a start, in seconds; 150 MB take about half of it.
_LOOK = 0.5
_DOUBTED = ".doubted"
#: Copies made before a migration that are kept.
_COPIES = 7
_MIGRATIONS = Path(__file__).with_name("migrations")
#: File systems on which SQLite's locks cannot be relied upon.
_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "afs", "ceph"})

log = logging.getLogger(__name__)


class StoreDamaged(StoreRefused):
    """The database file is damaged."""


def _check_library() -> None:
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        needed = ".".join(map(str, OLDEST_SQLITE[:2]))
        raise StoreRefused(
            f"SQLite {needed} or newer is needed; this Python uses {sqlite3.sqlite_version}. "
            "Use a newer Python."
        )


def _file_system(folder: Path) -> str:
    """The type of the file system that holds ``folder``; empty where that cannot be known."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    best, found = -1, ""
    for line in lines:
        before, _, after = line.partition(" - ")
        mount = before.split(" ")[4].replace("\\040", " ")
        # The last of equal mount points lies on top of the others.
        if folder.is_relative_to(mount) and len(mount) >= best:
            best, found = len(mount), after.split(" ")[0]
    return found


def _check_place(path: Path) -> None:
    if path.is_dir():
        raise StoreRefused(f"{path} is a folder, not a database file.")
    kind = _file_system(path.parent.resolve())
    if kind in _NETWORK:
        raise StoreRefused(
            f"{path.parent} lies on a network file system ({kind}), where a database gets damaged. "
            "Set SPRINTRUNNER_STATE_DIR to a local folder."
        )


def _make_file(path: Path) -> None:
    """Create the file for its owner only, or take rights of others away."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists():
            path.chmod(path.stat().st_mode & 0o700)
        else:
            # Before SQLite does: it would give everybody the right to read.
            os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StoreRefused(f"{path} cannot be created: {error.strerror}.") from error
    if not os.access(path, os.W_OK):
        raise StoreRefused(f"{path} is read-only; make it writable.")


def _damaged(path: Path, error: BaseException | None) -> StoreRefused:
    code = code_of(error)
    if code.startswith("SQLITE_NOTADB"):
        return StoreDamaged(f"{path} is not a database. Move it away, or restore a backup in its place.")
    if code.startswith("SQLITE_CORRUPT") or code.startswith("SQLITE_IOERR_SHORT"):
        return StoreDamaged(
            f"{path} is damaged or cut short. Move it away, or restore a backup in its place."
        )
    return StoreRefused(f"{path} cannot be opened. {sentence_of(error)}")


def _version(connection: sqlite3.Connection) -> str | None:
    """The migration the file is at; None for an empty one. Raises StoreRefused for someone else's."""
    names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not names:
        return None
    if "alembic_version" not in names or "batches" not in names:
        raise StoreRefused("it holds the tables of another program.")
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(row[0]) if row else None


def doubt(path: Path) -> None:
    """Have the next start look at the whole file, however long that takes."""
    path.with_name(path.name + _DOUBTED).touch(mode=0o600)


def settle(path: Path) -> None:
    """The file was looked at as a whole, or is gone."""
    path.with_name(path.name + _DOUBTED).unlink(missing_ok=True)


def _check_whole(connection: sqlite3.Connection, path: Path) -> None:
    """Raise StoreDamaged for a damaged file; a large one is looked at in part, unless it is in doubt."""
    doubted = path.with_name(path.name + _DOUBTED)
    over = threading.Event()

    def end() -> None:
        over.set()
        connection.interrupt()

    timer = threading.Timer(_LOOK, end)
    if not doubted.exists():
        timer.start()
    try:
        told = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError:
        if not over.is_set():
            raise
    finally:
        timer.cancel()
    # What a check says that was cut short may be wrong.
    if over.is_set():
        log.info("%s is large: checked in part at the start, as a whole by the daily backup", path)
    elif told is None or told[0] != "ok":
        raise StoreDamaged(str(told[0]).rsplit("\n", 1)[-1] if told else "")
    else:
        settle(path)


def _inspect(path: Path) -> str | None:
    """Look at the file without changing it; return its version."""
    address = f"file:{quote(str(path))}?mode=ro"
    try:
        # Another thread interrupts it, see _check_whole.
        opened = sqlite3.connect(address, uri=True, timeout=BUSY_MS / 1000, check_same_thread=False)
        with closing(opened) as connection:
            version = _version(connection)
            _check_whole(connection, path)
            return version
    except sqlite3.Error as error:
        raise _damaged(path, error) from error
    except StoreDamaged as error:
        raise StoreDamaged(f"{path} is damaged: {error}. Move it away, or restore a backup.") from error
    except StoreRefused as error:
        raise StoreRefused(f"{path} is not a database of Sprint Runner: {error}") from error


def _known_versions() -> frozenset[str]:
    return frozenset(file.name.split("_", 1)[0] for file in (_MIGRATIONS / "versions").glob("[0-9]*.py"))


def _check_version(path: Path, version: str | None) -> None:
    if version is not None and version not in _known_versions():
        raise StoreRefused(
            f"{path} was written by a newer Sprint Runner (schema {version}, this one knows {HEAD}). "
            "Install that version; the file was left untouched."
        )


def _use_wal(connection: sa.Connection) -> None:
    """Switch to the write-ahead log. SQLite does not wait for locks here, so that we do."""
    deadline = time.monotonic() + BUSY_MS / 1000
    while True:
        try:
            connection.connection.cursor().execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if not code_of(error).startswith("SQLITE_BUSY") or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _let_shrink(connection: sa.Connection) -> None:
    """Have deleted rows give their room back to the disk, in pieces; see Store.give_back."""
    # Heeded by a file without a page only, so before the log is switched on, which writes the first.
    connection.connection.cursor().execute("PRAGMA auto_vacuum=INCREMENTAL")


def _upgrade(connection: sa.Connection) -> None:
    # Imported here: most starts find nothing to migrate and save its 100 ms.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _keep_copy(connection: sa.Connection, path: Path, version: str) -> None:
    copy = path.with_name(f"{path.name}.before-{HEAD}-{version}-{time.time_ns()}")
    connection.connection.cursor().execute("VACUUM INTO ?", (str(copy),))
    copy.chmod(0o600)
    # By their time: a migration that fails at each start would fill the disk.
    copies = sorted(path.parent.glob(f"{path.name}.before-*"), key=lambda one: one.name.rpartition("-")[2])
    for old in copies[:-_COPIES]:
        old.unlink(missing_ok=True)


def _bring_up_to_date(path: Path, version: str | None) -> None:
    engine = writer_engine(path)
    try:
        with engine.connect() as connection:
            _let_shrink(connection)
            _use_wal(connection)
            if version == HEAD:
                return
            if version is not None:
                _keep_copy(connection, path, version)
            # One transaction for all steps: another process that starts now waits, then finds them done.
            with connection.begin():
                _upgrade(connection)
    except (exc.DBAPIError, sqlite3.Error) as error:
        raise _damaged(path, getattr(error, "orig", error)) from error
    finally:
        engine.dispose()


def prepare(path: Path) -> None:
    """Make ``path`` a database of the present schema, or raise StoreRefused and leave it untouched."""
    _check_library()
    _check_place(path)
    _make_file(path)
    version = _inspect(path)
    _check_version(path, version)
    _bring_up_to_date(path, version)
    log.info("database %s, SQLite %s, schema %s", path, sqlite3.sqlite_version, HEAD)
