"""Small trees of entries for tests, drawn by Hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from instep.errors import PeerError
from instep.model.ids import EMPTY_DIGEST, Digest
from instep.model.manifest.cutter import Shape
from instep.model.manifest.entry import Entry, Extra, Kind
from instep.model.manifest.entry_rules import check_entry
from instep.model.paths import parent_of, sort_key

Tree = dict[bytes, Entry]

SHAPES = st.builds(
    Shape,
    max_items=st.sampled_from([2, 3, 8, 512]),
    full_bytes=st.sampled_from([220, 400, 1 << 20]),
    mask=st.sampled_from([0, 1, 3, 7]),
    inner_min=st.sampled_from([2, 3]),
)
"""Cut rules so small that a few dozen entries make trees of several levels."""

names = st.lists(st.sampled_from([b"a", b"b", b"-", b"\x01", b"\xff", b"c."]), min_size=1, max_size=3).map(
    b"".join
)
paths = st.lists(names, min_size=1, max_size=3).map(b"/".join)


def file(path: bytes, number: int = 0, extra: Extra | None = None) -> Entry:
    return Entry(path, Kind.FILE, 0o644, number, number, Digest(bytes([number]) * 32), number, extra)


def directory(path: bytes, number: int = 0) -> Entry:
    return Entry(path, Kind.DIR, 0o755, 0, number, EMPTY_DIGEST, 0)


def in_order(tree: Tree) -> list[Entry]:
    return [tree[path] for path in sorted(tree, key=sort_key)]


@st.composite
def loose_entries(draw: st.DrawFn) -> Entry:
    """A valid entry of any kind; small trees of them break the rules between entries now and then."""
    path, number = draw(paths), draw(st.integers(0, 3))
    which = draw(st.integers(0, 5))
    if which == 0:
        return Entry(path, Kind.SYMLINK, 0o777, 1 + number, number, Digest(bytes([number]) * 32), 0)
    if which == 1:
        leader = draw(st.sampled_from([path, b"-", b"a"]))
        if sort_key(leader) <= sort_key(path):
            return file(path, number, Extra(link_group=leader))
    return directory(path, number) if which < 4 else file(path, number)


def with_parents(tree: Tree) -> Tree:
    """The tree made whole: every parent is there as a directory, links that lead nowhere are plain files."""
    whole: Tree = {}
    for path in tree:
        parent = parent_of(path)
        while parent:
            whole[parent] = directory(parent)
            parent = parent_of(parent)
    for path, entry in tree.items():
        whole.setdefault(path, entry)
    for path, entry in whole.items():
        if entry.extra is not None and entry.extra.link_group != path:
            whole[path] = file(path, entry.size)
    return whole


loose_trees = st.lists(loose_entries(), max_size=40).map(lambda found: {entry.path: entry for entry in found})
trees = loose_trees.map(with_parents)


def is_whole(entries: list[Entry]) -> bool:
    """The naive twin of a receiver's checks between entries."""
    by_path = {entry.path: entry for entry in entries}
    keys = [sort_key(entry.path) for entry in entries]
    if keys != sorted(set(keys)):
        return False
    for entry in entries:
        try:
            check_entry(entry)
        except PeerError:
            return False
        parent = parent_of(entry.path)
        if parent and (parent not in by_path or by_path[parent].kind is not Kind.DIR):
            return False
        leader_path = entry.extra.link_group if entry.extra else None
        if leader_path is not None:
            leader = by_path.get(leader_path)
            if leader is None or _without_identity(leader) != _without_identity(entry):
                return False
    return True


def _without_identity(entry: Entry) -> tuple[object, ...]:
    return (entry.kind, entry.mode, entry.size, entry.mtime_ns, entry.digest, entry.extra)
