"""A small sprint in a real repository with a real store, in the states the pages are tested in."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sprintrunner import project, settings
from sprintrunner.services import Services
from sprintrunner.store import Store

HOSTILE = 'x"><img src=x onerror=alert(1)>'
MINUTE = 60_000

EPICS = """# Epics

## Epic 1: Accounts and sign-in

### Story 1.1: Project skeleton
As a developer I want a skeleton, so that work can begin.

## Epic 2a: Invoices

## Epic 3: Payments
"""

STORY = """# Story 2a.3: PDF rendering

Status: in-progress

## Story

As a customer, I want my invoice as a PDF, so that I can print it.

## Acceptance Criteria

1. The PDF carries number, date, lines, tax and total.
2. A missing logo falls back to the name.

## Tasks / Subtasks

- [x] Lay out the page
- [ ] Render the lines
"""

STATUSES = {
    "1-1-project-skeleton": "done",
    "1-2-user-login": "done",
    "1-3-password-reset": "done",
    "1-4-session-expiry": "done",
    "2a-1-invoice-model": "done",
    "2a-2-invoice-numbering": "done",
    "2a-3-pdf-rendering": "in-progress",
    "2a-4-email-delivery": "ready-for-dev",
    "2a-5-late-payment-reminders": "backlog",
    "2a-6-credit-notes": "backlog",
    "3-1-stripe-webhooks": "backlog",
    "3-2-refund-flow": "backlog",
    "3-3-payout-reconciliation": "backlog",
    "3-4-sepa-export": "on-hold",
}
TIMES = {
    "create-story": 191,
    "create-story-discovery": 208,
    "story-review": 84,
    "create-tech-spec": 176,
    "tech-spec-review": 97,
    "dev-story": 431,
    "code-review": 148,
    "commit": 9,
}


def git(root: Path, *args: str) -> str:
    """Run git with an identity of its own and return its output."""
    name = ("-c", "user.name=Mara Lind", "-c", "user.email=mara@example.org")
    done = subprocess.run(["git", *name, *args], cwd=root, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def make_project(root: Path, statuses: dict[str, str] | None = None) -> project.Project:
    """Write a project with its planning files and a first commit."""
    out = root / "_bmad-output"
    (root / "_bmad" / "bmm").mkdir(parents=True)
    (root / "_bmad/bmm/config.yaml").write_text("project_name: larkspur\noutput_folder: _bmad-output\n")
    (out / "planning-artifacts").mkdir(parents=True)
    (out / "planning-artifacts/epics.md").write_text(EPICS)
    (out / "implementation-artifacts").mkdir()
    (out / "implementation-artifacts/2a-3-pdf-rendering.md").write_text(STORY)
    write_status(root, STATUSES if statuses is None else statuses)
    git(root, "init", "-q", "-b", "main")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "plan the sprint")
    return project.load(root)


def write_status(root: Path, statuses: dict[str, str]) -> None:
    """Write the status file; each key under the epic its number names."""
    lines = ["development_status:"]
    seen = set()
    for key, status in statuses.items():
        epic = key.split("-")[0]
        if epic not in seen and epic.isalnum():
            seen.add(epic)
            lines.append(f"  epic-{epic}: in-progress")
        quoted = "'" + key.replace("'", "''") + "'" if not key.replace("-", "").isalnum() else key
        lines.append(f"  {quoted}: {status}")
    path = root / "_bmad-output/implementation-artifacts/sprint-status.yaml"
    path.write_text("\n".join(lines) + "\n")


def make_services(tmp: Path, statuses: dict[str, str] | None = None) -> Services:
    """Make services over a fresh project and store; nothing runs behind them."""
    root, state = tmp / "larkspur", tmp / "state"
    root.mkdir()
    state.mkdir()
    made = make_project(root, statuses)
    env = {"SPRINTRUNNER_STATE_DIR": str(state), "PATH": "/usr/bin:/bin"}
    store = Store.open(state / "sprint-runner.db")
    return Services(made, state, store, lambda: settings.load(made.root, state, env), environ=env)


class Script:
    """Writes the rows and events of a batch as the orchestrator would."""

    def __init__(self, services: Services, **batch: Any) -> None:
        self.store = services.store
        self.root = services.project.root
        self.at = self.store.now() - 155 * MINUTE
        values = {"max_cycles": 5, "status": "running", "state": "running", "agent": "claude", **batch}
        with self.store.transaction() as tx:
            self.batch = tx.insert_batch(started_at=self.at, cycles_completed=0, **values)
            self._append(tx, "batch:start", {"batch_id": self.batch, "max_cycles": values["max_cycles"]})
        self.ids: dict[str, int] = {}
        self.attempts: dict[tuple[str, str], int] = {}

    def _append(self, tx: Any, kind: str, payload: dict[str, Any], **ids: Any) -> int:
        return tx.append(kind, payload, batch_id=self.batch, **ids)

    def event(self, kind: str, payload: dict[str, Any]) -> int:
        """Record one event."""
        with self.store.transaction() as tx:
            return self._append(tx, kind, payload)

    def cycle(self, number: int, *keys: str) -> None:
        """Begin a cycle with these stories."""
        with self.store.transaction() as tx:
            for key in keys:
                self.ids[key] = tx.insert_story(
                    batch_id=self.batch,
                    story_key=key,
                    epic_id=key.split("-")[0],
                    status="in-progress",
                    started_at=self.at,
                    cycle=number,
                    tech_spec="REQUIRED" if key.endswith(("model", "rendering", "login")) else "SKIP",
                )
            self._append(tx, "cycle:start", {"cycle_number": number, "story_keys": list(keys)})

    def command(
        self, command: str, *keys: str, status: str = "succeeded", seconds: int = 0, **more: Any
    ) -> int:
        """Record a command; a running one starts ``seconds`` ago, another one ends where it stands."""
        joined = ",".join(keys)
        attempt = self.attempts[command, joined] = self.attempts.get((command, joined), 0) + 1
        length = (seconds or TIMES[command]) * 1000
        running = status == "running"
        started = self.store.now() - length if running else self.at
        values = {
            "ended_at": None if running else started + length,
            "cost_usd": round(length / 700_000, 2),
            "tokens_in": 14_000,
            "tokens_out": 22_000,
            "tokens_cache_read": 1_060_000,
            "agent": "claude",
            "model": "sonnet",
            "cycle": None,
            **more,
        }
        with self.store.transaction() as tx:
            made = tx.insert_command(
                batch_id=self.batch,
                story_id=self.ids.get(keys[0]) if keys else None,
                story_ids=[self.ids[key] for key in keys],
                story_keys=joined,
                command=command,
                task_id=command,
                started_at=started,
                status=status,
                attempt=attempt,
                **values,
            )
            payload = {"story_key": joined, "command": command, "task_id": command, "attempt": attempt}
            self._append(tx, "command:start", payload, command_id=made)
            if not running:
                end = {**payload, "status": status, "reason": more.get("reason")}
                self._append(tx, "command:end", end, command_id=made)
                self.at = started + length
        return made

    def status(self, key: str, new: str, **more: Any) -> None:
        """Change a story's status."""
        with self.store.transaction() as tx:
            ended = {"ended_at": self.at} if new in ("done", "blocked") else {}
            tx.update_story(self.ids[key], status=new, **ended, **more)
            payload = {"story_key": key, "old_status": "in-progress", "new_status": new}
            self._append(tx, "story:status", {**payload, "reason": more.get("reason")})

    def commit(self, *keys: str) -> str:
        """Make a real commit for these stories and record it."""
        for key in keys:
            (self.root / f"{key}.py").write_text("x = 1\n" * 40)
        git(self.root, "add", ".")
        shorts = ", ".join("-".join(key.split("-")[:2]) for key in keys)
        git(self.root, "commit", "-q", "-m", f"feat({keys[0].split('-')[0]}): implement stories {shorts}")
        return git(self.root, "rev-parse", "HEAD")

    def finish_cycle(self, number: int, *keys: str) -> None:
        """Take stories through all their commands to done."""
        self.cycle(number, *keys)
        for name in ("create-story", "create-story-discovery", "story-review"):
            self.command(name, *keys, cycle=number)
        for key in keys:
            if key.endswith(("model", "login")):
                self.command("create-tech-spec", key, cycle=number)
                self.command("tech-spec-review", key, cycle=number)
            if key == "2a-2-invoice-numbering":
                why = "verify: pytest -q, 2 of 198 failed"
                self.command("dev-story", key, status="failed", cycle=number, reason=why)
            self.command("dev-story", key, cycle=number)
            self.command("code-review", key, cycle=number)
            self.command("code-review", key, cycle=number, seconds=133)
        self.command("commit", *keys, cycle=number)
        sha = self.commit(*keys)
        for key in keys:
            self.status(key, "done", commit_sha=sha)
        self.end_cycle(number, *keys)

    def end_cycle(self, number: int, *done: str) -> None:
        """End a cycle."""
        with self.store.transaction() as tx:
            tx.update_batch(self.batch, cycles_completed=number)
            self._append(tx, "cycle:end", {"cycle_number": number, "completed_stories": list(done)})

    def end(self, status: str, reason: str | None = None) -> None:
        """End the batch."""
        row = self.store.batch(self.batch)
        with self.store.transaction() as tx:
            tx.update_batch(self.batch, status=status, state="ended", ended_at=self.at, reason=reason)
            cycles = row.cycles_completed if row else 0
            payload = {"batch_id": self.batch, "cycles_completed": cycles, "status": status}
            self._append(tx, "batch:end", {**payload, "reason": reason})


