"""Errors as answers: JSON under /api, a page for people, never a traceback."""

from __future__ import annotations

import logging
from typing import Any

from flask import Flask, jsonify, make_response, render_template_string, request
from werkzeug.exceptions import HTTPException
from werkzeug.http import HTTP_STATUS_CODES
from werkzeug.wrappers import Response as BaseResponse

from ..errors import SettingsInvalid, SprintRunnerError
from .context import shown_status, wants_html
from .render import render
from .views import shell

log = logging.getLogger(__name__)

_INTERNAL = "Something went wrong inside Sprint Runner; the log has the details."

# Used only where the templates themselves are what is broken.
_PLAIN = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{{ title }}</title>
<h1>{{ title }}</h1><p>{{ sentence }}</p><p><a href="/">Dashboard</a></p></html>
"""
_PLAIN_LOGIN = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="referrer" content="same-origin"><title>Log in</title>
<h1>Log in to {{ project }}</h1>{% if message %}<p role="alert">{{ message }}</p>{% endif %}
<form method="post" action="/login"><input type="hidden" name="next" value="{{ next }}">
<label>Token <input type="password" name="token" autocomplete="current-password" required autofocus></label>
<button>Log in</button></form></html>
"""


def page(template: str, **values: Any) -> str:
    """Render a page of ours; where that fails, a plain one: an error page must not be the next error."""
    try:
        return render(template, shell=shell.BLANK, **values)
    except Exception:
        log.exception("%s cannot be rendered", template)
        plain = _PLAIN_LOGIN if template == "login.html" else _PLAIN
        return render_template_string(plain, **values)


def register(app: Flask) -> None:
    """Handle every error of the application."""
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(SprintRunnerError, _ours)
    app.register_error_handler(Exception, _unexpected)


def _http(error: HTTPException) -> BaseResponse:
    if error.code is None or error.code < 400:
        return error.get_response()
    response = answer_error(error.code, error.description or _title(error.code))
    for name, value in error.get_headers():
        if name.lower() in ("allow", "retry-after", "www-authenticate"):
            response.headers[name] = value
    return response


def _ours(error: SprintRunnerError) -> BaseResponse:
    if error.http_status >= 500:
        log.error("%s %s failed", request.method, request.path, exc_info=error)
    fields = error.fields if isinstance(error, SettingsInvalid) else None
    return answer_error(error.http_status, error.sentence, fields)


def _unexpected(error: Exception) -> BaseResponse:
    log.error("%s %s failed", request.method, request.path, exc_info=error)
    return answer_error(500, _INTERNAL)


def answer_error(status: int, sentence: str, fields: dict[str, str] | None = None) -> BaseResponse:
    """One sentence in the form the client reads."""
    if _for_program():
        extra = {"fields": fields} if fields is not None else {}
        response = jsonify({"error": sentence, **extra})
        response.status_code = shown_status(status)
        return response
    html = page("error.html", status=status, title=_title(status), sentence=sentence)
    return make_response(html, shown_status(status))


def _for_program() -> bool:
    if request.method == "POST" and "HX-Request" in request.headers:
        return True
    if not request.path.startswith("/api/"):
        return False
    return not (request.method == "POST" and wants_html())


def _title(status: int) -> str:
    return HTTP_STATUS_CODES.get(status, "Error")
