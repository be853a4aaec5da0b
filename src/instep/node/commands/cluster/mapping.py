"""``node map``: the topology from live state: senders and receivers of each fileset, and how they stand."""

from __future__ import annotations

from instep.api import members as api
from instep.model.ids import NodeName
from instep.node.commands.context import CommandHandlers
from instep.node.commands.control import Speaker
from instep.node.commands.targets import current_reports
from instep.node.lines.line_service import LineService


class Mapper(CommandHandlers):
    async def map(self, asked: api.NodeMapCommand, speaker: Speaker) -> api.MapDocument:
        node = self._node
        me = node.runtime.name
        links: list[api.MapLinkDocument] = []
        for service in node.services.values():
            links += self._from_here(service)
            links += self._to_here(service)
        names = {me, *node.membership.members, *node.runtime.settings.partners}
        names |= {NodeName(side) for link in links for side in (link.sender, link.to)}
        writers = {service.writer for service in node.services.values()}
        nodes = (
            api.MapNodeDocument(name, name == me, self._address(name), name in writers)
            for name in sorted(names)
        )
        return api.MapDocument(tuple(nodes), tuple(links))

    def _address(self, name: NodeName) -> str | None:
        if name == self._node.runtime.name:
            return str(self._node.runtime.settings.advertise)
        member = self._node.membership.members.get(name)
        return (member.address or None) if member is not None else None

    def _from_here(self, service: LineService) -> list[api.MapLinkDocument]:
        me, peers = self._node.runtime.name, self._node.peers
        return [
            api.MapLinkDocument(
                sender=report.via or me,
                to=name,
                fileset=service.fileset.name,
                live=report.live.number if report.live is not None else None,
                standing=report.standing.standing.value,
                connected=(report.via or name) in peers.sessions,
            )
            for name, report in sorted(current_reports(self._node, service).items())
        ]

    def _to_here(self, service: LineService) -> list[api.MapLinkDocument]:
        me, fileset = self._node.runtime.name, service.fileset.name
        live = service.live.number if service.live is not None else None
        standing = service.standing.standing.value
        return [
            api.MapLinkDocument(name, me, fileset, live, standing, name in service.sources)
            for name in service.senders
        ]
