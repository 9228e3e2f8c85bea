"""Started as root, the bench runs itself again as uid 65534, with a Python that this user may execute."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

NOBODY = 65534
#: Parts of the standard library that nothing here imports.
_LEFT_OUT = shutil.ignore_patterns(
    "site-packages", "test", "tests", "idlelib", "tkinter", "lib2to3", "ensurepip", "config-*", "turtledemo"
)


def rerun(arguments: Sequence[str], json_file: Path | None) -> int | None:
    """Run the bench as an ordinary user; returns its exit status, None when it must run as it is."""
    if os.geteuid() != 0:
        return None
    folder = Path(tempfile.mkdtemp(prefix="sprintrunner-bench-"))
    try:
        return _rerun(folder, arguments, json_file)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _rerun(folder: Path, arguments: Sequence[str], json_file: Path | None) -> int | None:
    folder.chmod(0o755)
    home = folder / "home"
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    found = _usable_python(folder)
    if found is None:
        print("The bench runs as root: Python could not be made executable for another user.")
        return None
    python, extra = found
    written = home / "results.json"
    words = [*arguments, *(["--json", str(written)] if json_file else [])]
    environment = {**os.environ, **extra, "HOME": str(home), "TMPDIR": str(home)}
    status = _as_nobody([python, str(Path(__file__).parent), *words], environment)
    if json_file and written.exists():
        shutil.copyfile(written, json_file)
    return status


def _usable_python(folder: Path) -> tuple[str, dict[str, str]] | None:
    """A Python that uid 65534 may run, ours or a linked copy, and the variables it needs."""
    for found in ((sys.executable, {}), _linked_copy(folder)):
        python, extra = found
        try:
            if _as_nobody([python, "-c", "import sqlalchemy, sprintrunner"], {**os.environ, **extra}) == 0:
                return found
        except OSError:
            continue
    return None


def _as_nobody(words: Sequence[str], environment: Mapping[str, str]) -> int:
    return subprocess.run(
        words, env=environment, user=NOBODY, group=NOBODY, extra_groups=[], cwd="/", check=False
    ).returncode


def _linked_copy(folder: Path) -> tuple[str, dict[str, str]]:
    """The interpreter and its library under a folder all may enter, with our packages beside it."""
    base = Path(sys.base_prefix)
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    copy = folder / "python"
    (copy / "bin").mkdir(parents=True)
    _link(str(Path(sys.executable).resolve()), str(copy / "bin" / name))
    shutil.copytree(base / "lib" / name, copy / "lib" / name, copy_function=_link, ignore=_LEFT_OUT)
    for library in (base / "lib").glob("libpython*.so*"):
        _link(str(library.resolve()), str(copy / "lib" / library.name))
    venv = folder / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "lib" / name).mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(copy / "bin" / name)
    (venv / "lib" / name / "site-packages").symlink_to(sysconfig.get_paths()["purelib"])
    (venv / "pyvenv.cfg").write_text(f"home = {copy / 'bin'}\ninclude-system-site-packages = false\n")
    # Where the interpreter looks for its library was written into it when it was built.
    return str(venv / "bin" / "python"), {"LD_LIBRARY_PATH": str(copy / "lib")}


def _link(source: str, target: str) -> str:
    """A hard link where the folders share a disk, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
        shutil.copymode(source, target)
    return target
