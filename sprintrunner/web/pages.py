"""The pages: each reads its view and renders one template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flask import Blueprint, Response, abort, make_response, redirect, request
from werkzeug.wrappers import Response as BaseResponse

from ..errors import NotFound, SettingsInvalid, SettingsStale
from ..files import read_regular
from ..redact import redact_lines, secret_values
from ..settings import BY_NAME
from . import assets
from .context import number_argument, row_id, services
from .render import render
from .views import dashboard, settings, shell
from .views.grid import Wanted
from .views.reading import Reading

bp = Blueprint("pages", __name__)

#: A transcript is capped where it is written, at 64 MiB; this is the same bound for reading.
_TRANSCRIPT_LIMIT = 72 << 20


@bp.get("/static/<any('app.css', 'pages.css'):name>")
def joined_file(name: str) -> BaseResponse:
    """A joined stylesheet. Its address carries its version, so that it may be kept for ever."""
    response = Response(assets.stylesheet(name), mimetype="text/css")
    response.cache_control.max_age = 31_536_000 if request.args.get("v") else 0
    response.set_etag(assets.version(name))
    return response.make_conditional(request)


@bp.get("/")
def index() -> str:
    """The dashboard, complete without JavaScript."""
    reading = Reading(services())
    # The id of the newest event is read before anything else: what happens meanwhile comes by the stream.
    frame = shell.shell(reading, "", "/")
    asked = request.args.get
    status = asked("status", "")[:60]
    wanted = Wanted(asked("epic", ""), asked("failures") == "1", asked("view") == "board", status)
    # For browsers without JavaScript, by a link that only they see.
    refresh = number_argument("refresh", 0, 0, 3600)
    return render("dashboard.html", shell=frame, refresh=refresh, **dashboard.values(reading, wanted))


def page(template: str, title: str, current: str, reading: Reading, **values: Any) -> str:
    """Render one page; ``current`` is the address of the entry of the navigation it belongs to."""
    return render(template, shell=shell.shell(reading, title, current), **values)


#: Our own server holds the port it is reached at.
_NOT_HERE = "port"


@bp.get("/checks")
def checks() -> str:
    """What a night needs, checked now: a partial for htmx, else a page."""
    ours = services()
    partial = request.headers.get("HX-Request") == "true"
    if partial and ours.store.latest_batch() is not None:
        return ""  # the stream took them off that page, maybe while it was still asking for them
    found = [one for one in ours.examine() if one["name"] != _NOT_HERE]
    if partial:
        return render("partials/checks.html", checks=found, name=ours.project.name)
    return page("checks.html", "Checks", "/", Reading(ours), checks=found, name=ours.project.name)


@bp.get("/commands/<command_id>/transcript")
def transcript(command_id: str) -> Response:
    """The raw output of a command's agent, without secrets; what it writes later needs a reload."""
    ours = services()
    row = ours.store.command(row_id(command_id))
    if row is None:
        abort(404, f"There is no command {command_id}.")
    if not row.transcript:
        abort(404, f"Command {command_id} has no transcript.")
    # Only the file's own name counts: the column can never lead out of the folder.
    path = ours.state_dir / "transcripts" / Path(row.transcript).name
    if not path.is_file():
        abort(404, f"The transcript of command {command_id} is no longer kept.")
    raw, _ = read_regular(path, _TRANSCRIPT_LIMIT, path.parent, NotFound)
    text = redact_lines(raw.decode("utf-8", "replace"), secret_values(ours.environ))
    return Response(text, mimetype="text/plain")


@bp.get("/settings")
def show_settings() -> str:
    """The settings form."""
    saved = request.args.get("saved") == "1"
    return _settings(settings.form(services().layers(), message="Saved." if saved else "", saved=saved))


def _settings(form: settings.Form) -> str:
    return page("settings.html", "Settings", "/settings", Reading(services()), form=form)


@bp.post("/settings")
def save_settings() -> BaseResponse:
    """Save the form: 303 to itself, or the form again with its errors in place.

    That one is 200: for a 4xx a browser logs an error, and a typing mistake is none.
    """
    ours, sent = services(), request.form.to_dict()
    layers = ours.layers()
    try:
        if request.form.get("forget") in BY_NAME:
            ours.forget_setting(request.form["forget"])
        else:
            ours.save_settings(settings.changes(layers, sent), sent.get("etag"))
    except SettingsInvalid as error:
        return make_response(_settings(settings.form(layers, sent, error.fields, _failed(error))))
    except SettingsStale as error:
        return make_response(_settings(settings.form(layers, sent, message=error.sentence)))
    return redirect("/settings?saved=1", 303)


def _failed(error: SettingsInvalid) -> str:
    known = [name for name in error.fields if name in BY_NAME]
    if len(known) < len(error.fields):
        return f"Nothing was saved. {error.sentence}"
    return f"Nothing was saved. {len(known)} {'field' if len(known) == 1 else 'fields'} to correct:"
