"""The differences of two manifests, without reading their common pages.

Both are walked at once from the left. Where both walks are about to enter pages of the same digest, both
skip them, at whatever level they stand.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import compress
from operator import ne
from typing import NamedTuple

import msgspec

from instep.model.ids import EMPTY_DIGEST, Digest
from instep.model.manifest.entry import Entry
from instep.model.manifest.leaves import leaf_of
from instep.model.manifest.pages import (
    GetPage,
    decode_inner,
    expect_level,
    level_of,
    load,
    refuse_empty,
)
from instep.model.paths import sort_key


class Change(msgspec.Struct, frozen=True, gc=False):
    """One path that differs. ``page`` and ``index`` address ``new`` in its leaf, which is how its
    contents are asked for; they are empty and 0 where ``new`` is nothing."""

    path: bytes
    old: Entry | None
    new: Entry | None
    page: Digest
    index: int


class _Node(NamedTuple):
    """A page that was not entered yet: its keys lie above ``lower`` and, unless ``last`` is nothing
    (the root), at most at ``last``."""

    digest: Digest
    level: int
    lower: bytes
    last: bytes | None


class _Side:
    """One of the two walks: ``stack`` holds the pages still to enter (next one last), and the open leaf
    is read from ``at``."""

    __slots__ = ("at", "entries", "get", "keys", "leaf", "stack", "trusted")

    def __init__(self, root: Digest | None, get: GetPage, trusted: bool) -> None:
        self.get = get
        self.trusted = trusted
        self.entries: list[Entry] = []
        self.keys: list[bytes] = []
        self.leaf = EMPTY_DIGEST
        self.at = 0
        self.stack = [] if root is None else [_Node(root, level_of(load(root, get)), b"", None)]

    def in_leaf(self) -> bool:
        return self.at < len(self.entries)

    def node(self) -> _Node | None:
        """The page to enter next, or nothing while a leaf is open or all is read."""
        return self.stack[-1] if self.stack and self.at >= len(self.entries) else None

    def enter(self) -> None:
        """Replace the next page by its entries."""
        node = self.stack.pop()
        raw = load(node.digest, self.get)
        if not self.trusted:
            expect_level(raw, node.level)
        if node.level == 0:
            _, self.entries, self.keys = leaf_of(node.digest, raw, trusted=self.trusted)
            if not self.trusted and node.last is not None:
                refuse_empty(self.entries)
            self.leaf = node.digest
            self.at = 0
            return
        lower = node.lower
        nodes = []
        for child in decode_inner(raw, trusted=self.trusted):
            last = sort_key(child.last)
            nodes.append(_Node(child.digest, node.level - 1, lower, last))
            lower = last
        nodes.reverse()
        self.stack += nodes


def diff(old: Digest | None, new: Digest, get: GetPage, *, trusted: bool = True) -> Iterator[Change]:
    """The paths whose entries differ, in order; all of ``new`` where ``old`` is nothing.

    ``trusted`` is whether ``new`` was checked before. Where it was not, each page of it that ``old`` lacks
    is checked by itself, but nothing between pages: the caller judges what comes out."""
    if old == new:
        return
    a, b = _Side(old, get, True), _Side(new, get, trusted)
    while True:
        in_a, in_b = a.in_leaf(), b.in_leaf()
        if in_a and in_b:
            yield from _merge(a, b)
            continue
        node_a, node_b = a.node(), b.node()
        if node_a is not None and node_b is not None:
            if node_a.digest == node_b.digest:
                a.stack.pop()
                b.stack.pop()
            else:
                _enter_one(a, node_a, b, node_b)
        elif in_a and (node_b is None or a.keys[a.at] <= node_b.lower):
            entry = a.entries[a.at]
            a.at += 1
            yield Change(entry.path, entry, None, EMPTY_DIGEST, 0)
        elif in_b and (node_a is None or b.keys[b.at] <= node_a.lower):
            entry = b.entries[b.at]
            b.at += 1
            yield Change(entry.path, None, entry, b.leaf, b.at - 1)
        elif node_a is not None:
            a.enter()
        elif node_b is not None:
            b.enter()
        else:
            return


def _enter_one(a: _Side, node_a: _Node, b: _Side, node_b: _Node) -> None:
    """Enter the page that cannot be equal to anything ahead on the other side: the one that lies wholly
    before the other, else the higher, else both."""
    if node_a.last is not None and node_a.last <= node_b.lower:
        a.enter()
    elif node_b.last is not None and node_b.last <= node_a.lower:
        b.enter()
    else:
        if node_a.level >= node_b.level:
            a.enter()
        if node_b.level >= node_a.level:
            b.enter()


def _merge(a: _Side, b: _Side) -> Iterator[Change]:
    """Compare the open leaves until one of them is read; most often they have the same paths."""
    i, j = a.at, b.at
    keys_a, keys_b, entries_a, entries_b, leaf = a.keys, b.keys, a.entries, b.entries, b.leaf
    end_a, end_b = len(keys_a), len(keys_b)
    if i == j and keys_a == keys_b:
        a.at = b.at = end_a
        for k in compress(range(i, end_a), map(ne, entries_a[i:], entries_b[i:])):
            yield Change(entries_b[k].path, entries_a[k], entries_b[k], leaf, k)
        return
    while i < end_a and j < end_b:
        key_a, key_b = keys_a[i], keys_b[j]
        if key_a == key_b:
            old, new = entries_a[i], entries_b[j]
            i += 1
            j += 1
            if old is not new and old != new:
                yield Change(new.path, old, new, leaf, j - 1)
        elif key_a < key_b:
            old = entries_a[i]
            i += 1
            yield Change(old.path, old, None, EMPTY_DIGEST, 0)
        else:
            new = entries_b[j]
            j += 1
            yield Change(new.path, None, new, leaf, j - 1)
    a.at, b.at = i, j
