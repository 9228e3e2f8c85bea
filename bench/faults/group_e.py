"""Group E: hostile text in every field, looked at on every page, fragment, stream and as JSON."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
import sys
import time
import unicodedata
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import browser
import hostile
import plans
import raw_http
from checks import check, expect
from client import HOST, Answer
from harness import World

from sprintrunner import rehearsal

FIRST, SECOND = "1-1-grow-a-leaf", f"2-1-grow{hostile.FAILS}"
_PAGES = ("/", "/batches", "/batches/1", f"/stories/{FIRST}", f"/stories/{SECOND}", "/trends", "/timeline")
_PAGES += ("/activity", "/search?q=SUMMARY", "/settings")
_TEMPLATES = Path(__file__).resolve().parents[2] / "templates"
#: Where each field may be seen: by its mark, which stands right before the payload.
_FIELDS = (
    "TITLE:",
    "EPIC:",
    "KEY:",
    "STATUS:",
    "SAID:",
    "BASH:",
    "OUTPUT:",
    "SUMMARY:",
    "FINDING:",
    "PLACE:",
)
_FIELDS += ("ERROR:",)
#: A text may be capped without a sign where this much of it is shown.
_CAP = 150
_UNSEEN = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp"})

#: What of a page shows that a payload became more than text.
_LOOK = """() => { const bad = [], all = document.querySelectorAll('*');
for (const one of all) for (const attribute of one.attributes) {
  const value = attribute.value.trim().toLowerCase();
  if (attribute.name.startsWith('on')) bad.push(one.tagName + ' ' + attribute.name);
  const leads = ['href', 'src', 'action', 'formaction', 'xlink:href'].includes(attribute.name);
  if (leads && value.startsWith('javascript:'))
    bad.push(one.tagName + ' ' + attribute.name + '=' + value.slice(0, 40));
}
for (const one of document.querySelectorAll('script'))
  if (!(one.getAttribute('src') || '').startsWith('/static/'))
    bad.push('script ' + one.textContent.slice(0, 40));
for (const one of document.querySelectorAll('img, iframe, object, embed, style')) bad.push(one.tagName);
const walk = document.createTreeWalker(document, NodeFilter.SHOW_COMMENT);
while (walk.nextNode()) bad.push('comment ' + walk.currentNode.data.slice(0, 40));
if (window.pwned) bad.push('it was executed');
const controls = [...document.querySelectorAll('input, textarea')].map(one => one.value).join('\\n');
return [bad, document.documentElement.textContent + '\\n' + controls]; }"""


class Stage:
    """A world in which everybody who can write something writes the payload."""

    def __init__(self, payload: str) -> None:
        self.payload = payload
        self.world = World(stories=((FIRST, "ready-for-dev"), (SECOND, "backlog")), name=self._folder())
        self._install()
        self._plan()

    def _folder(self) -> str:
        """A name of the project as much like the payload as a folder can be."""
        return "project " + re.sub(r"[/\0\r\n]", "", self.payload)[:40]

    def _install(self) -> None:
        world = self.world
        file = world.folder / "payload.json"
        file.write_text(json.dumps(self.payload))
        agent = Path(rehearsal.__file__).parent / "agent.py"
        words = [sys.executable, "-I", "-S", hostile.__file__, str(agent), str(file)]
        launcher = world.bin / "claude"
        launcher.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')

    def _plan(self) -> None:
        """Titles of a story and an epic; in files a line is a line."""
        root, line = self.world.root, " ".join(self.payload.split())
        epics = root / "_bmad-output/planning-artifacts/epics.md"
        epics.write_text(
            f"# Plan\n\n## Epic 1: EPIC:{line}\n\n### Story 1.1: TITLE:{line}\n\nAs I\n", "utf-8"
        )
        story = root / plans.ARTEFACTS / f"{FIRST}.md"
        text = story.read_text()
        story.write_text(re.sub(r"(?m)^# Story.*$", lambda _: f"# Story 1.1: TITLE:{line}", text), "utf-8")
        plans.git(root, "commit", "-qam", f"COMMIT:{line.replace(chr(0), '')}")

    def work(self) -> None:
        """A whole batch; then a key and a status that nobody could start."""
        self.world.start("all")
        self.world.batch_end(120)
        sent = b"SAID:" + json.dumps(self.payload).encode()[1:-1]
        told = [row for row in self.world.commands() if row["agent"] == "claude"]
        written = [row for row in told if sent in self.world.transcript(row)]
        expect(len(written) > 3, "the agents did not say it")
        key = json.dumps(f"3-1-KEY:{self.payload[:400]}")
        status = json.dumps(f"STATUS:{self.payload[:400]}")
        file = self.world.root / plans.STATUS_FILE
        file.write_text(f"{file.read_text()}  {key}: backlog\n  3-2-odd: {status}\n", "utf-8")


def _plain(text: str) -> str:
    """The characters a reader sees: no white space, control or direction character, nor what replaces one."""
    return "".join(c for c in text if unicodedata.category(c) not in _UNSEEN and c != "\ufffd")


def _shown(mark: str, payload: str, text: str) -> bool:
    """Whether the payload stands somewhere after its mark: whole, cut with an ellipsis, or cut by a cap."""
    wanted = _plain(mark + payload)
    for found in re.finditer(re.escape(mark or wanted[:8]), text):
        rest = text[found.start() : found.start() + len(wanted)]
        same = next(
            (n for n, pair in enumerate(zip(rest, wanted, strict=False)) if len(set(pair)) > 1), len(rest)
        )
        cut = rest[same:].startswith("…") and same > len(mark)
        if same == len(wanted) or cut or same >= _CAP:
            return True
    return False


def _hostile(payload: str) -> None:
    stage = Stage(payload)
    with stage.world as world, browser.opened() as live:
        world.serve()
        page = world.request("GET", "/")
        expect(page.status == 200, f"the page was answered {page.status}")
        live.page.goto(f"http://{HOST}:{world.port}/")
        live.linger(0.5)
        stream = world.stream()
        stage.work()
        texts = [_page(world, path) for path in (*_PAGES, *_addresses(world, payload))]
        live.linger(1.5)
        texts.append(_harmless(live, "the page that follows"))
        told = _plain("\n".join(texts))
        missing = [mark for mark in _FIELDS if not _shown(mark, payload, told)]
        if not _shown("", hostile.file_name(payload), told):
            missing.append("FILE:")
        expect(not missing, f"not shown as it is: {', '.join(missing)}")
        _refused_value(world, payload)
        _as_json(world, payload)
        _as_stream(world, stream)
        _as_terminal(world)


def _addresses(world: World, payload: str) -> list[str]:
    """Pages of the commands, commits and the hostile key."""
    rows = {row["command"]: row["id"] for row in world.commands()}
    pages = [f"/commands/{number}" for number in rows.values()]
    shas = [row["commit_sha"] for row in world.rows("SELECT commit_sha FROM stories") if row["commit_sha"]]
    key = quote(f"3-1-KEY:{payload[:400]}", safe="", errors="replace")
    return [*pages, *(f"/commits/{sha}" for sha in shas), *([f"/stories/{key}"] if len(key) < 1500 else [])]


def _page(world: World, path: str) -> str:
    with browser.opened() as seen:
        answer = seen.page.goto(f"http://{HOST}:{world.port}{path}")
        # A key that no file holds in this form is not found; its page must be harmless all the same.
        expect(
            answer.status in ((200, 404) if "KEY" in path else (200,)),
            f"{path[:60]} was answered {answer.status}",
        )
        return _harmless(seen, path[:60])


def _harmless(seen: browser.Page, what: str) -> str:
    """The text of a page of which nothing of the payload came alive."""
    bad, text = seen.page.evaluate(_LOOK)
    expect(not bad, f"{what}: {bad[:4]}")
    expect(not seen.dialogs, f"{what}: a dialog says {seen.dialogs[:1]}")
    expect(not seen.violations(), f"{what}: {seen.violations()[:1]}")
    return str(text)


def _refused_value(world: World, payload: str) -> None:
    """A settings value that is refused and shown again in the form."""
    with browser.opened() as seen:
        seen.page.goto(f"http://{HOST}:{world.port}/settings")
        seen.page.fill("#model", payload)
        typed = seen.page.input_value("#model")
        with seen.page.expect_navigation():
            seen.page.click("#save")
        text = _harmless(seen, "the form with a refused value")
        expect(_plain(typed)[:50] in _plain(text), "the refused value is not shown as it was typed")


def _as_json(world: World, payload: str) -> None:
    """JSON holds the text as it is, or cut; nothing but JSON comes."""
    found = ""
    for path in (
        "/api/batches/1",
        "/api/events?limit=1000",
        "/api/sprint-status",
        "/story-descriptions.json",
    ):
        answer = world.request("GET", path)
        expect(answer.status == 200 and "json" in answer.headers["Content-Type"], f"{path}: {answer.status}")
        expect(answer.headers["X-Content-Type-Options"] == "nosniff", f"{path} can be taken for HTML")
        found += "\n".join(_strings(answer.json))
    for mark in ("KEY:", "STATUS:", "SUMMARY:", "ERROR:"):
        expect(_shown(mark, payload, _plain(found)), f"{mark} is not in the JSON as it is")
    rows = list(csv.reader(io.StringIO(world.request("GET", "/sprint-runner.csv").text, newline="")))
    expect(rows and all(len(row) == 7 for row in rows), "a line of the CSV has not 7 cells")
    formulas = [cell for row in rows for cell in row if cell[:1] in ("=", "+", "-", "@", "\t", "\r")]
    expect(not formulas, f"a spreadsheet would run {formulas[:2]}")


def _strings(told: Any) -> list[str]:
    if isinstance(told, Mapping):
        return [text for pair in told.items() for one in pair for text in _strings(one)]
    if isinstance(told, list):
        return [text for one in told for text in _strings(one)]
    return [told] if isinstance(told, str) else []


_LINE = re.compile(rb"(?::.*|id: \d+|retry: \d+|data: .*|)")


def _frames(world: World, path: str) -> list[bytes]:
    """The messages a stream sends at once; each line must be one that we write."""
    newest = world.rows("SELECT max(id) AS n FROM events")[0]["n"]
    with raw_http.connect(world.port, 10) as sock:
        sock.sendall(raw_http.head("GET", path, [("Host", f"{HOST}:{world.port}")]))
        data = b""
        limit = time.monotonic() + 10
        while (
            not (f"id: {newest}\n".encode() in data and data.endswith(b"\n\n")) and time.monotonic() < limit
        ):
            data += sock.recv(1 << 16)
    body = data.partition(b"\r\n\r\n")[2]
    expect(b"\r" not in body, f"{path}: a carriage return ends a line")
    for line in body.split(b"\n"):
        expect(_LINE.fullmatch(line), f"{path}: a line nobody wrote: {line[:60]!r}")
    return [frame for frame in body.split(b"\n\n") if b"data: " in frame]


def _as_stream(world: World, followed: Any) -> None:
    """Every message is one of ours, on both streams, from the start and from a cursor."""
    rows = [row["id"] for row in world.events()]
    followed.wait(lambda: followed.cursor == rows[-1], 5)
    expect(
        [event["id"] for event in followed.events] == rows, "the stream told other events than were recorded"
    )
    told = [
        json.loads(frame.partition(b"data: ")[2]) for frame in _frames(world, "/api/events/stream?after=0")
    ]
    expect([one["id"] for one in told] == rows, "the replay told other events than were recorded")
    for path in ("/events", "/events?after=1"):
        for frame in _frames(world, path):
            expect(
                sum(line.startswith(b"id: ") for line in frame.split(b"\n")) == 1,
                f"{path}: two ids in one message",
            )
            html = b"\n".join(line[6:] for line in frame.split(b"\n") if line.startswith(b"data: ")).decode()
            bad = _Tags(html).bad
            expect(not bad, f"{path}: live markup: {bad[:2]}")


class _Tags(HTMLParser):
    """What in a fragment would come alive."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.bad: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at one element."""
        if tag in ("script", "img", "iframe", "object", "style"):
            self.bad.append(tag)
        for name, value in attrs:
            if name.startswith("on") or (value or "").strip().lower().startswith("javascript:"):
                self.bad.append(f"{tag} {name}={value}")


