"""Hostile manifests of a peer: both checks agree with the naive twin on each."""

from __future__ import annotations

from itertools import pairwise
from typing import TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

from instep.errors import PeerError
from instep.model.ids import Digest
from instep.model.manifest import manifest
from instep.model.manifest.cutter import Shape
from instep.model.manifest.entry import Entry
from instep.model.manifest.pages import Child, decode_inner, decode_leaf, digest_of, encode_page, level_of
from instep.model.paths import sort_key
from tests.support.trees import SHAPES, Tree, in_order, is_whole, loose_entries, loose_trees, trees

Store = dict[Digest, bytes]
T = TypeVar("T")


def refusal(check: str, old: Digest, new: Digest, store: Store, shape: Shape) -> str | None:
    """The code that a check refuses with; anything but ``PeerError`` is a failure of the test."""
    try:
        if check == "tree":
            manifest.check_tree(new, store.__getitem__, shape)
        elif check == "diff":
            manifest.check_diff(old, new, store.__getitem__, shape)
        else:
            given = list(manifest.diff(old, new, store.__getitem__))
            entries = [each.new for each in given if each.new is not None]
            removed = [each.path for each in given if each.new is None]
            manifest.build_difference(old, new, entries, removed, store.__getitem__, store.__setitem__, shape)
    except PeerError as error:
        return error.error_code
    return None


@given(trees, st.lists(st.one_of(loose_entries(), st.integers(0, 60)), max_size=6), SHAPES)
@settings(max_examples=300)
def test_relations_between_entries(tree: Tree, disturbances: list[Entry | int], shape: Shape) -> None:
    store: Store = {}
    old = manifest.build(in_order(tree), store.__setitem__, shape)
    after = dict(tree)
    for what in disturbances:
        if isinstance(what, Entry):
            after[what.path] = what
        elif after:
            del after[sorted(after)[what % len(after)]]
    new = manifest.build(in_order(after), store.__setitem__, shape)
    checks = ("tree", "diff", "difference")
    verdicts = {check: refusal(check, old, new, store, shape) for check in checks}
    assert {code is None for code in verdicts.values()} == {is_whole(in_order(after))}


@st.composite
def hostile_trees(draw: st.DrawFn) -> tuple[Tree, list[list[Entry]], int]:
    """An honest tree, and leaves with the same or other entries: cut, ordered and repeated at will."""
    tree = draw(trees)
    entries = in_order(draw(st.sampled_from([tree, tree, draw(loose_trees)])))
    for at, other in draw(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=2)):
        if entries:
            entries.insert(at % len(entries), entries[other % len(entries)])
    cuts = sorted(draw(st.sets(st.integers(0, len(entries)), max_size=6)) | {0, len(entries)})
    leaves = [entries[a:b] for a, b in pairwise(cuts)] or [[]]
    return tree, leaves, draw(st.integers(0, 4))


@given(hostile_trees(), SHAPES)
@settings(max_examples=300)
def test_pages_of_any_shape(hostile: tuple[Tree, list[list[Entry]], int], shape: Shape) -> None:
    tree, leaves, lie = hostile
    store: Store = {}
    old = manifest.build(in_order(tree), store.__setitem__, shape)
    new = _page(store, 0, leaves[0])
    if len(leaves) > 1:
        children = []
        for leaf in leaves:
            size = sum(entry.size for entry in leaf if entry.kind == 0)
            children.append(
                Child(leaf[-1].path, _page(store, 0, leaf), len(leaf) + (lie == 1), size + (lie == 2))
            )
        new = _page(store, 2 if lie == 3 else 1, children)
    entries = [entry for leaf in leaves for entry in leaf]
    honest: Store = {}
    ordered = sorted(entries, key=lambda entry: sort_key(entry.path))
    is_honest = is_whole(entries) and manifest.build(ordered, honest.__setitem__, shape) == new
    try:
        assert manifest.missing(new, store.get, complete=old) == []
    except PeerError:
        assert not is_honest
    for check in ("tree", "diff"):
        assert (refusal(check, old, new, store, shape) is None) == is_honest


@given(trees, st.data(), SHAPES)
def test_flipped_bytes_are_found_or_harmless(tree: Tree, data: st.DataObject, shape: Shape) -> None:
    store: Store = {}
    manifest.build(in_order(tree), store.__setitem__, shape)
    raw = bytearray(store[data.draw(st.sampled_from(sorted(store)))])
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    _only_peer_errors(bytes(raw))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_page_or_refused(raw: bytes) -> None:
    _only_peer_errors(raw)
    _only_peer_errors(b"\x92\x00" + raw)
    _only_peer_errors(b"\x92\x01" + raw)


def _only_peer_errors(raw: bytes) -> None:
    try:
        level = level_of(raw)
        items: list[Entry] | list[Child] = decode_inner(raw) if level else decode_leaf(raw)
    except PeerError:
        return
    assert encode_page(level, items) == raw


def _page(store: Store, level: int, items: list[Entry] | list[Child]) -> Digest:
    raw = encode_page(level, items)
    store[digest_of(raw)] = raw
    return digest_of(raw)


def disturbed(data: st.DataObject, part: list[T], more: list[T]) -> list[T]:
    """A part of a difference, with items left out and other ones put in."""
    given = list(part)
    for at, other in data.draw(st.lists(st.tuples(st.integers(0, 60), st.integers(-60, 60)), max_size=2)):
        if other < 0 and given:
            del given[at % len(given)]
        elif more:
            given.insert(at % (len(given) + 1), more[other % len(more)])
    return given


@given(st.data(), trees, trees, SHAPES)
@settings(max_examples=300)
def test_a_difference_makes_the_very_pages_or_none(
    data: st.DataObject, tree: Tree, after: Tree, shape: Shape
) -> None:
    """It is true, or a peer leaves out, repeats, moves or invents a part of it."""
    before: Store = {}
    old = manifest.build(in_order(tree), before.__setitem__, shape)
    whole: Store = {}
    new = manifest.build(in_order(after), whole.__setitem__, shape)
    entries = [entry for path, entry in after.items() if tree.get(path) != entry]
    entries.sort(key=lambda entry: sort_key(entry.path))
    removed = sorted(path for path in tree if path not in after)
    given = disturbed(data, entries, in_order(tree)), disturbed(data, removed, sorted(tree))
    made: Store = {}
    try:
        manifest.build_difference(old, new, *given, before.__getitem__, made.__setitem__, shape)
    except PeerError:
        assert (entries, removed) != given
        assert not made
    else:
        found = before | made
        assert list(manifest.iterate(new, found.__getitem__)) == in_order(after)
        assert whole.items() <= found.items()
