"""Some paths of one manifest in another, against a naive twin."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from instep.model.ids import EMPTY_DIGEST, Digest
from instep.model.manifest.entry import Entry, Kind
from instep.model.manifest.graft import graft
from instep.model.manifest.manifest import build, iterate
from instep.model.paths import is_below, sort_key

NAMES = (b"a", b"b", b"a/x", b"a/y", b"a/x/deep", b"b/z")
trees = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 3))


def manifest(tree: dict[bytes, int], pages: dict[Digest, bytes]) -> Digest:
    return build(iter(described(tree)), pages.__setitem__)


def described(tree: dict[bytes, int]) -> list[Entry]:
    """A path with something below it is a directory."""
    above = {p[: p.rindex(b"/")] for p in tree if b"/" in p}
    above |= {p[: p.rindex(b"/")] for p in above if b"/" in p}
    found = [Entry(p, Kind.DIR, 0o755, 0, 1, EMPTY_DIGEST, 1) for p in above]
    found += [
        Entry(p, Kind.FILE, 0o644, 1, 1, Digest(bytes([n]) * 32), 1)
        for p, n in tree.items()
        if p not in above
    ]
    return sorted(found, key=lambda entry: sort_key(entry.path))


def twin(base: list[Entry], other: list[Entry], paths: list[bytes]) -> dict[bytes, Entry]:
    def is_named(path: bytes) -> bool:
        return any(path == p or is_below(path, p) for p in paths)

    found = {e.path: e for e in base if not is_named(e.path)}
    there = {e.path: e for e in other}
    for path in [p for p in there if is_named(p)]:
        above = path
        while above := above.rpartition(b"/")[0]:
            if above not in found or found[above].kind is not Kind.DIR:
                found[above] = there[above]
        found[path] = there[path]
    return found


@given(trees, trees, st.lists(st.sampled_from(NAMES), min_size=1, max_size=3))
def test_named_paths_are_as_in_the_other_and_all_else_stays(
    base: dict[bytes, int], other: dict[bytes, int], paths: list[bytes]
) -> None:
    pages: dict[Digest, bytes] = {}
    old, new = manifest(base, pages), manifest(other, pages)
    result = graft(old, new, paths, pages.__getitem__, pages.__setitem__)
    found = {entry.path: entry for entry in iterate(result, pages.__getitem__)}
    assert found == twin(described(base), described(other), paths)
