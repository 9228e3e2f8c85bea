"""One command: its transcript to read, and the parts that come while it runs."""

from __future__ import annotations

from flask import Blueprint, abort, request

from ..store import CommandRow
from .context import number_argument, row_id, services
from .render import render
from .views import shell, transcript
from .views.reading import Reading
from .views.transcript import Wish

bp = Blueprint("transcript", __name__)

#: No transcript has more lines: it is capped where it is written.
_LINES = 100_000_000


@bp.get("/commands/<command_id>")
def command(command_id: str) -> str:
    """The page of one command."""
    reading = Reading(services())
    row = _row(reading, command_id)
    wish = Wish(
        query=request.args.get("q", "")[:200],
        line=number_argument("line", 0, 0, _LINES),
        first=number_argument("first", 0, 0, _LINES),
        only="failures" if request.args.get("only") == "failures" else "",
        open=request.args["open"] if request.args.get("open") in ("all", "none") else "",
    )
    page = transcript.transcript_page(reading, row, wish)
    title = f"{row.command} {row.attempt}"
    return render("transcript.html", shell=shell.shell(reading, title, "/"), page=page)


@bp.get("/commands/<command_id>/parts")
def parts(command_id: str) -> str:
    """What a transcript got since its line ``after``; the page asks while it is looked at."""
    reading = Reading(services())
    row = _row(reading, command_id)
    view = transcript.more(
        reading,
        row,
        after=number_argument("after", 0, 0, _LINES),
        waiting=number_argument("waiting", 0, 0, _LINES),
        parts=number_argument("parts", 0, 0, _LINES),
        seen=number_argument("seen", 0, 0, _LINES),
    )
    return render("parts/more.html", more=view)


def _row(reading: Reading, command_id: str) -> CommandRow:
    row = reading.store.command(row_id(command_id))
    if row is None:
        abort(404, f"There is no command {command_id}.")
    return row
