"""Every receiver takes an entry that a scan lets through: both sides read one table of limits."""

from __future__ import annotations

import os
from typing import cast

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from instep.model.definition import Definition
from instep.model.ids import EMPTY_DIGEST, Digest
from instep.model.limits import (
    COMPONENT_MAX,
    DEPTH_MAX,
    PATH_MAX,
    SIZE_MAX,
    TIME_MAX_NS,
    TIME_MIN_NS,
    broken_by_path,
)
from instep.model.manifest import manifest
from instep.model.manifest.entry import CHUNKED_OVER, Entry, Extra, Kind
from instep.model.paths import parent_of, sort_key
from instep.tree.journal.plan import find_moves, plan
from instep.tree.root.beneath import Root
from instep.tree.scan.listing import Child, Lister, Problem, unfit
from instep.tree.scan.rules import Rules

DIGEST = Digest(b"d" * 32)
NAMES = st.sampled_from(
    [b"a", b".instepped", b"\xff\xfe", b"a\nb", b"z" * 255, b"z" * 256, b"..a", "ü".encode()]
)
TIMES = st.one_of(
    st.integers(TIME_MIN_NS - 2, TIME_MIN_NS + 2),
    st.integers(TIME_MAX_NS - 2, TIME_MAX_NS + 2),
    st.integers(-(1 << 66), 1 << 66),
)
SIZES = st.one_of(
    st.integers(0, 5), st.integers(CHUNKED_OVER - 1, CHUNKED_OVER + 1), st.integers(SIZE_MAX - 1, 1 << 63)
)
XATTRS = st.lists(
    st.tuples(
        st.sampled_from([b"user.a", b"user.b.", b"user." + b"n" * 250, b"user." + b"n" * 251, b"btrfs.x"]),
        st.sampled_from([b"", b"v", b"v" * 4096, b"v" * 4097]),
    ),
    max_size=3,
    unique_by=lambda pair: pair[0],
).map(lambda pairs: tuple(sorted(pairs)))
OWNERS = st.sampled_from([None, "ana", "a:b", "a\nb", "x" * 255, "x" * 256, "\udcff"])


class _EmptyTree:
    """A receiver's live tree that has nothing."""

    def children(self, path: bytes) -> list[bytes] | None:
        return None

    def is_ignored(self, path: bytes, is_dir: bool) -> bool:
        return False

    def is_same(self, old: Entry, new: Entry) -> bool:
        return old == new

    def target_directory(self, path: bytes) -> Entry | None:
        return None


@st.composite
def found_entries(draw: st.DrawFn) -> Entry:
    """An entry as a scan may make it of whatever lies on a disk, before it looks at limits."""
    names = draw(st.lists(NAMES, min_size=1, max_size=4))
    depth = draw(st.sampled_from([0, 0, 0, DEPTH_MAX - 4, DEPTH_MAX, 1_000]))
    path = b"/".join([b"d"] * depth + names)
    kind = draw(st.sampled_from(list(Kind)))
    size = draw(SIZES)
    extra = draw(st.one_of(st.none(), st.builds(Extra, owner=OWNERS, group=OWNERS, xattrs=XATTRS)))
    if kind is Kind.FILE and size > CHUNKED_OVER:
        extra = Extra(chunks=DIGEST)
    digest = EMPTY_DIGEST if kind is Kind.DIR else DIGEST
    return Entry(path, kind, 0o644, 0 if kind is Kind.DIR else size, draw(TIMES), digest, 1, extra)


@given(found_entries())
@settings(max_examples=400, deadline=None)
@example(Entry(b"future", Kind.FILE, 0o644, 1, 9_300_000_000 * 10**9, DIGEST, 1))
@example(Entry(b"/".join([b"d"] * 600), Kind.FILE, 0o644, 1, 1, DIGEST, 1))
def test_no_receiver_refuses_what_a_scan_lets_through(entry: Entry) -> None:
    assume(not entry.path.startswith(b".instep"))  # our own names are never listed
    if broken_by_path(entry.path) is not None or unfit(entry) is not None:
        return
    entries = {entry.path: entry}
    above = parent_of(entry.path)
    while above:
        entries[above] = Entry(above, Kind.DIR, 0o755, 0, 1, EMPTY_DIGEST, 1)
        above = parent_of(above)
    pages: dict[Digest, bytes] = {}
    empty = manifest.build([], pages.__setitem__)
    root = manifest.build((entries[path] for path in sorted(entries, key=sort_key)), pages.__setitem__)
    manifest.check_tree(root, pages.__getitem__)
    manifest.check_diff(empty, root, pages.__getitem__)
    changes = list(manifest.diff(empty, root, pages.__getitem__))
    assert list(plan(changes, _EmptyTree(), find_moves(changes), takes_over=False))


@given(
    st.integers(1, DEPTH_MAX + 3),
    st.one_of(st.integers(1, 300), st.integers(PATH_MAX - 2 * COMPONENT_MAX, PATH_MAX + 2)),
    st.sampled_from([1, 2, COMPONENT_MAX - 1, COMPONENT_MAX, COMPONENT_MAX + 1]),
)
@example(20, PATH_MAX - COMPONENT_MAX + 1, COMPONENT_MAX - 1)
@example(20, PATH_MAX - COMPONENT_MAX, COMPONENT_MAX)
@example(20, PATH_MAX - COMPONENT_MAX - 1, COMPONENT_MAX)
@example(DEPTH_MAX - 1, 2 * DEPTH_MAX, 1)
@example(DEPTH_MAX, 2 * DEPTH_MAX, 1)
def test_the_quick_no_of_a_directory_lets_no_broken_path_through(depth: int, length: int, name: int) -> None:
    """A scan asks each path of a directory for limits only where one of them may break one."""
    rest = max(0, length - (2 * depth - 1))
    parts = [b"d"] * depth
    for at in range(depth):
        more = min(rest, COMPONENT_MAX - 1)
        parts[at], rest = b"d" * (1 + more), rest - more
    directory = b"/".join(parts)
    child: Child = (directory + b"/" + b"n" * name, os.stat_result(range(10)))
    found = Lister(cast(Root, None), Rules(Definition()))._admitted(directory, [child])
    broken = broken_by_path(child[0])
    assert (broken is not None) == isinstance(found[0][1], Problem)
