"""Group A, continued: what an agent is started with, and agents that cannot be started (A28-A30)."""

from __future__ import annotations

import plans
from checks import Failed, check, expect
from harness import PATIENCE, World

MEGABYTE = 1_000_000
#: A version that knows nothing of structured output.
_OLD_CLAUDE = """#!/bin/sh
case "$1" in
--version) echo "0.2.9 (Claude Code)" ;;
--help) echo "Options: --print --output-format --verbose --model --resume" ;;
*) echo "error: unknown option '--json-schema'" >&2; exit 1 ;;
esac
"""


@check("A28", "never reads a 1 MB prompt")
def never_reads() -> None:
    with World("A28@create-story", settings={"silence_timeout_minutes": 0.05}) as world:
        prompt = world.root / ".sprintrunner" / "prompts" / "create-story.md"
        prompt.parent.mkdir(parents=True)
        # An override is small by rule; what it renders to is not.
        prompt.write_text("{% for _ in range(60000) %}Water it, then wait. {% endfor %}\n")
        plans.git(world.root, "add", "-A")
        plans.git(world.root, "commit", "-q", "-m", "A long prompt")
        world.serve().start()
        row = world.ended("create-story", 30)
        sizes = [path.stat().st_size for path in world.state.glob(f"runs/{row['id']}/prompt*")]
        expect(sizes and max(sizes) > MEGABYTE, f"the prompt is not 1 MB ({row['reason']})")
        deaf = {run["pid"] for run in world.runs() if run["command"] == "create-story"}
        expect(deaf, "the agent did not run")
        expect(not deaf & {run["pid"] for run in world.runs("prompt")}, "the prompt was read")
        expect(row["status"] == "timed_out", f"create-story {row['status']}: {row['reason']}")


def _sentence(text: str, what: str) -> None:
    expect(text and "Traceback" not in text, f"{what}: no sentence, but {text[:200]!r}")
    expect(len(text.strip().splitlines()) == 1, f"{what}: more than one line: {text[:300]!r}")


def _refused(world: World, what: str) -> None:
    """``run`` exits 2 and a start is answered 400, each with one sentence; the story keeps its status."""
    before = plans.status_of(world.root, plans.STORY)
    done = world.run("run", "1")
    expect(done.returncode == 2, f"{what}: run exits {done.returncode}: {done.stderr[-200:]}")
    _sentence(done.stderr, what)
    world.serve()
    answer = world.request("POST", "/api/orchestrator/start", {"batch_size": 1})
    expect(answer.status == 400, f"{what}: start is answered {answer.status}")
    _sentence(answer.json["error"], what)
    expect(plans.status_of(world.root, plans.STORY) == before, f"{what}: the status changed")
    world.end()


@check("A29", "agent missing, not executable, or of an unusable version")
def unusable() -> None:
    lonely = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
    with World(agent=False, env=lonely) as world:
        _refused(world, "missing")
    with World() as world:
        world.env["PATH"] = f"{world.bin}:{lonely['PATH']}"
        (world.bin / "claude").chmod(0o644)
        _refused(world, "not executable")
    with World(agent=False) as world:
        world.bin.mkdir()
        (world.bin / "claude").write_text(_OLD_CLAUDE)
        (world.bin / "claude").chmod(0o755)
        _refused(world, "old version")
    _vanishes()


def _vanishes() -> None:
    """The agent disappears while a batch works."""
    with World(speed=0.5) as world:
        world.env["PATH"] = f"{world.bin}:/usr/local/bin:/usr/bin:/bin"
        world.serve().start()
        world.agent_runs("create-story")
        (world.bin / "claude").unlink()
        world.batch_end()
        told = [event["payload"]["message"] for event in world.events("error")]
        expect(told, "vanished in a batch: no error event")
        _sentence(told[0], "vanished in a batch")
        status = plans.status_of(world.root, plans.STORY)
        expect(status == "ready-for-dev", f"vanished in a batch: the story is {status}")


@check("A30", "300 KB of injected context")
def much_context() -> None:
    word = "potting-soil-is-brown"
    with World("hang", settings={"injection_warning_kb": 1000, "injection_error_kb": 2000}) as world:
        (world.root / plans.CONTEXT).write_text(f"# Project Context\n\n{(word + ' ') * 14_000}\n")
        plans.git(world.root, "commit", "-q", "-a", "-m", "Much context")
        world.serve().start()
        world.wait(lambda: world.runs("prompt"), PATIENCE, "the agent to read its prompt")
        read = world.runs("prompt")[0]
        expect(read["prompt_bytes"] + read["context_bytes"] > 300_000, f"only this was delivered: {read}")
        shown = [str(one) for one in world.processes() if word in " ".join(one.words)]
        expect(not shown, f"it stands in the arguments of {shown}")
        if any(word in " ".join(run["argv"]) for run in world.runs()):
            raise Failed("it stands in the agent's arguments")
