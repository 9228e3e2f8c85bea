"""Settings and prompts as they were when the batch began; what changes in the project since is only said."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

_TOML = "sprintrunner.toml"
_PROMPTS = Path(".sprintrunner") / "prompts"
_LIMIT = 1_000_000


def freeze(root: Path, folder: Path) -> None:
    """Copy what a batch reads at its start only."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    if (root / _TOML).is_file():
        shutil.copyfile(root / _TOML, folder / _TOML)
    prompts = root / _PROMPTS
    if prompts.is_dir() and not prompts.is_symlink():
        shutil.copytree(prompts, folder / "prompts", dirs_exist_ok=True, symlinks=True)


def changed(root: Path, folder: Path) -> list[str]:
    """The paths, as the project names them, that differ from their copies or are new or gone."""
    now = {_TOML: root / _TOML, **dict(_named(root / _PROMPTS))}
    then = {_TOML: folder / _TOML, **dict(_named(folder / "prompts"))}
    return sorted(
        name for name in now.keys() | then.keys() if _bytes(now.get(name)) != _bytes(then.get(name))
    )


def _named(prompts: Path) -> Iterator[tuple[str, Path]]:
    if prompts.is_dir() and not prompts.is_symlink():
        for path in prompts.rglob("*"):
            yield (_PROMPTS / path.relative_to(prompts)).as_posix(), path


def _bytes(path: Path | None) -> bytes | None:
    """The content of a regular file; None for everything else, which is never read as settings."""
    if path is None or path.is_symlink() or not path.is_file():
        return None
    with path.open("rb") as stream:
        return stream.read(_LIMIT)
