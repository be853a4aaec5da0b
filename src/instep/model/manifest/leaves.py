"""Leaves with the sort keys of their entries. The ones decoded last are kept: one piece of work, such as a sync run or
the publish of many paths, walks over the same pages again and again.

A page is named by its bytes, so its entries are the same for every reader. It is loaded from the caller's store all the
same: whether a page is there and undamaged is never answered from here.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from typing import NamedTuple

from instep.model.ids import Digest
from instep.model.manifest.entry import Entry
from instep.model.manifest.pages import decode_leaf
from instep.model.paths import sort_key

KEPT_MAX = 512
"""About 50 MiB where all of them hold different entries."""


class Leaf(NamedTuple):
    """A leaf page with the sort keys of its entries. Neither list is ever changed."""

    digest: Digest
    entries: list[Entry]
    keys: list[bytes]


class KeptLeaves:
    """The leaves used last, by digest, and whether every rule was checked of each. Threads share it without a lock:
    each call of the dictionary is one act, and a leaf that another thread drops meanwhile is decoded again."""

    def __init__(self, most: int = KEPT_MAX) -> None:
        self._most = most
        self._leaves: OrderedDict[Digest, tuple[Leaf, bool]] = OrderedDict()

    def find(self, digest: Digest, *, trusted: bool) -> Leaf | None:
        """The leaf, if it is kept; without ``trusted`` only if it was checked."""
        leaf, is_checked = self._leaves.get(digest, _NONE)
        if leaf is None or not (trusted or is_checked):
            return None
        with contextlib.suppress(KeyError):
            self._leaves.move_to_end(digest)
        return leaf

    def keep(self, leaf: Leaf, *, is_checked: bool) -> None:
        if is_checked or leaf.digest not in self._leaves:
            self._leaves[leaf.digest] = (leaf, is_checked)
        with contextlib.suppress(KeyError):
            while len(self._leaves) > self._most:
                self._leaves.popitem(last=False)

    def forget(self) -> None:
        self._leaves.clear()


_NONE = (None, False)
_kept = KeptLeaves()
forget_leaves = _kept.forget


def leaf_of(digest: Digest, raw: bytes, *, trusted: bool) -> Leaf:
    """The leaf that ``raw`` encodes, which was loaded as ``digest``. Untrusted bytes are checked (``PeerError``)."""
    leaf = _kept.find(digest, trusted=trusted)
    if leaf is None:
        entries = decode_leaf(raw, trusted=trusted)
        leaf = _new_leaf(digest, entries)
        _kept.keep(leaf, is_checked=not trusted)
    return leaf


def keep_leaf(digest: Digest, entries: list[Entry]) -> None:
    """A leaf that was made here, and is likely to be read soon."""
    _kept.keep(_new_leaf(digest, entries), is_checked=False)


def _new_leaf(digest: Digest, entries: list[Entry]) -> Leaf:
    return Leaf(digest, entries, [sort_key(entry.path) for entry in entries])
