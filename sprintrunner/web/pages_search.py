"""The search over stories, all transcripts and all events."""

from __future__ import annotations

from flask import Blueprint, request

from .context import number_argument, services
from .render import render
from .views import finding, shell
from .views.reading import Reading

bp = Blueprint("search", __name__)


@bp.get("/search")
def search() -> str:
    """What holds the words of ``q``; ``only`` and ``before`` page through one kind."""
    reading = Reading(services())
    only = request.args.get("only", "")
    before = number_argument("before", 0) or None
    view = finding.search_page(
        reading, request.args.get("q", "")[:200], only if only in ("part", "event") else "", before
    )
    title = f"Search: {view.query}" if view.query else "Search"
    return render("search.html", shell=shell.shell(reading, title, "/search"), page=view)
