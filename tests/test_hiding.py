"""No answer holds a secret, wherever it comes from."""

from __future__ import annotations

from pathlib import Path

import pytest
from web_project import STATUS, make_project, make_services

from sprintrunner import create_app
from sprintrunner.services import Services
from sprintrunner.web.app import Fragments

SECRET = "s3cret<&>value-of-the-machine"
TOKEN = "ghp_" + "a1B2" * 9
PATHS = ("/", "/sprint-status.yaml", "/api/sprint-status", "/story-descriptions.json", "/settings")
PATHS += ("/stories/1-2-user-login", "/api/settings", "/orchestrator.md", "/api/batches/" + TOKEN)


@pytest.fixture
def services(tmp_path: Path) -> Services:
    root = make_project(tmp_path / "project")
    artefacts = root / "_bmad-output" / "implementation-artifacts"
    title = f"# Story 1.2: User {TOKEN} login {SECRET}"
    (artefacts / "1-2-user-login.md").write_text(
        f"{title}\n\n## Story\n\nAs {SECRET} I log in with {TOKEN}.\n"
    )
    (artefacts / "sprint-status.yaml").write_text(f"{STATUS}  # {SECRET} {TOKEN}\n  1-4-{TOKEN}: {TOKEN}\n")
    (root / "orchestrator.md").write_text(f"{SECRET} {TOKEN}")
    return make_services(root, tmp_path / "state", {"DEPLOY_SECRET": SECRET})


@pytest.mark.parametrize("path", PATHS)
def test_values_of_the_environment_and_known_shapes_never_leave(services: Services, path: str) -> None:
    answer = create_app(services).test_client().get(path)
    assert TOKEN not in answer.text
    assert SECRET not in answer.text
    assert "value-of-the-machine" not in answer.text
    if path in ("/", "/sprint-status.yaml", "/orchestrator.md"):
        assert "[redacted]" in answer.text


def test_nor_do_they_on_the_page_stream(services: Services) -> None:
    told = Fragments(create_app(services), services).snapshot()
    assert "1-2-user-login" in told
    assert TOKEN not in told
    assert "value-of-the-machine" not in told


def test_other_texts_and_files_stay_as_they_are(services: Services) -> None:
    browser = create_app(services).test_client()
    sheet = browser.get("/static/app.css")
    assert int(sheet.headers["Content-Length"]) == len(sheet.data)
    page = browser.get("/settings")
    assert int(page.headers["Content-Length"]) == len(page.data)
