"""The newest event frames, kept in memory so that a returning client needs no query."""

from __future__ import annotations

from collections import deque
from itertools import islice


class Ring:
    """Frames in the order of their ids, bounded in number and bytes; owned by one thread."""

    def __init__(self, start: int, max_frames: int = 2048, max_bytes: int = 4 << 20) -> None:
        self._frames: deque[tuple[int, bytes]] = deque()
        self._bytes = 0
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        #: Every event after this id, up to the newest, is held.
        self.floor = start

    def add(self, event_id: int, data: bytes) -> None:
        """Append the newest frame; the oldest go where the bounds demand it."""
        self._frames.append((event_id, data))
        self._bytes += len(data)
        while len(self._frames) > self._max_frames or self._bytes > self._max_bytes:
            self.floor, dropped = self._frames.popleft()
            self._bytes -= len(dropped)

    def after(self, cursor: int, max_bytes: int) -> tuple[list[bytes], int] | None:
        """The frames after ``cursor``, about ``max_bytes`` of them, and the id they reach.

        None when the ring no longer reaches back that far: the table has to be read.
        """
        if cursor < self.floor:
            return None
        frames: list[bytes] = []
        size = 0
        for event_id, data in islice(self._frames, self._index(cursor), None):
            frames.append(data)
            size += len(data)
            cursor = event_id
            if size >= max_bytes:
                break
        return frames, cursor

    def _index(self, cursor: int) -> int:
        """The position of the first frame after ``cursor``; ids rise, so search by halves."""
        low, high = 0, len(self._frames)
        while low < high:
            middle = (low + high) // 2
            if self._frames[middle][0] <= cursor:
                low = middle + 1
            else:
                high = middle
        return low