def running(services: Services, **batch: Any) -> Script:
    """Two cycles done, two commands of the third at work."""
    script = Script(services, **batch)
    script.finish_cycle(1, "1-3-password-reset", "1-4-session-expiry")
    script.finish_cycle(2, "2a-1-invoice-model", "2a-2-invoice-numbering")
    keys: Sequence[str] = ("2a-3-pdf-rendering", "2a-4-email-delivery")
    script.cycle(3, *keys)
    for name in ("create-story", "create-story-discovery", "story-review", "story-review"):
        script.command(name, *keys, cycle=3)
    for key in keys:
        script.status(key, "ready-for-dev")
    script.command("create-tech-spec", keys[0], cycle=3)
    script.command("tech-spec-review", keys[0], cycle=3, seconds=114)
    script.status(keys[0], "in-progress")
    now = script.store.now()
    transcript = "77.jsonl"
    folder = services.state_dir / "transcripts"
    folder.mkdir(exist_ok=True)
    (folder / transcript).write_text('{"type":"text","text":"key sk-ant-api03-' + "a" * 60 + '"}\n')
    script.command(
        "dev-story",
        keys[0],
        status="running",
        seconds=550,
        cycle=3,
        current_task="implement",
        last_action="editing src/larkspur/pdf/render.py",
        last_action_at=now - 8_000,
        transcript=transcript,
    )
    script.command(
        "tech-spec-review",
        keys[0],
        status="running",
        seconds=546,
        cycle=3,
        model="haiku",
        background=True,
        current_task="fix",
        last_action="reading tech-spec-2a-3-pdf-rendering.md",
        last_action_at=now - 461_000,
        transcript=transcript,
    )
    return script


