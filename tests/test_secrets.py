"""An agent that prints secrets wherever it can: none is stored, indexed, or in any answer."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator

import pytest
from engine import FIRST, Engine, agent_script, engine_in, git, statuses
from flask.testing import FlaskClient

from sprintrunner import create_app
from sprintrunner.services import Services
from sprintrunner.store import Store

# Put together here, so that no scanner takes this file for a leak.
SHAPED = "sk-" + "ant-api03-" + "Zq9" * 12
OF_THE_ENVIRONMENT = "correct/horse-bättery" + '"st\\aple'
SPLIT = "gh" + "p_" + "Xy7" * 12
ESCAPED = "glpat-" + "Wv5" * 8
#: What must be nowhere; of the value of the environment a part is enough.
FORBIDDEN = [SHAPED[13:], "horse-b", SPLIT[4:], ESCAPED[6:]]

AGENT = textwrap.dedent(
    """
    import json, os, subprocess, sys
    shaped, value, split, escaped = json.loads(open(sys.argv[1], encoding="utf-8").read())
    command = os.environ.get("SPRINTRUNNER_COMMAND", "")
    loud = f"found {shaped} and {value} here"
    def git(*words):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True,
                       stdout=subprocess.DEVNULL)
    if command == "dev-story":
        with open(f"notes-{shaped}.txt", "w") as file:
            file.write("x")
        git("branch", f"leak-{shaped}")
        git("add", "-A")
        git("commit", "-qm", f"feat: {loud}")
        report = {"epic_id": "1", "story_id": os.environ["SPRINTRUNNER_STORY_KEYS"], "command": command,
                  "task_id": f"t {value}"[:60], "status": "start", "message": loud[:150],
                  "metrics": {shaped: value}}
        subprocess.run([*json.loads(os.environ["LOG_COMMAND"]), json.dumps(report)], check=False)
    print(loud, file=sys.stderr)
    agent = subprocess.Popen([sys.argv[2], *sys.argv[3:]], stdin=sys.stdin, stdout=subprocess.PIPE, text=True)
    session = ""
    def say(kind, content):
        line = {"type": kind, "session_id": session, "message": {"role": kind, "content": [content]}}
        print(json.dumps(line).replace("~", "\\\\u0067"), flush=True)
    tools = (
        {"name": "Bash", "input": {"command": f"echo {'a' * 110} {value}"}},
        {"name": "Bash", "input": {"command": loud, "description": loud}},
        {"name": "Write", "input": {"file_path": f"/x/{shaped}", "content": loud}},
        {"name": loud, "input": {shaped: value}},
    )
    for line in agent.stdout:
        made = json.loads(line) if line.startswith("{") else {}
        session = made.get("session_id", session)
        if made.get("type") == "result":
            for text in (loud, split[:14], split[14:], f"e ~{escaped[1:]}"):
                say("assistant", {"type": "text", "text": text})
            for number, tool in enumerate(tools):
                say("assistant", {"type": "tool_use", "id": f"tu{number}", **tool})
                answer = f"{loud} ~{escaped[1:]}"
                say("user", {"type": "tool_result", "tool_use_id": f"tu{number}", "content": answer})
            made["result"] = loud
            if isinstance(made.get("structured_output"), dict):
                made["structured_output"]["summary"] = loud
                for finding in made["structured_output"].get("findings", ()):
                    finding["title"], finding["file"] = loud, f"src/{shaped}.py"
            line = json.dumps(made, ensure_ascii=False) + "\\n"
        print(line, end="", flush=True)
    sys.exit(agent.wait())
    """
)


class Attacked:
    """A batch of one story, done by that agent."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        home = engine.home
        engine.state.mkdir(mode=0o755)
        (home / "secrets.json").write_text(json.dumps([SHAPED, OF_THE_ENVIRONMENT, SPLIT, ESCAPED]))
        (home / "agent.py").write_text(AGENT)
        launcher = home / "bin" / "claude-rehearsal"
        words = [sys.executable, str(home / "agent.py"), str(home / "secrets.json"), str(launcher)]
        agent_script(home, 'exec "' + '" "'.join(words) + '" "$@"')
        log = json.dumps([sys.executable, "-m", "sprintrunner", "--project", str(engine.root), "log"])
        engine.env(MY_SERVICE_PASSWORD=OF_THE_ENVIRONMENT, LOG_COMMAND=log)
        self.batch = engine.run(FIRST).id

    @property
    def client(self) -> FlaskClient:
        live = self.engine.live
        services = Services(
            project=live.project,
            state_dir=live.state_dir,
            store=live.store,
            layers=live.layers,
            submit=live.submit,
            alive=live.alive,
        )
        return create_app(services).test_client()


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    with engine_in(tmp_path_factory.mktemp("attacked"), statuses=statuses(first="ready-for-dev")) as engine:
        yield Attacked(engine)


