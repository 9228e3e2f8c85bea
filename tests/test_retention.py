"""Old events, transcripts and folders go, in pieces; what can still be worked with or judged stays."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import face
import pytest
from flask.testing import FlaskClient

from sprintrunner import create_app, retention
from sprintrunner.indexing import Indexer
from sprintrunner.retention import KEEP_DAYS, KEEP_RUN_DAYS, Retention
from sprintrunner.store import Store
from sprintrunner.store.search import SearchIndex

DAY_MS = 86_400_000
#: A line of a transcript that the index finds by the number of its command.
LINE = (
    '{"type":"assistant","session_id":"s","message":{"role":"assistant","content":'
    '[{"type":"text","text":"said by number%dx"}]}}\n'
)


class Past:
    """A state folder with a history."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store.open(folder / "sprint-runner.db")

    def batch(self, days_ago: float, status: str = "completed", command: str = "succeeded") -> int:
        """One batch of one command that ended so long ago, with its files; all have the same number."""
        ended = self.store.now() - int(days_ago * DAY_MS)
        with self.store.transaction() as tx:
            over = None if status == "running" else ended
            number = tx.insert_batch(status=status, started_at=ended - 1000, ended_at=over, agent="claude")
            made = tx.insert_command(
                batch_id=number,
                command="dev-story",
                story_keys="1-1-a",
                status=command,
                agent="claude",
                started_at=ended - 1000,
                ended_at=None if command == "running" else ended,
                transcript=f"{number}.jsonl",
            )
            assert made == number
            warning = {"batch_id": number, "warning": f"warned{number}x of it"}
            tx.append("batch:warning", warning, batch_id=number)
        self._files(number)
        return number

    def _files(self, number: int) -> None:
        for name in (f"runs/{number}", f"batches/{number}/frozen", "transcripts"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "runs" / str(number) / "exit.json").write_text("{}")
        (self.folder / "batches" / str(number) / "frozen" / "sprintrunner.toml").write_text("")
        (self.folder / "transcripts" / f"{number}.jsonl").write_text(LINE % number)
        (self.folder / "transcripts" / f"{number}.err").write_text("")

    def index(self) -> None:
        SearchIndex(self.folder).prepare()
        Indexer(self.store, self.folder, self.folder, {}).catch_up()

    def look(self) -> None:
        Retention(self.store, self.folder).look()

    def left(self, number: int) -> set[str]:
        """What is left of a batch."""
        found = {
            name
            for name in ("runs", "batches", "transcripts")
            if [one for one in (self.folder / name).iterdir() if one.name.partition(".")[0] == str(number)]
        }
        if self.store.count_events(number):
            found.add("events")
        for word in ("number", "warned"):
            if SearchIndex(self.folder).find(f"{word}{number}x").total:
                found.add(f"search {word}")
        return found


ALL = {"runs", "batches", "transcripts", "events", "search number", "search warned"}


@pytest.fixture
def past(tmp_path: Path) -> Iterator[Past]:
    made = Past(tmp_path)
    yield made
    made.store.close()


def test_what_is_old_goes_everywhere_and_the_records_stay(past: Past) -> None:
    old, middle, new = (past.batch(days) for days in (KEEP_DAYS + 1, KEEP_RUN_DAYS + 1, 0))
    past.index()
    assert past.left(old) == ALL
    past.look()
    assert past.left(old) == set()
    assert past.left(middle) == ALL - {"runs", "batches"}
    assert past.left(new) == ALL
    assert past.store.count_batches() == 3 and past.store.command(old) is not None


def test_only_so_many_batches_are_kept(past: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "KEEP_BATCHES", 2)
    monkeypatch.setattr(retention, "KEEP_RUN_BATCHES", 1)
    numbers = [past.batch(1) for _ in range(3)]
    past.index()
    past.look()
    assert [past.left(number) for number in numbers] == [set(), ALL - {"runs", "batches"}, ALL]


def test_the_newest_interrupted_batch_stays_whatever_its_age(past: Past) -> None:
    older, newest = (past.batch(KEEP_DAYS + 9, "interrupted") for _ in range(2))
    past.batch(0)
    past.index()
    past.look()
    assert past.left(newest) == ALL and past.left(older) == set()


def test_a_batch_with_a_verdict_to_adopt_stays(past: Past) -> None:
    open_one = past.batch(KEEP_DAYS + 9, "failed", command="running")
    past.batch(0)
    past.index()
    past.look()
    assert past.left(open_one) == ALL


def test_nothing_goes_while_a_batch_runs_or_once_one_begins(past: Past) -> None:
    numbers = [past.batch(KEEP_DAYS + 9) for _ in range(3)]
    past.batch(0)
    past.index()
    begun: list[int] = []

    def begin() -> bool:
        if not begun and not past.store.count_events(numbers[0]):
            begun.append(past.batch(0, "running"))
        return True

    Retention(past.store, past.folder, begin).look()
    assert begun and "transcripts" in past.left(numbers[-1])
    past.look()
    assert "transcripts" in past.left(numbers[0])
    assert past.left(begun[0]) >= {"runs", "batches", "transcripts", "events"}


