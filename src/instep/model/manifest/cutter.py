"""The cut rule: where pages end, and the streaming builder that follows it.

Implements the section "Cut rule" of ``docs/spec/manifest.md``. A page ends where a hash of its last item
says so, or where it is full; later items never count. Which page an item lands in depends only on the
items since the last page ended, so the shape of a tree is a function of its items, and a change disturbs
only its neighbourhood.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic
from zlib import crc32

from instep.errors import RefusedError
from instep.model.ids import Digest
from instep.model.manifest.entry import Entry, Kind
from instep.model.manifest.entry_rules import rising_keys
from instep.model.manifest.pages import (
    LEVEL_MAX,
    PAGE_FULL_BYTES,
    PAGE_MAX_ITEMS,
    TOTAL_MAX,
    Child,
    ItemT,
    PutPage,
    body_of,
    digest_of,
    encode_page,
    header_bytes,
)
from instep.model.paths import sort_key


@dataclass(frozen=True, slots=True)
class Shape:
    """The numbers of the cut rule. ``SPEC`` is the specification; tests cut smaller pages.

    ``inner_min`` (at least 2) is how many children an inner page has before a hash may end it: without
    it, paths chosen so that every level wants to end after each of them would never come to a root."""

    max_items: int = PAGE_MAX_ITEMS
    full_bytes: int = PAGE_FULL_BYTES
    mask: int = 0xFF
    inner_min: int = 16


SPEC = Shape()


def is_cut(path: bytes, level: int, shape: Shape) -> bool:
    """Whether the hash of ``path`` asks for the end of a page of ``level``."""
    return not (crc32(path) >> (8 * (level & 3))) & shape.mask


def page_ends(last: bytes, count: int, level: int, shape: Shape) -> bool:
    """Whether a page of ``count`` items of which the last is (or ends at) ``last`` must end here,
    whatever follows."""
    if count >= shape.max_items:
        return True
    return (level == 0 or count >= shape.inner_min) and is_cut(last, level, shape)


def describe(digest: Digest, items: Sequence[Entry] | Sequence[Child]) -> Child:
    """The item of the level above for a page."""
    last = items[-1]
    if isinstance(last, Entry):
        files = [item.size for item in items if isinstance(item, Entry) and item.kind is Kind.FILE]
        return Child(last.path, digest, len(items), sum(files))
    children = [item for item in items if isinstance(item, Child)]
    size_bytes = sum([item.size_bytes for item in children])
    if size_bytes > TOTAL_MAX:
        raise RefusedError("the files of this tree claim more than 8 EiB", code="manifest_too_large")
    return Child(last.last, digest, sum([item.entries for item in children]), size_bytes)


class Cutter(Generic[ItemT]):
    """Collects the items of one level and emits pages; holds at most one open page.

    ``ends(items)`` is the rule without sizes; ``up(digest, items)`` takes each finished page."""

    __slots__ = ("_ends", "_full_bytes", "_put", "_tag", "_up", "items", "pages")

    def __init__(
        self,
        tag: int,
        full_bytes: int,
        ends: Callable[[list[ItemT]], bool],
        put: PutPage,
        up: Callable[[Digest, list[ItemT]], None],
    ) -> None:
        self._tag = tag
        self._full_bytes = full_bytes
        self._ends = ends
        self._put = put
        self._up = up
        self.items: list[ItemT] = []
        self.pages = 0

    def add(self, item: ItemT) -> None:
        """Take the next item; a page that ends with it is emitted."""
        self.items.append(item)
        if self._ends(self.items):
            self.close(final=False)

    def close(self, *, final: bool) -> None:
        """Emit what the rule ends, in several pages where bytes fill them; with ``final`` nothing stays
        open. Harmless at any moment."""
        while self.items:
            raw = encode_page(self._tag, self.items)
            if len(raw) >= self._full_bytes:
                full = self._filling()
                self._emit(encode_page(self._tag, self.items[:full]), self.items[:full])
                self.items = self.items[full:]
            elif final or self._ends(self.items):
                self._emit(raw, self.items)
                self.items = []
            else:
                return

    def _filling(self) -> int:
        """How many items it takes to fill a page."""
        size = 0
        for count, item in enumerate(self.items, 1):
            size += len(body_of(item))
            if header_bytes(count) + size >= self._full_bytes:
                return count
        raise AssertionError("called for a page that is not full")

    def _emit(self, raw: bytes, items: list[ItemT]) -> None:
        digest = digest_of(raw)
        self._put(digest, raw)
        self.pages += 1
        self._up(digest, items)


def leaf_cutter(put: PutPage, up: Callable[[Digest, list[Entry]], None], shape: Shape) -> Cutter[Entry]:
    """The cutter of leaves."""
    mask, max_items = shape.mask, shape.max_items

    def ends(items: list[Entry]) -> bool:
        return not crc32(items[-1].path) & mask or len(items) >= max_items

    return Cutter(0, shape.full_bytes, ends, put, up)


def inner_cutter(
    level: int, put: PutPage, up: Callable[[Digest, list[Child]], None], shape: Shape
) -> Cutter[Child]:
    """The cutter of an inner level."""
    assert 0 < level <= LEVEL_MAX

    def ends(items: list[Child]) -> bool:
        return page_ends(items[-1].last, len(items), level, shape)

    return Cutter(level, shape.full_bytes, ends, put, up)


class Stack:
    """The levels of a manifest that is built from the left; one open page a level."""

    def __init__(self, put: PutPage, shape: Shape = SPEC) -> None:
        assert shape.inner_min >= 2
        assert shape.max_items >= 2
        self._put = put
        self._shape = shape
        self._inner: list[Cutter[Child]] = []
        self._newest: list[Child] = []
        self._last_key = b""
        self.leaves = leaf_cutter(put, self._leaf, shape)

    def _leaf(self, digest: Digest, entries: list[Entry]) -> None:
        keys = [self._last_key, *[sort_key(entry.path) for entry in entries]]
        assert rising_keys(keys), "entries are not in order"
        self._last_key = keys[-1]
        self._up(0, describe(digest, entries))

    def _up(self, level: int, child: Child) -> None:
        """A page of ``level`` was finished."""
        if level == len(self._inner):
            self._newest.append(child)
            above = level + 1

            def up(digest: Digest, items: list[Child]) -> None:
                self._up(above, describe(digest, items))

            self._inner.append(inner_cutter(above, self._put, up, self._shape))
        self._newest[level] = child
        self._inner[level].add(child)

    def finish(self) -> Digest:
        """The root: the page of the lowest level that has exactly one."""
        self.leaves.close(final=True)
        if not self.leaves.pages:
            raw = encode_page(0, [])
            self._put(digest_of(raw), raw)
            return digest_of(raw)
        level, pages = 0, self.leaves.pages
        while pages > 1:
            inner = self._inner[level]
            inner.close(final=True)
            level, pages = level + 1, inner.pages
        return self._newest[level].digest
