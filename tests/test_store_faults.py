"""The database fails in every way it can: each is one sentence, and nothing is half recorded."""

from __future__ import annotations

import gzip
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from sprintrunner.errors import StoreError, StoreRefused, StoreUnavailable
from sprintrunner.store import Store, StoreDamaged, mend, opening, schema, upkeep


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "sprint-runner.db")
    with opened.transaction() as tx:
        tx.insert_batch()
    yield opened
    opened.close()


def warn(store: Store, text: str = "w") -> int:
    with store.transaction() as tx:
        return tx.append("batch:warning", {"batch_id": 1, "warning": text})


def filled(path: Path, events: int = 300) -> None:
    store = Store.open(path)
    with store.transaction() as tx:
        tx.insert_batch()
        for _ in range(events):
            tx.append("batch:warning", {"batch_id": 1, "warning": "w" * 200})
    store.close()


def test_a_full_database_is_one_sentence_and_goes_on_when_there_is_room(store: Store) -> None:
    with store.transaction() as tx:
        pages = tx._connection.exec_driver_sql("PRAGMA page_count").scalar()
        tx._connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StoreError, match="disk is full"):
        for _ in range(1_000):
            with store.transaction() as tx:
                tx.update_batch(1, reason="half")
                tx.append("batch:warning", {"batch_id": 1, "warning": "w" * 4_000})
                tx.update_batch(1, reason=None)
    row = store.batch(1)
    assert row is not None and row.reason is None
    # The failed connection was dropped, and with it the limit that this test put on it.
    assert warn(store) > 0


