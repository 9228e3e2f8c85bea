"""G3 from inside a mount namespace of its own: the state folder on a small tmpfs that only we see."""

from __future__ import annotations

import os
import subprocess
import sys

from checks import Failed, expect
from harness import World
from starving import FAULT, STORIES, starve

#: Gives this program a user and mount namespace in which it may mount, as the same user.
INSIDE = ("unshare", "--user", "--map-current-user", "--mount", "--keep-caps")


def main() -> None:
    """Run the check; Failed goes to stderr with exit status 1."""
    with World(FAULT, stories=STORIES) as world:
        world.state.mkdir()
        options = "size=64m,mode=0700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "bench", str(world.state)], check=True)
        try:
            _full(world)
        finally:
            world.kill_group()
            subprocess.run(["umount", "-l", str(world.state)], check=False)


def _full(world: World) -> None:
    world.serve()
    filler = world.state / "filler"

    def fill() -> None:
        with filler.open("wb", buffering=0) as stream:
            try:
                while True:
                    stream.write(b"\0" * 65536)
            except OSError:
                expect(os.statvfs(world.state).f_bavail == 0, "the disk is not full")

    starve(world, fill, filler.unlink, ["disk is full", "could not be written"])


if __name__ == "__main__":
    try:
        main()
    except Failed as why:
        sys.exit(str(why))
