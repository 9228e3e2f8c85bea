"""Small things every route needs: the services, the values of a request, and the form of an answer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, cast

from flask import Response, current_app, jsonify, redirect, request
from werkzeug.exceptions import BadRequest, NotFound
from werkzeug.routing import BaseConverter
from werkzeug.wrappers import Response as BaseResponse

from ..services import Services
from .frames import MAX_ID

_NUMBER = re.compile(r"[0-9]{1,19}")
# A browser drops tabs and line ends from an address and reads "\" as "/".
_LOCAL_PATH = re.compile(r"/(?![/\\])[^\x00-\x20\x7f\\]*")


class KeyConverter(BaseConverter):
    """A story key in an address: any text, slashes and line ends included."""

    part_isolating = False
    regex = r"(?s:.+?)"
    weight = 200

    def to_url(self, value: Any) -> str:
        """Percent-encode everything, slashes too."""
        return super().to_url(value).replace("/", "%2F")


def services() -> Services:
    """The services of the application that serves this request."""
    return cast(Services, current_app.extensions["services"])


def whole_number(text: str, low: int, high: int) -> int | None:
    """The number ``text`` says in ASCII digits, None where it is none or out of bounds."""
    if not _NUMBER.fullmatch(text):
        return None
    value = int(text)
    return value if low <= value <= high else None


def number_argument(name: str, default: int, low: int = 0, high: int = MAX_ID) -> int:
    """A whole number of the query string; 400 for anything else."""
    text = request.args.get(name)
    if text is None:
        return default
    value = whole_number(text, low, high)
    if value is None:
        raise BadRequest(f"{name} must be a whole number from {low} to {high}")
    return value


def row_id(text: str) -> int:
    """The id in an address; 404 for what can be no id."""
    value = whole_number(text, 1, MAX_ID)
    if value is None:
        raise NotFound("there is no such id")
    return value


def body(*, nan: bool = False) -> Mapping[str, Any]:
    """The values sent: a JSON object, a form, or nothing. 400 for JSON that is not one.

    ``nan`` lets NaN and Infinity through as numbers, for whoever refuses them by name.
    """
    if request.mimetype == "application/json":
        return _json_body(request.get_data(), nan)
    form = request.form
    return {name: form.getlist(name) if name == "stories" else form[name] for name in form}


def _json_body(raw: bytes, nan: bool) -> Mapping[str, Any]:
    if not raw.strip():
        return {}
    try:
        value = json.loads(raw, parse_constant=float if nan else _no_constant)
    except (ValueError, RecursionError):
        # Also integers of thousands of digits, and bytes that are not UTF-8.
        raise BadRequest("the body is not valid JSON") from None
    if not isinstance(value, dict):
        raise BadRequest("the body must be a JSON object")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def local_path(target: str | None, default: str = "/") -> str:
    """``target`` where it is a path on this site, else ``default``."""
    return target if target and _LOCAL_PATH.fullmatch(target) else default


def wants_html() -> bool:
    """Whether the answer goes to a person's browser."""
    offers = ["application/json", "text/html"]
    return request.accept_mimetypes.best_match(offers) == "text/html"


def shown_status(status: int) -> int:
    """The status of a refusal: 200 where a form was sent by hand, for a browser logs every 4xx as an error.

    Only browsers send Sec-Fetch-Mode, and only our script HX-Request; programs get what they are promised.
    """
    by_hand = request.headers.get("Sec-Fetch-Mode") == "navigate" or "HX-Request" in request.headers
    return 200 if request.method == "POST" and by_hand and 400 <= status < 500 else status


def answer(result: Mapping[str, Any], status: int) -> BaseResponse:
    """JSON for programs, nothing for htmx (the stream shows the result), 303 back for plain forms."""
    if request.headers.get("HX-Request") == "true":
        return Response(status=204)
    if wants_html():
        return redirect(local_path(request.form.get("next"), _referring_page()), 303)
    response = jsonify(dict(result))
    response.status_code = status
    return response


def _referring_page() -> str:
    referrer = request.referrer or ""
    return local_path(referrer.removeprefix(request.host_url.rstrip("/")))
