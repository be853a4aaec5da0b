"""A client that opens connections and says nothing keeps no probe from its answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from instep.node.balance.probe_server import CONNECTIONS_MAX, PER_ADDRESS_MAX, ProbeServer


class Wire(asyncio.Transport):
    """The client's side of one connection."""

    def __init__(self, server: ProbeServer, address: str) -> None:
        super().__init__({"peername": (address, 1)})
        self.told = b""
        self.is_open = True
        self._has_told = asyncio.Event()
        self._protocol = server()
        self._protocol.connection_made(self)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.told += bytes(data)
        self._has_told.set()

    def close(self) -> None:
        if self.is_open:
            self.is_open = False
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    def is_closing(self) -> bool:
        return not self.is_open

    async def ask(self, path: str) -> bytes:
        self._protocol.data_received(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        async with asyncio.timeout(10):
            await self._has_told.wait()
        return self.told.split(b"\r\n")[0]


@pytest.fixture
async def server() -> AsyncIterator[ProbeServer]:

    async def yes(_: web.BaseRequest) -> web.Response:
        return web.Response(text="yes")

    found = ProbeServer({"/ready": yes}, lambda address: address == "10.0.0.1")
    yield found
    await found.shutdown(0.01)


async def test_a_probe_is_answered_beside_idle_connections(server: ProbeServer) -> None:
    idle = [Wire(server, "10.0.0.9") for _ in range(300)]
    assert await Wire(server, "10.0.0.1").ask("/ready") == b"HTTP/1.1 200 OK"
    assert await Wire(server, "10.0.0.9").ask("/ready") == b"HTTP/1.1 200 OK", "also from the same machine"
    assert [one.is_open for one in idle] == [False] * (301 - PER_ADDRESS_MAX) + [True] * (PER_ADDRESS_MAX - 1)


async def test_many_addresses_make_room_before_a_prober_does(server: ProbeServer) -> None:
    prober = Wire(server, "10.0.0.1")
    strangers = [
        Wire(server, f"10.1.{number // 200}.{number % 200}") for number in range(CONNECTIONS_MAX + 50)
    ]
    assert prober.is_open
    assert sum(one.is_open for one in strangers) == CONNECTIONS_MAX - 1


async def test_what_is_no_request_is_answered_and_not_logged(
    server: ProbeServer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        assert b" 400 " in await Wire(server, "10.0.0.1").ask("/ready?" + "x" * 20_000)
        assert b" 404 " in await Wire(server, "10.0.0.1").ask("/other")
    assert not [one for one in caplog.records if one.exc_info]
