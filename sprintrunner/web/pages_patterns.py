"""The pattern page, for development only: every partial in every state, light and dark."""

from __future__ import annotations

from dataclasses import replace

from flask import Blueprint, abort, current_app
from markupsafe import Markup

from .render import render
from .sample import NOW, Sample
from .samples import samples, words_of
from .views.shell import BLANK

bp = Blueprint("patterns", __name__)


@bp.get("/patterns")
def patterns() -> str:
    """All samples; only where Flask's debug mode or the setting ``PATTERNS`` of the application is on."""
    if not (current_app.debug or current_app.config.get("PATTERNS")):
        abort(404)
    groups: dict[str, list[tuple[Sample, Markup]]] = {}
    for sample in samples():
        # Rendered by the same templates as everywhere: what is inserted is escaped already.
        html = Markup(render(f"partials/{sample.partial}", **sample.values))  # noqa: S704
        groups.setdefault(sample.partial, []).append((sample, html))
    badges = {family: words_of(family) for family in ("story", "class", "command", "batch")}
    # The clocks of the samples go from their own moment on.
    frame = replace(BLANK, now=NOW)
    return render("patterns.html", shell=frame, groups=groups, badges=badges)
