"""Sprint Runner: carries the stories of a BMAD sprint through a supervised coding agent."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from .services import Services

__version__ = "0.1.0"


def create_app(services: Services | None = None) -> Flask:
    """Return the web application; it is wired here and starts nothing.

    Without ``services`` the project is the one ``SPRINTRUNNER_PROJECT`` (or the current folder) names;
    such an application shows everything and refuses to act, since no orchestrator stands behind it.
    """
    # Imported here so that the shim and other small programs of the package load nothing heavy.
    from .services import open_services
    from .web.app import build

    return build(services or open_services())
