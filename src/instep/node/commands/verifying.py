"""``verify``: attested roots of the fleet, and each tree against its manifest."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

from msgspec import UNSET, UnsetType

from instep.api import verifying as api
from instep.errors import InstepError, UnavailableError
from instep.model.ids import NodeName
from instep.model.manifest.manifest import totals
from instep.model.paths import path_fields
from instep.net.messages import messages as m
from instep.net.messages.faults import error_of_reply
from instep.net.service import VERIFY
from instep.node.commands.context import CommandHandlers
from instep.node.commands.control import Speaker
from instep.node.commands.patience import works_of
from instep.node.commands.targets import accepted_by, current_reports, service_of
from instep.node.lines.line_service import LineService
from instep.node.trees.keeping.page_walk import must_have

VERIFY_S = 86_400.0


Looks = dict[tuple[LineService, NodeName], Coroutine[Any, Any, m.VerifyReply]]
"""By line and node."""


class Verifying(CommandHandlers):
    async def verify(self, asked: api.VerifyCommand, speaker: Speaker) -> api.VerifyDocument:
        service = service_of(self._node, asked.fileset)
        lines, is_many = (service, *service.beside), service.fileset.is_of_many_homes
        looks: Looks = {}
        for line in lines:
            looks[line, self._node.runtime.name] = line.verify(is_deep=asked.deep)
            if asked.fleet:
                looks.update(self._asked_of_partners(service, line, is_deep=asked.deep))
        size = self._size_of(lines)
        async with works_of(*looks.values()) as works:
            while pending := [work for work in works if not work.done()]:
                if asked.deep and works[0] in pending:
                    read = service.tree.verified_bytes()
                    await speaker.progress("reading every byte", read, size, "bytes")
                else:
                    await speaker.progress("verifying", len(works) - len(pending), len(works), "nodes")
                await asyncio.wait(pending, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
        nodes = [
            _verified(line.line.origin if is_many else UNSET, name, work)
            for (line, name), work in zip(looks, works, strict=True)
        ]
        if asked.fleet:
            nodes += [
                api.VerifiedNodeDocument(
                    partner,
                    None,
                    reason=self._why_not_asked(service, partner),
                    origin=service.line.origin if is_many else UNSET,
                )
                for partner, report in current_reports(self._node, service).items()
                if (service, partner) not in looks and not report.via
            ]
        by_line: dict[object, set[str | None]] = {}
        for node in nodes:
            by_line.setdefault(node.origin, set()).add(node.root)
        are_same = all(len(roots) == 1 and None not in roots for roots in by_line.values())
        identical = are_same and not any(node.differs for node in nodes)
        return api.VerifyDocument(service.fileset.name, asked.deep, identical, tuple(nodes))

    def _asked_of_partners(self, own: LineService, line: LineService, *, is_deep: bool) -> Looks:
        """Partners look at a line that they follow over the connection that they dialled here, and at the one that they
        write over the connection that this node dialled. A home behind a hub is asked by nodes that list it."""
        looks: Looks = {}
        for name, session in accepted_by(self._node, own).items():
            if name != line.writer:
                looks[line, name] = session.verify(line.line, is_deep=is_deep, within_s=VERIFY_S)
        home = line.sources.get(line.writer)
        if home is not None:
            request = m.VerifyRequest(0, line.line, is_deep)
            looks[line, home.name] = home.client.call(VERIFY, request, total_s=VERIFY_S)
        elif line is not own and line.writer in self._node.runtime.settings.partners:
            looks[line, line.writer] = _not_connected(line)
        return looks

    def _size_of(self, lines: Sequence[LineService]) -> int:
        get = must_have(self._node.runtime.store.get_page)
        return sum(totals(line.live.root, get).size_bytes for line in lines if line.live is not None)

    def _why_not_asked(self, service: LineService, partner: NodeName) -> str:
        if partner in self._node.peers.sessions:
            return f"{partner} is connected and has not accepted {service.fileset.name}"
        return f"{partner} is not connected"


async def _not_connected(line: LineService) -> m.VerifyReply:
    raise UnavailableError(
        f"{line.writer} is not connected", hint="instep check", code="not_connected", node=line.writer
    )


def _verified(
    origin: str | UnsetType, name: str, work: asyncio.Task[m.VerifyReply]
) -> api.VerifiedNodeDocument:
    try:
        reply = work.result()
        if reply.error is not None:
            raise error_of_reply(reply.error, name)
    except InstepError as error:
        return api.VerifiedNodeDocument(name, None, reason=error.reason, code=error.error_code, origin=origin)
    if reply.live is None:
        return api.VerifiedNodeDocument(
            name, None, reason="nothing is live yet", code="no_live", origin=origin
        )
    differs = (api.DifferenceDocument(why=each.why, **path_fields(each.path)) for each in reply.differs)
    root = reply.attested_root.hex() or None
    return api.VerifiedNodeDocument(
        name, root, reply.live.number, reply.differing, tuple(differs), origin=origin
    )
