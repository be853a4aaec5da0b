"""The daemon: the only place that wires store, tree, net and machines together, and supervises them."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
from typing import Any

from instep.api.command import Role
from instep.model.ids import NodeName
from instep.net.service import PeerCalls
from instep.node.access.access import Access
from instep.node.access.door import CommandDoor, Commands
from instep.node.balance.balancer_files import Balancers
from instep.node.balance.listeners import Listeners
from instep.node.cluster.seat_desk import SeatDesk
from instep.node.cluster.service import ClusterService
from instep.node.cluster.shared_root import SharedRoots
from instep.node.cluster.shared_work import SharedWork
from instep.node.commands import commands_of
from instep.node.commands.changes.sync import sync_port
from instep.node.commands.context import CommandContext
from instep.node.commands.control import ControlServer, role_of
from instep.node.config.outside.oidc import GroupRole
from instep.node.node import Node
from instep.node.runtime.background import go_on
from instep.node.runtime.driver import wall_ms
from instep.node.runtime.state import StateLost, watch_state
from instep.node.syncing.base_copies import BaseCopies
from instep.node.syncing.notices import SyncNotices
from instep.node.syncing.sync_runs import SyncRuns
from instep.node.syncing.sync_schedule import SyncSchedule
from instep.node.upkeep.copies import CopiesWatch
from instep.node.upkeep.fixity import Fixity
from instep.node.upkeep.housekeeping import Housekeeping
from instep.node.upkeep.installed_files import InstalledFiles
from instep.node.upkeep.notices import Notices
from instep.node.upkeep.writer_change import Succession
from instep.panel.server import PanelServer

RENEW_LOOK_S = 60.0
STOP_S = 20.0
log = logging.getLogger(__name__)


def notify(state: str) -> None:
    """Notify systemd of the daemon's progress, where it listens."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        try:
            sender.connect("\0" + address[1:] if address.startswith("@") else address)
            sender.sendall(state.encode())
        except OSError as error:
            log.warning("systemd could not be notified of %s: %s", state, error)


