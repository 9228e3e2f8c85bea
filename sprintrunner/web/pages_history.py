"""History: all batches, one batch, and the trends over them."""

from __future__ import annotations

from flask import Blueprint, abort, request

from ..sprint import BatchStatus
from .context import number_argument, row_id, services
from .render import render
from .views import history, history2, shell, trends
from .views.history2 import Wish
from .views.reading import Reading

bp = Blueprint("history", __name__)

_OFFSET_LIMIT = 10_000_000
_OUTCOMES = frozenset({"blocked", *map(str, BatchStatus)})


@bp.get("/batches")
def batches() -> str:
    """All batches, newest first: filters and paging are in the address."""
    reading = Reading(services())
    outcome = request.args.get("outcome", "")
    wish = Wish(
        outcome if outcome in _OUTCOMES else "",
        request.args.get("agent", "")[:100],
        number_argument("offset", 0, 0, _OFFSET_LIMIT),
    )
    view = history2.history_page(reading, wish)
    return render("batches.html", shell=shell.shell(reading, "Batches", "/batches"), page=view)


@bp.get("/batches/<batch_id>")
def batch(batch_id: str) -> str:
    """One batch."""
    reading = Reading(services())
    row = reading.store.batch(row_id(batch_id))
    if row is None:
        abort(404, f"There is no batch {batch_id}.")
    view = history.batch_page(reading, row)
    return render("batch.html", shell=shell.shell(reading, f"Batch {row.id}", "/batches"), page=view)


@bp.get("/trends")
def show_trends() -> str:
    """What the newest batches took and cost, and how far the sprint is."""
    reading = Reading(services())
    view = trends.trends_page(reading)
    return render("trends.html", shell=shell.shell(reading, "Trends", "/trends"), page=view)
