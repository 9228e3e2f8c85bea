"""The units and the container of docs/deploy.md, as far as they can be judged without being started."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from deployment import REPOSITORY, blocks, needs, replaced

from sprintrunner.server import GUNICORN
from sprintrunner.settings import Settings

OWN, SYSTEM = "With systemd, for yourself", "With systemd, as its own user"
#: Of systemd-analyze: 10 is without any walls. The second unit had 2.8 when it was written.
EXPOSURE = 3.0


def unit(heading: str) -> dict[str, str]:
    """The settings of a unit on the page; the last of a name counts."""
    return dict(re.findall(r"^(\w+)=(.*)$", blocks("ini", heading)[0], re.MULTILINE))


@pytest.fixture
def analyze(tmp_path: Path) -> Path:
    """A folder for units, and for what systemd-analyze wants of a user's session."""
    needs("systemd-analyze")
    return tmp_path


def written(folder: Path, heading: str) -> Path:
    """The unit as a file whose program is there."""
    program = unit(heading)["ExecStart"].split()[0]
    text = replaced(blocks("ini", heading)[0], {f"ExecStart={program}": f"ExecStart={sys.executable}"})
    path = folder / "sprintrunner@demo.service"
    path.write_text(text)
    return path


def ask(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "XDG_RUNTIME_DIR": str(folder), "SYSTEMD_COLORS": "0"}
    command = ["systemd-analyze", *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("heading", [OWN, SYSTEM])
def test_systemd_finds_nothing_to_complain_of(analyze: Path, heading: str) -> None:
    manager = ["--user"] if heading == OWN else []
    done = ask(analyze, *manager, "verify", "--man=no", str(written(analyze, heading)))
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_with_a_user_of_its_own_is_little_exposed(analyze: Path) -> None:
    done = ask(analyze, "security", "--offline=true", str(written(analyze, SYSTEM)))
    level = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
    assert level and float(level[1]) < EXPOSURE, done.stdout + done.stderr


@pytest.mark.parametrize("heading", [OWN, SYSTEM])
def test_a_stop_of_the_unit_leaves_the_agents_to_the_server_and_gives_it_time(heading: str) -> None:
    found = unit(heading)
    assert found["KillMode"] == "mixed"
    grace = Settings().stop_grace_seconds
    assert int(found["TimeoutStopSec"]) > max(GUNICORN["graceful_timeout"], grace + 10) + grace
    # The default is to stop the whole unit when one agent is killed for its memory.
    assert found["OOMPolicy"] == "continue"


def test_nothing_that_agents_need_is_walled_off() -> None:
    found = unit(SYSTEM)
    home = "/var/lib/sprintrunner"
    assert found["ReadWritePaths"] == home
    assert all(found[name].startswith(f"{home}/") for name in ("WorkingDirectory", "ExecStart"))
    assert not found.keys() & {"MemoryDenyWriteExecute", "RestrictNamespaces", "PrivateNetwork", "ProcSubset"}


def test_the_container_gets_all_that_the_package_is_built_from(tmp_path: Path) -> None:
    wanted = re.findall(r"^!(\S+)$", (REPOSITORY / ".dockerignore").read_text(), re.MULTILINE)
    for name in wanted:
        source, target = REPOSITORY / name, tmp_path / "source" / name
        target.parent.mkdir(exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=tmp_path / "source", check=True, capture_output=True, timeout=60)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for part in ("shim.py", "_web/templates/base.html", "_web/static/js/app.js", "prompts/dev-story.md"):
        assert f"sprintrunner/{part}" in names


def test_the_container_gives_its_rights_away_and_has_a_first_process_that_reaps() -> None:
    lines = (REPOSITORY / "Dockerfile").read_text().splitlines()
    user = lines.index("USER sprintrunner")
    assert not [line for line in lines[user:] if line.startswith(("RUN", "COPY", "USER root"))]
    assert 'ENTRYPOINT ["tini", "--"]' in lines
    # Off the loopback address of the container: a token is demanded there.
    assert any("--host" in line for line in lines if line.startswith("CMD"))