class Daemon:
    """A node that runs: its peer server, its control socket, and the work in the background."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.notices = Notices(node.runtime)
        self.housekeeping = Housekeeping(node)
        self.listeners = Listeners(node)
        self.balancers = Balancers(node)
        self.installed = InstalledFiles()
        self.cluster = ClusterService(node.runtime)
        self.shared_roots = SharedRoots(self.cluster)
        node.open_shared_root = self.shared_roots.open
        self.shared_work = SharedWork(self.cluster, random.Random())
        self.seat_desk = SeatDesk(self.cluster)
        self.sync_notices = SyncNotices(node.runtime)
        ports = (node.services.get, self._calls_of, node.peers.facts_of_side)
        self.sync = SyncRuns(node.runtime, *ports, self.sync_notices)
        self.sync_schedule = SyncSchedule(node.runtime, self.sync, self._is_resting, self.sync_notices)
        self.base_copies = BaseCopies(node.runtime, self.sync, node.services.get, self._calls_of)
        self.housekeeping.page_users.append(self.sync)
        self.copies = CopiesWatch(node)
        self.access = Access(node.directory, wall_ms, self._role_of_groups)
        self.door = CommandDoor(self.commands(), self.access.audit)
        self.panel = PanelServer(node, self.door, self.access, self.listeners)
        self.listeners.beside.append(self.panel.follow)

    def commands(self) -> Commands:
        """The handlers of every command."""
        services = (
            self.balancers, self.housekeeping, self.listeners, self.installed, self.cluster, self.access,
            self.shared_work, self.seat_desk,
            self.sync, self.sync_schedule, self.copies,
        )  # fmt: skip
        context = CommandContext(self.node, *services)
        self.node.peers.on_sync = sync_port(context)
        return commands_of(context)

    def _role_of_groups(self, issuer: str, groups: tuple[str, ...]) -> GroupRole | None:
        """Of a person whom the sign-in provider names, by the present configuration."""
        oidc = self.node.runtime.settings.oidc
        return None if oidc is None or oidc.issuer != issuer else oidc.role_of(groups)

    def _is_resting(self) -> bool:
        return self.shared_work.maintenance.is_on

    def _calls_of(self, name: NodeName) -> PeerCalls | None:
        link = self.node.peers.uplinks.get(name)
        return link.client if link is not None else None

    def begin(self) -> list[asyncio.Task[None]]:
        """Start the lines, the links to partners, and the work in the background; all but what listens."""
        loop = asyncio.get_running_loop()
        self.node.follow_settings()
        works = {
            "certificates": self._keep_certificates,
            "configuration": lambda: self.node.config_file.mind(self.node.reload_edited),
            "housekeeping": self.housekeeping.run,
            "histories": self.housekeeping.look,
            "listeners": self.listeners.run,
            "panel": self.panel.run,
            "balancers": self.balancers.run,
            "cluster database": self.cluster.run,
            "jobs": self.shared_work.run,
            "seats": self.seat_desk.run,
            "sync schedules": self.sync_schedule.run,
            "copies of sync bases": self.base_copies.run,
            "notices": self.notices.run,
            "fixity": Fixity(self.node).run,
            "copies wanted": self.copies.run,
            "sync notices": self.sync_notices.run,
            "events": self.node.runtime.deferred.run,
            "words": self.node.peers.freshness.run,
            "succession": Succession(self.node).run,
        }
        background = [loop.create_task(go_on(name, work)) for name, work in works.items()]
        background.append(loop.create_task(watch_state(self.node.runtime.store)))
        self.node.peers.offers_changed()
        return background

    async def end(self, background: list[asyncio.Task[None]]) -> None:
        """End runs while that can be recorded, close the links, and end the lines and the work in the background."""
        await self.shared_work.close()
        await self.shared_roots.close()
        await self.sync.close()
        await self.node.peers.close()
        for task in (*self.node.tasks.values(), *background):
            task.cancel()
        await asyncio.gather(*self.node.tasks.values(), *background, return_exceptions=True)
        self.access.close()

    async def run(self) -> None:
        """Serve until ``stopping`` is set; then stop gracefully. ``StateLost`` when the database went away."""
        loop = asyncio.get_running_loop()
        listen = self.node.runtime.settings.listen
        self.node.server.bind(listen.host, listen.port)
        control = ControlServer(self.node.directory.socket, self.door, self._role_of)
        background = self.begin()
        background.append(loop.create_task(self.node.server.serve()))
        upgrades = go_on("installed files", lambda: self.installed.watch(self.node.runtime))
        background.append(loop.create_task(upgrades))
        await control.start()
        await self.listeners.follow()
        notify("READY=1")
        log.info("%s serves on %s", self.node.runtime.name, listen)
        self.node.runtime.note("started", f"{self.node.runtime.name} started")
        if self.node.runtime.state_note is not None:
            self.node.runtime.note("state_rebuilt", self.node.runtime.state_note)
        is_whole = True
        stop = loop.create_task(self.node.stopping.wait())
        try:
            ends: list[asyncio.Future[Any]] = [self.node.state_lost, *background]
            await asyncio.wait([stop, *ends], return_when=asyncio.FIRST_COMPLETED)
            for end in ends:
                if end.done():
                    end.result()
        except StateLost as error:
            is_whole = False
            log.error("%s", error.reason)
            raise
        finally:
            stop.cancel()
            self.node.state_lost.cancel()
            notify("STOPPING=1" if is_whole else "RELOADING=1")
            await self._stop(control, background)
            if is_whole:
                self.node.runtime.note("stopped", f"{self.node.runtime.name} stopped")

    def _role_of(self, uid: int) -> Role:
        return role_of(uid, Role(self.node.runtime.settings.socket_role))

    async def _stop(self, control: ControlServer, background: list[asyncio.Task[None]]) -> None:
        """End everything within ``STOP_S``. A thread's work on a tree is cut off then, as by a crash, and the next
        start finishes it."""
        log.info("%s stops", self.node.runtime.name)
        try:
            async with asyncio.timeout(STOP_S):
                await self.end(background)
                await control.stop()
        except TimeoutError:
            log.error("%s did not end within %g s and is cut off", self.node.runtime.name, STOP_S)
            logging.shutdown()
            os._exit(0)

    async def _keep_certificates(self) -> None:
        while True:
            await self.node.renew()
            await asyncio.sleep(RENEW_LOOK_S)
