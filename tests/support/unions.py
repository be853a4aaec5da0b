"""Lines for tests of the union, drawn by Hypothesis: few names, so that they collide, also with names of losers."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice, product
from typing import Any

from hypothesis import strategies as st

from instep.core.union.collide import names_of
from instep.core.union.lines import COMPONENT_MAX, KnownLines
from instep.core.union.unite import United, unite
from instep.model.ids import Digest, NodeName
from instep.model.manifest import manifest
from instep.model.manifest.entry import Entry, Kind
from instep.model.paths import sort_key
from instep.model.replication.union import plain_directory
from tests.support.union_twin import Loser, Tree, Twin, united

Store = dict[Digest, bytes]
Lines = dict[NodeName, Tree]

ORIGINS = [NodeName(name) for name in ("a", "b", "c.x")]
_PLAIN = [
    b"-",
    *(b"/".join(names) for depth in (1, 2, 2, 3) for names in product((b"a", b"b.x"), repeat=depth)),
]
_GIVEN = [
    name + below
    for component in (b"a", b"b.x", b"a/a")
    for origin in ORIGINS[:2]
    for born_ms in (1, None)
    for name, _ in islice(names_of(component, origin, born_ms), 2)
    for below in (b"", b"/a")
]
paths = st.sampled_from(_PLAIN) | st.sampled_from(_PLAIN) | st.sampled_from(_PLAIN + _GIVEN)
_KINDS = st.sampled_from([Kind.FILE, Kind.FILE, Kind.FILE, Kind.SYMLINK, Kind.DIR])


def entry(path: bytes, kind: Kind, number: int, born_ms: int) -> Entry:
    if kind is Kind.DIR:
        return plain_directory(path)
    mode = 0o777 if kind is Kind.SYMLINK else 0o644
    return Entry(path, kind, mode, number, number, Digest(bytes([number]) * 32), born_ms)


entries = st.builds(entry, paths, _KINDS, st.integers(1, 4), st.integers(0, 3))


def whole(found: list[Entry]) -> Tree:
    """A valid tree of the entries: a directory above every path, and nothing below a file."""
    tree: Tree = {}
    with_entries: set[bytes] = set()
    for entry in found:
        above = [entry.path[:at] for at, byte in enumerate(entry.path) if byte == ord("/")]
        if entry.path in with_entries or any(
            path in tree and tree[path].kind is not Kind.DIR for path in above
        ):
            continue
        tree.update((path, tree.get(path, plain_directory(path))) for path in above)
        with_entries.update(above)
        tree[entry.path] = entry
    return tree


trees = st.lists(entries, max_size=8).map(whole)
lines = st.lists(trees, min_size=1, max_size=3).map(lambda found: dict(zip(ORIGINS, found, strict=False)))
bounds = st.sampled_from([2, 5, COMPONENT_MAX, COMPONENT_MAX])


@st.composite
def changed_lines(draw: st.DrawFn, before: Lines) -> Lines:
    """Some of the lines with some paths more, less or changed; a line may come or go."""
    after: Lines = {}
    for origin in ORIGINS:
        found = list(before.get(origin, {}).values())
        if draw(st.booleans()):
            if draw(st.integers(0, 9)) == 0:
                continue
            more, at = draw(st.lists(entries, max_size=2)), draw(st.integers(0, len(found)))
            gone = draw(st.sets(st.sampled_from(found), max_size=2)) if found else set()
            found = [*found[:at], *more, *(entry for entry in found[at:] if entry not in gone)]
            # Parents that were dropped come back as plain directories.
            found.sort(key=lambda entry: entry.kind is Kind.DIR)
            after[origin] = whole(found)
        elif origin in before:
            after[origin] = before[origin]
    return after


def in_store(found: Mapping[NodeName, Tree], store: Store) -> dict[NodeName, Digest]:
    return {
        origin: manifest.build([tree[path] for path in sorted(tree, key=sort_key)], store.__setitem__)
        for origin, tree in found.items()
    }


def known(found: Mapping[NodeName, Tree], store: Store, most: int = COMPONENT_MAX) -> KnownLines:
    return KnownLines(in_store(found, store), store.__getitem__, most=most)


def union_of(lines: KnownLines, store: Store) -> United:
    return unite(lines, store.__getitem__, store.__setitem__)


def shown_by(root: Digest, store: Store) -> Tree:
    return {entry.path: entry for entry in manifest.iterate(root, store.__getitem__)}


def twin_of(found: Mapping[NodeName, Tree], most: int = COMPONENT_MAX) -> Twin:
    return united(found, most)


def losers_of(made: United) -> list[Loser]:
    return [Loser(c.component, c.origin, c.born_ms, c.shown, c.tag, c.entries) for c in made.collisions]


def fields_of(entry: Entry) -> tuple[Any, ...]:
    """All of an entry but its path."""
    return (entry.kind, entry.mode, entry.size, entry.mtime_ns, entry.digest, entry.born_ms, entry.extra)
