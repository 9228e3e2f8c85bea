"""Warns while there is still time: the disk of the project or of our records fills up."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

#: So much gone since the batch began is worth a word; so little left is too. Bytes.
GROWN, LOW = 10_000_000_000, 2_000_000_000
_GIGABYTE = 1_000_000_000


class DiskWatch:
    """Looks at the free space of some folders; says each thing once."""

    def __init__(self, folders: Iterable[Path]) -> None:
        by_device = {folder.stat().st_dev: folder for folder in folders if folder.is_dir()}
        self._watched = {folder: shutil.disk_usage(folder).free for folder in by_device.values()}
        self._said: set[tuple[Path, str]] = set()

    def look(self) -> list[str]:
        """The sentences that are due now."""
        found = []
        for folder, at_first in self._watched.items():
            free = shutil.disk_usage(folder).free
            left = f"{free / _GIGABYTE:.1f} GB are left on the disk of {folder}."
            if at_first - free >= GROWN and self._new(folder, "grown"):
                gone = (at_first - free) / _GIGABYTE
                found.append(f"{gone:.1f} GB were written since the batch began; {left}")
            if free < LOW and self._new(folder, "low"):
                found.append(f"The disk is nearly full: {left}")
        return found

    def _new(self, folder: Path, what: str) -> bool:
        if (folder, what) in self._said:
            return False
        self._said.add((folder, what))
        return True
