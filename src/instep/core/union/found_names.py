"""The names of losers, known again in a tree whose union cannot be made any more.

A loser has its other name because of an entry that stands against it. Where the manifest of the own line is lost, that
entry is not known, but the tree still has the loser's name, and its tag says whose file it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import msgspec

from instep.core.union.collide import MARK, names_of
from instep.core.union.lines import KnownLines, UnionLine, end_of
from instep.model.ids import Digest, NodeName
from instep.model.limits import COMPONENT_MAX
from instep.model.manifest.entry import Kind
from instep.model.paths import parent_of, sort_key
from instep.model.replication.union import KeptName, UnionPart

TRIES_MAX = 8
"""So many names that were taken are looked past."""
CUT_BYTES = 3
"""A cut stem may be so much shorter than the longest name: no character is cut in two."""


def found_names(lines: KnownLines, paths: Iterable[bytes]) -> tuple[KeptName, ...]:
    """The losers of these lines that lie in a tree with these ``paths`` (in order) under a name that no line has. Of a
    loser's names that are there the last one tried counts: the ones before it were taken."""
    found: dict[tuple[NodeName, bytes], tuple[int, KeptName]] = {}
    for path in paths:
        if MARK not in path or lines.at(path):
            continue
        for line in lines.all:
            for tries, name in _names_at(line, path):
                key = (name.origin, name.component)
                found[key] = max(found.get(key, (tries, name)), (tries, name), key=lambda one: one[0])
    return tuple(name for _, name in found.values())


def with_empty_own(parts: Iterable[UnionPart], own: NodeName, empty: Digest) -> tuple[UnionPart, ...]:
    """The parts of a union whose own one is not known any more: at its number, with nothing in it. So each path that no
    other home shows is new in the tree, and no older manifest of the own line is compared with it as the one laid."""
    return tuple(
        UnionPart(own, msgspec.structs.replace(part.head, root=empty)) if part.origin == own else part
        for part in parts
    )


def _names_at(line: UnionLine, path: bytes) -> Iterator[tuple[int, KeptName]]:
    """What of the line is called ``path`` because it lost its own name, with the number of names before; at most one
    in practice."""
    for component in _components(line, path):
        entry = line.lookup(component)
        if entry is None:
            continue
        born_ms = None if entry.kind is Kind.DIR else entry.born_ms
        names = islice(names_of(component, line.origin, born_ms), TRIES_MAX)
        for tries, (name, _) in enumerate(names):
            if name == path:
                yield tries, KeptName(line.origin, component, path)


def _components(line: UnionLine, path: bytes) -> Iterator[bytes]:
    """The paths that may have got this name: without the tag, or, where the stem was cut, any beside it."""
    directory, slash, name = path.rpartition(b"/")
    stem, mark, rest = name.rpartition(MARK + line.origin.encode() + b"-")
    if not mark:
        return
    yield directory + slash + stem + rest[8:]
    if len(name) >= COMPONENT_MAX - CUT_BYTES:
        begin, inside = directory + slash + stem, end_of(directory) if directory else None
        for block in line.blocks(sort_key(directory) if directory else b"", inside):
            for entry in block.entries:
                if entry.path.startswith(begin) and parent_of(entry.path) == directory:
                    yield entry.path
