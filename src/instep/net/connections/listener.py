"""The accept loop: which connections get as far as TLS. Implements the section "Connections" of ``docs/spec/wire.md``.

The address is checked right after ``accept``; a refused peer gets one TLS alert, so that it can report
to its operator which side refused. Connections are capped, handshakes have a deadline, and running out of
descriptors makes the loop wait instead of spin.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from instep.errors import ResourceError
from instep.net.connections.allow import AllowList
from instep.net.connections.tls import alert_of
from instep.net.task_group import TaskGroup

_ACCESS_DENIED = bytes.fromhex("15 03 03 00 02 02 31")
_INTERNAL_ERROR = bytes.fromhex("15 03 03 00 02 02 50")
_LINGER_S = 1.0
_LINGERING_MAX = 64
_BACK_OFF_S = 0.25
_NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_FATAL = frozenset({errno.EBADF, errno.EINVAL, errno.ENOTSOCK})


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a server. Times in seconds."""

    connections: int = 1_024
    connections_per_address: int = 64
    handshake_s: float = 10.0
    first_request_s: float = 10.0
    idle_s: float = 90.0
    sweep_s: float = 1.0
    body_s: float = 30.0
    write_s: float = 60.0
    transfers: int = 16
    transfers_per_peer: int = 4
    backlog: int = 256
    works_s: float = 20.0
    """So often a peer hears that its request is still being worked at, in a third of the silence that it bears."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """For status and logs: ``why`` is ``allow``, ``full``, ``handshake`` or ``key_changed``."""

    address: str
    why: str
    detail: str = ""


class Listener:
    """Accepts on sockets and hands TLS connections to a protocol factory."""

    def __init__(
        self,
        protocol: Callable[[], asyncio.Protocol],
        context: Callable[[], ssl.SSLContext],
        allow: Callable[[], AllowList],
        limits: Limits,
        on_refused: Callable[[Refusal], None],
    ) -> None:
        self._protocol = protocol
        self._context = context
        self._allow = allow
        self._limits = limits
        self._on_refused = on_refused
        self._sockets: list[socket.socket] = []
        self._tasks: TaskGroup | None = None
        self._accepting: list[asyncio.Task[None]] = []
        self._open: Counter[str] = Counter()
        self._lingering = 0

    def bind(self, host: str, port: int) -> list[tuple[str, int]]:
        """Bind what the host name stands for; the bound addresses. ``ResourceError`` when it is taken."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            for family, kind, protocol, _, address in found:
                bound = socket.socket(family, kind, protocol)
                self._sockets.append(bound)
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                bound.bind(address)
                bound.listen(self._limits.backlog)
                bound.setblocking(False)
        except OSError as error:
            self.close()
            raise ResourceError(
                f"cannot listen on {host}:{port}: {error.strerror}",
                hint=f"see which program has the port: ss -ltnp 'sport = :{port}'; stop it, or set another listen in "
                "instep.toml, then: instep start",
                code="cannot_listen",
                host=host,
                port=port,
            ) from error
        return [(bound.getsockname()[0], bound.getsockname()[1]) for bound in self._sockets]

    def close(self) -> None:
        for bound in self._sockets:
            bound.close()
        self._sockets.clear()

    def connection_lost(self, address: str) -> None:
        """A connection that was handed over has ended."""
        self._open[address] -= 1
        if self._open[address] <= 0:
            del self._open[address]

    async def move(self, host: str, port: int) -> None:
        """Listen there from now on; open connections stay. ``ResourceError`` when that cannot be: it listens where it
        did."""
        before = [bound.getsockname()[:2] for bound in self._sockets]
        for task in self._accepting:
            task.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        self.close()
        try:
            self.bind(host, port)
        except ResourceError:
            for old in before:
                self.bind(*old)
            raise
        finally:
            self._accept_all()

    async def serve(self) -> None:
        """Accept until cancelled."""
        async with TaskGroup() as self._tasks:
            self._accept_all()
            await asyncio.Event().wait()

    def _accept_all(self) -> None:
        tasks = self._tasks
        if tasks is not None:
            self._accepting = [tasks.create_task(self._accept(bound, tasks)) for bound in self._sockets]

    async def _accept(self, bound: socket.socket, tasks: TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, peer = await loop.sock_accept(bound)
            except OSError as error:
                if error.errno in _FATAL:
                    raise ResourceError(f"the listening socket failed: {error.strerror}") from error
                if error.errno in _NO_ROOM:
                    await asyncio.sleep(_BACK_OFF_S)
                continue
            address = str(peer[0])
            if not self._allow().lets(address):
                self._on_refused(Refusal(address, "allow"))
                self._tell(connection, _ACCESS_DENIED, tasks)
            elif (
                self._open.total() >= self._limits.connections
                or self._open[address] >= self._limits.connections_per_address
            ):
                self._on_refused(Refusal(address, "full"))
                self._tell(connection, _INTERNAL_ERROR, tasks)
            else:
                self._open[address] += 1
                tasks.create_task(self._hand_over(connection, address, tasks))

    async def _hand_over(self, connection: socket.socket, address: str, tasks: TaskGroup) -> None:
        second = None
        is_taken = False
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # The loop closes its descriptor when a handshake fails; this one lets us say why.
            second = connection.dup()
            await asyncio.get_running_loop().connect_accepted_socket(
                self._protocol,
                connection,
                ssl=self._context(),
                ssl_handshake_timeout=self._limits.handshake_s,
                ssl_shutdown_timeout=2.0,
            )
            is_taken = True
        except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
            self._on_refused(Refusal(address, "handshake", str(error)[:200]))
            alert = alert_of(error)
            if second is not None and alert:
                self._tell(second, alert, tasks)
                second = None
        finally:
            if second is not None:
                second.close()
            if not is_taken:
                self.connection_lost(address)
                connection.close()

    def _tell(self, connection: socket.socket, alert: bytes, tasks: TaskGroup) -> None:
        """Send an alert and close without losing it."""
        connection.setblocking(False)
        with contextlib.suppress(OSError):
            connection.send(alert)
            connection.shutdown(socket.SHUT_WR)
        if self._lingering >= _LINGERING_MAX:
            connection.close()
            return
        self._lingering += 1
        tasks.create_task(self._linger(connection))

    async def _linger(self, connection: socket.socket) -> None:
        """Take in what the peer sends for a moment: closing over unread bytes would reset the connection and
        lose the alert."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_LINGER_S):
                for _ in range(16):
                    if not await loop.sock_recv(connection, 4096):
                        break
        except (OSError, TimeoutError):
            pass  # the alert was sent; how the peer goes away does not matter
        finally:
            self._lingering -= 1
            connection.close()
