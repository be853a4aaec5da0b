"""Which pages belong to a generation: the pages that a request names are looked up here before anything is read (P6).

Pages are named by digest and stored side by side whatever line they are of. A node that may have one line must not
get pages or contents of another by naming them, nor learn whether they exist.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable

from instep.errors import DamagedError, PeerError, UnavailableError
from instep.model.ids import Digest
from instep.model.manifest.chunklist import decode_runs
from instep.model.manifest.pages import CHUNK_TAG, decode_inner, level_of

KEPT_ROOTS = 16
DIGESTS_KEPT_MAX = 1 << 20

GetOrNone = Callable[[Digest], bytes | None]


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
        raise UnavailableError(
            f"page {root.hex()[:16]} is not kept here any more", hint="take the newer head", code="superseded"
        )
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
