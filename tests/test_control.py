"""The unix socket: who may ask, what is answered, and what a broken asker does."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from sprintrunner.control import MAX_BYTES, Control, request, socket_path
from sprintrunner.errors import Conflict, NotFound, Refused, SettingsInvalid, SprintRunnerError


class Submit:
    """Answers as the orchestrator would, or raises what a test wants."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Mapping[str, Any]]] = []
        self.error: Exception | None = None

    def __call__(self, action: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        self.asked.append((action, arguments))
        if self.error:
            raise self.error
        return {"status": "stopping", "echo": dict(arguments)}


@pytest.fixture
def submit() -> Submit:
    return Submit()


@pytest.fixture
def listening(tmp_path: Path, submit: Submit) -> Iterator[Control]:
    control = Control(tmp_path, submit)
    control.start()
    yield control
    control.stop()


def raw(control: Control, data: bytes) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(str(control.path))
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := client.recv(65536):
            answer += chunk
    return dict(json.loads(answer))


def test_a_request_is_answered(listening: Control, submit: Submit, tmp_path: Path) -> None:
    answer = request(tmp_path, "stop", {"after_story": True}, 5)
    assert answer == {"status": "stopping", "echo": {"after_story": True}}
    assert submit.asked == [("stop", {"after_story": True})]


def test_the_socket_is_ours_alone_and_its_path_short(listening: Control, tmp_path: Path) -> None:
    assert stat.S_IMODE(listening.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(listening.path.parent.stat().st_mode) == 0o700
    deep = tmp_path / ("x" * 200) / ("y" * 200)
    assert len(os.fsencode(socket_path(deep))) <= 107


def test_one_state_folder_has_one_socket_whatever_leads_to_it(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)
    assert socket_path(real) == socket_path(link)
    assert socket_path(real) != socket_path(tmp_path / "other")


def test_where_nobody_listens_it_is_said_so(tmp_path: Path, submit: Submit) -> None:
    with pytest.raises(NotFound, match="No Sprint Runner is running"):
        request(tmp_path, "status", {}, 5)
    control = Control(tmp_path, submit)
    control.start()
    control.stop()
    control.stop()
    with pytest.raises(NotFound):
        request(tmp_path, "status", {}, 5)


def test_a_stale_socket_of_a_killed_owner_is_replaced(tmp_path: Path, submit: Submit) -> None:
    path = socket_path(tmp_path)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(NotFound):
        request(tmp_path, "status", {}, 5)
    control = Control(tmp_path, submit)
    control.start()
    assert request(tmp_path, "status", {}, 5)["status"] == "stopping"
    control.stop()


@pytest.mark.parametrize("error", [Conflict("busy"), NotFound("gone"), Refused("no"), SprintRunnerError("x")])
def test_a_refusal_arrives_as_what_it_was(
    listening: Control, submit: Submit, tmp_path: Path, error: SprintRunnerError
) -> None:
    submit.error = error
    with pytest.raises(type(error)) as caught:
        request(tmp_path, "start", {}, 5)
    assert type(caught.value) is type(error)
    assert caught.value.sentence == error.sentence


def test_other_errors_arrive_as_sentences_without_details(
    listening: Control, submit: Submit, tmp_path: Path
) -> None:
    submit.error = SettingsInvalid({"agent": "unknown"}, "sprintrunner.toml:3")
    with pytest.raises(Refused, match=r"sprintrunner\.toml:3"):
        request(tmp_path, "start", {}, 5)
    submit.error = KeyError("secret detail")
    with pytest.raises(SprintRunnerError) as caught:
        request(tmp_path, "start", {}, 5)
    assert "secret" not in caught.value.sentence


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"stop\n",
        b"[]\n",
        b"null\n",
        b'{"action": "stop"}\n',
        b'{"action": "stop", "arguments": 7}\n',
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
        b'{"action": "stop", "arguments": {}, "x": "' + b"a" * MAX_BYTES + b'"}\n',
    ],
)
def test_rubbish_is_refused_and_the_next_one_served(
    listening: Control, submit: Submit, tmp_path: Path, data: bytes
) -> None:
    assert "error" in raw(listening, data)
    assert submit.asked == []
    assert request(tmp_path, "status", {}, 5)


def test_an_unknown_action_never_reaches_the_inbox(
    listening: Control, submit: Submit, tmp_path: Path
) -> None:
    with pytest.raises(Refused, match="no action"):
        request(tmp_path, "__class__", {}, 5)
    assert submit.asked == []


def test_an_asker_that_says_nothing_holds_up_nobody(listening: Control, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(str(listening.path))
        assert request(tmp_path, "status", {}, 5)


def test_many_askers_at_once_are_all_answered(listening: Control, tmp_path: Path) -> None:
    answers: list[dict[str, Any]] = []

    def ask() -> None:
        answers.append(request(tmp_path, "status", {}, 10))

    threads = [threading.Thread(target=ask) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(answers) == 40


def test_a_folder_open_to_others_is_not_trusted(
    tmp_path: Path, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sprintrunner.control._FAR", tmp_path)
    state = tmp_path / ("x" * 120)  # too deep for a socket of its own
    folder = socket_path(state).parent
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    with pytest.raises(Refused, match="open to others"):
        Control(state, submit).start()
    with pytest.raises(Refused, match="open to others"):
        request(state, "status", {}, 5)
