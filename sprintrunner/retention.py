"""Deletes what is old, in small pieces and only while no batch runs: events, transcripts, folders of runs."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from .store import Age, Store
from .store.search import SearchIndex

log = logging.getLogger(__name__)

_DAY_MS = 86_400_000
#: Events and transcripts are kept this long, in days, and of so many batches; the records stay for ever.
KEEP_DAYS, KEEP_BATCHES = 180, 1000
#: What a run was given and how it ended, and a batch's frozen copies, serve only to go on with it.
KEEP_RUN_DAYS, KEEP_RUN_BATCHES = 30, 100
#: Events, and files or folders, that go in one piece.
_EVENTS, _FILES = 500, 50
#: Pages cut off the database in one piece, and how many free ones are left to be used again.
_PAGES, _SPARE = 256, 1024
#: A file that cannot shrink is written anew once when this share of it is free.
_MOSTLY_FREE = 4


class Retention:
    """One look over the state folder of a project. What was begun goes on at the next look."""

    def __init__(self, store: Store, state_dir: Path, go_on: Callable[[], bool] = lambda: True) -> None:
        """``go_on`` is asked, and may rest, before each piece."""
        self._store = store
        self._state = state_dir
        self._index = SearchIndex(state_dir)
        self._go_on = go_on

    def look(self) -> None:
        """Delete what is old; raises StoreError. Nothing is deleted once a batch runs."""
        newest = self._store.newest_end()
        if newest is None:
            return
        # Counted back from the last batch, not from now: a wrong clock alone deletes nothing.
        reference = min(newest, self._store.now())
        log_age = self._age(reference, KEEP_DAYS, KEEP_BATCHES)
        run_age = self._age(reference, KEEP_RUN_DAYS, KEEP_RUN_BATCHES)
        gone = sum(self._pieces(self._events(log_age)))
        # The transcripts before the rest: what they hold is what people wrote.
        gone += sum(self._pieces(self._transcripts(log_age)))
        gone += sum(self._pieces(self._runs(run_age)))
        gone += sum(self._pieces(self._batches(run_age)))
        if gone:
            log.info("%d old events and files deleted", gone)
        sum(self._pieces(self._room()))

    def _age(self, reference: int, days: int, batches: int) -> Age:
        return Age(reference - days * _DAY_MS, self._store.id_of_newest(batches))

    def _pieces(self, work: Iterator[int]) -> Iterator[int]:
        """Piece by piece, with a look before each whether a batch has begun."""
        while self._store.live_batch() is None and self._go_on():
            piece = next(work, None)
            if piece is None:
                return
            yield piece

    def _events(self, age: Age) -> Iterator[int]:
        while ids := self._store.old_events(age, _EVENTS):
            # From the index first: after a kill the next look finds the events and does both again.
            self._forget(("event", "step"), ids)
            yield self._store.delete_events(ids)

    def _transcripts(self, age: Age) -> Iterator[int]:
        for files in self._groups("transcripts"):
            old = self._store.old_commands(age, files) | self._lost(files, self._store.known_commands, age)
            self._forget(("part",), old)
            yield _remove(files, old)

    def _runs(self, age: Age) -> Iterator[int]:
        for folders in self._groups("runs"):
            known = self._store.known_commands
            yield _remove(folders, self._store.old_commands(age, folders) | self._lost(folders, known, age))

    def _batches(self, age: Age) -> Iterator[int]:
        for folders in self._groups("batches"):
            known = self._store.known_batches
            yield _remove(folders, self._store.old_batches(age, folders) | self._lost(folders, known, age))

    def _groups(self, folder: str) -> Iterator[dict[int, list[Path]]]:
        """What lies in a folder by the number that its name begins with, so many at a time; no others."""
        found: dict[int, list[Path]] = {}
        try:
            for path in (self._state / folder).iterdir():
                number = path.name.partition(".")[0]
                if number.isascii() and number.isdigit() and len(number) < 19:
                    found.setdefault(int(number), []).append(path)
        except FileNotFoundError:
            return
        numbers = iter(sorted(found))
        while group := list(islice(numbers, _FILES)):
            yield {number: found[number] for number in group}

    def _lost(
        self, files: dict[int, list[Path]], known: Callable[[Sequence[int]], set[int]], age: Age
    ) -> set[int]:
        """Numbers without a row, as after an older backup was restored: their own age decides."""
        unknown = files.keys() - known(list(files))
        return {number for number in unknown if _changed(files[number]) < age.before}

    def _forget(self, kinds: Sequence[str], refs: Iterable[int]) -> None:
        if self._index.path.exists():
            self._index.forget(kinds, refs)

    def _room(self) -> Iterator[int]:
        """Give the room of what was deleted back to the disk, except for a reserve."""
        room = self._store.room()
        if not room.shrinks and room.free > max(_SPARE, room.pages // _MOSTLY_FREE):
            self._store.rewrite()
            yield 0
        while (room := self._store.room()).shrinks and room.free > _SPARE:
            self._store.give_back(min(_PAGES, room.free - _SPARE))
            yield 0
        while self._index.path.exists() and self._index.free_pages() > _SPARE:
            self._index.give_back(_PAGES)
            yield 0


def _changed(paths: Iterable[Path]) -> int:
    """When the newest of these was changed, in ms; what vanishes meanwhile is as old as can be."""
    newest = 0.0
    for path in paths:
        try:
            newest = max(newest, path.lstat().st_mtime)
        except FileNotFoundError:
            continue
    return int(newest * 1000)


def _remove(found: dict[int, list[Path]], old: Iterable[int]) -> int:
    """Delete what belongs to these numbers; how many files and folders that were."""
    gone = 0
    for path in (path for number in sorted(old) for path in found[number]):
        # Never through a link: an agent could have put one there.
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        gone += not path.exists()
    return gone
