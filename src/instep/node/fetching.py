"""Fetching a manifest: pages level by level, only what is not here, each verified before it is stored."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from instep.errors import PeerError, UnavailableError
from instep.model.check import check_diff, check_tree, missing
from instep.model.ids import Digest, HeadRef, LineId
from instep.model.pages import digest_of
from instep.net import messages as m
from instep.node.runtime import Runtime

__all__ = ["AskPages", "Fetcher"]

ROUNDS_MAX = 64
"""More levels or repeated partial answers than any tree of 2**40 entries needs."""
PAGES_MAX = 1 << 20

AskPages = Callable[[m.PagesRequest], Awaitable[m.PagesReply]]


class Fetcher:
    """Stores pages that hash to what was asked for; what else a peer sends is refused."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def pages(self, line: LineId, head: HeadRef, complete: Digest | None, ask: AskPages) -> None:
        """All pages of ``head``. ``complete`` is a root whose pages are all here. Raises what ``ask`` raises,
        and ``PeerError`` for pages that are not what they should be or a manifest that breaks a rule."""
        store = self._runtime.store
        if complete is not None and store.get_page(complete) is None:
            complete = None
        for _ in range(ROUNDS_MAX):
            absent = missing(head.root, store.get_page, complete=complete)
            if not absent:
                break
            while absent:
                absent = absent[await self._batch(line, head, absent[: m.DIGESTS_MAX], ask) :]
        else:
            raise PeerError("the manifest has more levels than any tree needs", code="endless_manifest")
        await asyncio.to_thread(self._check, head.root, complete)

    async def _batch(self, line: LineId, head: HeadRef, wanted: list[Digest], ask: AskPages) -> int:
        reply = await ask(m.PagesRequest(line, head.id, tuple(wanted)))
        pages: list[tuple[Digest, bytes]] = []
        for digest, raw in zip(wanted, reply.pages, strict=False):
            if digest_of(raw) != digest:
                raise PeerError(
                    f"a page is not what its digest says: {digest.hex()[:16]} was asked for",
                    code="bad_page",
                    page=digest.hex(),
                )
            pages.append((digest, raw))
        if not pages:
            reason = reply.error.reason if reply.error is not None else "no pages came"
            raise UnavailableError(f"pages cannot be had: {reason}", code="superseded")
        self._runtime.store.put_pages(pages)
        return len(pages)

    def _check(self, root: Digest, complete: Digest | None) -> None:
        get = self.get
        if complete is None:
            check_tree(root, get)
        else:
            check_diff(complete, root, get)

    def get(self, digest: Digest) -> bytes:
        raw = self._runtime.store.get_page(digest)
        if raw is None:
            raise KeyError(digest)
        return raw

    def keep_bundle(self, bundle: m.Bundle) -> dict[Digest, bytes]:
        """Store the pages of a head's bundle under their true digests; its contents by theirs, verified."""
        from blake3 import blake3

        self._runtime.store.put_pages([(digest_of(raw), raw) for raw in bundle.pages])
        return {digest: data for digest, data in bundle.contents if blake3(data).digest() == digest}
