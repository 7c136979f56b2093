"""The service's OpenAPI beyond what FastAPI sees: the problems that every call may end with, and its key."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from starlette.convertors import PathConvertor, register_url_convertor

from pipeline.serve.messages import Problem


class Segments(PathConvertor):
    """An id in a path ({item_id:id}), which may have slashes."""

    regex = ".+"


class BeforeSimilar(Segments):
    """An item's: none ends in /similar, which is another path, and has other methods."""

    regex = f"{Segments.regex}(?<!/similar)"


register_url_convertor("id", Segments())
register_url_convertor("item", BeforeSimilar())
ANY = (401, 403, 429, 503)  # whatever is called: no key, a stranger, too many calls, not ready or no store
BODY = (400, 411, 413, 422)  # of calls with a body
OPEN = ("/health",)


def describe(app: FastAPI) -> None:
    """From now on app.openapi() has the problems, as application/problem+json."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = plain()
            components = schema["components"]
            components["schemas"] |= _schemas()
            components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            for path, item in schema["paths"].items():
                for operation in item.values():
                    _complete(operation, path)
            for unused in ("HTTPValidationError", "ValidationError"):
                components["schemas"].pop(unused, None)
        found: dict[str, Any] = app.openapi_schema or {}
        return found

    app.openapi = openapi


def _schemas() -> dict[str, Any]:
    schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    return {**schema.pop("$defs"), "Problem": schema}


def _complete(operation: dict[str, Any], path: str) -> None:
    answers = operation["responses"]
    statuses = {status for status in ANY if status != 503 or path not in OPEN}
    if "requestBody" in operation:
        statuses |= set(BODY)
    if operation.get("parameters"):
        statuses.add(422)
    # Routes say by `responses` which else they have, without content.
    for status in statuses | {int(status) for status, told in answers.items() if "content" not in told}:
        answers[str(status)] = _problem(status)
    operation["responses"] = dict(sorted(answers.items()))
    # A key is asked for where EVERGREEN_API_KEYS names a file of them.
    operation["security"] = [] if path in OPEN else [{}, {"key": []}]


def _problem(status: int) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        "description": HTTPStatus(status).phrase,
        "content": {"application/problem+json": {"schema": schema}},
    }
