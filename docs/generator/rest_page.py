"""The reference page of the REST API, from the route table."""

from __future__ import annotations

import inspect

from instep.panel.problems import CODES, FAMILIES
from instep.panel.routes import NOT_OVER_HTTP, ROUTES, Route

_INTRO = """\
Under `/api/v1` on the panel's listener, with `Authorization: Bearer TOKEN`: [how to get one](../guide/automation.md).
The same as an OpenAPI 3.1 document is at `/api/v1/openapi.json`. Parameters of `GET` stand in the query, of the
others in a JSON object with `Content-Type: application/json`; every one also takes `timeout_s`. `DELETE` takes no body.
Results are those of the [control socket](control.md). A list that is paged takes `limit` and `cursor`; its
`next_cursor` is the next one, or null.

Every answer of a result has `Instep-As-Of`, the moment that it is true of. An answer to `GET` has an `ETag`, and
`If-Match` is taken where the table names what is seen. `POST` takes an `Idempotency-Key`: for a day the first answer to
it is given again.

Beside the table there are `GET /api/v1/in-step/FILESET` for [scripts](../guide/automation.md), `GET /api/v1/events`,
and `GET /api/v1/openapi.json`.
"""


def rest_page(note: str) -> str:
    """Every route, the status of every error, and the commands that have no route."""
    parts = [
        "# The REST API",
        note,
        _INTRO,
        "## Routes\n",
        "| request | command | role | parameters | seen |",
        "|---|---|---|---|---|",
    ]
    parts += [_row(route) for route in ROUTES]
    parts += ["\n## What each does\n"]
    parts += [f"- `{route.method} {route.full_path}`: {_first_line(route)}" for route in ROUTES]
    parts += [
        "\n## Errors\n",
        "Documents of RFC 9457, `application/problem+json`, with the fields of [every error](errors.md).\n",
    ]
    parts += ["| family | status |", "|---|---|"]
    parts += [
        f"| {family.code} ({family.exit_code}) | {status} |" for family, (status, _) in FAMILIES.items()
    ]
    parts += ["\n| code | status |", "|---|---|"]
    parts += [f"| `{code}` | {status} |" for code, status in sorted(CODES.items())]
    parts += ["\n## Commands without a route\n", "| command | why |", "|---|---|"]
    parts += [f"| `{name}` | {why} |" for name, why in sorted(NOT_OVER_HTTP.items())]
    return "\n".join(parts).replace("``", "`").rstrip() + "\n"


def _row(route: Route) -> str:
    names = [
        f"`{one.encode_name}`" + ("" if one.required is False else " (required)")
        for one in route.parameters
        if one.encode_name != "timeout_s"
    ]
    link = f"[`{route.kind.command}`](control.md#{route.kind.command})"
    seen = f"`{route.seen.command}`" if route.seen is not None else ""
    return f"| `{route.method} {route.full_path}` | {link} | {route.kind.role.value} | {', '.join(names)} | {seen} |"


def _first_line(route: Route) -> str:
    return (inspect.getdoc(route.kind) or "").replace("\n", " ")
