"""gunicorn's settings for ``gunicorn wsgi:app``, and the orchestrator's start and end in the worker."""

import os
from pathlib import Path

from sprintrunner import project, settings
from sprintrunner.errors import SprintRunnerError
from sprintrunner.server import GUNICORN, bound, in_worker, longest_stop

globals().update(GUNICORN)
bind = "127.0.0.1:8080"


def on_starting(arbiter):
    """Refuse what the design does not allow before any worker is forked."""
    for name in ("workers", "worker_class_str", "preload_app", "max_requests"):
        wanted = GUNICORN.get(name.removesuffix("_str"))
        if getattr(arbiter.cfg, name) != wanted:
            raise SystemExit(f"Sprint Runner needs {name.removesuffix('_str')} = {wanted}.")
    try:
        root = project.find_root(Path(os.environ.get("SPRINTRUNNER_PROJECT") or Path.cwd()))
        layers = settings.load(root, project.state_dir(root))
    except SprintRunnerError as error:
        raise SystemExit(f"sprintrunner: {error.sentence}") from None
    arbiter.cfg.set("graceful_timeout", longest_stop(layers))


def post_worker_init(worker):
    """After the fork: hold the project and start the orchestrator."""
    import wsgi

    bound(wsgi.server, worker.cfg.address)
    in_worker(wsgi.server, worker)


def worker_exit(arbiter, worker):
    """End what still runs."""
    import wsgi

    wsgi.server.stop()
