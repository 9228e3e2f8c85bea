"""``python -m sprintrunner`` is the console script."""

from .cli import main

main()
