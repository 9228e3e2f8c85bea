"""Fills the search index behind the work: a thread that reads what is new, in small portions."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from . import transcript
from .errors import StoreError
from .events import Event, EventType
from .redact import redact, secret_values
from .sprint import CommandStatus
from .store import CommandRow, Store
from .store.search import Document, SearchIndex, SearchUnavailable

log = logging.getLogger(__name__)

#: Seconds between two looks while something happens; a search may be that much behind.
_PAUSE = 3.0
#: After a portion it rests this many times as long as the portion took.
_REST = 1.5
_EVENTS, _COMMANDS = 300, 40
#: Words of an event; the rest of it can be filtered for, and need not be searched.
_SPOKEN = ("message", "warning", "reason")


class Indexer:
    """Reads events and transcripts of one project into its index."""

    def __init__(self, store: Store, state_dir: Path, root: Path, env: Mapping[str, str]) -> None:
        self.index = SearchIndex(state_dir)
        self._store = store
        self._folder = state_dir / "transcripts"
        self._root = root
        self._secrets = secret_values(env)
        self._news = threading.Event()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; without FTS5 nothing begins, and the search page says why."""
        try:
            self.index.prepare()
        except SearchUnavailable as error:
            log.info("%s", error)
            return
        except StoreError as error:
            log.warning("%s", error)
            return
        self._store.listen(self._news.set)
        self._news.set()
        self._thread = threading.Thread(target=self._run, name="indexer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End after the portion under way. Repeatable."""
        self._ending.set()
        self._news.set()
        if self._thread is not None:
            self._thread.join(5.0)
            self._thread = None

    def _run(self) -> None:
        while not self._ending.is_set():
            self._news.wait()
            self._news.clear()
            try:
                self.catch_up(self._rest)
            except StoreError as error:
                log.warning("the search index falls behind: %s", error)
            except Exception:
                # The one broad except of this thread: no transcript may end it for good.
                log.exception("a transcript could not be indexed")
            self._ending.wait(_PAUSE)

    def _rest(self, seconds: float) -> bool:
        """Leave the machine to others for a while; whether to go on."""
        return not self._ending.wait(min(0.5, seconds * _REST))

    def catch_up(self, rest: Callable[[float], bool] = lambda _: True) -> None:
        """Index all that is new. ``rest`` is called after each portion with the seconds it took."""
        for work in (self._new_events(), self._new_parts()):
            began = time.monotonic()
            for _ in work:
                if not rest(time.monotonic() - began):
                    return
                began = time.monotonic()

    def _new_events(self) -> Iterator[None]:
        cursor, _ = self.index.place("events")
        while found := self._store.events_after(cursor, _EVENTS):
            cursor = found[-1].id
            told = [document for event in found if (document := self._of_event(event))]
            self.index.add(told, {"events": (cursor, 0)})
            yield

    def _of_event(self, event: Event) -> Document | None:
        said = [str(event.payload[name]) for name in _SPOKEN if event.payload.get(name)]
        text = redact(" ".join(said), self._secrets)
        # A task says whether it starts or ends; what says neither is a tool call.
        step = event.type is EventType.COMMAND_PROGRESS and not event.payload.get("status")
        return Document("step" if step else "event", event.id, "", event.timestamp, text) if text else None

    def _new_parts(self) -> Iterator[None]:
        """Commands in their order; those that still run keep their place and are read on next time."""
        done, _ = self.index.place("commands")
        settled, last = True, done
        names: list[str] = []
        while found := self._store.commands_after(last, _COMMANDS):
            for command in found:
                last = command.id
                ended = command.status != CommandStatus.RUNNING
                yield from self._read_on(command, ended)
                settled = settled and ended
                if settled:
                    done = last
                    names.append(f"command {last}")
        if names:
            self.index.add((), {"commands": (done, 0)}, names)

    def _read_on(self, command: CommandRow, ended: bool) -> Iterator[None]:
        name = f"command {command.id}"
        offset, line = self.index.place(name)
        # Only the file's own name counts: the column can never lead out of the folder.
        path = self._folder / Path(command.transcript or "").name
        if offset < 0 or not command.transcript or not path.is_file():
            return
        read = transcript.portions(
            path, command.agent or "", self._root, clean=self._clean, offset=offset, line=line, final=ended
        )
        for portion in read:
            place = (portion.offset, portion.line)
            if portion.parts or place != (offset, line):
                self.index.add([_of_part(command, part) for part in portion.parts], {name: place})
                yield
        if ended:
            self.index.add((), {name: (-1, 0)})

    def _clean(self, text: str) -> str:
        return redact(text, self._secrets)


def _of_part(command: CommandRow, part: transcript.Part) -> Document:
    return Document("part", command.id, part.slot, part.began or command.started_at, part.text)
