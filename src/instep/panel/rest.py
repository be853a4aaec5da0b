"""REST: a request becomes the command of its route, and its result or error an answer.

Also here: ``in-step`` for scripts, pages of long lists, ``If-Match``, and answers kept for a repeated
``Idempotency-Key``.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import msgspec
from aiohttp import web

from instep.api.command import Command, Document, as_json, require_role
from instep.errors import ContentionError, NotAllowedError, UsageError
from instep.node.access.access import Access
from instep.node.access.caller import Caller
from instep.node.access.door import CommandDoor, Silent
from instep.node.runtime.driver import wall_ms
from instep.panel.exchange import PanelExchange
from instep.panel.routes import ROUTES, Route

PAGE = 200
PAGE_MAX = 1_000
KEY_MAX = 200
KEPT_MS = 24 * 3_600_000
_COMPILED = tuple((route, route.form) for route in ROUTES)


def route_of(method: str, raw_path: str) -> tuple[Route, dict[str, str]] | None:
    """The route with its parameters; ``UsageError`` ``wrong_method`` where another method would have one."""
    wanted = "GET" if method == "HEAD" else method
    others: list[str] = []
    for route, form in _COMPILED:
        found = form.fullmatch(raw_path)
        if found is None:
            continue
        if route.method == wanted:
            return route, {name: unquote(value, errors="strict") for name, value in found.groupdict().items()}
        others.append(route.method)
    if others:
        raise UsageError(f"this path takes {', '.join(others)}", code="wrong_method", methods=sorted(others))
    return None


class RestApi:
    """Answers every request below ``/api/v1`` that has a route."""

    def __init__(self, door: CommandDoor, access: Access) -> None:
        self._door = door
        self._access = access
        self._running: set[str] = set()
        """The idempotency keys of requests that run now."""

    async def answer(self, exchange: PanelExchange, caller: Caller) -> web.Response | None:
        """None where the path has no route."""
        try:
            found = route_of(exchange.request.method, exchange.path)
        except UnicodeDecodeError:
            raise UsageError("the path is not UTF-8", code="bad_path") from None
        if found is None:
            return None
        route, in_path = found
        if route.method == "GET":
            return await self._look(exchange, caller, route, in_path)
        given = await exchange.json()
        key = exchange.request.headers.get("Idempotency-Key")
        if key is None or route.method != "POST":
            return json_answer(exchange, as_json(await self._act(exchange, caller, route, in_path, given)))
        return await self._once(exchange, caller, route, key, in_path, given)

    # Looking ------------------------------------------------------------------------------------------------

    async def _look(
        self, exchange: PanelExchange, caller: Caller, route: Route, in_path: Mapping[str, str]
    ) -> web.Response:
        query = {name: exchange.request.query.getall(name) for name in exchange.request.query}
        page = _page(query) if route.paged is not None else None
        given = {name: values if _is_list(route.kind, name) else values[-1] for name, values in query.items()}
        try:
            params = self._parameters(route, in_path, given, strict=False)
        except UsageError:
            require_role(route.kind, caller.role)  # a caller without the role is not told how to ask
            raise
        told = as_json(await self._door.run(route.kind.command, params, caller, Silent()))
        tag = _tag(msgspec.json.encode(told))  # of the whole result, whatever page of it is shown
        if route.paged is not None and page is not None:
            first, limit = page
            rows = told[route.paged]
            told[route.paged] = rows[first : first + limit]
            told["next_cursor"] = str(first + limit) if len(rows) > first + limit else None
        return json_answer(exchange, told, tag=tag)

    # Acting -------------------------------------------------------------------------------------------------

    async def _act(
        self,
        exchange: PanelExchange,
        caller: Caller,
        route: Route,
        in_path: Mapping[str, str],
        given: Mapping[str, Any],
    ) -> Document:
        wanted = exchange.request.headers.get("If-Match")
        if wanted is not None and route.seen is not None:
            seen = await self._door.run(route.seen.command, {"fileset": in_path["fileset"]}, caller, Silent())
            now = _tag(msgspec.json.encode(as_json(seen)))
            if wanted not in (now, "*"):
                raise ContentionError(
                    "things have changed since they were looked at",
                    hint="look again, and repeat the request with the new ETag",
                    code="outdated_answer",
                    etag=now,
                )
        params = self._parameters(route, in_path, given, strict=True)
        return await self._door.run(route.kind.command, params, caller, Silent())

    async def _once(
        self,
        exchange: PanelExchange,
        caller: Caller,
        route: Route,
        key: str,
        in_path: Mapping[str, str],
        given: Mapping[str, Any],
    ) -> web.Response:
        """The answer of the first request with this key, for a day. Errors are not kept: they can be retried."""
        if not 0 < len(key) <= KEY_MAX:
            raise UsageError(f"Idempotency-Key has 1 to {KEY_MAX} characters", code="bad_key")
        store, now = self._access.store(), wall_ms()
        name = hashlib.sha256(f"{caller.name}\0{key}".encode(errors="surrogatepass")).hexdigest()
        asked = hashlib.sha256(
            msgspec.json.encode([route.method, route.path, dict(in_path), given], order="deterministic")
        ).hexdigest()
        store.delete_older("answer", now - KEPT_MS)
        kept = store.get("answer", name)
        if kept is not None:
            row = msgspec.json.decode(kept)
            if row["asked"] != asked:
                raise UsageError("this Idempotency-Key was used for another request", code="key_reused")
            if row["told"] is None:
                raise ContentionError(
                    "the request with this Idempotency-Key was answered, and a secret is shown once",
                    hint="see what was made, revoke it, and make another with a new key: instep audit",
                    code="secret_was_shown",
                )
            return json_answer(exchange, row["told"], more={"Idempotent-Replayed": "true"})
        if name in self._running:
            raise ContentionError("a request with this Idempotency-Key runs", code="key_in_use")
        self._running.add(name)
        try:
            told = as_json(await self._act(exchange, caller, route, in_path, given))
            repeated = None if route.answers_secret else told
            store.put("answer", name, now, msgspec.json.encode({"asked": asked, "told": repeated}))
        finally:
            self._running.discard(name)
        return json_answer(exchange, told)

    @staticmethod
    def _parameters(
        route: Route, in_path: Mapping[str, str], given: Mapping[str, Any], *, strict: bool
    ) -> dict[str, Any]:
        """What the door decodes. Unknown parameters are refused by name, and so are those that the path sets."""
        known = {one.encode_name for one in route.parameters}
        unknown = sorted(given.keys() - known)
        if unknown:
            raise UsageError(
                f"{route.method} {route.full_path} does not know {', '.join(unknown)[:200]}",
                hint=f"it takes {', '.join(sorted(known))}",
                code="unknown_parameter",
                parameters=unknown,
            )
        params: dict[str, Any] = {**given, **in_path, **route.fixed}
        if strict:
            return params
        try:
            return as_json(msgspec.convert(params, route.kind, strict=False))
        except msgspec.ValidationError as error:
            raise UsageError(f"the query is wrong: {error}", code="bad_parameter") from error


def _is_list(kind: type[Command[Any]], name: str) -> bool:
    return any(
        one.encode_name == name and getattr(one.type, "__origin__", None) is tuple
        for one in msgspec.structs.fields(kind)
    )


def _page(query: dict[str, list[str]]) -> tuple[int, int]:
    """The first row and the number of rows; both leave the query."""
    (cursor,), (limit,) = query.pop("cursor", ["0"])[-1:], query.pop("limit", [str(PAGE)])[-1:]
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) < 10):
        raise UsageError("cursor is not one of an answer", code="bad_parameter")
    if not (limit.isascii() and limit.isdecimal() and 0 < int(limit[:10]) <= PAGE_MAX):
        raise UsageError(f"limit is not a number from 1 to {PAGE_MAX}", code="bad_parameter")
    return int(cursor), int(limit)


def _tag(raw: bytes) -> str:
    return f'"{hashlib.sha256(raw).hexdigest()[:32]}"'


def json_answer(
    exchange: PanelExchange,
    told: Mapping[str, Any],
    status: int = 200,
    *,
    tag: str | None = None,
    more: Mapping[str, str] | None = None,
) -> web.Response:
    """A JSON answer with the moment that it is true of."""
    raw = msgspec.json.encode(told)
    headers = {"Instep-As-Of": _now(), **(more or {})}
    if tag is not None:
        headers["ETag"] = tag
        if exchange.request.headers.get("If-None-Match") == headers["ETag"]:
            return exchange.answer(b"", "application/json", 304, headers)
    return exchange.answer(raw, "application/json", status, headers)


def _now() -> str:
    return (
        dt.datetime.fromtimestamp(wall_ms() / 1000, dt.UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )


def require_caller(exchange: PanelExchange) -> Caller:
    """``NotAllowedError`` ``not_signed_in``: nothing is shown to strangers."""
    if exchange.caller is None:
        raise NotAllowedError(
            "this request names no token in force and no session",
            hint="instep token create NAME, then send -H 'Authorization: Bearer TOKEN'",
            code="not_signed_in",
        )
    return exchange.caller
