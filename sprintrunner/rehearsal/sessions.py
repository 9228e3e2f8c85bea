"""Agent sessions kept between runs, so that one can be resumed with its task and its costs so far."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def folder(env: Mapping[str, str] = os.environ) -> Path:
    """Where sessions are kept: the state folder of the run, else one per user among temporary files.

    Never the project's tree: an agent's ``git clean`` must not forget the session it runs in.
    """
    own = env.get("REHEARSAL_SESSIONS")
    state = env.get("SPRINTRUNNER_STATE_DIR")
    if own:
        return Path(own)
    if state:
        return Path(state) / "rehearsal-sessions"
    return Path(tempfile.gettempdir()) / f"rehearsal-sessions-{os.getuid()}"


def load(session_id: str) -> dict[str, Any] | None:
    """The record of a session: ``facts``, ``models`` (usage per model so far); None when it is unknown."""
    try:
        record = json.loads((folder() / f"{session_id}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def save(session_id: str, record: Mapping[str, Any]) -> None:
    """Keep the record; a session that cannot be kept can just not be resumed, as with the real CLI."""
    place = folder()
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = place / f".{session_id}.{os.getpid()}"
        fresh.write_text(json.dumps(record), encoding="utf-8")
        fresh.replace(place / f"{session_id}.json")
    except OSError:
        return
