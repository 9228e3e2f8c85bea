"""Stories a person asked to retry while a batch runs: in order, on disk until their turn has come."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

from .. import files
from ..errors import Refused

log = logging.getLogger(__name__)
_NAME = "retries.json"


class Asked:
    """The queue. Kept in the batch's folder: an answer of 202 holds over a kill -9 as well."""

    def __init__(self, folder: Path, *, anew: bool) -> None:
        self._path = folder / _NAME
        # A new batch may have the number of one that a restored backup never knew.
        self._phases: dict[str, str | None] = {} if anew else _read(self._path)

    def __bool__(self) -> bool:
        return bool(self._phases)

    def __iter__(self) -> Iterator[str]:
        return iter(self._phases)

    def add(self, key: str, phase: str | None) -> None:
        """Ask for a story, last of all; again: its place stays, a phase named now counts. Raises Refused."""
        try:
            self._keep({**self._phases, key: phase or self._phases.get(key)})
        except OSError as error:
            raise Refused(f"The retry could not be noted in the state folder: {files.why(error)}.") from None

    def first(self) -> tuple[str, str | None]:
        """The next story and the phase it was asked for, None for its own; it stays in the queue."""
        return next(iter(self._phases.items()))

    def drop(self, key: str) -> None:
        """Its turn has come, or it cannot go on."""
        left = {asked: phase for asked, phase in self._phases.items() if asked != key}
        try:
            self._keep(left)
        except OSError:
            # Worse than one that is tried again after a crash would be a batch that ends for a full disk.
            log.exception("the queue of retries could not be written")
            self._phases = left

    def _keep(self, phases: dict[str, str | None]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        files.keep(self._path, json.dumps(phases).encode())
        self._phases = phases


def _read(path: Path) -> dict[str, str | None]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
