"""The pages of one story and one commit, and the repair of a story file's status line."""

from __future__ import annotations

from flask import Blueprint, abort, request
from werkzeug.wrappers import Response as BaseResponse

from .. import project
from ..errors import Conflict
from ..ours import remember
from .context import answer, services
from .pages import page
from .views import diff, story
from .views.drift import drifts, foreign_paths
from .views.reading import Reading, forget_slow

bp = Blueprint("story", __name__)


@bp.get("/stories/<key:key>")
def story_page(key: str) -> str:
    """One story; ``phase`` names the command whose attempts are compared."""
    reading = Reading(services())
    view = story.story_page(reading, key, request.args.get("phase", ""))
    if view is None:
        abort(404, f"There is no story {key} in the status file, and no batch worked on one.")
    return page("story.html", key, "/", reading, page=view)


@bp.get("/commits/<sha>")
def commit_page(sha: str) -> str:
    """One commit with its changes."""
    reading = Reading(services())
    view = diff.commit_page(reading.project.root, sha)
    if view is None:
        abort(404, f"git knows no commit {sha[:64]} here.")
    return page("commit.html", view.commit.sha[:7], "/", reading, page=view)


@bp.post("/repair/stories/<key:key>")
def repair(key: str) -> BaseResponse:
    """Set the status line of a story's file to what the status file says.

    409 while a batch runs, whose agents edit these files, and where nothing differs any more.
    """
    ours = services()
    forget_slow(ours.project.root)
    reading = Reading(ours)
    if reading.live:
        raise Conflict("A batch is running; repair the story file when it has ended.")
    found = next((one for one in drifts(reading) if one.key == key and one.repair == "story"), None)
    if found is None:
        raise Conflict(f"The story file of {key} does not differ any more.")
    keys = [entry.key for entry in reading.entries]
    theirs = foreign_paths(reading)
    path = project.set_story_line(ours.project, key, keys, found.value)
    if path.relative_to(ours.project.root).as_posix() not in theirs:
        remember(ours.project.root, ours.state_dir, path)
    forget_slow(ours.project.root)
    return answer({"status": "repaired"}, 200)
