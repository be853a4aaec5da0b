"""The lines that make a union: looked at by single paths, by whole subtrees, and all in one order."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from typing import NamedTuple

import msgspec

from instep.model.ids import Digest, NodeName
from instep.model.limits import PATH_MAX
from instep.model.manifest.edit import edit
from instep.model.manifest.entry import Entry, Kind
from instep.model.manifest.leaves import Leaf
from instep.model.manifest.pages import GetPage
from instep.model.manifest.walk import Reader
from instep.model.paths import sort_key
from instep.model.replication.union import KeptName, Withheld, plain_directory

COMPONENT_MAX = 50_000
"""So many entries of all lines together lie at and below a contested path before the files at that path lose whatever
their age: the names of a component are decided in memory."""

Placed = tuple[bytes, int, Entry]
"""A sort key, the number of the line, and the entry."""


def end_of(path: bytes) -> bytes:
    """The sort key behind everything at and below ``path``."""
    return sort_key(path) + b"\x01"


class UnionLine:
    """One line by its origin, at the root that counts: without what is withheld."""

    __slots__ = ("_get", "_reader", "made", "origin", "root")

    def __init__(self, origin: NodeName, root: Digest, get: GetPage, made: Mapping[Digest, bytes]) -> None:
        self.origin = origin
        self.root = root
        self._get = get
        self.made = made
        self._reader = Reader(self.get)

    def get(self, digest: Digest) -> bytes:
        """A page of this line; those near what is withheld are in no store."""
        made = self.made.get(digest)
        return self._get(digest) if made is None else made

    def lookup(self, path: bytes) -> Entry | None:
        return self._reader.lookup(self.root, path)

    def count_within(self, path: bytes) -> int:
        """How many entries lie at and below ``path``, from two walks down the tree."""
        return self._rank(end_of(path)) - self._rank(sort_key(path))

    def _rank(self, key: bytes) -> int:
        """How many entries stand before ``key``."""
        before = 0
        page = self._reader.page(self.root)
        while not isinstance(page, Leaf):
            at = bisect_left(page.keys, key)
            before += sum([child.entries for child in page.children[:at]])
            if at == len(page.children):
                return before
            page = self._reader.page(page.children[at].digest)
        return before + bisect_left(page.keys, key)

    def within(self, path: bytes) -> Iterator[Entry]:
        """The entries at and below ``path``, in order."""
        for block in self.blocks(sort_key(path), end_of(path)):
            yield from block.entries

    def blocks(self, start: bytes, stop: bytes | None) -> Iterator[Block]:
        """The entries from the key ``start`` to the key ``stop`` (or to the end), a leaf at a time."""
        return self._blocks(self.root, start, stop)

    def _blocks(self, digest: Digest, start: bytes, stop: bytes | None) -> Iterator[Block]:
        page = self._reader.page(digest)
        first = bisect_left(page.keys, start)
        if isinstance(page, Leaf):
            end = len(page.keys) if stop is None else bisect_left(page.keys, stop)
            if first < end:
                yield Block(page.keys[first:end], page.entries[first:end])
            return
        for last, child in zip(page.keys[first:], page.children[first:], strict=True):
            yield from self._blocks(child.digest, start, stop)
            if stop is not None and last >= stop:
                return


class Block(NamedTuple):
    """Neighbouring entries of one line, with their sort keys."""

    keys: list[bytes]
    entries: list[Entry]


class KnownLines:
    """The lines in the order of their origins. All their pages are here.

    ``most`` is ``COMPONENT_MAX``; tests make it small. A line with ``kept`` names counts as if its home had taken them
    over already. Lines that ``before`` has at the same root keep its decoded
    pages."""

    def __init__(
        self,
        roots: Mapping[NodeName, Digest],
        get: GetPage,
        withheld: Sequence[Withheld] = (),
        most: int = COMPONENT_MAX,
        before: KnownLines | None = None,
        kept: Sequence[KeptName] = (),
    ) -> None:
        self.most = most
        known = {} if before is None else {(line.origin, line.root): line for line in before.all}
        lines = []
        for origin in sorted(roots):
            made: dict[Digest, bytes] = {}
            root = _without(roots[origin], [each for each in withheld if each.origin == origin], get, made)
            root = _renamed(root, [each for each in kept if each.origin == origin], get, made)
            lines.append(known.get((origin, root)) or UnionLine(origin, root, get, made))
        self.all: tuple[UnionLine, ...] = tuple(lines)
        self.by_origin = {line.origin: line for line in lines}

    def at(self, path: bytes) -> list[tuple[UnionLine, Entry]]:
        """What the lines have at ``path``."""
        found = [(line, line.lookup(path)) for line in self.all]
        return [(line, entry) for line, entry in found if entry is not None]

    def count_within(self, path: bytes) -> int:
        return sum(line.count_within(path) for line in self.all)

    def merged(self, start: bytes, stop: bytes | None) -> Iterator[list[Placed]]:
        """All entries between two sort keys, in order, in lists; equal paths are in one list."""
        rest = [(number, line.blocks(start, stop)) for number, line in enumerate(self.all)]
        open_blocks: list[tuple[int, Iterator[Block], Block]] = []
        for number, blocks in rest:
            block = next(blocks, None)
            if block is not None:
                open_blocks.append((number, blocks, block))
        while open_blocks:
            bound = min(block.keys[-1] for _, _, block in open_blocks)
            batch: list[Placed] = []
            still: list[tuple[int, Iterator[Block], Block]] = []
            for number, blocks, block in open_blocks:
                upto = bisect_right(block.keys, bound)
                batch += [
                    (key, number, entry)
                    for key, entry in zip(block.keys[:upto], block.entries[:upto], strict=True)
                ]
                if upto < len(block.keys):
                    still.append((number, blocks, Block(block.keys[upto:], block.entries[upto:])))
                elif (following := next(blocks, None)) is not None:
                    still.append((number, blocks, following))
            if len(open_blocks) > 1:
                batch.sort(key=itemgetter(0))
            open_blocks = still
            yield batch


def _without(root: Digest, withheld: Sequence[Withheld], get: GetPage, made: dict[Digest, bytes]) -> Digest:
    """The line's root with the withheld entries as they were before. An entry that the line does not have any more is
    withheld no longer."""
    reader = Reader(get)
    changes = {
        each.wanted.path: each.kept
        for each in withheld
        if reader.lookup(root, each.wanted.path) == each.wanted
    }
    return edit(root, sorted(changes.items(), key=lambda change: sort_key(change[0])), get, made.__setitem__)


def _renamed(root: Digest, kept: Sequence[KeptName], get: GetPage, made: dict[Digest, bytes]) -> Digest:
    """The line's root with everything at and below the components of these losers under their other names."""
    for name in kept:
        line = UnionLine(name.origin, root, get, made)
        changes: dict[bytes, Entry | None] = {}
        for entry in line.within(name.component):
            path = name.shown + entry.path[len(name.component) :]
            changes[entry.path] = None
            if len(path) <= PATH_MAX:
                is_dir = entry.kind is Kind.DIR
                changes[path] = plain_directory(path) if is_dir else msgspec.structs.replace(entry, path=path)
        in_order = sorted(changes.items(), key=lambda change: sort_key(change[0]))
        root = edit(root, in_order, line.get, made.__setitem__)
    return root


def is_contested(found: Sequence[tuple[UnionLine, Entry]]) -> bool:
    """Whether the lines contend for a path: two have it, and not both as a directory."""
    return len(found) > 1 and any(entry.kind is not Kind.DIR for _, entry in found)
