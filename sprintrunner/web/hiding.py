"""Takes secrets out of what is sent: files, commits and statuses are shown too, and nobody cleaned those."""

from __future__ import annotations

from collections.abc import Sequence

from flask import Response
from markupsafe import escape

from ..redact import redact, secret_values
from ..services import Services

_TEXTS = frozenset({"text/html", "text/plain", "text/csv", "text/yaml", "text/markdown", "application/json"})


def values_of(services: Services) -> tuple[str, ...]:
    """The secrets of our environment, also in the form in which HTML holds them."""
    plain = secret_values(services.environ)
    return (*plain, *(str(escape(value)) for value in plain if str(escape(value)) != value))


def hide(response: Response, values: Sequence[str]) -> None:
    """Redact a text that is sent whole; one made on the way comes from the store, which holds no secrets."""
    if response.mimetype not in _TEXTS or not response.is_sequence:
        return
    text = response.get_data(as_text=True)
    clean = redact(text, values)
    if clean != text:
        response.set_data(clean)
