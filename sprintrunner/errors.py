"""The errors a user can cause or meet; the docstring of each is the sentence they read."""

from __future__ import annotations

from collections.abc import Mapping


class SprintRunnerError(Exception):
    """Something went wrong inside Sprint Runner; the log has the details."""

    #: HTTP status of the answer when the error reaches a request.
    http_status = 500
    #: Exit status of the command line (contract section 3).
    exit_status = 1

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip())

    @property
    def sentence(self) -> str:
        """The text shown to a person."""
        return str(self)


class Refused(SprintRunnerError):
    """The request cannot be carried out."""

    http_status = 400
    exit_status = 2


class NotFound(Refused):
    """There is no such thing."""

    http_status = 404


class Conflict(Refused):
    """That is not possible in the present state."""

    http_status = 409


class ProjectError(Refused):
    """No BMAD project was found here."""


class StatusFileError(Refused):
    """The status file cannot be read."""


class StatusFileRefused(StatusFileError):
    """The status file cannot be edited safely; it was left untouched."""


class GitError(Refused):
    """git did not do what was asked."""


class AgentMissing(Refused):
    """The agent program was not found on PATH; install it or set its path in sprintrunner.toml."""


class SettingsInvalid(Refused):
    """Some settings are not valid."""

    def __init__(self, fields: Mapping[str, str], source: str = "") -> None:
        self.fields = dict(fields)
        listed = "; ".join(f"{name}: {why}" for name, why in self.fields.items())
        super().__init__(f"{source}: {listed}" if source else listed)


class SettingsStale(Refused):
    """The settings were changed meanwhile; load them again."""

    http_status = 412


class InvalidEvent(SprintRunnerError):
    """An event does not have the form the table of event types demands."""


class InvalidStatus(SprintRunnerError):
    """A status is not one of those that may be stored."""


class StoreError(SprintRunnerError):
    """The database did not accept the write; see the log."""


class StoreUnavailable(StoreError):
    """The database takes nothing at present: full, locked, read-only, or gone."""

    http_status = 503


class StoreRefused(StoreError):
    """The database cannot be opened."""

    exit_status = 2