def _as_terminal(world: World) -> None:
    """What the commands print holds no escape sequence and nothing that turns text around."""
    for words in (("report",), ("status",)):
        said = world.run(*words)
        bad = [
            c
            for c in said.stdout + said.stderr
            if unicodedata.category(c) in ("Cc", "Cf") and c not in "\n\u200d"
        ]
        expect(not bad, f"{words[0]} printed {bad[:3]!r}")


@check("E1", "<script>")
def script() -> None:
    _hostile("<script>window.pwned=1;alert(1)</script>")


@check("E2", '"><img onerror>')
def image() -> None:
    _hostile('"><img src=x onerror=window.pwned=1>')


@check("E3", "' onmouseover=")
def handler() -> None:
    _hostile("' onmouseover='window.pwned=1' x=\"")


@check("E4", "javascript:")
def address() -> None:
    _hostile("javascript:window.pwned=1//=1+1")


@check("E5", "{{7*7}}")
def template() -> None:
    _hostile("{{7*7}}${7*7}#{7*7}<%= 7*7 %>{% raw %}")


@check("E6", "</script>")
def end_of_script() -> None:
    _hostile("</script></title></template></textarea><script>window.pwned=1</script>")


@check("E7", "<!--")
def comment() -> None:
    _hostile("<!-- <!--> --!> <![CDATA[ window.pwned")


