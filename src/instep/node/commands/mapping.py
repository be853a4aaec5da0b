"""``node map``: the topology as it is now, from live state: who sends which fileset to whom, and how it stands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from instep.model.ids import NodeName
from instep.node.control import Command, Params, Speaker
from instep.node.follower import FollowService
from instep.node.snapshot import reports_of
from instep.node.writer import WriterService

if TYPE_CHECKING:
    from instep.node.daemon import Daemon

__all__ = ["commands"]


def commands(daemon: Daemon) -> Mapping[str, Command]:
    return {"node_map": Mapper(daemon).map}


class Mapper:
    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    async def map(self, params: Params, speaker: Speaker) -> Mapping[str, Any]:
        daemon = self._daemon
        me = daemon.runtime.name
        links: list[dict[str, Any]] = []
        for service in daemon.services.values():
            links += self._from_here(service)
            if isinstance(service, FollowService):
                links += self._to_here(service)
        names = {me, *daemon.membership.members, *daemon.runtime.settings.partners}
        names |= {NodeName(link[side]) for link in links for side in ("from", "to")}
        writers = {str(service.writer) for service in daemon.services.values()}
        nodes = [
            {"name": name, "self": name == me, "address": self._address(name), "writes": name in writers}
            for name in sorted(names)
        ]
        return {"nodes": nodes, "links": links}

    def _address(self, name: NodeName) -> str | None:
        if name == self._daemon.runtime.name:
            return str(self._daemon.runtime.settings.advertise)
        member = self._daemon.membership.members.get(name)
        return (member.address or None) if member is not None else None

    def _from_here(self, service: WriterService | FollowService) -> list[dict[str, Any]]:
        me = self._daemon.runtime.name
        rows = []
        for name, report in sorted(reports_of(self._daemon.runtime.store, service.line).items()):
            rows.append(
                {
                    "from": report.via or me,
                    "to": name,
                    "fileset": service.fileset.name,
                    "live": report.live.number if report.live is not None else None,
                    "standing": report.standing.standing.value,
                    "connected": (report.via or name) in self._daemon.peers.sessions,
                }
            )
        return rows

    def _to_here(self, service: FollowService) -> list[dict[str, Any]]:
        live = service.live
        return [
            {
                "from": name,
                "to": self._daemon.runtime.name,
                "fileset": service.fileset.name,
                "live": live.number if live is not None else None,
                "standing": service.standing.standing.value,
                "connected": name in service.sources,
            }
            for name in sorted(service.sources) or [service.writer]
        ]
