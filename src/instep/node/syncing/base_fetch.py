"""A base of a sync profile, fetched from a node that keeps it."""

from __future__ import annotations

from instep.model.ids import Digest, HeadRef, LineId
from instep.model.sync import SyncBase, SyncMark
from instep.net.messages import messages as m
from instep.net.messages.syncing import BasesRequest
from instep.net.service import SYNC_BASES, PeerCalls
from instep.node.following.page_fetch import Fetcher
from instep.node.runtime.runtime import Runtime


async def fetched_base(
    runtime: Runtime, calls: PeerCalls, line: LineId, name: str, mark: SyncMark | None
) -> SyncBase | None:
    """The base with this mark, or the newest one, from a node that keeps it; with all of its pages."""
    base = (await calls.call(SYNC_BASES, BasesRequest(line, name, mark))).base
    if base is None or (mark is not None and base.mark != mark):
        return None
    found = base.mark
    for tree in base.roots:

        async def ask(request: m.PagesRequest, tree: Digest = tree) -> m.PagesReply:
            asked = BasesRequest(line, name, found, tree, request.digests)
            return m.PagesReply((await calls.call(SYNC_BASES, asked)).pages)

        head = HeadRef(base.left.epoch, base.left.number, found.root, tree)
        await Fetcher(runtime).pages(line, head, None, ask)
    return base