def test_a_clock_that_is_wrong_by_years_deletes_nothing(past: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    number = past.batch(1)
    past.batch(0)
    ahead = past.store.now() + 9999 * DAY_MS
    monkeypatch.setattr(Store, "now", staticmethod(lambda: ahead))
    past.index()
    past.look()
    assert past.left(number) == ALL


def test_files_without_a_record_go_by_their_own_age_and_foreign_ones_never(past: Past) -> None:
    past.batch(0)
    folder = past.folder / "transcripts"
    for name in ("77.jsonl", "78.jsonl", "notes.txt", "²³.jsonl"):
        (folder / name).write_text("x")
        if name != "78.jsonl":
            os.utime(folder / name, (0, 0))
    past.look()
    assert {path.name for path in folder.iterdir()} >= {"78.jsonl", "notes.txt", "²³.jsonl"}
    assert not (folder / "77.jsonl").exists()


def test_no_link_leads_out_of_the_state_folder(past: Past, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "mine").write_text("x")
    number = past.batch(KEEP_DAYS + 9)
    past.batch(0)
    (past.folder / "runs" / str(number) / "link").symlink_to(outside)
    (past.folder / "batches" / f"{number}.link").symlink_to(outside)
    past.look()
    assert past.left(number) == set()
    assert (outside / "mine").exists()


def _grow(past: Past, rows: int) -> int:
    """A batch of long ago with many events; the size of the file with them, in bytes."""
    number = past.batch(KEEP_DAYS + 9)
    with past.store.transaction() as tx:
        for _ in range(rows):
            tx.append("batch:warning", {"batch_id": number, "warning": "w" * 8000}, batch_id=number)
    past.batch(0)
    return _size(past)


def _size(past: Past) -> int:
    with closing(sqlite3.connect(past.store.path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return past.store.path.stat().st_size


def test_the_database_gives_the_room_of_deleted_events_back(past: Past) -> None:
    before = _grow(past, 1500)
    past.look()
    assert past.store.room().free <= retention._SPARE
    assert _size(past) < before / 2


def test_a_database_made_before_is_written_anew_once_to_give_room_back(past: Past) -> None:
    _grow(past, 1500)
    with closing(sqlite3.connect(past.store.path, isolation_level=None)) as connection:
        connection.execute("PRAGMA auto_vacuum=NONE")
        connection.execute("VACUUM")
    past.store.close()
    assert not past.store.room().shrinks
    before = _size(past)
    past.look()
    assert past.store.room().shrinks
    assert _size(past) < before / 2
    copy = past.store.backup(past.folder / "backups")
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)


_PROGRAM = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from sprintrunner import retention
    from sprintrunner.store import Store
    retention._EVENTS, retention._FILES, retention._SPARE = 7, 3, 0
    def rest():
        print("piece", flush=True)
        return True
    folder = Path(sys.argv[1])
    retention.Retention(Store.open(folder / "sprint-runner.db"), folder, rest).look()
    """
)


def test_killed_at_any_moment_it_leaves_everything_whole_and_goes_on_next_time(past: Past) -> None:
    olds = [past.batch(KEEP_DAYS + 9) for _ in range(30)]
    kept = past.batch(0)
    past.index()
    past.store.close()
    killed = 0
    for pieces in range(1, 9):
        command = [sys.executable, "-c", _PROGRAM, str(past.folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(pieces):
                process.stdout.readline()
            time.sleep(0.0007 * pieces)  # somewhere inside the piece
            killed += process.poll() is None
            process.kill()
        for name in ("sprint-runner.db", "search.db"):
            with closing(sqlite3.connect(past.folder / name)) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert past.left(kept) == ALL
    assert killed >= 4
    past.look()
    assert [past.left(number) for number in olds] == [set()] * 30
    assert past.left(kept) == ALL


def test_pages_of_what_is_gone_say_so_and_none_fails(tmp_path: Path) -> None:
    services = face.make_services(tmp_path, None)
    script = face.Script(services)
    script.finish_cycle(1, "1-1-project-skeleton", "1-2-user-login")
    script.end("completed")
    store = services.store
    rows = store.commands(1)
    with store.transaction() as tx:
        tx.update_batch(1, ended_at=store.now() - (KEEP_DAYS + 9) * DAY_MS)
        for row in rows:
            tx.update_command(row.id, transcript=f"{row.id}.jsonl")
        tx.insert_batch(status="completed", started_at=store.now(), ended_at=store.now())
    Retention(store, services.state_dir).look()
    assert store.count_events(1) == 0
    client: FlaskClient = create_app(services).test_client()
    paths = ["/", "/batches", "/batches/1", "/stories/1-1-project-skeleton", "/activity", "/timeline?batch=1"]
    paths += ["/trends", "/search?q=login", "/api/batches/1", "/api/events?batch_id=1", "/sprint-runner.csv"]
    for path in paths:
        assert client.get(path).status_code == 200, path
    page = client.get(f"/commands/{rows[0].id}")
    assert page.status_code == 200 and "no longer" in page.text
    raw = client.get(f"/commands/{rows[0].id}/transcript")
    assert raw.status_code == 404 and "no longer" in raw.text
    store.close()