def morning(services: Services) -> Script:
    """A batch that ended with two blocked stories."""
    script = Script(services, base_head=None)
    script.finish_cycle(1, "1-3-password-reset", "1-4-session-expiry")
    script.finish_cycle(2, "2a-1-invoice-model", "2a-2-invoice-numbering")
    script.cycle(3, "2a-4-email-delivery")
    for name in ("create-story", "create-story-discovery", "story-review", "dev-story", "code-review"):
        script.command(name, "2a-4-email-delivery", cycle=3)
    script.command("code-review", "2a-4-email-delivery", cycle=3, status="failed")
    why = "Open after 3 reviews: the bounce handler swallows SMTP 4xx, a failed mail is never sent again"
    script.status("2a-4-email-delivery", "blocked", reason=why, retry_phase="code-review")
    script.end_cycle(3)
    script.cycle(4, "3-1-stripe-webhooks")
    script.command("create-story", "3-1-stripe-webhooks", cycle=4)
    for _ in range(3):
        script.command("dev-story", "3-1-stripe-webhooks", cycle=4, status="failed")
    why = "Verify failed after all 3 attempts: pytest -q, 1 of 231 failed"
    script.status("3-1-stripe-webhooks", "blocked", reason=why)
    script.end_cycle(4)
    script.end("completed")
    return script


