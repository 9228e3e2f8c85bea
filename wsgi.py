"""The application for ``gunicorn wsgi:app``; ``gunicorn.conf.py`` starts the orchestrator in the worker."""

import os
from pathlib import Path

from sprintrunner import project
from sprintrunner.server import Server

_named = os.environ.get("SPRINTRUNNER_PROJECT")
server = Server(project.find_root(Path(_named) if _named else Path.cwd()), host="127.0.0.1", port=8080)
app = server.app
