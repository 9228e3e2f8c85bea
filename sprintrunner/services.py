"""What the web needs from the rest of the program, handed over in one object."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import project as projects
from . import settings
from .errors import Conflict, Refused
from .project import Project
from .settings import Layers
from .store import DATABASE, Store

if TYPE_CHECKING:
    from .web.hub import Hub

#: Shorter tokens could be guessed over the network.
MIN_TOKEN_LENGTH = 16

Submit = Callable[[str, Mapping[str, Any]], dict[str, Any]]


class WeakToken(Refused):
    """The token is too short; it needs at least 16 characters (serve --new-token makes a good one)."""


def _no_orchestrator(action: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    raise Conflict("no orchestrator is running behind this page; start it with: sprintrunner serve")


@dataclass(slots=True)
class Services:
    """Everything the web may use. The composition root fills it; requests only read it."""

    project: Project
    state_dir: Path
    store: Store
    #: Loads the settings anew: they may change between two requests.
    layers: Callable[[], Layers]
    #: Into the orchestrator's inbox; raises the Refused family (interfaces: ``submit``).
    submit: Submit = _no_orchestrator
    #: Whether the orchestrator thread lives; ``/healthz`` asks.
    alive: Callable[[], bool] = field(default=lambda: False)
    #: Told of each request that changes something where no token is in force: what, the client's port, ours.
    saw_client: Callable[[str, int, int], None] = field(default=lambda what, port, server_port: None)
    #: Checks what a night needs, which takes a moment: for each thing its name, status, message and remedy.
    examine: Callable[[], Sequence[Mapping[str, str]]] = field(default=tuple)
    #: The access token, or None where none is in force. Never shown, logged or sent.
    token: str | None = field(default=None, repr=False)
    #: The port the server listens on, known for sure only once it is bound: it names the session cookie.
    port: int = 8080
    #: Host names and addresses of this bind, accepted beside loopback and ``allowed_hosts``.
    bind_hosts: tuple[str, ...] = ()
    #: Set by ``create_app``; closing it ends every stream.
    hub: Hub | None = None
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)

    def __post_init__(self) -> None:
        if self.token is not None and len(self.token) < MIN_TOKEN_LENGTH:
            raise WeakToken()

    def save_settings(self, changes: Mapping[str, Any], if_match: str | None) -> Layers:
        """Save all of ``changes`` or nothing; raises SettingsInvalid, SettingsStale."""
        return settings.save(self.project.root, self.state_dir, changes, if_match, self.environ)

    def forget_setting(self, key: str) -> Layers:
        """Forget the saved value of one setting; raises SettingsInvalid for an unknown name."""
        return settings.forget(self.project.root, self.state_dir, key, self.environ)

    def close_streams(self) -> None:
        """End every stream; called before the server waits for its connections. Repeatable."""
        if self.hub is not None:
            self.hub.close()


def open_services(environ: Mapping[str, str] = os.environ) -> Services:
    """Open the project named by ``SPRINTRUNNER_PROJECT``, else that of the current folder; no orchestrator.

    Raises ProjectError, SettingsInvalid or StoreRefused.
    """
    named = environ.get("SPRINTRUNNER_PROJECT")
    project = projects.load(Path(named) if named else projects.find_root(Path.cwd()))
    state_dir = projects.state_dir(project.root, environ)

    def layers() -> Layers:
        return settings.load(project.root, state_dir, environ)

    return Services(
        project=project,
        state_dir=state_dir,
        store=Store.open(state_dir / DATABASE),
        layers=layers,
        token=environ.get("SPRINTRUNNER_TOKEN") or None,
        port=layers().values.server_port,
        environ=environ,
    )