@check("E8", "SSE line ends")
def line_ends() -> None:
    _hostile("a\n\nevent: x\ndata: forged\n\nb\r\rdata: forged\r\n\r\nid: 99999\r\n: c")


@check("E9", "right-to-left override")
def right_to_left() -> None:
    _hostile("exe\u202etxt.\u2066span\u2069 end")


@check("E10", "ANSI escapes")
def escapes() -> None:
    _hostile("\x1b[2J\x1b[31mred\x1b[0m\x1b]0;owned\x07\x9b31m end")


@check("E11", "10,000 combining marks")
def combining() -> None:
    _hostile("z" + "\u0301" * 10_000)


@check("E12", "NUL")
def nul() -> None:
    _hostile("a\0b\0\0c")


# E13-E16


@check("E13", "no CSP message in the console on any page")
def policy() -> None:
    with World("review-medium@code-review:1", stories=((FIRST, "ready-for-dev"),)) as world:
        world.serve().start("all")
        world.batch_end(90)
        base = f"http://{HOST}:{world.port}"
        rows = world.commands()
        pages = [path for path in _PAGES if SECOND not in path]
        pages += [f"/commands/{row['id']}" for row in rows] + ["/login", "/nowhere", "/commands/99"]
        for path in pages:
            with browser.opened() as seen:
                seen.page.goto(base + path)
                seen.linger(0.4)
                expect(not seen.violations(), f"{path}: {seen.violations()[:1]}")
        with browser.opened() as seen:
            seen.page.goto(base + "/")
            seen.page.evaluate(
                "document.body.append(Object.assign(document.createElement('script'), {text: '1'}))"
            )
            seen.linger(0.3)
            expect(seen.violations(), "a violation would not have been seen")


