"""The two doors that balancers ask at: ``/live`` and ``/ready`` over HTTP, and HAProxy's agent-check.

They show standings and reasons of this node to every client that may connect, so they name no paths, keys or
addresses. A port that is taken is trouble in ``status`` and is retried; the daemon goes on without it.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiohttp import web

from instep.errors import ResourceError
from instep.model.address import Address
from instep.model.ids import FilesetName
from instep.model.standing import Standing
from instep.net.connections.allow import LOOPBACK, AllowList
from instep.node.balance.fitness import Fitness, LineView, fitness_of
from instep.node.balance.probe_server import ProbeServer
from instep.node.config import values
from instep.node.config.kinds import BadValue
from instep.node.config.settings import Settings
from instep.node.config.values import IpNetwork
from instep.node.directory import user_name
from instep.node.lines.line_service import LineService
from instep.node.node import Node
from instep.node.runtime.driver import wall_ms
from instep.node.trees.root_watch import look_at_all

AGAIN_S = 5.0
AGENTS_MAX = 256
BACKLOG = 64
ANSWER_S = 5.0
CLOSE_S = 1.0
AGENT_REASON_MAX = 120
FILESETS_ASKED_MAX = 64
log = logging.getLogger(__name__)


class Listeners:
    """Keeps every listener where the settings say. ``troubles`` are sentences for ``status``."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.troubles: dict[str, str] = {}
        self.beside: list[Callable[[], Awaitable[object]]] = []
        """Of listeners that follow the same settings, and are opened elsewhere."""
        self._health: ProbeServer | None = None
        self._at: dict[str, Address | None] = {"health": None, "agent": None}
        self._doors: dict[str, asyncio.Server] = {}
        self._agents = 0
        self._following = asyncio.Lock()

    async def run(self) -> None:
        """Level: compare where they listen with the settings, after every change and now and then."""
        try:
            while True:
                changed = self._node.runtime.changed
                await self.follow()
                try:
                    async with asyncio.timeout(AGAIN_S if self.troubles else None):
                        await changed.wait()
                except TimeoutError:
                    continue
        finally:
            await self._close("health")
            await self._close("agent")

    async def follow(self) -> None:
        """Listen where the settings say now; ``troubles`` name what cannot be."""
        async with self._following:
            await self._follow()
        for follow in self.beside:
            await follow()

    async def _follow(self) -> None:
        settings = self._node.runtime.settings
        await self._follow_peers(settings.listen)
        self._follow_group(settings.socket_group)
        if "listen" not in self.troubles and self._node.membership.advertised != settings.advertise:
            self._node.membership.advertised = settings.advertise
            self._node.peers.tell_self()
        for name, wanted in (("health", settings.health), ("agent", settings.agent)):
            if wanted == self._at[name]:
                self.troubles.pop(name, None)
                continue
            await self._close(name)
            if wanted is None:
                self.troubles.pop(name, None)
                continue
            try:
                await (self._open_health(wanted) if name == "health" else self._open_agent(wanted))
            except OSError as error:
                await self._close(name)
                self._trouble(name, f"{name} cannot listen on {wanted}: {error.strerror or error}")
                continue
            self._at[name] = wanted
            self.troubles.pop(name, None)
            log.info("%s answers on %s", name, wanted)

    async def _follow_peers(self, wanted: Address) -> None:
        """The listener for peers begins with the daemon; here it moves. Where it cannot, it stays where it was."""
        server = self._node.server
        if server.at is None or server.at == wanted:
            self.troubles.pop("listen", None)
            return
        try:
            await server.move(wanted)
        except ResourceError as error:
            self._trouble("listen", f"{error.reason}; peers still reach this node at {server.at}")
            return
        self.troubles.pop("listen", None)
        self._node.runtime.note("listens", f"{self._node.runtime.name} listens on {wanted} now")

    def _follow_group(self, group: str | None) -> None:
        """The control socket lets the members of this group in; the daemon makes it a moment after its start."""
        directory = self._node.directory
        if not directory.socket.exists():
            return
        try:
            directory.share_socket(group)
        except (LookupError, PermissionError) as error:
            why = "there is no such group"
            if isinstance(error, PermissionError):
                user = user_name(os.geteuid())
                why = (
                    f"{user} is no member of it; usermod -aG {group} {user}, then: instep stop, instep start"
                )
            self._trouble("socket_group", f"socket_group = {group} lets no one in: {why}")
        else:
            self.troubles.pop("socket_group", None)

    def panel_listens(self, wanted: Address | None, error: OSError | None) -> None:
        """The panel, which is opened elsewhere, listens where it should, or cannot."""
        if error is None:
            self.troubles.pop("panel", None)
        else:
            self._trouble("panel", f"panel cannot listen on {wanted}: {error.strerror or error}")

    def _trouble(self, name: str, told: str) -> None:
        if self.troubles.get(name) != told:
            self._node.runtime.note(f"{name}_not_listening", told)
        self.troubles[name] = told

    async def _close(self, name: str) -> None:
        self._at[name] = None
        if not any(self._at.values()):
            self._node.runtime.draining.nobody_can_ask()
        door = self._doors.pop(name, None)
        if door is not None:
            door.close()
        if name == "health" and self._health is not None:
            server, self._health = self._health, None
            await server.shutdown(CLOSE_S)

    # Health -------------------------------------------------------------------------------------------------

    async def _open_health(self, at: Address) -> None:
        answers = {"/live": self._live, "/ready": self._ready}
        self._health = ProbeServer(
            answers, lambda address: is_prober(self._node.runtime.settings.probers, address)
        )
        loop = asyncio.get_running_loop()
        self._doors["health"] = await loop.create_server(self._health, at.host, at.port, backlog=BACKLOG)

    async def _live(self, request: web.BaseRequest) -> web.Response:
        return _answer({"node": self._node.runtime.name, "live": True}, 200)

    async def _ready(self, request: web.BaseRequest) -> web.Response:
        known = self._node.services
        asked = request.query.getall("fileset", [])[:FILESETS_ASKED_MAX]
        unknown = [name for name in asked if name not in known]
        if unknown:
            told = [f"{name[:64]}: no such fileset here" for name in unknown]
            return _answer({"ready": False, "reasons": told}, 503)
        try:
            raw = request.query.get("max_behind")
            max_behind = values.duration_ms(raw) if raw is not None else None
        except BadValue as error:
            return _answer({"ready": False, "reasons": [f"max_behind {error}"]}, 400)
        fitness = await self.fitness([FilesetName(name) for name in asked], max_behind)
        if is_prober(self._node.runtime.settings.probers, request.remote):
            by = request.query.get("by", "")
            who = f"{request.remote} {by}".strip()
            acts = request.query.get("acts")
            is_ready = fitness.is_ready if acts is None else acts != "out"  # its last act counts
            self._node.runtime.draining.answered(who, is_ready=is_ready, is_certain=bool(by))
        return _answer(fitness.document, 200 if fitness.is_ready else 503)

    async def fitness(
        self, asked: list[FilesetName] | None = None, max_behind_ms: int | None = None
    ) -> Fitness:
        """This node's answer for the filesets asked for, or for all: their roots are looked at now."""
        runtime = self._node.runtime
        services = [
            service for name, service in sorted(self._node.services.items()) if not asked or name in asked
        ]
        await look_at_all(service.root for service in services)
        lines = [_view(service) for service in services]
        return fitness_of(runtime.name, runtime.draining.reasons(), lines, max_behind_ms)

    # Agent --------------------------------------------------------------------------------------------------

    async def _open_agent(self, at: Address) -> None:
        self._doors["agent"] = await asyncio.start_server(
            self._tell_agent, at.host, at.port, backlog=BACKLOG, limit=1_024
        )

    async def _tell_agent(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One line and the end; nothing is read from the balancer."""
        if self._agents >= AGENTS_MAX:
            writer.close()
            return
        self._agents += 1
        try:
            fitness = await self.fitness()
            address = writer.get_extra_info("peername")
            if is_prober(self._node.runtime.settings.probers, address[0] if address else None):
                who = f"agent {address[0]}" if address else "agent"
                self._node.runtime.draining.answered(who, is_ready=fitness.is_ready, is_certain=True)
            async with asyncio.timeout(ANSWER_S):
                writer.write(agent_line(fitness))
                await writer.drain()
        except (OSError, TimeoutError) as error:
            log.debug("an agent-check went away: %s", error)
        finally:
            self._agents -= 1
            writer.close()


def panel_origin(settings: Settings) -> str:
    """The panel's address for browsers; without TLS on loopback only."""
    assert settings.panel is not None
    at = settings.panel
    host = Address(settings.advertise.host, at.port) if at.is_wildcard else at
    return f"{'http' if at.is_loopback else 'https'}://{host}"


def is_prober(probers: Sequence[IpNetwork], remote: str | None) -> bool:
    """True when a drain waits for probes from this address: where any network is named only those, and this machine."""
    return not probers or AllowList((*probers, *LOOPBACK)).lets(remote or "")


def _answer(document: dict[str, Any], status: int) -> web.Response:
    return web.json_response(document, status=status, headers={"Cache-Control": "no-store"})


def agent_line(fitness: Fitness) -> bytes:
    """HAProxy's words: a drained node finishes what it has, one that is not ready is down."""
    if fitness.is_drained:
        return b"up drain\n"
    if fitness.is_ready:
        return b"up ready\n"
    why = "".join(c if c.isascii() and c.isprintable() else " " for c in fitness.reasons[0])
    return f"down#{why[:AGENT_REASON_MAX]}\n".encode()


def _view(service: LineService) -> LineView:
    record = service.standing
    is_in_step = record.standing is Standing.IN_STEP
    return LineView(
        fileset=service.fileset.name,
        standing=record,
        live=service.live.number if service.live is not None else None,
        is_written_here=service.is_written_here,
        is_whole=service.is_whole,
        behind_ms=0 if is_in_step else max(0, wall_ms() - record.since_ms),
        unseen=service.root.trouble.code if service.root.trouble is not None else None,
    )
