"""Reading a manifest from its pages: seek, look up, add up.

Pages come through a ``GetPage`` and are taken as our own: their digests are verified as they are loaded
(``DamagedError``), their contents were checked when they arrived (``model.check``).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import NamedTuple

from instep.model.ids import Digest
from instep.model.manifest.cutter import describe
from instep.model.manifest.entry import Entry
from instep.model.manifest.leaves import Leaf, leaf_of
from instep.model.manifest.pages import Child, GetPage, decode_inner, decode_leaf, level_of, load
from instep.model.paths import is_below, sort_key

_CACHED_INNER = 256
_CACHED_LEAVES = 8


class Totals(NamedTuple):
    """How many entries a manifest has and how many bytes its files have together."""

    entries: int
    size_bytes: int


class Inner(NamedTuple):
    """An inner page with the sort keys of its children's last paths."""

    digest: Digest
    level: int
    children: list[Child]
    keys: list[bytes]


class Reader:
    """Decodes pages and keeps the last few, for callers that look at neighbouring places in turn.
    With ``trusted=False`` each page is checked as it is decoded (``PeerError``)."""

    __slots__ = ("_get", "_inner", "_leaves", "_trusted")

    def __init__(self, get: GetPage, *, trusted: bool = True) -> None:
        self._get = get
        self._trusted = trusted
        self._inner: OrderedDict[Digest, Inner | Leaf] = OrderedDict()
        self._leaves: OrderedDict[Digest, Inner | Leaf] = OrderedDict()

    def page(self, digest: Digest) -> Inner | Leaf:
        page = self._inner.get(digest) or self._leaves.get(digest)
        if page is not None:
            return page
        raw = load(digest, self._get)
        level = level_of(raw)
        if level:
            children = decode_inner(raw, trusted=self._trusted)
            page = Inner(digest, level, children, [sort_key(child.last) for child in children])
        else:
            page = leaf_of(digest, raw, trusted=self._trusted)
        kept, most = (self._inner, _CACHED_INNER) if level else (self._leaves, _CACHED_LEAVES)
        kept[digest] = page
        if len(kept) > most:
            kept.popitem(last=False)
        return page

    def lookup(self, root: Digest, path: bytes) -> Entry | None:
        """The entry of ``path``; loads one page a level."""
        found = self._seek(root, path, bisect_left)
        return found if found is not None and found.path == path else None

    def address(self, root: Digest, path: bytes) -> tuple[Digest, int] | None:
        """The leaf page and the position in it of the entry of ``path``: its contents are asked for by them."""
        key = sort_key(path)
        page = self.page(root)
        while (at := bisect_left(page.keys, key)) < len(page.keys):
            if isinstance(page, Leaf):
                return (page.digest, at) if page.entries[at].path == path else None
            page = self.page(page.children[at].digest)
        return None

    def first_after(self, root: Digest, path: bytes) -> Entry | None:
        """The entry that follows ``path`` in the order, whether ``path`` itself is there or not."""
        return self._seek(root, path, bisect_right)

    def _seek(self, root: Digest, path: bytes, bisect: Callable[[list[bytes], bytes], int]) -> Entry | None:
        key = sort_key(path)
        page = self.page(root)
        while (at := bisect(page.keys, key)) < len(page.keys):
            if isinstance(page, Leaf):
                return page.entries[at]
            page = self.page(page.children[at].digest)
        return None


def iterate(root: Digest, get: GetPage, after: bytes = b"") -> Iterator[Entry]:
    """All entries in order, or those after the path ``after``; one open page a level."""
    raw = load(root, get)
    if not level_of(raw):
        entries = decode_leaf(raw, trusted=True)
        if not after:
            yield from entries
        else:
            key = sort_key(after)
            yield from (entry for entry in entries if sort_key(entry.path) > key)
        return
    children = decode_inner(raw, trusted=True)
    start = bisect_right([sort_key(child.last) for child in children], sort_key(after)) if after else 0
    for child in children[start : start + 1]:
        yield from iterate(child.digest, get, after)
    for child in children[start + 1 :]:
        yield from iterate(child.digest, get)


def entries_below(root: Digest, directory: bytes, get: GetPage) -> Iterator[Entry]:
    """The entries below ``directory``, in order."""
    for entry in iterate(root, get, after=directory):
        if not is_below(entry.path, directory):
            return
        yield entry


def lookup(root: Digest, path: bytes, get: GetPage) -> Entry | None:
    """The entry of ``path``, or nothing; loads one page a level."""
    return Reader(get).lookup(root, path)


def totals(root: Digest, get: GetPage) -> Totals:
    """Entries and bytes of files, from the root page alone."""
    raw = load(root, get)
    if level_of(raw):
        children = decode_inner(raw, trusted=True)
        return Totals(sum(child.entries for child in children), sum(child.size_bytes for child in children))
    entries = decode_leaf(raw, trusted=True)
    if not entries:
        return Totals(0, 0)
    whole = describe(root, entries)
    return Totals(whole.entries, whole.size_bytes)