def test_only_its_owner_may_look_into_the_state_folder_even_one_made_open(attacked: Attacked) -> None:
    assert attacked.engine.state.stat().st_mode & 0o077
    open_ones = [path.name for path in attacked.engine.state.iterdir() if path.stat().st_mode & 0o077]
    assert open_ones == []


def leaks(text: str | bytes) -> list[str]:
    """The surroundings of every secret in a text."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    return [
        text[max(0, text.find(secret) - 80) : text.find(secret) + 60]
        for secret in FORBIDDEN
        if secret in text
    ]


def test_the_agent_did_print_them(attacked: Attacked) -> None:
    raw = b"".join(path.read_bytes() for path in (attacked.engine.state / "transcripts").iterdir())
    assert leaks(raw) and attacked.engine.story(FIRST).commit_sha
    assert SHAPED in git(attacked.engine.root, "log", "--all", "--format=%B")
    kinds = {event.type for event in attacked.engine.events(attacked.batch)}
    assert {"command:progress", "command:end", "story:status"} <= kinds


def test_the_database_holds_none(attacked: Attacked) -> None:
    for name in ("sprint-runner.db", "sprint-runner.db-wal"):
        assert leaks((attacked.engine.state / name).read_bytes()) == [], name


def test_the_search_index_holds_none(attacked: Attacked) -> None:
    state, store = attacked.engine.state, attacked.engine.live.store
    limit = time.monotonic() + 20
    from sprintrunner.store.search import SearchIndex

    while SearchIndex(state).place("commands")[0] < store.commands(attacked.batch)[-1].id:
        assert time.monotonic() < limit
        time.sleep(0.05)
    for path in state.glob("search.db*"):
        assert leaks(path.read_bytes()) == [], path.name


def test_no_page_and_no_answer_holds_one(attacked: Attacked) -> None:
    client, batch = attacked.client, attacked.batch
    commands = attacked.engine.commands(batch)
    paths = [
        "/",
        "/batches",
        f"/batches/{batch}",
        f"/stories/{FIRST}",
        "/activity",
        f"/timeline?batch={batch}",
    ]
    paths += [
        "/trends",
        "/search?q=found",
        "/search?q=horse",
        "/api/events?limit=500",
        f"/api/batches/{batch}",
    ]
    paths += ["/api/batches", "/api/orchestrator/status", "/api/sprint-status", "/sprint-runner.csv"]
    paths += ["/story-descriptions.json", "/sprint-status.yaml", "/checks", "/settings"]
    for row in commands:
        paths += [f"/commands/{row.id}", f"/commands/{row.id}/transcript", f"/commands/{row.id}?q=horse"]
        paths += [f"/commands/{row.id}/parts?after=0", f"/commands/{row.id}?q={SHAPED[:9]}"]
    for path in paths:
        answer = client.get(path)
        assert answer.status_code in (200, 404), path
        found = answer.get_data(as_text=True)
        # The search field gives the query back.
        assert leaks(found.replace('value="horse"', "")) == [], path


def test_what_the_terminal_prints_holds_none(attacked: Attacked) -> None:
    for words in (["report", "--json"], ["report"], ["status", "--json"], ["status"]):
        command = [sys.executable, "-m", "sprintrunner", "--project", str(attacked.engine.root), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert leaks(done.stdout + done.stderr) == [], words
    store = Store.open(attacked.engine.state / "sprint-runner.db")
    text = json.dumps([dict(event.payload) for event in store.events_after(0, 5000)], ensure_ascii=False)
    store.close()
    assert leaks(text) == []
