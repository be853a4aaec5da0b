"""``explain``: which nodes get a fileset or a path of it, over which hops, and what stops it."""

from __future__ import annotations

from msgspec import UNSET
from msgspec.structs import replace

from instep.api import looking as api
from instep.core.reach import Reach, carried, contradictions, reach, reach_table, ways
from instep.errors import UnavailableError
from instep.model.ids import NodeName
from instep.model.manifest.manifest import lookup
from instep.model.paths import path_fields, shown
from instep.node.commands.context import CommandHandlers
from instep.node.commands.control import Speaker
from instep.node.commands.targets import current_reports, path_of, service_of
from instep.node.lines.line_service import LineService
from instep.node.peers.network.partner_rows import rows_of_topology
from instep.node.trees.keeping.page_walk import must_have
from instep.tree.scan.rules import Rules


class Explaining(CommandHandlers):
    async def explain(self, asked: api.ExplainCommand, speaker: Speaker) -> api.ExplainDocument:
        node = self._node
        service = service_of(node, asked.fileset)
        path = path_of(asked.path, asked.path_b64)
        carries, why_path = self._path_fate(service, path)
        me, fileset = node.runtime.name, service.fileset.name
        reports, ways_there = current_reports(node, service), self._ways(service)
        rows: list[api.ReceiverDocument] = []
        if service.writer != me:
            via = tuple(sorted(service.sources))
            rows.append(api.ReceiverDocument(me, carries, via, why_path or f"it follows {service.writer}"))
        for name in sorted(node.runtime.settings.partners):
            if name == service.writer:
                continue
            why, via = node.peers.access.why_not(name, service), (me,)
            session, way = node.peers.sessions.get(name), ways_there.get(name)
            if why is not None and way is not None and way.gets and me != way.via[-1]:
                rows.append(api.ReceiverDocument(name, carries, way.via, why_path or f"{why}; {way.why}"))
                continue
            if why is None and session is None and name not in reports:
                why = f"{name} is not connected and never reported"
            elif why is None and session is not None and service.line not in session.accepted:
                why = f"{name} has not accepted {fileset}"
            gets = why is None and carries
            said = why or why_path or "linked on both sides and accepted there"
            rows.append(api.ReceiverDocument(name, gets, via, said))
        known = {row.node for row in rows} | {service.writer}
        for name, report in sorted(reports.items()):
            if report.via and name not in known:
                said = why_path or f"it follows over the hub {report.via}"
                rows.append(api.ReceiverDocument(name, carries, (report.via,), said))
        known |= {row.node for row in rows}
        rows += [
            api.ReceiverDocument(name, way.gets and carries, way.via, why_path or way.why)
            for name, way in ways_there.items()
            if name not in known
        ]
        document = api.ExplainDocument(fileset=fileset, path=None, to=tuple(rows))
        if path is not None:
            document = replace(document, **path_fields(path))
            document = replace(document, copies=self._context.copies.of_path(service, path) or UNSET)
        return replace(document, **service.explained(path))

    def _ways(self, service: LineService) -> dict[NodeName, Reach]:
        """How the line's documents get to each other node of the topology, by the rows that are known here."""
        rows = rows_of_topology(self._node.runtime.settings, self._node.membership.members)
        definition = service.known_definition()
        if definition is None or service.writer not in rows:
            return {}
        return {way.node: way for way in reach(rows, service.writer, definition.fileset_class)}

    def _path_fate(self, service: LineService, path: bytes | None) -> tuple[bool, str | None]:
        """Whether the head carries this path, and why not."""
        if path is None or not path:
            return True, None
        definition = service.known_definition()
        if definition is not None and any(Rules(definition).ignored(path, each) for each in (False, True)):
            return False, f"{shown(path)} is ignored by the definition"
        if service.head is None:
            return False, "nothing is published yet"
        try:
            entry = lookup(service.head.root, path, must_have(self._node.runtime.store.get_page))
        except KeyError as error:  # a home that came back from an older copy fetches it
            raise UnavailableError(
                f"the manifest of generation {service.head.number} is not here yet",
                hint=f"instep status {service.fileset.name}",
                code="contents_missing",
                generation=service.head.number,
            ) from error
        if entry is None:
            return False, f"generation {service.head.number} does not have {shown(path)}"
        return True, None

    async def table(self, asked: api.ExplainTableCommand, speaker: Speaker) -> api.ReachTableDocument:
        """By the partner lists alone: what they would let pass, whatever is published or connected now."""
        node = self._node
        if asked.fileset is not None:
            service_of(node, asked.fileset)
        rows = rows_of_topology(node.runtime.settings, node.membership.members)
        links = tuple(
            api.CarriedDocument(
                each.sender, each.receiver, each.own_metadata, each.own_data, each.others_metadata,
                each.others_data, each.because,
            )
            for each in carried(rows)
        )  # fmt: skip
        found = tuple(
            api.WayDocument(way.home, way.node, way.fileset_class.value, way.gets, way.via, way.why)
            for way in ways(rows)
        )
        untold = tuple(sorted(name for name, told in rows.items() if told is None))
        return api.ReachTableDocument(links, found, tuple(contradictions(rows)), untold, reach_table(rows))
