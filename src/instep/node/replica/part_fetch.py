"""Manifests of other homes' lines that the tree's own record names and the state does not have."""

from __future__ import annotations

from instep.errors import InstepError
from instep.model.ids import NodeName
from instep.model.manifest.check import missing
from instep.model.replication.union import UnionPart
from instep.net.messages import messages as m
from instep.net.service import PAGES, PeerCalls
from instep.node.following.page_fetch import Fetcher
from instep.node.replica.kept_line import KeptLine
from instep.node.runtime.runtime import Runtime


class PartFetch:
    """The part of a ``Replica`` that asks the sources of its lines."""

    runtime: Runtime
    kept: dict[NodeName, KeptLine]
    _unknown: InstepError | None
    """Why it is not certain what the tree holds."""

    def clients_of(self, origin: NodeName) -> list[PeerCalls]:
        """The nodes that can send a line, its writer first."""
        kept = self.kept.get(origin)
        if kept is None:
            return []
        names = sorted(kept.sources, key=lambda name: (name != kept.writer, name))
        return [kept.sources[name].client for name in names]

    async def _fetch_part(self, part: UnionPart) -> None:
        kept = self.kept.get(part.origin)
        store = self.runtime.store
        if kept is None or not missing(part.head.root, store.get_page):
            return
        for client in self.clients_of(part.origin):

            async def ask(request: m.PagesRequest, client: PeerCalls = client) -> m.PagesReply:
                return await client.call(PAGES, request)

            try:
                await Fetcher(self.runtime).pages(kept.line, part.head, None, ask)
                return
            except InstepError as error:
                self._unknown = error
