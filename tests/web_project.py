"""A project and the services of a web application over it, for the tests of the web."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sprintrunner import project, settings
from sprintrunner.services import DATABASE, Services
from sprintrunner.store import Store

STATUS = """\
# of the test
development_status:
  epic-1: in-progress
  1-1-first-step: done
  1-2-user-login: ready-for-dev
  1-3-with-pause: on-hold
  epic-1-retrospective: optional
"""


class Orders:
    """Takes what would go to the orchestrator; ``error`` is raised where it is set."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, dict[str, Any]]] = []
        self.error: Exception | None = None

    def __call__(self, action: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if self.error is not None:
            raise self.error
        self.taken.append((action, dict(arguments)))
        return {"status": "started", "batch_id": 7} if action == "start" else {"status": action}


def make_project(folder: Path) -> Path:
    """A small project with a status file and one story file."""
    artefacts = folder / "_bmad-output" / "implementation-artifacts"
    artefacts.mkdir(parents=True)
    (folder / ".git").mkdir()
    (artefacts / "sprint-status.yaml").write_text(STATUS)
    story = "# Story 1.2: User login\n\nStatus: ready-for-dev\n\n## Story\n\nAs a user I log in.\n"
    (artefacts / "1-2-user-login.md").write_text(story)
    return folder


def make_services(
    folder: Path, state_dir: Path, environ: Mapping[str, str] | None = None, **more: Any
) -> Services:
    """Services over the project in ``folder``; nothing acts behind them but an ``Orders``."""
    found = project.load(folder)
    env = dict(environ or {})
    state_dir.mkdir(mode=0o700, exist_ok=True)

    def layers() -> settings.Layers:
        return settings.load(found.root, state_dir, env)

    given: dict[str, Any] = {"submit": Orders(), "alive": lambda: True, **more}
    store = Store.open(state_dir / DATABASE)
    return Services(project=found, state_dir=state_dir, store=store, layers=layers, environ=env, **given)


def from_environment() -> Any:
    """The application for a server started by a test: ``gunicorn 'web_project:from_environment()'``."""
    from sprintrunner import create_app

    services = make_services(Path(os.environ["TEST_PROJECT"]), Path(os.environ["TEST_STATE"]))
    app = create_app(services)
    app.config["services"] = services

    @app.post("/test/say/<int:count>/<int:size>")
    def say(count: int, size: int) -> dict[str, int]:
        threading.Thread(target=_say, args=(services.store, count, size), daemon=True).start()
        return {"threads": threading.active_count()}

    @app.get("/test/threads")
    def threads() -> dict[str, Any]:
        hub = services.hub
        names = sorted(thread.name for thread in threading.enumerate())
        return {"threads": names, "clients": hub.clients if hub else 0}

    return app


def _say(store: Store, count: int, size: int) -> None:
    for _ in range(count):
        with store.transaction() as tx:
            tx.append("error", {"type": "test", "message": "m" * size})
