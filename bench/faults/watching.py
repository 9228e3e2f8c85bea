"""Measures something again and again while something else happens."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType


class Watch:
    """``with Watch(measure) as watch``: ``watch.values`` holds what was measured every few milliseconds."""

    def __init__(self, measure: Callable[[], int], pause: float = 0.02) -> None:
        self.values = [measure()]
        self._measure = measure
        self._pause = pause
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._over.wait(self._pause):
            self.values.append(self._measure())

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
