"""Group F: the status file in every form a person or a fault gives it, and paths that lead elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from urllib.parse import quote

import plans
import raw_http
import statuses
from checks import check, expect
from harness import World
from statuses import KEY, OTHER, one_change, refused, unreadable

_PLAIN = f"""# A sprint of the bench
project: Windowsill

development_status:
  epic-1: in-progress
  {KEY}: backlog
  {OTHER}: review
"""
_LINE = 6


def _with(old: str, new: str) -> bytes:
    changed = _PLAIN.replace(old, new)
    expect(changed != _PLAIN, "the fault is not in the file")
    return changed.encode()


# one change, everything else as it was


@check("F1", "one status change in a real file of 255 lines, 148 of them comments")
def one_line() -> None:
    comments = [f"# note {number}: kept by a person" for number in range(148)]
    stories = [f"  {1 + number // 10}-{1 + number % 10}-story-{number}: backlog" for number in range(103)]
    lines = [*comments[:40], "project: Windowsill", "", "development_status:", f"  {KEY}: backlog  # first"]
    for number, story in enumerate(stories):
        lines.append(story)
        lines += ["  " + comments[40 + number]] if number < 108 else []
    lines += [f"  {comment}" for comment in comments[40 + len(stories) :]]
    expect((len(lines), sum("# note" in line for line in lines)) == (255, 148), f"{len(lines)} lines")
    one_change("\n".join([*lines, ""]).encode(), 44, b"backlog", b"done")


@check("F2", "CRLF")
def crlf() -> None:
    one_change(_with("\n", "\r\n"), _LINE, b"backlog\r\n", b"done\r\n")


@check("F3", "BOM")
def bom() -> None:
    one_change(b"\xef\xbb\xbf" + _PLAIN.encode(), _LINE, b"backlog", b"done")


@check("F4", "quoted keys and values")
def quoted() -> None:
    data = _with(f"{KEY}: backlog", f"\"{KEY}\": 'backlog'").replace(
        f"  {OTHER}: review".encode(), b"  'x-y' : \"z\""
    )
    one_change(data, _LINE, b"'backlog'", b"'done'")


@check("F5", "inline comments")
def inline_comments() -> None:
    one_change(_with("backlog", "backlog   # 30 % : maybe # twice"), _LINE, b"backlog ", b"done ")


@check("F6", "no final newline")
def no_final_newline() -> None:
    data = _PLAIN.rstrip("\n").encode()
    one_change(data, _LINE + 1, b"review", b"done", key=OTHER)


@check("F7", "tabs in comments")
def tabs() -> None:
    one_change(
        _with("backlog", "backlog\t#\tby\thand").replace(b"# A sprint", b"#\tA\tsprint"),
        _LINE,
        b"backlog",
        b"done",
    )


@check("F8", "indent of 4")
def indent() -> None:
    data = "".join(line.replace("  ", "    ", 1) + "\n" for line in _PLAIN.splitlines()).encode()
    expect(b"\n    " + KEY.encode() in data, "the fault is not in the file")
    one_change(data, _LINE, b"backlog", b"done")


# refused and untouched


@check("F9", "the key to be changed stands twice in the map")
def twice() -> None:
    refused(_with(f"  {OTHER}: review\n", f"  {OTHER}: review\n  {KEY}: review\n"), "6 and 8")


@check("F10", "flow style")
def flow_style() -> None:
    data = f"project: W\ndevelopment_status: {{{KEY}: backlog, {OTHER}: review}}\n".encode()
    refused(data)


@check("F11", "anchor or alias")
def anchors() -> None:
    refused(_with(f"{KEY}: backlog", f"{KEY}: &one backlog").replace(b": review", b": *one"))


@check("F12", "key missing")
def missing() -> None:
    refused(_PLAIN.encode(), key="1-9-grow-a-flower")


@check("F13", "the key stands in another block too")
def other_block() -> None:
    data = _with("development_status:\n", f"old_status:\n  {KEY}: backlog\n\ndevelopment_status:\n")
    with World() as world:
        path = statuses.place(world, data)
        world.serve()
        answer = statuses.done(world)
        after = path.read_bytes()
        if answer.status == 200:
            expect(statuses.changed_lines(data, after) == [9], f"lines {statuses.changed_lines(data, after)}")
        else:
            expect(400 <= answer.status < 500 and after == data, f"{answer.status}, and the file was touched")


# several hands


@check("F14", "2a-1, 2a-10 and 12a-1 side by side")
def alike() -> None:
    stories = [(key, "ready-for-dev") for key in ("12a-1-seed", "2a-10-seed", "2a-1-seed")]
    with World(stories=stories) as world:
        texts = {key: (world.root / plans.ARTEFACTS / f"{key}.md").read_text() for key, _ in stories}
        world.serve().start("all", stories=["2a-1-seed"])
        world.batch_end()
        now = statuses.statuses(world)
        expect(
            now == {"12a-1-seed": "ready-for-dev", "2a-10-seed": "ready-for-dev", "2a-1-seed": "done"},
            f"{now}",
        )
        for key in ("12a-1-seed", "2a-10-seed"):
            same = (world.root / plans.ARTEFACTS / f"{key}.md").read_text() == texts[key]
            expect(same, f"the file of {key} changed")
        for row in world.commands():
            for paper in (world.state / "runs" / str(row["id"])).glob("*.md"):
                told = paper.read_text()
                expect(
                    "12a-1-seed.md" not in told and "2a-10-seed.md" not in told,
                    f"{row['command']} was told others",
                )


@check("F15", "an editor truncates and rewrites the file 1,000 times")
def editor() -> None:
    keys = [f"1-{number}-part-{number}" for number in range(1, 41)]
    with World(stories=[(key, "backlog") for key in keys]) as world:
        path = world.root / plans.STATUS_FILE
        whole = path.read_bytes()
        over, halves = threading.Event(), []

        def edit() -> None:
            for _ in range(1_000):
                with path.open("r+b") as stream:
                    stream.truncate(0)
                    stream.write(whole[: len(whole) // 2])
                    stream.flush()
                    halves.append(path.stat().st_size)
                    time.sleep(0.002)
                    stream.write(whole[len(whole) // 2 :])
                time.sleep(0.006)
            over.set()

        world.serve()
        thread = threading.Thread(target=edit, daemon=True)
        thread.start()
        while not over.is_set():
            _never_half(world, keys)
        thread.join()
        expect(len(halves) == 1_000 and max(halves) < len(whole), "the file was never cut")
        _reads_again(world, path, keys)


def _never_half(world: World, keys: list[str]) -> None:
    """Whatever is called writable is the whole file; a start never takes a half one for the end of work."""
    told = world.request("GET", "/api/sprint-status")
    expect(told.status in (200, 409), f"/api/sprint-status was answered {told.status}")
    if told.status == 200 and told.json["writable"]:
        seen = [one["key"] for one in told.json["stories"]]
        expect(seen == keys, f"{len(seen)} of {len(keys)} stories were taken for all")
    answer = world.request("POST", "/api/orchestrator/start", {"batch_size": 1, "stories": [keys[-1]]})
    expect(answer.status in (202, 400, 409), f"a start was answered {answer.status}: {answer.text[:200]}")
    expect("There is no story" not in answer.text, f"half a file was believed: {answer.text[:200]}")
    if answer.status == 202:
        world.request("POST", "/api/orchestrator/stop", {})
        row = world.batch_end()
        expect(row["status"] != "all_done", "a batch took half a file for the end of its work")


def _reads_again(world: World, path: Path, keys: list[str]) -> None:
    expect(list(statuses.statuses(world)) == keys, "the whole file is not read after it all")
    expect(world.healthy(), "the server is not healthy after it all")
    plans.git(world.root, "checkout", "-q", "--", plans.STATUS_FILE)
    world.start(1, stories=[keys[0]])
    expect(world.batch_end()["status"] in ("completed", "all_done"), f"{world.batch()}")
    expect(plans.status_of(world.root, keys[0]) == "done", path.read_text()[:300])


@check("F16", "4 writers x 60 keys under the lock")
def writers() -> None:
    keys = [f"{1 + number // 60}-{1 + number % 60}-part" for number in range(240)]
    program = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from sprintrunner import status_file
        for key in sys.argv[3:]:
            status_file.write(Path(sys.argv[1]), key, "review", root=Path(sys.argv[2]))
        """
    )
    with World(stories=[(key, "backlog") for key in keys]) as world:
        path = world.root / plans.STATUS_FILE
        world.serve()
        running = [
            subprocess.Popen(
                [sys.executable, "-P", "-c", program, str(path), str(world.root), *keys[first::4]],
                env=world.env,
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
            for first in range(4)
        ]
        while any(one.poll() is None for one in running):
            seen = statuses.statuses(world)
            expect(len(seen) == 240, f"a reader saw {len(seen)} stories")
        for one in running:
            told = one.stderr.read().decode() if one.stderr else ""
            expect(one.returncode == 0, f"a writer failed: {told[-200:]}")
        survived = sum(value == "review" for value in statuses.statuses(world).values())
        expect(survived == 240, f"{survived} of 240 updates survived")


@check("F17", "an agent rewrites the file during a run")
def agent_rewrites() -> None:
    with World("touches-status-file@dev-story", stories=((KEY, "ready-for-dev"),)) as world:
        world.serve().start()
        world.batch_end()
        text = (world.root / plans.STATUS_FILE).read_text()
        row = world.ended("dev-story")
        expect(b"seen by the agent" in world.transcript(row), "the agent did not rewrite the file")
        expect(text.rstrip().endswith("# seen by the agent"), f"its line is gone: {text[-200:]}")
        expect(plans.status_of(world.root, KEY) == "done", f"{KEY} is {plans.status_of(world.root, KEY)}")
        said = [e for e in world.events("batch:warning") if KEY in e["payload"]["warning"]]
        expect(said, "nobody said that the agent had set a status")


# contents that cannot be used


@check("F18", "alias bomb of 277 bytes")
def alias_bomb() -> None:
    lines = ["a: &a [x,x,x,x,x,x,x,x,x]"]
    lines += [
        f"{new}: &{new} [{','.join(['*' + old] * 9)}]" for old, new in zip("abcdef", "bcdefg", strict=True)
    ]
    unreadable(("\n".join(lines) + f"\ndevelopment_status:\n  {KEY}: *g\n").encode(), line=True)


@check("F19", "3,000 nested lists")
def nested() -> None:
    unreadable(
        f"development_status:\n  {KEY}: backlog\n  1-2-deep: {'[' * 3000}{']' * 3000}\n".encode(), line=True
    )


@check("F20", "20 MB")
def huge() -> None:
    filler = b"# nothing\n" * 2_000_000
    unreadable(_PLAIN.encode() + filler, line=False)


@check("F21", "two documents")
def two_documents() -> None:
    unreadable((_PLAIN + "---\n" + _PLAIN).encode(), line=True)


@check("F22", "YAML tag")
def yaml_tag() -> None:
    unreadable(_with("backlog", "!!python/object/apply:os.system [id]"), line=True)


@check("F23", "UTF-16")
def utf16() -> None:
    unreadable(_PLAIN.encode("utf-16"), line=False)


@check("F24", "NUL")
def nul() -> None:
    unreadable(_with("backlog", "back\0log"), line=True)


@check("F25", "keys and values that YAML takes for something else")
def words() -> None:
    odd = ["no", "on", "12:30", "1_0", "2026-01-02"]
    lines = [f"  1-{number}-a: {word}" for number, word in enumerate(odd, 1)]
    # "12:30" as a key needs its quotes: the first colon before a space ends a key.
    lines += [f"  {word}: backlog" for word in odd]
    with World() as world:
        path = statuses.place(world, ("development_status:\n" + "\n".join(lines) + "\n").encode())
        before = path.read_bytes()
        world.serve()
        seen = statuses.statuses(world)
        for number, word in enumerate(odd, 1):
            expect(
                seen.get(f"1-{number}-a") == word,
                f"the value {word} was read as {seen.get(f'1-{number}-a')!r}",
            )
            expect(seen.get(word) == "backlog", f"the key {word} was read as one of {list(seen)}")
        answer = statuses.done(world, "2026-01-02")
        expect(answer.status == 200, f"a date as a key: {answer.status} {answer.text[:200]}")
        expect(statuses.changed_lines(before, path.read_bytes()) == [11], "not the one line changed")


# what stands in its place


@check("F26", "the status file is a symbolic link inside the project")
def link_inside() -> None:
    with World() as world:
        path = world.root / plans.STATUS_FILE
        target = world.root / "real-status.yaml"
        target.write_bytes(_PLAIN.encode())
        path.unlink()
        path.symlink_to(os.path.relpath(target, path.parent))
        plans.git(world.root, "add", "-A")
        plans.git(world.root, "commit", "-q", "-m", "A link")
        world.serve()
        answer = statuses.done(world)
        expect(answer.status == 200, f"it was answered {answer.status}: {answer.text[:200]}")
        expect(path.is_symlink(), "the link is gone")
        expect(
            statuses.changed_lines(_PLAIN.encode(), target.read_bytes()) == [_LINE],
            "not one line of the target",
        )


@check("F27", "symbolic link out of the project")
def link_outside() -> None:
    with World() as world:
        world.serve()
        outside = world.folder / "outside.yaml"
        outside.write_text(_PLAIN)
        path = world.root / plans.STATUS_FILE
        path.unlink()
        path.symlink_to(outside)
        statuses.not_a_file(world, "a link out of the project")
        expect(400 <= statuses.done(world).status < 500, "it was edited")
        expect(outside.read_text() == _PLAIN and path.is_symlink(), "the file outside was touched")
        world.end()
        again = world.run("run", "1")
        expect(again.returncode == 2, f"run ended with {again.returncode}: {again.stderr[-200:]}")
        expect("Traceback" not in again.stderr, again.stderr[-300:])


@check("F28", "FIFO in its place")
def fifo() -> None:
    with World() as world:
        world.serve()
        path = world.root / plans.STATUS_FILE
        path.unlink()
        os.mkfifo(path)
        statuses.not_a_file(world, "a FIFO")


@check("F29", "directory in its place")
def directory() -> None:
    with World() as world:
        world.serve()
        path = world.root / plans.STATUS_FILE
        path.unlink()
        path.mkdir()
        statuses.not_a_file(world, "a directory")


@check("F30", "mode 000")
def unreadable_mode() -> None:
    with World() as world:
        world.serve()
        path = world.root / plans.STATUS_FILE
        path.chmod(0)
        statuses.not_a_file(world, "mode 000")
        path.chmod(0o644)


# keys


def _beside(key: str) -> World:
    """A world with one usual story and one of this key, below it."""
    world = World()
    statuses.place(world, _PLAIN.replace(f"  {OTHER}: review", f'  "{key}": backlog').encode())
    return world


def _never_started(key: str) -> None:
    with _beside(key) as world:
        world.serve()
        told = world.get("/api/sprint-status")
        expect(key in [one["key"] for one in told["stories"]], "the key is not shown")
        flagged = [text for text in told["warnings"] if key[:20] in text]
        expect(flagged, f"it is not flagged: {told['warnings']}")
        page = world.request("GET", "/")
        expect(page.status == 200, f"the page was answered {page.status}")
        world.start("all")
        world.batch_end()
        expect(plans.status_of(world.root, KEY) == "done", "the rest does not work")
        ran = {one for run in world.runs() for one in run.get("keys", [])}
        expect(key not in ran, "an agent was started for it")


@check("F31", "key of 10,000 characters")
def long_key() -> None:
    _never_started("1-2-" + "x" * 9_996)


@check("F32", "Unicode, emoji and right-to-left keys")
def unicode_keys() -> None:
    keys = ["1-2-caf\u00e9", "1-3-cafe\u0301", "1-4-\U0001f331-shoot", "1-5-\u05e9\u05dc\u05d5\u05dd"]
    lines = "".join(f"  {key}: backlog\n" for key in keys)
    with World() as world:
        statuses.place(world, _PLAIN.replace(f"  {OTHER}: review\n", lines).encode())
        world.serve()
        expect(list(statuses.statuses(world))[1:] == keys, f"read as {list(statuses.statuses(world))}")
        page = world.request("GET", "/").text
        for key in keys:
            expect(key in page, f"{key!r} is not on the page as written")
        twin = world.request(
            "POST", "/api/orchestrator/start", {"batch_size": 1, "stories": ["1-2-cafe\u0301"]}
        )
        expect(twin.status == 400, f"a key that only looks the same was answered {twin.status}")
        world.start("all", stories=keys)
        world.batch_end()
        now = {key: plans.status_of(world.root, key) for key in keys}
        expect(set(now.values()) == {"done"}, f"{now}")


@check("F33", "key ../../etc/passwd")
def passwd() -> None:
    key = "../../etc/passwd"
    _never_started(key)
    with _beside(key) as world:
        world.serve()
        for path in (f"/stories/{quote(key, safe='')}", f"/stories/{key}"):
            answer = raw_http.send(
                world.port,
                raw_http.head("GET", path, [("Host", f"localhost:{world.port}"), ("Connection", "close")]),
            )
            expect(answer.status in (200, 400, 403, 404), f"{path} was answered {answer.status}")
            expect("root:" not in answer.text, "/etc/passwd is on the page")
        for action in ("retry", "done"):
            world.request("POST", f"/api/stories/{quote(key, safe='')}/{action}", {})
        expect(not world.runs(), "an agent was started for it")
        expect(
            "root:" not in world.request("GET", "/story-descriptions.json").text, "/etc/passwd is described"
        )


_FORMS = {
    "..": "/../{out}",
    "%2f": "/..%2f{out}",
    "\\": "/..\\{out}",
    "absolute": "/{absolute}",
    "NUL": "/sprint-status.yaml%00{out}",
    "..name": "/..{out}",
}


@check("F34", "seven traversal forms on every file route")
def traversal() -> None:
    with World() as world:
        secret = world.root.parent / "secret.yaml"
        secret.write_text("a secret of the bench\n")
        (world.root / "orchestrator.md").symlink_to(secret)
        (world.root / plans.ARTEFACTS / "orchestrator.csv").symlink_to(secret)
        world.serve()
        prefixes = (
            "",
            "/static",
            "/sprint-status.yaml",
            "/orchestrator.md",
            "/commands/1",
            "/stories",
            "/batches",
        )
        for prefix in prefixes:
            for name, form in _FORMS.items():
                path = prefix + form.format(out="secret.yaml", absolute=str(secret))
                _refuses(world, path, f"{name} below {prefix or '/'}")
        for path in ("/orchestrator.md", "/orchestrator.csv"):
            _refuses(world, path, "a symbolic link out of the project")


def _refuses(world: World, path: str, what: str) -> None:
    headers = [("Host", f"localhost:{world.port}"), ("Connection", "close")]
    answer = raw_http.send(world.port, raw_http.head("GET", path, headers))
    expect("a secret of the bench" not in answer.text, f"{what} was served: {path}")
    expect(answer.status in (403, 404), f"{what} was answered {answer.status}: {path}")
