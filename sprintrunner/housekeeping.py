"""Keeps the state folder small and copied: a daily backup, and what is old deleted while no batch runs."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from pathlib import Path

from .errors import SprintRunnerError, StoreError
from .events import EventType
from .retention import Retention
from .store import Store, newest_backup

log = logging.getLogger(__name__)

#: The first look comes after the start has settled; then one an hour. Seconds.
_FIRST_LOOK, _EACH = 3.0, 3600.0
_DAY_MS = 86_400_000
#: A batch that never ends must not keep the copy from being made for longer than this, in days.
_LATEST_BACKUP = 2
#: Between two pieces of deleting, in seconds: others come first.
_REST = 0.02


class Housekeeper:
    """A thread of its own: neither the orchestrator nor a request waits for it."""

    def __init__(self, store: Store, state_dir: Path) -> None:
        self._store = store
        self._state_dir = state_dir
        self._folder = state_dir / "backups"
        self._over = threading.Event()
        self._said = ""

    def start(self) -> None:
        """Begin; once."""
        # Made here: a thread made before gunicorn's fork would not live after it.
        threading.Thread(target=self._run, name="housekeeping", daemon=True).start()

    def stop(self) -> None:
        """Let no further look begin. Repeatable."""
        self._over.set()

    def _run(self) -> None:
        wait = _FIRST_LOOK
        while not self._over.wait(wait):
            try:
                self.look()
            except (SprintRunnerError, OSError) as error:
                self._tell(error)
                log.exception("the database could not be backed up or tidied; tried again in an hour")
            wait = _EACH

    def _tell(self, error: Exception) -> None:
        """Say on the pages what needs a person, once; the log alone is read by nobody."""
        said = error.sentence if isinstance(error, SprintRunnerError) else f"{error}."
        if said != self._said:
            self._said = said
            with suppress(StoreError), self._store.transaction() as tx:
                tx.append(EventType.ERROR, {"type": "housekeeping", "message": said})

    def look(self) -> None:
        """Back up what is due; delete what is old."""
        now = self._store.now()
        live = self._store.live_batch() is not None
        if self._due(now, live) and self._store.count_batches():
            log.info("backup written: %s", self._store.backup(self._folder))
        if not live:
            Retention(self._store, self._state_dir, self._rest).look()

    def _rest(self) -> bool:
        return not self._over.wait(_REST)

    def _due(self, now: int, live: bool) -> bool:
        newest = newest_backup(self._store.path, self._folder)
        if newest is None:
            return not live
        # A clock set back makes none younger than now.
        age = now - min(int(newest.stat().st_mtime * 1000), now)
        return age >= (_LATEST_BACKUP if live else 1) * _DAY_MS
