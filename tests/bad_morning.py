"""A real night that goes wrong: blocked stories, a limit sleep, a kill -9, and its morning."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from demonstration import awaited, free_port

from sprintrunner import rehearsal
from sprintrunner.rehearsal import sample
from sprintrunner.store import Store

BLOCKED, UNPROVED, LIMITED = "1-2-thirst-schedule", "2-2-note-for-the-neighbour", "1-3-todays-round"
FAULTS = (
    f"same-finding@code-review#{BLOCKED}",
    f"no-change@dev-story#{UNPROVED}",
    f"usage-limit@dev-story:1#{LIMITED}",
    "crash@dev-story:1#1-1-watering-diary",
)


class Night:
    """A server over the sample project whose agents misbehave."""

    def __init__(self, folder: Path, speed: str = "0.04", reset_seconds: int = 2) -> None:
        self.root = sample.create(folder / "larkspur")
        with (self.root / "sprintrunner.toml").open("a") as settings:
            settings.write("limit_margin_seconds = 0\nresume_after_crash = 'auto'\n")
        subprocess.run(["git", "commit", "-qam", "set the limits"], cwd=self.root, check=True)
        (folder / "bin").mkdir()
        rehearsal.install_launcher(folder / "bin")
        self.port, self.state = free_port(), folder / "state"
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("SPRINTRUNNER_")}
        self.env |= {
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "SPRINTRUNNER_STATE_DIR": str(self.state),
            "REHEARSAL_SPEED": speed,
            "REHEARSAL_FAULT": ",".join(FAULTS),
            "REHEARSAL_RESET_SECONDS": str(reset_seconds),
        }
        self.log = folder / "server.log"
        self.process = self._serve()

    @property
    def address(self) -> str:
        """Where the dashboard is."""
        return f"http://127.0.0.1:{self.port}"

    def _serve(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-P", "-m", "sprintrunner", "--project", str(self.root), "serve"]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*command, "--port", str(self.port)],
                env=self.env,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def start(self) -> None:
        """Start a batch of these stories, as the form of the page does it."""
        awaited(self.answers)
        chosen = [("stories", key) for key in ("1-1-watering-diary", BLOCKED, LIMITED, UNPROVED)]
        sent = urllib.parse.urlencode([("batch_size", "all"), *chosen]).encode()
        form = urllib.request.Request(f"{self.address}/api/orchestrator/start", data=sent)
        with urllib.request.urlopen(form, timeout=30) as answer:
            assert answer.status == 202

    def answers(self) -> bool:
        """Whether the server is up."""
        try:
            with urllib.request.urlopen(f"{self.address}/healthz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def batch(self) -> Any:
        """The newest batch."""
        store = Store.open(self.state / "sprint-runner.db")
        try:
            return store.latest_batch()
        finally:
            store.close()

    def kill_and_restart(self) -> None:
        """End the server without notice, as a power cut does, and start it again."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        time.sleep(1)  # the page tells the length of a gap in seconds; this is the gap itself
        self.process = self._serve()

    def go_wrong(self) -> None:
        """Run a batch: it sleeps through a limit, its server is killed and restarted, two stories block."""
        self.start()
        awaited(lambda: (row := self.batch()) and row.state == "waiting")
        awaited(lambda: self.batch().state == "running" and self.has_agent())
        self.kill_and_restart()
        awaited(self.answers)
        awaited(lambda: (row := self.batch()).ended_at and row.status != "interrupted")

    def has_agent(self) -> bool:
        """Whether an agent is at work."""
        store = Store.open(self.state / "sprint-runner.db")
        try:
            return any(row.pid for row in store.running_commands())
        finally:
            store.close()

    def end(self) -> None:
        """Stop in order."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait(30)
