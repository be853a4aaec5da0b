"""``verify``: attested roots of the fleet, and each tree against its manifest."""

from __future__ import annotations

import asyncio

from instep.api import verifying as api
from instep.errors import InstepError
from instep.model.ids import NodeName
from instep.model.manifest.manifest import totals
from instep.model.paths import path_fields
from instep.net.messages import messages as m
from instep.net.messages.faults import error_of_reply
from instep.node.commands.context import CommandHandlers
from instep.node.commands.control import Speaker
from instep.node.commands.patience import works_of
from instep.node.commands.targets import accepted_by, current_reports, service_of
from instep.node.lines.line_service import LineService
from instep.node.trees.keeping.page_walk import must_have

VERIFY_S = 86_400.0


class Verifying(CommandHandlers):
    async def verify(self, asked: api.VerifyCommand, speaker: Speaker) -> api.VerifyDocument:
        service = service_of(self._node, asked.fileset)
        looks = {self._node.runtime.name: service.verify(is_deep=asked.deep)}
        if asked.fleet:
            for name, session in accepted_by(self._node, service).items():
                looks[name] = session.verify(service.line, is_deep=asked.deep, within_s=VERIFY_S)
        store, live = self._node.runtime.store, service.live
        total = totals(live.root, must_have(store.get_page)).size_bytes if live is not None else 0
        async with works_of(*looks.values()) as works:
            while pending := [work for work in works if not work.done()]:
                if asked.deep and works[0] in pending:
                    read = service.tree.verified_bytes()
                    await speaker.progress("reading every byte", read, total, "bytes")
                else:
                    await speaker.progress("verifying", len(works) - len(pending), len(works), "nodes")
                await asyncio.wait(pending, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
        nodes = [_verified(name, work) for name, work in zip(looks, works, strict=True)]
        if asked.fleet:
            nodes += [
                api.VerifiedNodeDocument(partner, None, reason=self._why_not_asked(service, partner))
                for partner, report in current_reports(self._node, service).items()
                if partner not in looks and not report.via
            ]
        roots = {node.root for node in nodes}
        identical = len(roots) == 1 and None not in roots and not any(node.differs for node in nodes)
        return api.VerifyDocument(service.fileset.name, asked.deep, identical, tuple(nodes))

    def _why_not_asked(self, service: LineService, partner: NodeName) -> str:
        if partner in self._node.peers.sessions:
            return f"{partner} is connected and has not accepted {service.fileset.name}"
        return f"{partner} is not connected"


def _verified(name: str, work: asyncio.Task[m.VerifyReply]) -> api.VerifiedNodeDocument:
    try:
        reply = work.result()
        if reply.error is not None:
            raise error_of_reply(reply.error, name)
    except InstepError as error:
        return api.VerifiedNodeDocument(name, None, reason=error.reason, code=error.error_code)
    if reply.live is None:
        return api.VerifiedNodeDocument(name, None, reason="nothing is live yet", code="no_live")
    differs = (api.DifferenceDocument(why=each.why, **path_fields(each.path)) for each in reply.differs)
    root = reply.attested_root.hex() or None
    return api.VerifiedNodeDocument(name, root, reply.live.number, reply.differing, tuple(differs))
