"""Time: a batch in lanes, and the log of everything that happened."""

from __future__ import annotations

from flask import Blueprint, abort, request

from .context import number_argument, row_id, services
from .render import render
from .views import activity, shell, timeline
from .views.activity import Wish
from .views.reading import Reading

bp = Blueprint("time", __name__)

#: The year 4707: later moments have no date in Python's time zones.
_LATEST = 86_400_000_000_000


@bp.get("/timeline")
def show_timeline() -> str:
    """One batch, the newest without ``batch``; ``from`` and ``to`` (ms) zoom."""
    reading = Reading(services())
    asked = request.args.get("batch")
    row = reading.store.batch(row_id(asked)) if asked else reading.batch
    if row is None and asked:
        abort(404, f"There is no batch {asked}.")
    page = None
    if row is not None:
        first, last = _moment("from"), _moment("to")
        page = timeline.timeline_page(Reading(services()), row, first, last)
    title = f"Timeline of batch {row.id}" if row else "Timeline"
    return render("timeline.html", shell=shell.shell(reading, title, "/timeline"), page=page)


def _moment(name: str) -> int | None:
    return number_argument(name, 0, 0, _LATEST) if name in request.args else None


def _wish() -> Wish:
    args = request.args
    return Wish(
        query=args.get("q", "")[:200],
        story=args.get("story", "")[:500],
        kind=args.get("type", ""),
        only="failures" if args.get("only") == "failures" else "",
        batch=args.get("batch", ""),
        before=number_argument("before", 0) if "before" in args else None,
    )


@bp.get("/activity")
def show_activity() -> str:
    """The event log: filters and paging are in the address."""
    reading = Reading(services())
    frame = shell.shell(reading, "Activity", "/activity")
    return render("activity.html", shell=frame, page=activity.activity_page(reading, _wish()))


@bp.get("/activity/new")
def count_new() -> str:
    """How many events came after ``after`` that fit the same filters, as the line that offers them."""
    reading, wish = Reading(services()), _wish()
    count = activity.newer_than(reading, wish, number_argument("after", 0))
    return render("parts/fresh.html", count=count, href=wish.address())
