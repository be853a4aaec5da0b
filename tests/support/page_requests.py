"""A request for a page without a connection, for tests that draw pages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace

from aiohttp import web

__all__ = ["SimpleExchange"]


@dataclass
class SimpleExchange:
    """Asks for a path by GET."""

    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    id: str = "request"

    @property
    def request(self) -> SimpleNamespace:
        return SimpleNamespace(method="GET", query=self.query)

    def answer(
        self, body: bytes, kind: str, status: int = 200, more: Mapping[str, str] | None = None
    ) -> web.Response:
        return web.Response(body=body, status=status, headers={"Content-Type": kind, **(more or {})})
