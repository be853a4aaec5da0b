"""The route table: every command has a route or a reason, every route a role, and the document is an OpenAPI document."""

from __future__ import annotations

import json
import re

import msgspec
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from instep.api.catalog import COMMANDS
from instep.api.command import Command, Role
from instep.errors import UsageError
from instep.panel.openapi import document
from instep.panel.problems import FAMILIES
from instep.panel.rest import route_of
from instep.panel.routes import NOT_OVER_HTTP, ROUTES, Route

BY_REQUEST = {f"{route.method} {route.path}": route for route in ROUTES}


def test_every_command_has_a_route_or_a_reason() -> None:
    routed = {route.kind.command for route in ROUTES}
    assert routed | NOT_OVER_HTTP.keys() == COMMANDS.keys()
    assert not routed & NOT_OVER_HTTP.keys()
    assert len(BY_REQUEST) == len(ROUTES), "two routes take the same request"


@pytest.mark.parametrize("route", ROUTES, ids=BY_REQUEST)
def test_a_route_denies_by_default(route: Route) -> None:
    """Goal: without a role of its own a route would be open; by GET nothing changes, so no link can act."""
    assert isinstance(route.kind.role, Role)
    if route.method == "GET":
        assert not route.kind.is_audited, "a request that changes anything is no GET"
    names = {one.encode_name for one in msgspec.structs.fields(route.kind)}
    assert set(route.in_path) | route.hidden | set(route.fixed) <= names
    if route.paged is not None:
        assert route.paged in route.kind.result().__struct_encode_fields__
    if route.seen is not None:
        seen = {
            other.kind for other in ROUTES if other.method == "GET" and other.path.startswith("/filesets/")
        }
        assert route.seen in seen, "an ETag comes from a route"
    assert set(route.kind.errors) <= set(FAMILIES)


def test_no_parameter_hides_what_a_command_says_of_itself() -> None:
    """Goal: a parameter ``role`` of a command was the command's own role for a while."""
    own = {name for name in Command.__annotations__ if name != "timeout_s"}
    for name, kind in COMMANDS.items():
        assert not own & set(kind.__struct_fields__), name
        assert isinstance(kind.role, Role), name


def test_the_document_is_openapi_and_says_all_of_the_table() -> None:
    told = json.loads(msgspec.json.encode(document()))
    OpenAPIV31SpecValidator(told).validate()
    for route in ROUTES:
        operation = told["paths"][route.full_path][route.method.lower()]
        assert operation["x-instep-role"] == route.kind.role.value
        assert {"401", "403"} <= operation["responses"].keys()
    operations = [one["operationId"] for path in told["paths"].values() for one in path.values()]
    assert len(operations) == len(set(operations))
    assert (
        "password"
        in told["paths"]["/api/v1/users/{name}"]["put"]["requestBody"]["content"]["application/json"][
            "schema"
        ]["properties"]
    )


def test_a_path_finds_its_route_whatever_a_name_holds() -> None:
    found = route_of("GET", "/api/v1/filesets/a%2Fb%22%3E/log")
    assert found is not None
    assert (found[0].kind.command, found[1]) == ("log", {"fileset": 'a/b">'})
    assert route_of("GET", "/api/v1/filesets/a/b/log") is None
    assert route_of("GET", "/api/v1/filesets//log") is None
    with pytest.raises(UsageError) as refused:
        route_of("GET", "/api/v1/filesets/catalog/publish")
    assert refused.value.error_code == "wrong_method"
    assert all(re.fullmatch(r"/[a-z/{}-]+", route.path) for route in ROUTES)
