"""One request and its answers: bounded reading, and the headers that every answer carries."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

import msgspec
from aiohttp import web

from instep.api.command import as_json
from instep.errors import InstepError, UnavailableError, UsageError
from instep.node.access.caller import Caller
from instep.panel.problems import CONTENT_TYPE, problem_of

JSON_MAX = 1 << 20
FORM_MAX = 64 << 10
LOGIN_MAX = 4 << 10
BODY_S = 15.0
FIELDS_MAX = 200
SECURITY_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cache-Control": "no-store",
    "Server": "instep",
}


class PanelExchange:
    """A request, with its id and, once it is known, its caller."""

    def __init__(self, request: web.BaseRequest) -> None:
        self.request = request
        self.id = secrets.token_hex(8)
        self.caller: Caller | None = None
        self.resolve: Callable[[], Caller | None] = lambda: None
        """Looks up again whether the token or the session is still in force."""
        self.is_by_cookie = False

    @property
    def path(self) -> str:
        """Still encoded: a name may hold a slash."""
        return self.request.rel_url.raw_path

    @property
    def address(self) -> str:
        return self.request.remote or ""

    def headers(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        return {**SECURITY_HEADERS, "Instep-Request-Id": self.id, **(more or {})}

    async def body(self, most: int) -> bytes:
        """The whole body; ``UsageError`` ``body_too_large`` before more than that was read."""
        length = self.request.content_length
        if length is not None and length > most:
            raise _too_large(most)
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(BODY_S):
                async for part in self.request.content.iter_any():
                    size += len(part)
                    if size > most:
                        raise _too_large(most)
                    parts.append(part)
        except TimeoutError:
            raise UnavailableError(
                f"the request did not end within {BODY_S:g} s", code="slow_request"
            ) from None
        return b"".join(parts)

    async def json(self) -> dict[str, Any]:
        """The JSON object of the body; an empty body is an empty object."""
        raw = await self.body(JSON_MAX)
        kind = self.request.content_type
        if raw and kind != "application/json":
            raise UsageError(
                f"the body is {kind[:100]}, not application/json",
                hint="send -H 'Content-Type: application/json'",
                code="wrong_content_type",
            )
        try:
            found = msgspec.json.decode(raw or b"{}")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UsageError(f"the body is not JSON: {error}", code="bad_json") from error
        if not isinstance(found, dict):
            raise UsageError("the body is not a JSON object", code="bad_json")
        return found

    async def form(self, most: int = FORM_MAX) -> dict[str, list[str]]:
        """The fields of an HTML form."""
        raw = await self.body(most)
        if self.request.content_type != "application/x-www-form-urlencoded":
            raise UsageError("the body is not a form", code="wrong_content_type")
        try:
            return parse_qs(
                raw.decode(), keep_blank_values=True, strict_parsing=bool(raw), max_num_fields=FIELDS_MAX
            )
        except ValueError as error:
            raise UsageError(f"the form cannot be read: {error}", code="bad_form") from error

    # Answers ------------------------------------------------------------------------------------------------

    def answer(
        self, body: bytes, kind: str, status: int = 200, more: Mapping[str, str] | None = None
    ) -> web.Response:
        return web.Response(
            body=body, status=status, headers=self.headers({"Content-Type": kind, **(more or {})})
        )

    def problem(self, error: InstepError) -> web.Response:
        told = problem_of(error, self.id)
        more: dict[str, str] = {}
        if told.status == 401:
            more["WWW-Authenticate"] = 'Bearer realm="instep"'
        retry = error.facts.get("retry_after_s")
        if isinstance(retry, int):
            more["Retry-After"] = str(retry)
        response = self.answer(msgspec.json.encode(as_json(told)), CONTENT_TYPE, told.status, more)
        if not self.request.content.is_eof():  # a body that is not wanted is not read either
            response.force_close()
        return response


def _too_large(most: int) -> UsageError:
    return UsageError(f"the body is longer than {most} bytes", code="body_too_large", most=most)
