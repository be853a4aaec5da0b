"""Editing a manifest: the pages that a few changes touch, and no others.

The levels are edited from the leaves upwards by the same procedure. Starting at the old page that holds
the first change, items are merged with the changes and cut anew, page after page, until a new page ends
exactly where an old one ended; from there on nothing can differ until the next change. The replaced pages
are the list of changes for the level above.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from operator import itemgetter
from typing import TypeVar

from instep.model.ids import Digest
from instep.model.manifest.cutter import SPEC, Cutter, Shape, describe, inner_cutter, leaf_cutter
from instep.model.manifest.entry import Entry
from instep.model.manifest.leaves import Leaf, keep_leaf
from instep.model.manifest.pages import Child, GetPage, PutPage, digest_of, encode_page
from instep.model.manifest.walk import Inner, Reader
from instep.model.paths import sort_key

ItemT = TypeVar("ItemT", Entry, Child)
_Replaced = list[tuple[bytes, Child | None]]


def edit(
    root: Digest,
    changes: Sequence[tuple[bytes, Entry | None]],
    get: GetPage,
    put: PutPage,
    shape: Shape = SPEC,
) -> Digest:
    """The root of the manifest after ``changes`` (path and new entry, or nothing for a removal; strictly
    rising in ``sort_key``). Equals ``build()`` of the edited set; reads and writes only pages near the
    changes. Removing what is not there changes nothing."""
    entries = [(sort_key(path), entry) for path, entry in changes]
    assert all(a[0] < b[0] for a, b in pairwise(entries)), "changes are not in order"
    if not entries:
        return root
    return _Edit(root, get, put, shape).run(entries)


class _Edit:
    """One edit: the old tree, and the pages that it made."""

    def __init__(self, root: Digest, get: GetPage, put: PutPage, shape: Shape) -> None:
        self._root = root
        self._reader = Reader(get)
        self._put = put
        self._shape = shape
        page = self._reader.page(root)
        self._top = page.level if isinstance(page, Inner) else 0
        self._final_key = page.keys[-1] if page.keys else b""
        self._only_child: dict[Digest, Digest | None] = {}

    def run(self, entries: list[tuple[bytes, Entry | None]]) -> Digest:
        made: list[Child] = []

        def leaf(digest: Digest, items: list[Entry]) -> None:
            keep_leaf(digest, items)
            made.append(describe(digest, items))

        leaves = leaf_cutter(self._put, leaf, self._shape)
        up = self._replaced(0, self._rework(0, entries, leaves), made)
        level = 0
        while up and level < self._top:
            level += 1
            made = []
            up = self._replaced(level, self._rework(level, up, self._inner(level, made)), made)
        if not up:
            return self._root
        newest = [page for _, page in up if page is not None]
        while len(newest) > 1:
            level += 1
            made = []
            cutter = self._inner(level, made)
            for child in newest:
                cutter.add(child)
            cutter.close(final=True)
            newest = made
        if newest:
            return self._lowest_single(newest[0].digest, level)
        raw = encode_page(0, [])
        self._put(digest_of(raw), raw)
        return digest_of(raw)

    def _inner(self, level: int, made: list[Child]) -> Cutter[Child]:
        def up(digest: Digest, items: list[Child]) -> None:
            self._only_child[digest] = items[0].digest if len(items) == 1 else None
            made.append(describe(digest, items))

        return inner_cutter(level, self._put, up, self._shape)

    def _rework(
        self, level: int, edits: Sequence[tuple[bytes, ItemT | None]], cutter: Cutter[ItemT]
    ) -> _Replaced:
        """Merge ``edits`` into the pages of ``level`` and cut them anew; returns the old pages that this
        used up, each as its last key and nothing."""
        keys = [key for key, _ in edits]
        used: _Replaced = []
        at = 0
        last = b""
        while at < len(edits) or cutter.items:
            if cutter.items:
                page = self._locate(level, last, following=True)
                if page is None:
                    break
            else:
                page = self._locate(level, keys[at], following=False)
                assert page is not None
            last = page.keys[-1] if page.keys else b""
            used.append((last, Child(b"", page.digest, 1, 0)))
            upto = len(edits) if last == self._final_key else bisect_right(keys, last, at)
            items: Sequence[ItemT] = page.children if isinstance(page, Inner) else page.entries  # type: ignore[assignment]
            _merge(page.keys, items, edits[at:upto], cutter)
            at = upto
        cutter.close(final=True)
        return used

    def _locate(self, level: int, key: bytes, *, following: bool) -> Inner | Leaf | None:
        """The page of ``level`` that ``key`` belongs to (the last one for a key above all), or with
        ``following`` the page after the one that ends at ``key``."""
        page = self._reader.page(self._root)
        current = self._top
        while current > level:
            assert isinstance(page, Inner)
            at = (bisect_right if following else bisect_left)(page.keys, key)
            if at == len(page.keys):
                if following:
                    return None
                at -= 1
            page = self._reader.page(page.children[at].digest)
            current -= 1
        if following and (not page.keys or page.keys[-1] <= key):
            return None
        return page

    def _replaced(self, level: int, used: _Replaced, made: list[Child]) -> _Replaced:
        """The changes for the level above. Of the root's level all pages are named, of the others
        only those that changed."""
        old = {key: page.digest for key, page in used if page is not None}
        changes: dict[bytes, Child | None] = dict.fromkeys(old)
        for child in made:
            changes[sort_key(child.last)] = child
        if level < self._top:
            for child in made:
                key = sort_key(child.last)
                if old.get(key) == child.digest:
                    del changes[key]
        elif [child.digest for child in made] == [self._root]:
            changes.clear()
        return sorted(changes.items(), key=itemgetter(0))

    def _lowest_single(self, digest: Digest, level: int) -> Digest:
        """Below a row of single children, the page that they lead to."""
        while level:
            if digest in self._only_child:
                child = self._only_child[digest]
            else:
                page = self._reader.page(digest)
                assert isinstance(page, Inner)
                child = page.children[0].digest if len(page.children) == 1 else None
            if child is None:
                break
            digest = child
            level -= 1
        return digest


def _merge(
    keys: Sequence[bytes],
    items: Sequence[ItemT],
    edits: Sequence[tuple[bytes, ItemT | None]],
    cutter: Cutter[ItemT],
) -> None:
    """Hand the items of one page to the cutter, edited."""
    if not cutter.items and _replace(keys, items, edits, cutter):
        return
    start = 0
    for key, item in edits:
        stop = bisect_left(keys, key, start)
        for kept in items[start:stop]:
            cutter.add(kept)
        start = stop + (stop < len(keys) and keys[stop] == key)
        if item is not None:
            cutter.add(item)
    for kept in items[start:]:
        cutter.add(kept)


def _replace(
    keys: Sequence[bytes],
    items: Sequence[ItemT],
    edits: Sequence[tuple[bytes, ItemT | None]],
    cutter: Cutter[ItemT],
) -> bool:
    """The quick way for a page that keeps its keys: no key inside it can ask for an end, so only its last
    one and its bytes need a look."""
    replaced = list(items)
    for key, item in edits:
        at = bisect_left(keys, key)
        if item is None or at == len(keys) or keys[at] != key:
            return False
        replaced[at] = item
    cutter.items = replaced
    cutter.close(final=False)
    return True
