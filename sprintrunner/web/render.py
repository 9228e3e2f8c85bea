"""The one Jinja environment of pages, responses and stream fragments; it needs no Flask."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from . import assets
from .views import looks, shell, words


@cache
def environment() -> Environment:
    """Return the environment; strict about names, and everything that is inserted is escaped."""
    made = Environment(
        loader=FileSystemLoader(assets.TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(words.FILTERS)
    made.globals.update(asset=assets.asset, look=looks.of, story_url=words.story_url)
    # Pages that must stand alone, errors and the login, bring no frame of their own.
    made.globals.update(shell=shell.BLANK, refresh=0)
    return made


def render(template: str, **values: Any) -> str:
    """Return a template as text. It needs no request, so that the hub's thread can use it too."""
    return environment().get_template(template).render(values)
