"""The wheel carries everything that runs: templates, static files, prompts, migrations, the rehearsal."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import sprintrunner


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> zipfile.ZipFile:
    """The wheel, built from a copy: a build leaves nothing in the checkout."""
    pytest.importorskip("hatchling", reason="hatchling is not installed here")
    source = tmp_path_factory.mktemp("source") / "a copy"
    left_out = shutil.ignore_patterns(
        ".venv", ".git", ".*_cache", ".hypothesis", "__pycache__", "node_modules"
    )
    shutil.copytree(repository, source, ignore=left_out)
    built = tmp_path_factory.mktemp("wheel")
    program = f"from hatchling.build import build_wheel; build_wheel({str(built)!r})"
    subprocess.run([sys.executable, "-c", program], cwd=source, check=True, capture_output=True)
    return zipfile.ZipFile(next(built.glob("*.whl")))


def _below(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("sprintrunner", "sprintrunner"),
        ("templates", "sprintrunner/_web/templates"),
        ("static", "sprintrunner/_web/static"),
    ],
)
def test_the_wheel_carries_every_file(
    wheel: zipfile.ZipFile, repository: Path, source: str, target: str
) -> None:
    wanted = {f"{target}/{name}" for name in _below(repository / source)}
    assert wanted
    assert wanted <= set(wheel.namelist())


@pytest.mark.parametrize(
    "part",
    [
        "sprintrunner/_web/templates/base.html",
        "sprintrunner/_web/static/vendor/htmx-4.0.1.min.js",
        "sprintrunner/prompts/dev-story.md",
        "sprintrunner/store/migrations/env.py",
        "sprintrunner/rehearsal/agent.py",
        "sprintrunner/shim.py",
    ],
)
def test_the_wheel_has_the_parts_that_are_no_imported_code(wheel: zipfile.ZipFile, part: str) -> None:
    assert part in wheel.namelist()


def test_the_wheel_holds_nothing_of_the_workshop(wheel: zipfile.ZipFile) -> None:
    strangers = [name for name in wheel.namelist() if not name.startswith(("sprintrunner/", "sprintrunner-"))]
    assert not strangers


def test_the_wheel_names_its_version_licence_and_console_script(wheel: zipfile.ZipFile) -> None:
    folder = f"sprintrunner-{sprintrunner.__version__}.dist-info"
    metadata = Parser().parsestr(wheel.read(f"{folder}/METADATA").decode())
    assert metadata["Version"] == sprintrunner.__version__
    assert metadata["License-Expression"] == "MIT"
    assert "sprintrunner = sprintrunner.cli:main" in wheel.read(f"{folder}/entry_points.txt").decode()


def test_the_installed_wheel_answers_from_a_path_with_a_space(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    place = tmp_path / "site packages"
    wheel.extractall(place)
    program = f"import sys; sys.path.insert(0, {str(place)!r}); "
    program += "from sprintrunner.cli import main; main(['--version'])"
    answer = subprocess.run(
        [sys.executable, "-P", "-c", program], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert answer.stdout == f"sprintrunner {sprintrunner.__version__}\n"
