"""A unix socket into the orchestrator's inbox: stop, status, log, retry from another process."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from . import errors
from .errors import NotFound, Refused, SprintRunnerError

log = logging.getLogger(__name__)

Submit = Callable[[str, Mapping[str, Any]], dict[str, Any]]
#: Largest request or answer, in bytes.
MAX_BYTES = 256 * 1024
#: Bytes; the system allows 107 for the address of a socket.
_LONGEST_ADDRESS = 100
_FAR = Path("/tmp")  # noqa: S108 - a folder of our own in it, checked before use
_READ_SECONDS = 10.0
_KNOCK_SECONDS = 2.0
#: What may be asked over the socket; nothing here names a program or a path.
ACTIONS = frozenset({"start", "stop", "resume", "status", "log", "retry", "done", "skip", "stop_command"})


def socket_path(state_dir: Path) -> Path:
    """Where the socket of a state folder lies: in it, or under /tmp where that address would be too long.

    It follows from the folder alone: a shell with another TMPDIR must find the same one.
    """
    real = os.path.realpath(state_dir)
    near = Path(real) / "control.sock"
    if len(os.fsencode(near)) <= _LONGEST_ADDRESS:
        return near
    name = hashlib.sha256(os.fsencode(real)).hexdigest()[:16]
    return _FAR / f"sprintrunner-{os.getuid()}" / f"{name}.sock"


def _private_folder(folder: Path) -> None:
    """A folder in the shared temporary folder must be ours alone: others could answer in our name."""
    if folder.parent != _FAR:
        return  # the state folder, which is private already
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or folder.is_symlink() or found.st_mode & 0o077:
        raise Refused(f"{folder} belongs to someone else or is open to others; remove it.")


def request(state_dir: Path, action: str, arguments: Mapping[str, Any], timeout: float) -> dict[str, Any]:
    """Ask the holder of the project; NotFound when nobody listens, else what it answers or raises."""
    path = socket_path(state_dir)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(timeout)
        try:
            if path.parent.exists():
                _private_folder(path.parent)
            client.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            raise NotFound("No Sprint Runner is running for this project.") from None
        except OSError as error:
            raise NotFound(f"Sprint Runner cannot be asked at {path}: {error.strerror or error}.") from None
        try:
            client.sendall(json.dumps({"action": action, "arguments": dict(arguments)}).encode() + b"\n")
            client.shutdown(socket.SHUT_WR)
            answer = json.loads(_read(client))
        except (OSError, ValueError) as error:
            raise NotFound(f"Sprint Runner did not answer: {error}") from None
    return _result(answer)


def _read(connection: socket.socket) -> bytes:
    data = bytearray()
    while chunk := connection.recv(65536):
        data += chunk
        if len(data) > MAX_BYTES:
            raise ValueError("the message is too long")
        if data.endswith(b"\n"):
            break
    return bytes(data)


def _result(answer: Mapping[str, Any]) -> dict[str, Any]:
    if "result" in answer:
        return dict(answer["result"])
    kind = getattr(errors, str(answer.get("kind")), Refused)
    known = (
        isinstance(kind, type) and issubclass(kind, SprintRunnerError) and kind is not errors.SettingsInvalid
    )
    raise (kind if known else Refused)(str(answer.get("error") or "The request was refused."))


def answers(state_dir: Path) -> bool:
    """Whether somebody listens for this project, whatever became of its lock file."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(_KNOCK_SECONDS)
        try:
            client.connect(str(socket_path(state_dir)))
        except OSError:
            return False
    return True


class Control:
    """Listens on the socket in a thread of its own; each request is one short connection."""

    def __init__(self, state_dir: Path, submit: Submit) -> None:
        self.path = socket_path(state_dir)
        self._submit = submit
        self._socket: socket.socket | None = None

    def start(self) -> None:
        """Bind and listen, in place of a stale socket: only the holder of the project may call this."""
        _private_folder(self.path.parent)
        self.path.unlink(missing_ok=True)
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server.bind(str(self.path))
        self.path.chmod(0o600)
        server.listen(64)
        self._socket = server
        threading.Thread(target=self._accept, args=(server,), name="control", daemon=True).start()

    def stop(self) -> None:
        """Stop listening and remove the socket. Repeatable."""
        if self._socket is not None:
            self.path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()
            self._socket = None

    def _accept(self, server: socket.socket) -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return  # closed by stop()
            threading.Thread(
                target=self._serve, args=(connection,), name="control-request", daemon=True
            ).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(_READ_SECONDS)
            connection.sendall(json.dumps(self._answer(connection)).encode() + b"\n")

    def _answer(self, connection: socket.socket) -> dict[str, Any]:
        try:
            asked = json.loads(_read(connection))
            action, arguments = str(asked["action"]), dict(asked["arguments"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return {"error": "The request is not valid.", "kind": "Refused"}
        if action not in ACTIONS:
            return {"error": f"There is no action {action!r}.", "kind": "Refused"}
        try:
            return {"result": self._submit(action, arguments)}
        except SprintRunnerError as error:
            return {"error": error.sentence, "kind": type(error).__name__}
        except Exception:
            log.exception("control request %s failed", action)
            return {"error": "Unexpected error; the log has the details.", "kind": "SprintRunnerError"}