def test_a_file_size_limit_is_one_sentence_and_everything_acknowledged_is_there(tmp_path: Path) -> None:
    program = textwrap.dedent(
        """
        import resource, signal, sys
        from pathlib import Path
        from sprintrunner.errors import StoreError
        from sprintrunner.store import Store
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        store = Store.open(Path(sys.argv[1]))
        with store.transaction() as tx:
            tx.insert_batch()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
        def warn():
            with store.transaction() as tx:
                return tx.append("batch:warning", {"batch_id": 1, "warning": "w" * 3000})
        last = 0
        try:
            while True:
                last = warn()
        except StoreError as error:
            print(error)
        assert [event.id for event in store.events_after(0)] == list(range(1, last + 1))
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert warn() == last + 1
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "x.db")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "nothing was recorded" in done.stdout or "disk is full" in done.stdout
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 300_000


def test_a_foreign_writer_is_waited_for(store: Store) -> None:
    other = sqlite3.connect(store.path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.4, lambda: other.execute("COMMIT"))
    release.start()
    begun = time.monotonic()
    warn(store)
    assert time.monotonic() - begun > 0.3
    release.join()
    other.close()


def test_a_foreign_writer_that_stays_is_one_sentence_and_then_it_goes_on(store: Store) -> None:
    with store.transaction() as tx:
        tx._connection.exec_driver_sql("PRAGMA busy_timeout=50")
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked by another program"):
        warn(store)
    assert store.count_batches() == 1
    other.execute("ROLLBACK")
    other.close()
    assert warn(store) == 1


def test_a_read_only_database_is_one_sentence(store: Store) -> None:
    with store.transaction() as tx:
        tx._connection.exec_driver_sql("PRAGMA query_only=ON")
    with pytest.raises(StoreError, match="read-only"):
        warn(store)
    assert warn(store) == 1


def test_a_database_that_was_deleted_is_noticed_before_anything_is_called_recorded(store: Store) -> None:
    woken: list[int] = []
    store.listen(lambda: woken.append(1))
    store.path.unlink()
    for action in (lambda: warn(store), store.check, store.last_event_id):
        with pytest.raises(StoreError, match="deleted or replaced"):
            action()
    assert woken == []


def test_a_deleted_database_is_written_back_with_all_that_was_recorded(store: Store) -> None:
    known = [warn(store, f"number {number}") for number in range(50)]
    store.path.unlink()
    with pytest.raises(StoreUnavailable, match="deleted"):
        warn(store)
    assert "written back" in store.put_back()
    assert [event.id for event in store.events_after(0)] == known
    assert warn(store) == known[-1] + 1
    store.check()
    again = Store.open(store.path)
    assert again.last_event_id() == known[-1] + 1
    again.close()
    assert store.put_back() == ""


def test_a_database_that_somebody_replaced_is_not_overwritten(store: Store) -> None:
    store.path.unlink()
    store.path.write_text("something else")
    assert store.put_back() == ""
    assert store.path.read_text() == "something else"


def test_a_file_made_read_only_stops_the_connection_that_is_open_too(store: Store) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everything")
    store.path.chmod(0o400)
    with pytest.raises(StoreUnavailable, match="read-only"):
        warn(store)
    store.path.chmod(0o600)
    assert warn(store) == 1


def test_trouble_is_remembered_until_a_write_is_taken(store: Store) -> None:
    with store.transaction() as tx:
        pages = tx._connection.exec_driver_sql("PRAGMA page_count").scalar()
        tx._connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StoreUnavailable, match="full"):
        store.probe()
    with pytest.raises(StoreUnavailable, match="full"):
        store.check()
    store.probe()
    store.check()
    assert store.trouble == ""


def test_a_record_that_is_wrong_is_no_trouble_of_the_database(store: Store) -> None:
    with pytest.raises(StoreError), store.transaction() as tx:
        tx.update_batch(99, reason="nobody")
    assert store.trouble == ""
    store.check()


def untouched(path: Path, reason: str, kind: type[StoreRefused] = StoreRefused) -> None:
    before = path.read_bytes()
    with pytest.raises(kind, match=reason) as refused:
        Store.open(path)
    assert path.read_bytes() == before
    assert str(path) in str(refused.value) and "\n" not in str(refused.value)


def test_what_is_not_a_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.write_bytes(b"Dear diary, today I was opened by a program.\n" * 100)
    untouched(path, "is not a database", StoreDamaged)


def test_a_truncated_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    filled(path)
    os.truncate(path, path.stat().st_size * 2 // 3)
    untouched(path, "damaged", StoreDamaged)


def test_a_damaged_page_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    filled(path)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size - 4096 * 2)
        file.write(b"\xa5" * 4096)
    untouched(path, "damaged", StoreDamaged)


def test_the_database_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE songs (id INTEGER PRIMARY KEY)")
    connection.close()
    untouched(path, "another program")


def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    filled(path, 1)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0999'")
    connection.close()
    untouched(path, "newer Sprint Runner")


def test_a_folder_and_a_missing_right_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreRefused, match="is a folder"):
        Store.open(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreRefused, match="cannot be created"):
        Store.open(tmp_path / "file" / "x.db")


def test_an_empty_file_is_a_new_database(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.touch()
    store = Store.open(path)
    assert store.count_batches() == 0
    store.close()


def test_a_library_that_is_too_old_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 31, 1))
    with pytest.raises(StoreRefused, match=r"SQLite 3\.37 or newer"):
        Store.open(tmp_path / "x.db")


def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "_file_system", lambda _folder: "nfs4")
    with pytest.raises(StoreRefused, match="SPRINTRUNNER_STATE_DIR"):
        Store.open(tmp_path / "x.db")


def test_a_path_with_odd_characters_is_a_path(tmp_path: Path) -> None:
    path = tmp_path / "50% ?mode=ro&#ä'\" x.db"
    store = Store.open(path)
    assert warn_batch(store) == 1 and path.is_file()
    store.close()


def warn_batch(store: Store) -> int:
    with store.transaction() as tx:
        return tx.insert_batch()


def test_a_damaged_database_is_moved_aside_and_the_last_backup_restored(tmp_path: Path) -> None:
    path = tmp_path / "sprint-runner.db"
    filled(path, 10)
    store = Store.open(path)
    store.backup(tmp_path / upkeep.FOLDER)
    store.close()
    assert mend(path) is None
    path.write_bytes(b"garbage" * 1000)
    told = mend(path)
    assert told is not None and "moved to" in told and "was restored" in told
    assert b"garbage" in next(tmp_path.glob("sprint-runner.db.damaged-*")).read_bytes()
    store = Store.open(path)
    assert store.count_events() == 10
    store.close()


def test_what_a_short_look_misses_is_found_by_the_backup_and_mended_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sprint-runner.db"
    filled(path, 20_000)
    store = Store.open(path)
    store.backup(tmp_path / "backups")
    store.close()
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2 // 4096 * 4096)
        file.write(b"\xff" * 4096)
    monkeypatch.setattr(opening, "_LOOK", 0.0)
    store = Store.open(path)
    with pytest.raises(StoreUnavailable, match="Restart Sprint Runner"):
        store.backup(tmp_path / "backups")
    store.close()
    assert len(list((tmp_path / "backups").iterdir())) == 1
    said = mend(path)
    assert said is not None and "was restored" in said
    opening.prepare(path)
    assert not list(tmp_path.glob("*.doubted"))


def test_half_a_copy_is_swept_away(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    (folder / "sprint-runner-1.part").write_text("half")
    copy = store.backup(folder)
    assert list(folder.iterdir()) == [copy]


def test_copies_made_before_migrations_do_not_fill_the_disk(tmp_path: Path, repository: Path) -> None:
    path = tmp_path / "sprint-runner.db"
    stored = repository / "tests" / "data" / "databases" / "0001.db.gz"
    for number in range(9):
        (tmp_path / f"{path.name}.before-0002-0001-{10**18 + number}").touch()
    path.write_bytes(gzip.decompress(stored.read_bytes()))
    opening.prepare(path)
    copies = sorted(tmp_path.glob("*.before-*"), key=lambda one: one.stat().st_size)
    assert len(copies) == 7 and copies[-1].stat().st_size > 4096


def test_a_damaged_database_without_a_backup_starts_empty_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "sprint-runner.db"
    path.write_bytes(b"garbage" * 1000)
    told = mend(path)
    assert told is not None and "no backup" in told
    Store.open(path).close()


def test_a_backup_made_during_writes_is_whole(store: Store, tmp_path: Path) -> None:
    ended = threading.Event()

    def write() -> None:
        while not ended.is_set():
            warn(store)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        copies = [store.backup(tmp_path / "backups", keep=2) for _ in range(4)]
    finally:
        ended.set()
        writer.join()
    assert sorted((tmp_path / "backups").iterdir()) == copies[2:]
    copy = Store.open(copies[-1])
    events = copy.events_after(0, 100_000)
    assert [event.id for event in events] == list(range(1, len(events) + 1)) and events
    copy.close()


def test_retention_leaves_the_live_batch_alone(store: Store) -> None:
    with store.transaction() as tx:
        tx.update_batch(1, status="completed", ended_at=1_000)
        live = tx.insert_batch()
        for number in (1, live) * 30:
            tx.append("batch:warning", {"batch_id": number, "warning": "w"})
    assert store.prune_events(Store.now(), chunk=7) == 30
    assert (store.count_events(1), store.count_events(live)) == (0, 30)
    assert store.count_batches() == 2


_WRITER = """
import sys
from pathlib import Path
from sprintrunner.store import Store
store = Store.open(Path(sys.argv[1]))
while True:
    with store.transaction() as tx:
        number = tx.append("batch:warning", {"batch_id": 1, "warning": "w" * 500})
        tx.update_batch(1, cycles_completed=number)
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
"""


def test_kill_9_between_commits_loses_nothing_that_was_acknowledged(store: Store, tmp_path: Path) -> None:
    for round_number in range(6):
        child = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(store.path)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(10 + 13 * round_number)]
        child.send_signal(signal.SIGKILL)
        lines += child.stdout.readlines()
        child.stdout.close()
        child.wait()
        acknowledged = max(int(line) for line in lines if line.endswith("\n"))
        row = store.batch(1)
        assert row is not None and store.last_event_id() >= acknowledged
        # State and event of one transaction are both there, or neither.
        assert row.cycles_completed == store.last_event_id() == store.count_events()


def test_opening_at_the_same_time_migrates_once(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from sprintrunner.store import Store; "
        "Store.open(Path(sys.argv[1]))"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "x.db")], stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    for child in children:
        assert child.communicate(timeout=60)[1] == b"" and child.returncode == 0


def test_the_write_ahead_log_stays_small_while_many_read(store: Store) -> None:
    ended = threading.Event()

    def read() -> None:
        cursor = 0
        while not ended.wait(0.005):
            for event in store.events_after(cursor, limit=20):
                cursor = event.id

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    largest = 0
    log = store.path.with_name(store.path.name + "-wal")
    for _ in range(300):
        with store.transaction() as tx:
            for _ in range(10):
                tx.append("batch:warning", {"batch_id": 1, "warning": "w" * 12_000})
        largest = max(largest, log.stat().st_size)
    ended.set()
    for reader in readers:
        reader.join()
    assert largest < 16_000_000


def _statements(engine: sa.Engine) -> set[str]:
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL").scalars()
        return {" ".join(sql.split()) for sql in rows if "alembic_version" not in sql}


def test_the_migrations_make_exactly_the_tables_of_the_schema(store: Store, tmp_path: Path) -> None:
    direct = sa.create_engine(f"sqlite:///{tmp_path / 'direct.db'}")
    schema.metadata.create_all(direct)
    migrated = sa.create_engine(f"sqlite:///{store.path}")
    ours, theirs = _statements(direct), _statements(migrated)
    with migrated.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), schema.metadata)
    direct.dispose()
    migrated.dispose()
    assert differences == []
    assert {_sorted(sql) for sql in ours} == {_sorted(sql) for sql in theirs}


def _sorted(sql: str) -> str:
    """The statement with its parts in order: constraints may come in another one."""
    return ", ".join(sorted(sql.replace(" ) STRICT", "").split(", ")))


def test_the_named_head_is_the_newest_migration(repository: Path) -> None:
    scripts = ScriptDirectory(str(repository / "sprintrunner" / "store" / "migrations"))
    assert scripts.get_heads() == [schema.HEAD]
    assert {script.revision for script in scripts.walk_revisions()} == opening._known_versions()


def test_the_schema_is_possible_on_postgresql_too() -> None:
    from sqlalchemy.dialects import postgresql
    from sqlalchemy.schema import CreateIndex, CreateTable

    told = [
        str(CreateTable(table).compile(dialect=postgresql.dialect()))
        for table in schema.metadata.tables.values()
    ]
    indexes = [
        str(CreateIndex(index).compile(dialect=postgresql.dialect()))
        for table in schema.metadata.tables.values()
        for index in table.indexes
    ]
    assert not any("STRICT" in sql for sql in told) and any("BIGINT" in sql for sql in told)
    assert any("WHERE status = 'running'" in sql for sql in indexes)