#: Severity, title, file, line, and what each of three reviews said.
FINDINGS = (
    (
        "HIGH",
        "Totals are rounded per line",
        "totals.py",
        48,
        ("open", "fixed", "fixed"),
    ),
    ("HIGH", "The template is rendered without autoescape", "render.py", 31, ("fixed", "fixed", "fixed")),
    ("MEDIUM", "The font file is read on every request", "fonts.py", 12, ("open", "fixed", "fixed")),
    ("MEDIUM", "PLN prints as a question mark", "fonts.py", 40, ("", "open", "fixed")),
    ("LOW", "The docstring still names the old renderer", "render.py", 4, ("open", "open", "open")),
)


def finished(services: Services) -> Script:
    """A batch that ended well: one story with a failed attempt, a limit sleep, and three reviews."""
    script, key = Script(services), "2a-3-pdf-rendering"
    script.finish_cycle(1, "1-3-password-reset", "1-4-session-expiry")
    script.cycle(2, key)
    for name in (
        "create-story",
        "create-story-discovery",
        "story-review",
        "create-tech-spec",
        "tech-spec-review",
    ):
        script.command(name, key, cycle=2)
    why = "verify: pytest -q, 2 failed in tests/pdf"
    script.command("dev-story", key, status="failed", cycle=2, reason=why, evidence={"changed": ["a"] * 9})
    script.command("dev-story", key, status="limited", cycle=2, seconds=200, counted=0, reason="5-hour limit")
    _sleep(script, 50)
    script.command("dev-story", key, cycle=2, evidence={"changed": ["a"] * 14})
    for place in range(3):
        _review(script, key, place)
    script.command("commit", key, cycle=2)
    sha = script.commit(key)
    runs = [{"command": "pytest -q", "ok": True, "seconds": 41.2, "tail": "214 passed", "reason": ""}]
    held = {
        "dev": {"agent": "success", "changed": ["a"] * 14, "verify": runs},
        "review_passed": True,
        "review": {"review": 3, "severity": "LOW", "verify": runs},
        "commit": sha,
    }
    write_status(services.project.root, {**STATUSES, key: "done"})
    story = services.project.implementation / f"{key}.md"
    story.write_text(STORY.replace("in-progress", "done").replace("- [ ]", "- [x]"))
    git(services.project.root, "commit", "-q", "-a", "-m", "say that it is done")
    script.status(key, "done", commit_sha=sha, evidence=held)
    script.end_cycle(2, key)
    script.end("completed")
    return script


def _sleep(script: Script, minutes: int) -> None:
    told = {"batch_id": script.batch, "warning": "5-hour limit of claude, resets 03:10", "state": "waiting"}
    script.event("batch:warning", told)
    script.at += minutes * MINUTE
    told |= {"warning": "Woke up, the usage limit has reset.", "state": "running"}
    script.event("batch:warning", told)


def _review(script: Script, key: str, place: int) -> None:
    verdict = {"highest_severity": ("HIGH", "MEDIUM", "LOW")[place], "findings": []}
    review = script.command("code-review", key, cycle=2, verdict=verdict)
    with script.store.transaction() as tx:
        for number, (severity, title, file, line, said) in enumerate(FINDINGS):
            if said[place]:
                named = {"severity": severity, "title": title, "file": file, "line": line}
                found = tx.upsert_finding(script.ids[key], f"f{number}", status=said[place], seen=1, **named)
                tx.add_finding_round(found, review, said[place])
