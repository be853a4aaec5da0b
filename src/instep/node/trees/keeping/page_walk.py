"""Walks over pages that this node has, each of them once."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from instep.model.ids import Digest
from instep.model.manifest.pages import decode_inner, level_of
from instep.store.port import NodeStore

GetPage = Callable[[Digest], bytes]


def must_have(get_or_none: Callable[[Digest], bytes | None]) -> GetPage:
    """Pages as the walks of ``model`` read them: ``KeyError`` for a page that is not here."""

    def get(digest: Digest) -> bytes:
        raw = get_or_none(digest)
        if raw is None:
            raise KeyError(digest)
        return raw

    return get


def new_pages(store: NodeStore, roots: Iterable[Digest], seen: set[Digest]) -> Iterable[bytes]:
    """Pages below ``roots`` that were not seen before, parents first; all are added to ``seen``."""
    pending = [root for root in roots if root not in seen]
    while pending:
        digest = pending.pop()
        if digest in seen:
            continue
        seen.add(digest)
        raw = store.get_page(digest)
        if raw is None:
            continue
        yield raw
        if level_of(raw) > 0:
            pending += [child.digest for child in decode_inner(raw, trusted=True) if child.digest not in seen]
