"""The OpenAPI 3.1 document of the REST API, from the route table and the types of the commands."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from instep import __version__
from instep.errors import NotAllowedError, UsageError
from instep.panel.problems import CONTENT_TYPE, FAMILIES, ProblemDocument
from instep.panel.routes import BASE, ROUTES, Route
from instep.panel.streams import EventPageDocument, InStepDocument

_REFERENCE = "#/components/schemas/{name}"
_ALWAYS = (400, 401, 403, 404, 409, 421, 500, 503, 507)
"""Statuses that every route may answer with."""
_UNSAFE = (412, 413, 415, 422)
_STRING = {"type": "string"}


@functools.cache
def document() -> Mapping[str, Any]:
    """The whole document; the same at every node of this version."""
    results = [route.kind.result() for route in ROUTES]
    _, components = msgspec.json.schema_components(
        [*dict.fromkeys(results), ProblemDocument, EventPageDocument, InStepDocument],
        ref_template=_REFERENCE,
    )
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.full_path, {})[route.method.lower()] = _operation(route)
    paths.update(_own_paths())
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "instep",
            "version": __version__,
            "description": "Commands of one node. Every answer is true of the moment in Instep-As-Of.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


def _operation(route: Route) -> dict[str, Any]:
    kind = route.kind
    words = inspect.getdoc(kind) or ""
    told: dict[str, Any] = {
        "operationId": f"{kind.command}_of_{route.in_path[0]}"
        if kind.command == "status" and route.in_path
        else kind.command,
        "summary": words.split("\n", maxsplit=1)[0],
        "description": words,
        "x-instep-role": kind.role.value,
        "x-instep-audited": kind.is_audited,
        "parameters": [*_path_parameters(route), *(_query(route) if route.method == "GET" else ())],
        "responses": _responses(route),
    }
    if route.method in ("POST", "PUT"):
        told["requestBody"] = {"content": {"application/json": {"schema": _body(route)}}}
    if route.method == "POST":
        told["parameters"].append(
            _header("Idempotency-Key", "The first answer to this key is given again for a day.")
        )
    if route.seen is not None:
        told["parameters"].append(_header("If-Match", "The ETag of the answer that was looked at, or *."))
    return told


def _path_parameters(route: Route) -> Iterator[dict[str, Any]]:
    fields = {one.encode_name: one for one in msgspec.structs.fields(route.kind)}
    for name in route.in_path:
        schema = _schema(fields[name].type)
        yield {"name": name, "in": "path", "required": True, "schema": _without_null(schema)}


def _query(route: Route) -> Iterator[dict[str, Any]]:
    for one in route.parameters:
        yield {
            "name": one.encode_name, "in": "query", "required": one.required,
            "schema": _without_null(_schema(one.type)),
        }  # fmt: skip
    if route.paged is not None:
        yield {
            "name": "cursor",
            "in": "query",
            "required": False,
            "schema": {"type": "string", "pattern": "^[0-9]{1,9}$"},
        }
        yield {
            "name": "limit", "in": "query", "required": False,
            "schema": {"type": "integer", "minimum": 1, "maximum": 1000},
        }  # fmt: skip


def _body(route: Route) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {one.encode_name: _schema(one.type) for one in route.parameters},
        "required": [one.encode_name for one in route.parameters if one.required],
    }


def _responses(route: Route) -> dict[str, Any]:
    schema: dict[str, Any] = {"$ref": _REFERENCE.format(name=route.kind.result().__name__)}
    if route.paged is not None:
        cursor = {"anyOf": [_STRING, {"type": "null"}]}
        schema = {
            "allOf": [
                schema,
                {"type": "object", "properties": {"next_cursor": cursor}, "required": ["next_cursor"]},
            ]
        }
    answered: dict[str, Any] = {"200": _json("The result.", schema)}
    if route.method == "GET":
        answered["304"] = {"description": "The answer of this If-None-Match."}
    families = {FAMILIES[family][0] for family in (*route.kind.errors, UsageError, NotAllowedError)}
    for status in sorted({*_ALWAYS, *families, *(() if route.method == "GET" else _UNSAFE)}):
        answered[str(status)] = problem_answer()
    return answered


def problem_answer() -> dict[str, Any]:
    schema = {"$ref": _REFERENCE.format(name=ProblemDocument.__name__)}
    return {"description": "An error.", "content": {CONTENT_TYPE: {"schema": schema}}}


def _own_paths() -> dict[str, Any]:
    problems = {str(status): problem_answer() for status in (400, 401, 403, 404, 421, 429, 500, 507)}
    in_step = {"$ref": _REFERENCE.format(name=InStepDocument.__name__)}
    events = {"$ref": _REFERENCE.format(name=EventPageDocument.__name__)}
    duration = {"type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$"}
    in_step_503 = _json("It is not in step, or a service did not answer.", in_step)
    in_step_503["content"].update(problem_answer()["content"])
    return {
        f"{BASE}/in-step/{{fileset}}": {
            "get": {
                "operationId": "in_step",
                "summary": "Whether a fileset is in step on every node that this one knows: 200, else 503.",
                "x-instep-role": "viewer",
                "parameters": [
                    {"name": "fileset", "in": "path", "required": True, "schema": _STRING},
                    {"name": "max_behind", "in": "query", "schema": duration},
                    {"name": "wait", "in": "query", "schema": duration},
                    {"name": "node", "in": "query", "schema": _STRING},
                ],
                "responses": {"200": _json("It is in step.", in_step), "503": in_step_503, **problems},
            }
        },
        f"{BASE}/events": {
            "get": {
                "operationId": "events",
                "summary": "Events after a cursor; as text/event-stream all that come, resumed by Last-Event-ID.",
                "x-instep-role": "viewer",
                "parameters": [
                    {
                        "name": "after",
                        "in": "query",
                        "schema": {"type": "string", "pattern": "^[0-9]{1,15}$"},
                    },
                    {"name": "wait", "in": "query", "schema": duration},
                    {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1}},
                    {"name": "view", "in": "query", "schema": {"const": "rows"}},
                    {"name": "seen", "in": "query", "schema": _STRING},
                ],
                "responses": {"200": _json("Events.", events), **problems, "503": problem_answer()},
            }
        },
        f"{BASE}/openapi.json": {
            "get": {
                "operationId": "openapi",
                "summary": "This document.",
                "x-instep-role": "viewer",
                "responses": {
                    "200": _json("This document.", {"type": "object"}),
                    **problems,
                    "503": problem_answer(),
                },
            }
        },
    }


def _json(words: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": words, "content": {"application/json": {"schema": schema}}}


def _header(name: str, words: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "description": words, "schema": _STRING}


def _schema(kind: Any) -> dict[str, Any]:
    """The schema of a parameter; what it refers to is put in its place, for parameters are shallow."""
    (schema,), parts = msgspec.json.schema_components([kind], ref_template=_REFERENCE)
    if "$ref" in schema:
        return dict(parts[schema["$ref"].rpartition("/")[2]])
    if "anyOf" in schema:
        return {
            "anyOf": [
                dict(parts[one["$ref"].rpartition("/")[2]]) if "$ref" in one else one
                for one in schema["anyOf"]
            ]
        }
    return schema


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """As a path or a query has it: there is no null in either."""
    found = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    return dict(found[0]) if len(found) == 1 else schema
