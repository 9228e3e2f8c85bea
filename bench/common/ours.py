"""Our server as it is shipped, over a project of the bench, with a publisher in the orchestrator's place.

``python ours.py PORT PROJECT STATE``. The application, gunicorn's settings, the store and the hub are the
product's. What is added: ``POST /bench/publish/<count>/<gap_ms>`` commits so many events from a thread of the
same process, ``POST /bench/agents/<count>/<seconds>`` supervises so many talking agents there.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from gunicorn.app.base import BaseApplication

from common import agents, messages
from sprintrunner import create_app, project, settings
from sprintrunner.server import GUNICORN
from sprintrunner.services import Services
from sprintrunner.sprint import CommandStatus, StoryStatus
from sprintrunner.store import Store

KEY = "1-1-grow-a-leaf"
AGENTS = 4


def open_services(root: Path, state_dir: Path) -> Services:
    """The services of the project, with a live batch where the database has none."""
    found = project.load(root)
    store = Store.open(state_dir / "sprint-runner.db")
    services = Services(
        project=found,
        state_dir=state_dir,
        store=store,
        layers=lambda: settings.load(found.root, state_dir, {}),
        alive=lambda: True,
        environ={},
    )
    if store.live_batch() is None:
        _begin_batch(store)
    return services


def _begin_batch(store: Store) -> None:
    with store.transaction() as tx:
        batch = tx.insert_batch(max_cycles=1)
        story = tx.insert_story(
            batch_id=batch, story_key=KEY, epic_id="1", status=StoryStatus.IN_PROGRESS, title="Grow a leaf"
        )
        for number in range(1, AGENTS + 1):
            tx.insert_command(
                batch_id=batch,
                story_id=story,
                story_ids=[story],
                story_keys=KEY,
                command="dev-story",
                attempt=number,
                agent="claude",
                status=CommandStatus.RUNNING,
                started_at=store.now(),
            )
        tx.append("batch:start", {"batch_id": batch, "max_cycles": 1}, batch_id=batch)


def publish(store: Store, count: int, gap: float) -> None:
    """Commit ``count`` events as the orchestrator does for a tool call, one each ``gap`` seconds."""
    live = store.live_batch()
    assert live is not None
    command = store.running_commands()[0]
    due = time.monotonic()
    for number in range(count):
        told = messages.payload(number)
        with store.transaction() as tx:
            tx.update_command(command.id, last_action=told["message"], last_action_at=store.now())
            tx.append(
                "command:progress", told, batch_id=live.id, story_id=command.story_id, command_id=command.id
            )
        due += gap
        time.sleep(max(0.0, due - time.monotonic()) if gap else 0.0)


def make_app(services: Services) -> Any:
    """The product's application and the two orders of the bench."""
    app = create_app(services)

    @app.post("/bench/publish/<int:count>/<int:gap>")
    def publishing(count: int, gap: int) -> str:
        begin(publish, services.store, count, gap / 1000)
        return "ok"

    @app.post("/bench/agents/<int:count>/<int:seconds>")
    def talking(count: int, seconds: int) -> str:
        begin(agents.supervise, services, count, seconds)
        return "ok"

    return app


def begin(work: Any, *given: Any) -> None:
    """Do it in a thread, as the orchestrator is one."""
    threading.Thread(target=work, args=given, daemon=True, name="bench").start()


class Application(BaseApplication):  # type: ignore[misc]
    """gunicorn with the product's settings."""

    def __init__(self, port: int, app: Any) -> None:
        self._port, self._app = port, app
        super().__init__()

    def load_config(self) -> None:
        """Take over the product's settings."""
        for name, value in {**GUNICORN, "bind": f"127.0.0.1:{self._port}"}.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """The application."""
        return self._app


if __name__ == "__main__":
    port, root, state = sys.argv[1:]
    Application(int(port), make_app(open_services(Path(root), Path(state)))).run()
