"""The description of the API: current, complete, and no request that fits or nearly fits it ends in a 500."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from web_project import make_project, make_services

from sprintrunner import create_app
from sprintrunner.web import openapi

_ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1.5,
    10**23,
    "",
    "all",
    "٣",
    "\x00",
    [],
    {},
    [None],
    ["1-1"],
    "x" * 300,
)
_DESCRIBED = openapi.describe()


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Flask:
    folder = tmp_path_factory.mktemp("api")
    return create_app(make_services(make_project(folder / "project"), folder / "state"))


def _operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in _DESCRIBED["paths"].items():
        for method, operation in methods.items():
            yield path, method.upper(), operation


def test_the_file_in_docs_is_current(repository: Path) -> None:
    """Write it anew: python -c "from sprintrunner.web import openapi; print(openapi.as_text(), end='')"."""
    assert (repository / "docs" / "openapi.json").read_text("utf-8") == openapi.as_text()


def test_every_route_of_the_api_is_described_and_no_other(app: Flask) -> None:
    routes = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method)
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith("/api/")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert routes == {(path, method) for path, method, _ in _operations()}


def test_operations_have_names_of_their_own() -> None:
    names = [operation["operationId"] for _, _, operation in _operations()]
    assert len(names) == len(set(names))


def _value(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that fit a schema, and others."""
    fitting: list[st.SearchStrategy[Any]] = [st.sampled_from(_ODD), st.text(max_size=40), st.integers()]
    if "enum" in schema:
        fitting.append(st.sampled_from(schema["enum"]))
    if schema.get("type") == "integer":
        fitting.append(st.integers(schema.get("minimum", 0), schema.get("maximum", 10**6)))
    return st.one_of(fitting)


@st.composite
def _requests(draw: st.DrawFn) -> dict[str, Any]:
    path, method, operation = draw(st.sampled_from([one for one in _operations() if "stream" not in one[0]]))
    query = {}
    for parameter in operation.get("parameters", ()):
        value = draw(_value(parameter["schema"]))
        text = quote(str(value), safe="", errors="replace")
        if parameter["in"] == "path":
            path = path.replace("{" + parameter["name"] + "}", text or "x")
        elif parameter["in"] == "query" and draw(st.booleans()):
            query[parameter["name"]] = str(value).encode("utf-8", "replace")
    sent: dict[str, Any] = {"path": path, "method": method, "query_string": query}
    if "requestBody" in operation:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        names = [*sorted(schema["properties"]), "no_such_key"]
        chosen = draw(st.lists(st.sampled_from(names), max_size=3, unique=True))
        body = {name: draw(_value(schema["properties"].get(name, {}))) for name in chosen}
        form = draw(st.sampled_from(["json", "form", "junk"]))
        if form == "json":
            sent["json"] = body
        elif form == "form":
            sent["data"] = {name: str(value).encode("utf-8", "replace") for name, value in body.items()}
        else:
            sent |= {"data": draw(st.binary(max_size=60)), "content_type": "application/json"}
    return sent


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(_requests())
def test_nothing_that_is_sent_ends_in_a_500_or_an_undescribed_status(
    app: Flask, sent: dict[str, Any]
) -> None:
    answer = app.test_client().open(**sent)
    assert answer.status_code < 500, sent
    described = next(
        operation
        for path, method, operation in _operations()
        if method == sent["method"]
        and re.fullmatch(re.sub(r"\\{\w+\\}", ".+", re.escape(path)), sent["path"])
    )
    known = {int(code) for code in described["responses"]} | {404}
    assert answer.status_code in known, (answer.status_code, sent, answer.text[:200])
    if answer.status_code >= 400:
        assert set(json.loads(answer.data)) <= {"error", "fields"}
