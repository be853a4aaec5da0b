"""Pages that this node has: walks over them, each of them once, and which of them belong to a generation (P6).

Pages are named by digest and stored side by side whatever line they are of. A node that may have one line must not
get pages or contents of another by naming them, nor learn whether they exist.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from instep.errors import DamagedError, PeerError, UnavailableError
from instep.model.ids import Digest, LineId
from instep.model.manifest.chunklist import decode_runs
from instep.model.manifest.entry import Entry
from instep.model.manifest.pages import CHUNK_TAG, decode_inner, decode_leaf, level_of, load
from instep.store.port import NodeStore

GetPage = Callable[[Digest], bytes]
ItemT = TypeVar("ItemT")


def must_have(get_or_none: Callable[[Digest], bytes | None]) -> GetPage:
    """Pages as the walks of ``model`` read them: ``KeyError`` for a page that is not here."""

    def get(digest: Digest) -> bytes:
        raw = get_or_none(digest)
        if raw is None:
            raise KeyError(digest)
        return raw

    return get


def new_pages(store: NodeStore, roots: Iterable[Digest], seen: set[Digest]) -> Iterator[tuple[Digest, bytes]]:
    """Pages below ``roots`` that were not seen before, with their digests, parents first; all are added to ``seen``."""
    pending = [root for root in roots if root not in seen]
    while pending:
        digest = pending.pop()
        if digest in seen:
            continue
        seen.add(digest)
        raw = store.get_page(digest)
        if raw is None:
            continue
        yield digest, raw
        children = items_of(digest, raw, lambda raw: decode_inner(raw, trusted=True) if level_of(raw) else [])
        pending += [child.digest for child in children if child.digest not in seen]


def new_leaves(store: NodeStore, roots: Iterable[Digest], seen: set[Digest]) -> Iterator[list[Entry]]:
    """The entries of each leaf among ``new_pages``."""
    for digest, raw in new_pages(store, roots, seen):
        yield items_of(digest, raw, lambda raw: [] if level_of(raw) else decode_leaf(raw, trusted=True))


def items_of(digest: Digest, raw: bytes, decode: Callable[[bytes], list[ItemT]]) -> list[ItemT]:
    """The items of a stored page. None of one that cannot be read although it is what its digest says: a peer made it,
    its generation was refused, and it stays in the store as long as that is known. ``DamagedError`` when the disk
    changed it."""
    try:
        return decode(raw)
    except PeerError:
        load(digest, lambda _: raw)
        return []


KEPT_ROOTS = 16
DIGESTS_KEPT_MAX = 1 << 20

GetOrNone = Callable[[Digest], bytes | None]


def page_gone(digest: Digest) -> UnavailableError:
    return UnavailableError(
        f"page {digest.hex()[:16]} is not kept here any more",
        hint="take the newer head",
        code="superseded",
        page=digest.hex(),
    )


def generation_gone(line: LineId, generation: bytes) -> UnavailableError:
    return UnavailableError(
        f"generation {generation.hex()[:16]} of {line} is not kept here",
        hint="take the newer head",
        code="superseded",
        generation=generation.hex(),
    )


class PageMembership:
    """Keeps the page digests below the roots that were asked about last. Reads inner pages only: about one in
    250. A root some of whose inner pages are gone belongs as far as it can be followed."""

    def __init__(self) -> None:
        self._known: OrderedDict[Digest, frozenset[Digest]] = OrderedDict()
        self._lock = threading.Lock()

    def require(self, root: Digest, asked: Iterable[Digest], get: GetOrNone) -> None:
        """``PeerError`` ``bad_want`` unless every page asked for lies in the tree of ``root``."""
        below = self._below(root, get)
        for digest in asked:
            if digest not in below:
                raise PeerError(
                    f"page {digest.hex()[:16]} does not belong to the generation or file that was named",
                    code="bad_want",
                    page=digest.hex(),
                )

    def _below(self, root: Digest, get: GetOrNone) -> frozenset[Digest]:
        with self._lock:
            found = self._known.get(root)
            if found is not None:
                self._known.move_to_end(root)
                return found
        found, is_whole = _collected(root, get)
        if is_whole:
            with self._lock:
                self._known[root] = found
                while len(self._known) > KEPT_ROOTS or (
                    len(self._known) > 1 and sum(map(len, self._known.values())) > DIGESTS_KEPT_MAX
                ):
                    self._known.popitem(last=False)
        return found


def _collected(root: Digest, get: GetOrNone) -> tuple[frozenset[Digest], bool]:
    raw = get(root)
    if raw is None:
        raise page_gone(root)
    found = {root}
    is_whole = True
    level = level_of(raw)
    row = [root]
    while level:
        below: dict[Digest, None] = {}
        for digest in row:
            raw = get(digest)
            if raw is None:
                is_whole = False
                continue
            if level_of(raw) != level:
                raise DamagedError(f"stored page {digest.hex()} is of another level", code="page_damaged")
            children = decode_runs(raw, level) if raw[1] >= CHUNK_TAG else decode_inner(raw, trusted=True)
            below.update((child.digest, None) for child in children)
        found.update(below)
        row = list(below)
        level -= 1
    return frozenset(found), is_whole
