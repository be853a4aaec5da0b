"""HTTP for probes. A client that opens many connections and says nothing takes room only from itself: above the bound
of its address, or of all, a connection that was quiet the longest ends in favour of the new one. So a probe always
gets in, and is answered at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler

CONNECTIONS_MAX = 256
PER_ADDRESS_MAX = 32
REQUEST_BYTES_MAX = 8_190
IDLE_S = 15.0
CONNECTION_S = 60.0
"""A connection ends after this, whatever it did or did not say."""
Answer = Callable[[web.BaseRequest], Awaitable[web.Response]]


def _is_ours(record: logging.LogRecord) -> bool:
    """A request that is no HTTP, or too long, is answered with 400: a client must not fill the log."""
    return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)


_log = logging.getLogger(__name__)
_log.addFilter(_is_ours)


class BoundedServer(web.Server):
    """HTTP with bounds. ``is_first`` names addresses whose connections end last; without ``connection_s`` a connection
    lasts as long as both sides like."""

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        is_first: Callable[[str], bool],
        *,
        connection_s: float | None,
        total: int,
        per_address: int,
        lingering_s: float = 10.0,
    ) -> None:
        super().__init__(
            handler,
            access_log=None,
            logger=_log,
            keepalive_timeout=IDLE_S,
            max_line_size=REQUEST_BYTES_MAX,
            lingering_time=lingering_s,
        )
        self._is_first = is_first
        self._connection_s = connection_s
        self._total, self._per_address = total, per_address
        self._open: dict[str, dict[RequestHandler, asyncio.TimerHandle | None]] = {}
        """By address; the connection that was quiet the longest first."""

    def touch(self, request: web.BaseRequest) -> None:
        """The connection of this request is not quiet."""
        mine = self._open.get(request.remote or "", {})
        if request.protocol in mine:
            mine[request.protocol] = mine.pop(request.protocol)

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        address = _address(transport)
        end = None
        if self._connection_s is not None:
            end = asyncio.get_running_loop().call_later(self._connection_s, handler.force_close)
        self._open.setdefault(address, {})[handler] = end
        if len(self._open[address]) > self._per_address:
            self._make_room(address)
        elif sum(map(len, self._open.values())) > self._total:
            self._make_room(max(self._open, key=lambda one: (not self._is_first(one), len(self._open[one]))))

    def _make_room(self, address: str) -> None:
        quiet = next(iter(self._open[address]))
        self._forget(quiet)
        quiet.force_close()

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self._forget(handler)

    def _forget(self, handler: RequestHandler) -> None:
        for address, mine in self._open.items():
            if handler in mine:
                end = mine.pop(handler)
                if end is not None:
                    end.cancel()
                if not mine:
                    del self._open[address]
                return


class ProbeServer(BoundedServer):
    """Answers ``GET`` and ``HEAD`` by path."""

    def __init__(self, answers: Mapping[str, Answer], is_first: Callable[[str], bool]) -> None:
        super().__init__(
            self._answer,
            is_first,
            connection_s=CONNECTION_S,
            total=CONNECTIONS_MAX,
            per_address=PER_ADDRESS_MAX,
        )
        self._answers = answers

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        self.touch(request)
        answer = self._answers.get(request.path)
        if answer is None:
            return web.Response(status=404)
        return await answer(request) if request.method in ("GET", "HEAD") else web.Response(status=405)


def _address(transport: asyncio.Transport) -> str:
    found = transport.get_extra_info("peername")
    return str(found[0]) if found else ""
