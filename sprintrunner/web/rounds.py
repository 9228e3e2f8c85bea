"""The hub thread: read what is new, render it once, write it to everyone, let newcomers in."""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from ..events import Event
from .channels import PORTION, HtmlChannel, JsonChannel, Renderer, Source
from .frames import HEARTBEAT
from .sender import Client, Gone, Kind

log = logging.getLogger(__name__)

#: Seconds between looks at the table when no wake-up comes.
LOOK_INTERVAL = 1.0
#: Contract section 5 promises a sign of life every 15 s; a little earlier keeps it.
MAX_HEARTBEAT = 14.0
_READ_LIMIT = 500
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class Rounds:
    """The loop and all it owns; only ``add``, ``wake``, ``stop`` and ``count`` are for other threads."""

    def __init__(self, source: Source, renderer: Renderer, heartbeat: Callable[[], float]) -> None:
        self._source = source
        self._renderer = renderer
        self._heartbeat = heartbeat
        self._selector = selectors.DefaultSelector()
        self._wake_in, self._wake_out = socket.socketpair()
        for end in (self._wake_in, self._wake_out):
            end.setblocking(False)
        self._selector.register(self._wake_in, _READ, None)
        self._newcomers: deque[tuple[Client, bytes]] = deque()
        self._clients: dict[Kind, set[Client]] = {kind: set() for kind in Kind}
        self._sent_at = dict.fromkeys(Kind, time.monotonic())
        # Made by the first read that succeeds: both begin at the newest event.
        self._json: JsonChannel | None = None
        self._html: HtmlChannel | None = None
        self._last = 0
        self._more = False
        self._broken = False
        self._unrendered = False
        self._trouble = ""
        self._checked_at = 0.0
        self._interval = MAX_HEARTBEAT
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="hub", daemon=True)

    @property
    def count(self) -> int:
        """Clients here, newcomers included."""
        return len(self._newcomers) + sum(map(len, self._clients.values()))

    def start(self) -> None:
        """Begin; once."""
        self._thread.start()

    def add(self, client: Client, head: bytes) -> None:
        """Hand a client over."""
        self._newcomers.append((client, head))
        self.wake()
        if not self._thread.is_alive():  # it ended between the hub's look and ours
            client.close()

    def wake(self) -> None:
        """Start a round now; a full pipe means that one is under way."""
        with contextlib.suppress(OSError):
            self._wake_out.send(b"\0")

    def stop(self) -> None:
        """Close all clients and end the thread; waits at most two seconds. Repeatable."""
        self._stopping = True
        self.wake()
        if self._thread is not threading.current_thread():
            self._thread.join(2.0)

    def _run(self) -> None:
        self._interval = self._heartbeat_seconds()
        while not self._stopping:
            try:
                self._round()
            except Exception:
                # The one broad except of this thread: without it every stream would end for good.
                log.exception("a round of the hub failed")
                time.sleep(0.1)
        self._close_all()

    def _round(self) -> None:
        self._serve_ready(self._selector.select(self._wait_seconds()))
        # Before the read: the ring then holds what a newcomer's page may already show.
        newcomers = [self._newcomers.popleft() for _ in range(len(self._newcomers))]
        for client, head in newcomers:
            self._admit(client, head)
        if self._look():
            self._feed_json()
            self._feed_html()
        self._housekeeping(time.monotonic())

    def _wait_seconds(self) -> float:
        """Until the next thing is due; at most one look interval."""
        now = time.monotonic()
        if self._more or self._newcomers or any(self._hungry(Kind.JSON)):
            return LOOK_INTERVAL if self._broken else 0.0
        wait = min(LOOK_INTERVAL, *(at + self._interval - now for at in self._sent_at.values()))
        if self._html and self._html_work(self._html):
            wait = min(wait, self._html.rests_until - now)
        return max(0.0, wait)

    def _html_work(self, channel: HtmlChannel) -> bool:
        if self._broken or not self._clients[Kind.HTML]:
            return False
        return channel.has_news or any(self._hungry(Kind.HTML))

    def _hungry(self, kind: Kind) -> Iterable[Client]:
        """Clients that catch up and have written out what they were given."""
        return (client for client in self._clients[kind] if not client.live and not client.backlog)

    # -- sockets

    def _serve_ready(self, ready: Sequence[tuple[selectors.SelectorKey, int]]) -> None:
        for key, mask in ready:
            if key.data is None:
                self._drain_wake()
            else:
                self._guard(key.data, partial(self._serve, mask))

    def _drain_wake(self) -> None:
        with contextlib.suppress(OSError):
            while len(self._wake_in.recv(4096)) == 4096:
                pass

    def _serve(self, mask: int, client: Client) -> None:
        if mask & _READ:
            client.listen()
        if mask & _WRITE:
            client.flush()
            if not client.backlog:
                self._selector.modify(client.sock, _READ, client)

    def _admit(self, client: Client, head: bytes) -> None:
        try:
            self._selector.register(client.sock, _READ, client)
        except (OSError, ValueError):
            client.close()
            return
        self._clients[client.kind].add(client)
        self._write(client, head)

    def _write(self, client: Client, data: bytes) -> None:
        if data:
            self._guard(client, partial(self._write_and_watch, data))

    def _write_and_watch(self, data: bytes, client: Client) -> None:
        waited = bool(client.backlog)
        client.write(data)
        if client.backlog and not waited:
            self._selector.modify(client.sock, _READ | _WRITE, client)
        if client.live and client.fell_behind(time.monotonic()):
            client.live = False

    def _guard(self, client: Client, act: Callable[[Client], None]) -> None:
        try:
            act(client)
        except Gone as gone:
            self._drop(client, str(gone))

    def _drop(self, client: Client, why: str) -> None:
        log.debug("stream %s ended: %s", client.kind.value, why)
        self._clients[client.kind].discard(client)
        with contextlib.suppress(KeyError, ValueError, OSError):
            self._selector.unregister(client.sock)
        client.close()

    # -- what is new

    def _look(self) -> bool:
        """Read the table; False while the database does not answer (clients then only get heartbeats)."""
        try:
            if self._json is None:
                self._begin(self._source.last_event_id())
            events = self._source.events_after(self._last, _READ_LIMIT)
        except Exception:
            if not self._broken:
                log.exception("the hub cannot read the events; it looks again each second")
            self._broken = True
            return False
        self._broken = False
        self._note_trouble()
        self._more = len(events) == _READ_LIMIT
        if events:
            self._publish(events)
        return True

    def _note_trouble(self) -> None:
        """That the database takes no records is no event, and open pages must show it all the same."""
        trouble = getattr(self._source, "trouble", "")
        if trouble != self._trouble and self._html:
            self._trouble = trouble
            self._html.refresh()

    def _begin(self, newest: int) -> None:
        self._last = newest
        self._json = JsonChannel(self._source, newest)
        self._html = HtmlChannel(self._source, self._renderer, newest)

    def _publish(self, events: Sequence[Event]) -> None:
        self._last = events[-1].id
        if self._html:
            self._html.note(events, bool(self._clients[Kind.HTML]))
        if self._json:
            self._fan_out(Kind.JSON, self._json.publish(events))

    def _fan_out(self, kind: Kind, data: bytes) -> None:
        self._sent_at[kind] = time.monotonic()
        for client in [client for client in self._clients[kind] if client.live]:
            if kind is Kind.JSON and len(data) > PORTION:
                client.live = False  # so much goes out in portions, at the pace of each
                continue
            client.cursor = self._last
            sent = client.offer(data)
            if sent < len(data):
                self._write(client, data[sent:])

    def _feed_json(self) -> None:
        if self._json is None:
            return
        for client in list(self._hungry(Kind.JSON)):
            self._guard(client, self._json.feed)
            if client.backlog and client.sock.fileno() >= 0:
                self._selector.modify(client.sock, _READ | _WRITE, client)

    def _feed_html(self) -> None:
        channel = self._html
        if channel is None or not self._html_work(channel) or time.monotonic() < channel.rests_until:
            return
        try:
            if channel.has_news and (news := channel.render_news()):
                self._fan_out(Kind.HTML, news)
            answers = channel.feed(list(self._hungry(Kind.HTML)))
        except Exception:
            # Said once, tried each second: a page that cannot be rendered must not fill the log.
            if not self._unrendered:
                log.exception("a fragment could not be rendered; everything is sent next time")
            self._unrendered = True
            channel.rests_until = time.monotonic() + LOOK_INTERVAL
            return
        self._unrendered = False
        for client, data in answers:
            self._write(client, data)

    # -- the clock

    def _housekeeping(self, now: float) -> None:
        for kind, sent_at in self._sent_at.items():
            if now - sent_at >= self._interval:
                self._beat(kind, now)
        if now - self._checked_at >= min(LOOK_INTERVAL, self._interval):
            self._checked_at = now
            for client in [one for group in self._clients.values() for one in group if one.overdue(now)]:
                self._drop(client, "write deadline")

    def _beat(self, kind: Kind, now: float) -> None:
        self._sent_at[kind] = now
        self._interval = self._heartbeat_seconds()
        for client in list(self._clients[kind]):
            if not client.backlog:
                self._write(client, HEARTBEAT)

    def _heartbeat_seconds(self) -> float:
        try:
            return min(MAX_HEARTBEAT, self._heartbeat())
        except Exception:
            # Broken settings must not end the streams; the longest interval keeps the promise.
            log.warning("heartbeat_seconds cannot be read", exc_info=True)
            return MAX_HEARTBEAT

    def _close_all(self) -> None:
        for client in [one for group in self._clients.values() for one in group]:
            self._drop(client, "the server stops")
        while self._newcomers:
            self._newcomers.popleft()[0].close()
        self._selector.close()
        self._wake_in.close()
        self._wake_out.close()
