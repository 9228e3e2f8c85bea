"""The hub: cursors, replay, slow and gone clients, rendering, closing."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from sprintrunner.events import Event, EventType
from sprintrunner.store import Store
from sprintrunner.web import channels, frames, sender
from sprintrunner.web.channels import HtmlChannel, JsonChannel
from sprintrunner.web.hub import Hub
from sprintrunner.web.ring import Ring
from sprintrunner.web.sender import Client, Kind


class Page:
    """A renderer whose fragments tell which events they were made from."""

    def __init__(self) -> None:
        self.fails = 0
        self.rendered = 0
        self.seconds = 0.0

    def snapshot(self) -> str:
        self._count()
        return "<p id=all>snapshot</p>"

    def changes(self, events: Sequence[Event]) -> str:
        self._count()
        return "\n".join(f"<i>{event.id}</i>" for event in events)

    def _count(self) -> None:
        self.rendered += 1
        time.sleep(self.seconds)
        if self.fails:
            self.fails -= 1
            raise RuntimeError("no template")


class Reader:
    """A stream client of the test: parses messages."""

    opened: ClassVar[list[socket.socket]] = []

    def __init__(self, hub: Hub, kind: Kind = Kind.JSON, *sent: str | None) -> None:
        self.sock, theirs = socket.socketpair()
        self.sock.settimeout(5)
        self._buffer = b""
        Reader.opened.append(self.sock)
        self.client = Client(theirs, kind, frames.cursors(*sent))
        hub.attach(self.client, frames.RETRY)

    def messages(self) -> Iterator[tuple[int | None, str]]:
        while True:
            while b"\n\n" not in self._buffer:
                data = self.sock.recv(1 << 16)
                if not data:
                    return
                self._buffer += data
            message, self._buffer = self._buffer.split(b"\n\n", 1)
            lines = message.decode().split("\n")
            data_lines = [line[6:] for line in lines if line.startswith("data: ")]
            if data_lines:
                number = next((int(line[4:]) for line in lines if line.startswith("id: ")), None)
                yield number, "\n".join(data_lines)

    def next(self) -> tuple[int | None, str]:
        return next(self.messages())

    def ids_until(self, last: int) -> list[int]:
        seen: list[int] = []
        for number, data in self.messages():
            assert number is not None
            if json.loads(data)["type"] != "init":
                seen.append(number)
            if number >= last:
                return seen
        raise AssertionError(f"closed after {seen[-3:]}")


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.005)


def say(store: Store, count: int = 1, text: str = "hello", batch_id: int | None = None) -> int:
    last = 0
    for number in range(count):
        with store.transaction() as tx:
            payload = {"type": "test", "message": f"{text} {number}"}
            last = tx.append(EventType.ERROR, payload, batch_id=batch_id)
    return last


def say_at_once(store: Store, count: int, text: str = "x") -> int:
    last = 0
    with store.transaction() as tx:
        for _ in range(count):
            last = tx.append(EventType.ERROR, {"type": "test", "message": text})
    return last


@pytest.fixture(autouse=True)
def _closed_readers() -> Iterator[None]:
    yield
    while Reader.opened:
        Reader.opened.pop().close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store.open(tmp_path / "log.db")
    yield made
    made.close()


@pytest.fixture
def page() -> Page:
    return Page()


@pytest.fixture
def hub(store: Store, page: Page) -> Iterator[Hub]:
    made = Hub(store, page)
    yield made
    made.close()


def test_line_ends_of_any_kind_never_end_a_message() -> None:
    made = frames.frame("a\n\nevent: x\rdata: forged\r\nb", 7)
    assert made == b"id: 7\ndata: a\ndata: \ndata: event: x\ndata: data: forged\ndata: b\n\n"


def test_json_frames_are_one_ascii_line() -> None:
    made = frames.json_frame({"text": "\ud800\u2028\n\x00é"}, 1)
    assert made.count(b"\n") == 3
    assert made.isascii()


@pytest.mark.parametrize("text", ["", "-1", "abc", "1.0", "+1", " 1", "١", "10" * 20, str(2**63), "1\n"])
def test_a_cursor_that_can_be_no_id_is_absent(text: str) -> None:
    assert frames.cursors(text) == ()


def test_the_larger_cursor_wins_unless_it_lies_in_the_future() -> None:
    assert frames.usable(frames.cursors("3", "5"), 10) == 5
    assert frames.usable(frames.cursors("3", "11"), 10) == 3
    assert frames.usable(frames.cursors("11", None), 10) is None


def test_the_ring_knows_how_far_it_reaches_back() -> None:
    ring = Ring(10, max_frames=3)
    for number in range(11, 16):
        ring.add(number, b"%d" % number)
    assert ring.after(11, 1000) is None
    assert ring.after(12, 1000) == ([b"13", b"14", b"15"], 15)
    assert ring.after(14, 1000) == ([b"15"], 15)
    assert ring.after(15, 1000) == ([], 15)
    assert ring.after(12, 3) == ([b"13", b"14"], 14)


def test_the_ring_is_bounded_in_bytes() -> None:
    ring = Ring(0, max_bytes=10)
    for number in range(1, 5):
        ring.add(number, b"1234")
    assert ring.floor == 2


def test_without_a_cursor_the_first_message_is_init(hub: Hub, store: Store) -> None:
    last = say(store, 3)
    number, data = Reader(hub).next()
    init = json.loads(data)
    assert number == init["id"] == last
    assert init["type"] == "init"
    assert init["payload"] == {"batch": None, "events": []}


def test_init_holds_the_last_fifty_events_of_the_active_batch(hub: Hub, store: Store) -> None:
    with store.transaction() as tx:
        batch_id = tx.insert_batch(max_cycles=2, status="running", state="running")
    last = say(store, 60, batch_id=batch_id)
    say(store, 1)
    init = json.loads(Reader(hub).next()[1])
    assert init["payload"]["batch"]["id"] == batch_id
    ids = [event["id"] for event in init["payload"]["events"]]
    assert ids == list(range(last - 49, last + 1))


def test_events_follow_in_order_after_the_cursor(hub: Hub, store: Store) -> None:
    say(store, 5)
    reader = Reader(hub, Kind.JSON, "2")
    assert reader.ids_until(5) == [3, 4, 5]
    say(store, 2)
    assert reader.ids_until(7) == [6, 7]


def test_a_cursor_below_the_ring_reads_on_from_the_table(hub: Hub, store: Store) -> None:
    last = say_at_once(store, 3000)
    Reader(hub).next()
    say(store, 1)
    assert Reader(hub, Kind.JSON, "0").ids_until(last + 1) == list(range(1, last + 2))


def test_a_gap_of_deleted_rows_does_not_stop_the_replay(store: Store) -> None:
    say_at_once(store, 200)
    channel = JsonChannel(Gap(store, 90), 200)
    here, there = socket.socketpair()
    client = Client(here, Kind.JSON, (10,))
    for _ in range(10):
        channel.feed(client)
    assert client.live
    here.close()
    there.close()


class Gap:
    """A source whose rows up to some id were deleted."""

    def __init__(self, store: Store, until: int) -> None:
        self._store, self._until = store, until

    def events_after(self, cursor: int, limit: int, /) -> list[Event]:
        rows = self._store.events_after(cursor, limit)
        return [row for row in rows if row.id > self._until]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def test_an_event_committed_but_not_yet_published_comes_once(store: Store) -> None:
    last = say(store, 5)
    channel = JsonChannel(store, last)
    late = say(store, 1)
    here, there = socket.socketpair()
    client = Client(here, Kind.JSON, (3,))
    channel.feed(client)
    assert client.cursor == last
    assert b"id: %d" % late not in there.recv(65536)
    here.close()
    there.close()


def test_forty_clients_joining_while_events_run_see_no_gap_and_no_repeat(hub: Hub, store: Store) -> None:
    total = 600
    results: list[list[int]] = []

    def follow(number: int) -> None:
        wait_for(lambda: store.last_event_id() >= number * 12)
        results.append(Reader(hub, Kind.JSON, str(number)).ids_until(total))

    threads = [threading.Thread(target=follow, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    say(store, total)
    for thread in threads:
        thread.join(20)
    assert len(results) == 40
    assert all(seen == list(range(seen[0], total + 1)) for seen in results)
    assert sorted(seen[0] for seen in results) == list(range(1, 41))


def test_a_client_that_never_reads_is_dropped_and_others_get_everything(
    hub: Hub, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "WRITE_DEADLINE", 0.3)
    stalled = Reader(hub, Kind.JSON, "0")
    reader = Reader(hub, Kind.JSON, "0")
    last = say_at_once(store, 500, "y" * 10_000)
    assert reader.ids_until(last) == list(range(1, last + 1))
    wait_for(lambda: hub.clients == 1)
    stalled_ids = []
    with pytest.raises(AssertionError):
        stalled_ids = stalled.ids_until(last)
    assert stalled_ids == []
    back = Reader(hub, Kind.JSON, "17")
    assert back.ids_until(last) == list(range(18, last + 1))


def test_a_full_backlog_without_progress_drops_at_once() -> None:
    here, there = socket.socketpair()
    client = Client(here, Kind.JSON, ())
    client.write(b"x" * (3 << 20))
    assert client.fell_behind(time.monotonic())
    with pytest.raises(sender.Gone):
        client.fell_behind(time.monotonic() + 2 * sender.READING)
    here.close()
    there.close()


def test_gone_and_half_closed_clients_are_forgotten(hub: Hub) -> None:
    readers = [Reader(hub) for _ in range(20)]
    for reader in readers:
        reader.next()
    for reader in readers[:10]:
        reader.sock.shutdown(socket.SHUT_WR)
    for reader in readers[10:]:
        reader.sock.close()
    wait_for(lambda: hub.clients == 0)


def test_a_client_that_talks_without_end_is_dropped(hub: Hub) -> None:
    reader = Reader(hub)
    reader.next()
    with pytest.raises(OSError):
        while True:
            reader.sock.send(b"z" * 1024)
    wait_for(lambda: hub.clients == 0)


def test_heartbeats_come_and_nothing_grows(store: Store, page: Page) -> None:
    hub = Hub(store, page, lambda: 0.01)
    readers = [Reader(hub, kind) for kind in Kind for _ in range(3)]
    for reader in readers:
        reader.next()
    before = (threading.active_count(), len(os.listdir("/proc/self/fd")))
    for reader in readers:
        seen = b""
        while seen.count(frames.HEARTBEAT) < 20:
            seen += reader.sock.recv(4096)
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == before
    hub.close()


def test_the_page_stream_begins_with_a_snapshot_and_goes_on_with_changes(hub: Hub, store: Store) -> None:
    last = say(store, 2)
    reader = Reader(hub, Kind.HTML)
    assert reader.next() == (last, "<p id=all>snapshot</p>")
    say(store, 1)
    assert reader.next() == (last + 1, f"<i>{last + 1}</i>")


def test_a_returning_page_gets_what_changed_since(hub: Hub, store: Store) -> None:
    say(store, 4)
    assert Reader(hub, Kind.HTML, "2").next() == (4, "<i>3</i>\n<i>4</i>")


def test_an_open_page_is_told_that_the_database_takes_no_records(hub: Hub, store: Store) -> None:
    reader = Reader(hub, Kind.HTML)
    reader.next()
    for trouble in ("The disk is full.", ""):
        store.trouble = trouble
        assert reader.next() == (0, "<p id=all>snapshot</p>")


def test_a_page_out_of_reach_gets_a_snapshot(hub: Hub, store: Store) -> None:
    last = say_at_once(store, channels.REACH + 1)
    assert Reader(hub, Kind.HTML, "0").next() == (last, "<p id=all>snapshot</p>")
    assert Reader(hub, Kind.HTML, "1").next()[1].startswith("<i>2</i>")


@pytest.mark.parametrize("cursor", ["-1", "text", "999999", "1" + "0" * 30])
def test_an_unusable_cursor_counts_as_none(hub: Hub, store: Store, cursor: str) -> None:
    say(store, 1)
    assert json.loads(Reader(hub, Kind.JSON, cursor).next()[1])["type"] == "init"
    assert "snapshot" in Reader(hub, Kind.HTML, cursor).next()[1]


def test_fragments_are_rendered_once_for_all_clients(hub: Hub, store: Store, page: Page) -> None:
    readers = [Reader(hub, Kind.HTML) for _ in range(30)]
    for reader in readers:
        reader.next()
    before = page.rendered
    say(store, 1)
    assert {reader.next() for reader in readers} == {(1, "<i>1</i>")}
    assert page.rendered == before + 1


def test_without_a_page_open_nothing_is_rendered(hub: Hub, store: Store, page: Page) -> None:
    reader = Reader(hub, Kind.JSON, "0")
    assert reader.ids_until(say(store, 5)) == [1, 2, 3, 4, 5]
    assert page.rendered == 0


def test_after_a_failed_rendering_everything_is_sent(
    hub: Hub, store: Store, page: Page, caplog: pytest.LogCaptureFixture
) -> None:
    reader = Reader(hub, Kind.HTML)
    reader.next()
    page.fails = 1
    say(store, 1)
    assert reader.next() == (1, "<p id=all>snapshot</p>")
    assert "could not be rendered" in caplog.text


def test_a_burst_costs_few_renderings(hub: Hub, store: Store, page: Page) -> None:
    page.seconds = 0.005
    reader = Reader(hub, Kind.HTML)
    reader.next()
    last = say(store, 300)
    while reader.next()[0] != last:
        pass
    assert page.rendered < 100


def test_too_many_pending_events_become_a_snapshot(store: Store, page: Page) -> None:
    events = [Event(number, EventType.ERROR, 0, {}) for number in range(1, channels.REACH + 2)]
    channel = HtmlChannel(store, page, 0)
    channel.note(events, True)
    assert b"snapshot" in channel.render_news()
    assert not channel.has_news


def test_a_database_that_fails_for_a_while_loses_no_event(
    hub: Hub, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Reader(hub, Kind.JSON, "0")
    assert reader.ids_until(say(store, 1)) == [1]
    good = store.events_after
    monkeypatch.setattr(store, "events_after", lambda *args: (_ for _ in ()).throw(OSError("disk")))
    say(store, 3)
    monkeypatch.setattr(store, "events_after", good)
    assert reader.ids_until(4) == [2, 3, 4]


def test_close_ends_streams_and_refuses_new_ones(hub: Hub, store: Store) -> None:
    readers = [Reader(hub, kind) for kind in Kind]
    for reader in readers:
        reader.next()
    hub.close()
    hub.close()
    for reader in readers:
        assert list(reader.messages()) == []
    late = Reader(hub)
    assert late.sock.recv(10) == b""
    assert not hub.has_room


def test_the_cap_leaves_no_room(store: Store, page: Page) -> None:
    hub = Hub(store, page, max_clients=2)
    readers = [Reader(hub), Reader(hub)]
    assert not hub.has_room
    readers[0].sock.close()
    wait_for(lambda: hub.has_room)
    hub.close()
