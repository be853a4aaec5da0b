"""Manifests against dictionaries: build, edit, iterate, look up, diff and fetch."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from instep.errors import PeerError
from instep.model.ids import Digest
from instep.model.manifest import manifest
from instep.model.manifest.cutter import Shape
from instep.model.manifest.entry import Entry
from instep.model.manifest.pages import decode_leaf, level_of, verify_page
from instep.model.paths import sort_key
from tests.support import reference
from tests.support.trees import SHAPES, Tree, in_order, loose_entries, loose_trees, paths, trees

Store = dict[Digest, bytes]


def built(tree: Tree, shape: Shape) -> tuple[Digest, Store]:
    store: Store = {}
    return manifest.build(in_order(tree), store.__setitem__, shape), store


def edited(tree: Tree, changes: dict[bytes, Entry | None]) -> Tree:
    after = {path: entry for path, entry in tree.items() if path not in changes}
    return after | {path: entry for path, entry in changes.items() if entry is not None}


@st.composite
def changes_of(draw: st.DrawFn, tree: Tree) -> dict[bytes, Entry | None]:
    changes: dict[bytes, Entry | None] = {}
    if tree:
        for path in draw(st.lists(st.sampled_from(sorted(tree)), max_size=20)):
            changes[path] = None
    for entry in draw(st.lists(loose_entries(), max_size=8)):
        changes[entry.path] = entry
    return changes


@given(loose_trees, SHAPES)
def test_building_makes_the_pages_of_the_reference(tree: Tree, shape: Shape) -> None:
    root, store = built(tree, shape)
    numbers = reference.Numbers(shape.max_items, shape.full_bytes, shape.mask, shape.inner_min)
    expected = reference.manifest([_fields(entry) for entry in tree.values()], numbers)
    assert (root, store) == (expected.root, expected.pages)


@given(st.data(), loose_trees, SHAPES)
@settings(max_examples=300)
def test_editing_equals_building_the_edited_set(data: st.DataObject, tree: Tree, shape: Shape) -> None:
    root, store = built(tree, shape)
    changes = data.draw(changes_of(tree))
    after_root, after_store = built(edited(tree, changes), shape)
    ordered = sorted(changes.items(), key=lambda change: sort_key(change[0]))
    put: Store = {}
    assert manifest.edit(root, ordered, store.__getitem__, put.__setitem__, shape) == after_root
    assert after_store.keys() <= store.keys() | put.keys()


@given(st.data(), loose_trees, loose_trees, SHAPES, SHAPES)
def test_diff_is_the_difference_of_two_dictionaries(
    data: st.DataObject, tree: Tree, other: Tree, shape: Shape, other_shape: Shape
) -> None:
    after = data.draw(st.one_of(st.just(other), changes_of(tree).map(lambda changes: edited(tree, changes))))
    root, store = built(tree, shape)
    after_root, after_store = built(after, data.draw(st.sampled_from([shape, other_shape])))
    store |= after_store
    found = list(manifest.diff(root, after_root, store.__getitem__))
    expected = [
        (path, tree.get(path), after.get(path))
        for path in sorted(tree | after, key=sort_key)
        if tree.get(path) != after.get(path)
    ]
    assert [(change.path, change.old, change.new) for change in found] == expected
    for change in found:
        if change.new is not None:
            assert decode_leaf(store[change.page])[change.index] == change.new
    assert [change.new for change in manifest.diff(None, after_root, store.__getitem__)] == in_order(after)


@given(loose_trees, paths, SHAPES)
def test_seeking_and_looking_up(tree: Tree, path: bytes, shape: Shape) -> None:
    root, store = built(tree, shape)
    entries = in_order(tree)
    assert list(manifest.iterate(root, store.__getitem__)) == entries
    after = [entry for entry in entries if sort_key(entry.path) > sort_key(path)]
    assert list(manifest.iterate(root, store.__getitem__, after=path)) == after
    reader = manifest.Reader(store.__getitem__)
    assert reader.first_after(root, path) == (after[0] if after else None)
    for known in [path, *tree]:
        assert manifest.lookup(root, known, store.__getitem__) == tree.get(known)
    whole = manifest.totals(root, store.__getitem__)
    assert whole == (len(entries), sum(entry.size for entry in entries if entry.kind == 0))


@given(st.data(), trees, SHAPES)
def test_fetching_level_by_level_brings_exactly_what_is_missing(
    data: st.DataObject, tree: Tree, shape: Shape
) -> None:
    root, here = built(tree, shape)
    after_root, there = built(edited(tree, data.draw(changes_of(tree))), shape)
    complete = data.draw(st.sampled_from([None, root]))
    needed = there.keys() - here.keys()
    fetched: list[Digest] = []
    rounds = 0
    while absent := manifest.missing(after_root, here.get, complete=complete):
        rounds += 1
        for digest in absent:
            verify_page(digest, there[digest])
            here[digest] = there[digest]
        fetched += absent
    assert sorted(fetched) == sorted(needed)
    assert rounds <= 1 + level_of(there[after_root])


@given(trees, SHAPES)
def test_what_was_built_of_a_whole_tree_passes_the_check(tree: Tree, shape: Shape) -> None:
    root, store = built(tree, shape)
    try:
        manifest.check_tree(root, store.__getitem__, shape)
    except PeerError as error:
        raise AssertionError(error.reason) from error


def _fields(entry: Entry) -> list[object]:
    extra: list[object] | None = None
    if entry.extra is not None:
        extra = [None, None, [], [], entry.extra.link_group, False, None]
    head = [entry.path, int(entry.kind), entry.mode, entry.size, entry.mtime_ns]
    return [*head, entry.digest, entry.born_ms, extra]
