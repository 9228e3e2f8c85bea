"""Reads a growing transcript by offset and cuts it into lines, in bounded memory."""

from __future__ import annotations

import os
from pathlib import Path

#: Bytes read at a time.
CHUNK = 1 << 20
#: Longest line handed on whole.
LONGEST = 8 << 20
#: What is kept of a longer one: nobody can parse half a JSON document, and its start says what it was.
KEPT = 64 << 10


class Lines:
    """Cuts chunks into lines without newline; one over ``longest`` bytes keeps its start and a marker."""

    def __init__(self, longest: int = LONGEST, kept: int = KEPT) -> None:
        self.longest = longest
        self.kept = min(kept, longest)
        self._pending = bytearray()
        self._length = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that this chunk completes."""
        first, *others = data.split(b"\n")
        self._extend(first)
        lines = []
        for part in others:
            lines.append(self._take())
            self._extend(part)
        return lines

    def rest(self) -> list[bytes]:
        """Return the last line when it has no newline."""
        return [self._take()] if self._length else []

    def _extend(self, part: bytes) -> None:
        self._length += len(part)
        if self._length <= self.longest:
            self._pending += part
        elif len(self._pending) != self.kept:
            self._pending = (self._pending + part[: self.kept])[: self.kept]

    def _take(self) -> bytes:
        line = bytes(self._pending)
        if self._length > self.longest:
            line += b" [sprintrunner: line of %d bytes cut]" % self._length
        self._pending.clear()
        self._length = 0
        return line


class Transcript:
    """Follows one file, which may not exist yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0
        self._fd: int | None = None
        self._lines = Lines()

    def read(self) -> tuple[list[bytes], bool]:
        """Return the lines that the next chunk completes, and whether more may be there already."""
        data = self._next_chunk()
        self.offset += len(data)
        return self._lines.feed(data), len(data) == CHUNK

    def rest(self) -> list[bytes]:
        """Return the unfinished last line, once nothing more can come."""
        return self._lines.rest()

    def close(self) -> None:
        """Let the file go."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _next_chunk(self) -> bytes:
        try:
            if self._fd is None:
                self._fd = os.open(self.path, os.O_RDONLY)
            return os.pread(self._fd, CHUNK, self.offset)
        except FileNotFoundError:
            return b""