_HEADERS = {
    "Content-Security-Policy": "default-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


@check("E14", "security headers on every answer")
def headers() -> None:
    with World() as world:
        world.serve()
        asked = [
            ("GET", path) for path in (*_PAGES[:2], "/settings", "/login", "/static/app.css", "/api/settings")
        ]
        asked += [("GET", path) for path in ("/healthz", "/nowhere", "/api/none", "/x.db", "/api/batches/0")]
        asked += [
            ("POST", "/api/orchestrator/stop"),
            ("PUT", "/"),
            ("OPTIONS", "/"),
            ("HEAD", "/"),
            ("PATCH", "/"),
        ]
        asked += [
            ("GET", "/api/events?limit=x"),
            ("GET", "/sprint-status.yaml"),
            ("GET", "/sprint-runner.csv"),
        ]
        for method, path in asked:
            _has_headers(world.request(method, path), f"{method} {path}")
        for sent, what in (({"Host": "evil.example"}, "421"), ({"Origin": "http://evil.example"}, "403")):
            _has_headers(world.request("POST", "/api/orchestrator/start", {}, headers=sent), what)
        _has_headers(world.request("POST", "/api/orchestrator/start", b"x" * 70_000), "413")
        for path in ("/events", "/api/events/stream"):
            with raw_http.connect(world.port) as sock:
                sock.sendall(raw_http.head("GET", path, [("Host", f"{HOST}:{world.port}")]))
                _has_headers(raw_http.parse(raw_http.read_head(sock), 0), path)


def _has_headers(answer: Answer, what: str) -> None:
    for name, value in _HEADERS.items():
        expect(value in answer.headers.get(name, ""), f"{what} ({answer.status}) has no {name}")
    if answer.status == 200 and "/static/" not in what:
        expect("no-store" in answer.headers.get("Cache-Control", ""), f"{what} may be kept")
    cors = [name for name in answer.headers if name.lower().startswith("access-control-")]
    expect(not cors, f"{what} has {cors}")


@check("E15", "a forged second event on either stream")
def forged() -> None:
    payload = "x\n\nevent: story-done\ndata: forged\nid: 123456\n\ndata: {}\r\n\r\n\u2028\x85data: forged"
    stage = Stage(payload)
    with stage.world as world:
        world.serve()
        before = [world.stream() for _ in range(2)]
        stage.work()
        for stream in before:
            _as_stream(world, stream)
            expect(all(event["id"] < 100_000 for event in stream.events), "an id was forged")
        held = [text for _, text in world.texts() if b"data: forged" in text]
        expect(held, "the payload is nowhere in the database")


_INLINE = (
    ("an inline script", re.compile(r"<script(?![^>]*\bsrc=)[^>]*>", re.IGNORECASE)),
    ("a style element", re.compile(r"<style\b", re.IGNORECASE)),
    ("a style attribute", re.compile(r"\sstyle\s*=", re.IGNORECASE)),
    ("an event handler", re.compile(r"\son[a-z]+\s*=", re.IGNORECASE)),
    ("an hx-on handler", re.compile(r"\shx-on[:=-]", re.IGNORECASE)),
    ("a script address", re.compile(r"javascript:", re.IGNORECASE)),
    ("an unquoted value", re.compile(r"\s[\w-]+=\{\{")),
    ("text that is not escaped", re.compile(r"\|\s*safe\b|autoescape\s+false")),
)


@check("E16", "no inline script, style or event handler in any template")
def inline() -> None:
    templates = sorted(_TEMPLATES.rglob("*.html"))
    expect(len(templates) > 10, "there are no templates")
    for path in templates:
        text = re.sub(r"\{#.*?#\}", "", path.read_text("utf-8"), flags=re.DOTALL)
        markup = re.sub(r"\{%.*?%\}", "", text, flags=re.DOTALL)
        for what, pattern in _INLINE:
            found = pattern.search(text if what == "text that is not escaped" else markup)
            expect(not found, f"{path.name} holds {what}: {found and found[0]!r}")
    probe = '<p style="x" onclick="y" title={{ z }}><script>1</script>'
    expect(sum(bool(pattern.search(probe)) for _, pattern in _INLINE) >= 4, "the patterns find nothing")
