"""``log``: an agent reports a task of the command it is (contract section 6)."""

from __future__ import annotations

import os
import time
from pathlib import Path

from .. import control, tasklog
from ..errors import NotFound, Refused

#: How long the answer may take, in seconds.
_PATIENCE = 10.0


def log(start: Path, text: str) -> int:
    """Record the report in ``text`` and print its CSV line; Refused means that nothing was recorded."""
    report = tasklog.parse(text)
    run_id = os.environ.get("SPRINTRUNNER_RUN_ID", "")
    if not run_id:
        raise Refused("This is not inside a command of Sprint Runner: SPRINTRUNNER_RUN_ID is not set.")
    try:
        answer = control.request(
            _state_dir(start), "log", {"run_id": run_id, **report.as_arguments()}, _PATIENCE
        )
    except NotFound as error:
        raise Refused(f"The report was not recorded: {error.sentence}") from None
    recorded_at = answer.get("timestamp", time.time() * 1000)
    print(tasklog.csv_line(int(recorded_at / 1000), report))
    return 0


def _state_dir(start: Path) -> Path:
    """The state folder the server named, else that of the project the agent works in."""
    from .. import project

    if named := os.environ.get("SPRINTRUNNER_STATE_DIR"):
        return Path(named)
    return project.state_dir(project.find_root(Path(os.environ.get("SPRINTRUNNER_PROJECT") or start)))
