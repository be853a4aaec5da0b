"""The union of lines against a naive twin, and its laws: nothing is lost, nothing depends on the order of the lines.

``./run soak union`` tries 20,000 examples of each."""

from __future__ import annotations

import os

import msgspec
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from instep.core.union.collide import MARK
from instep.core.union.divide import divide, renames
from instep.core.union.found_names import found_names
from instep.core.union.kept_names import kept_names
from instep.core.union.lines import KnownLines
from instep.core.union.ownership import Ownership
from instep.core.union.reunite import reunite
from instep.model.ids import EMPTY_DIGEST, Digest, NodeName
from instep.model.manifest.entry import Kind
from instep.model.manifest.manifest import EMPTY_ROOT, build, check_tree, edit
from instep.model.paths import sort_key
from instep.model.replication.union import KeptName
from tests.support.union_twin import Tree
from tests.support.unions import (
    ORIGINS,
    Lines,
    Store,
    bounds,
    changed_lines,
    entry,
    fields_of,
    in_store,
    known,
    lines,
    losers_of,
    paths,
    shown_by,
    twin_of,
    union_of,
    whole,
)

examples = settings(max_examples=int(os.environ.get("INSTEP_EXAMPLES", "150")))
LATE_MS = 1_000


@given(lines, bounds)
@examples
def test_the_union_is_that_of_the_naive_twin(found: Lines, most: int) -> None:
    store: Store = {}
    made = union_of(known(found, store, most), store)
    twin = twin_of(found, most)
    assert {path: fields_of(each) for path, each in shown_by(made.root, store).items()} == twin.shown
    assert losers_of(made) == twin.losers
    check_tree(made.root, store.__getitem__)


@given(st.data(), lines, bounds)
@examples
def test_reuniting_equals_uniting(data: st.DataObject, found: Lines, most: int) -> None:
    store: Store = {}
    old = known(found, store, most)
    before = union_of(old, store)
    after = data.draw(changed_lines(found))
    new = KnownLines(in_store(after, store), store.__getitem__, most=most, before=old)
    made = reunite(before, old, new, store.__getitem__, store.__setitem__)
    assert made == union_of(known(after, store, most), store)
    assert reunite(made, new, old, store.__getitem__, store.__setitem__) == before


@given(lines, bounds, st.permutations(ORIGINS))
@examples
def test_the_order_of_the_lines_is_irrelevant(found: Lines, most: int, order: list[NodeName]) -> None:
    store: Store = {}
    other = {origin: found[origin] for origin in order if origin in found}
    assert union_of(known(found, store, most), store) == union_of(known(other, store, most), store)


@given(lines, bounds)
@examples
def test_every_path_of_every_line_is_found_again(found: Lines, most: int) -> None:
    """So nothing is lost: the lines are made again from the union alone and the collisions."""
    store: Store = {}
    many = known(found, store, most)
    made = union_of(many, store)
    sources = Ownership(many, made.collisions)
    again: Lines = {origin: {} for origin in found}
    for path, shown in shown_by(made.root, store).items():
        of = sources.of(path)
        assert len(of) == 1 or shown.kind is Kind.DIR
        for each in of:
            assert sources.shown(each.origin, each.path) == path
            again[each.origin][each.path] = each.entry
    assert again == found
    nothing = divide(made, many, ORIGINS[0], made.root, store.__getitem__, LATE_MS)
    assert nothing == ((), (), (), ())


@given(lines)
@examples
def test_the_rename_of_a_loser_by_its_home_changes_no_shown_name(found: Lines) -> None:
    store: Store = {}
    roots = in_store(found, store)
    many = KnownLines(roots, store.__getitem__)
    made = union_of(many, store)
    for origin in found:
        changes = renames(made, many, origin, LATE_MS)
        after = {**roots, origin: edit(roots[origin], changes, store.__getitem__, store.__setitem__)}
        check_tree(after[origin], store.__getitem__)
        then = union_of(KnownLines(after, store.__getitem__), store)
        assert not [each for each in then.collisions if each.origin == origin]
        assert _unborn(shown_by(then.root, store)) == _unborn(shown_by(made.root, store))


@given(lines, st.sampled_from(ORIGINS))
@examples
def test_losers_are_known_again_in_a_tree_whose_own_part_is_lost(found: Lines, own: NodeName) -> None:
    """So no path of another home is taken for a new one of this node's own. (A user could guess such a name.)"""
    assume(not any(MARK in path for path in found.get(own, {})))
    store: Store = {}
    laid = shown_by((made := union_of(many := known(found, store), store)).root, store)
    roots = in_store({**found, own: {}}, store)
    kept = found_names(KnownLines(roots, store.__getitem__), sorted(laid, key=sort_key))
    again = shown_by(union_of(KnownLines(roots, store.__getitem__, kept=kept), store).root, store)
    sources = Ownership(many, made.collisions)
    theirs = {path for path in laid if any(each.origin != own for each in sources.of(path))}
    assert {path: fields_of(laid[path]) for path in theirs} == {p: fields_of(e) for p, e in again.items()}


def _unborn(tree: Tree) -> dict[bytes, object]:
    return {path: fields_of(each)[:5] for path, each in tree.items()}


@st.composite
def users_changes(draw: st.DrawFn, tree: Tree, *, only_adds: bool) -> Tree:
    """The tree after some of its paths were changed, removed and added; each new content is unlike all others."""
    after = dict(tree)
    removed = (
        st.sets(st.sampled_from(sorted(tree)), max_size=3)
        if tree and not only_adds
        else st.just(set[bytes]())
    )
    for path in draw(removed):
        for each in [p for p in after if p == path or p.startswith(path + b"/")]:
            del after[each]
    below = [path + b"/new" for path, each in tree.items() if each.kind is Kind.DIR]
    places = st.sampled_from(sorted(below)) | paths if below else paths
    for number, (path, kind) in enumerate(
        draw(st.lists(st.tuples(places, st.sampled_from(Kind)), max_size=4))
    ):
        after.setdefault(path, entry(path, kind, 100 + number, 0))
    changed = [path for path, each in after.items() if each.kind is not Kind.DIR and path in tree]
    if changed and not only_adds:
        for number, path in enumerate(sorted(draw(st.sets(st.sampled_from(changed), max_size=2)))):
            after[path] = entry(path, after[path].kind, 200 + number, 0)
    files = sorted(path for path, each in after.items() if each.kind is not Kind.DIR)
    if files and not only_adds and draw(st.booleans()):
        path = draw(st.sampled_from(files))
        after[b"moved"] = msgspec.structs.replace(after.pop(path), path=b"moved")
    return whole(sorted(after.values(), key=lambda each: (each.path not in tree, sort_key(each.path))))


@given(st.data(), lines)
@examples
def test_what_a_user_does_to_a_tree_is_divided(data: st.DataObject, found: Lines) -> None:
    store: Store = {}
    own = ORIGINS[0]
    roots = in_store(found, store)
    many = KnownLines(roots, store.__getitem__)
    made = union_of(many, store)
    sources = Ownership(many, made.collisions)
    laid = shown_by(made.root, store)
    tree = data.draw(users_changes(laid, only_adds=False))
    parts = divide(made, many, own, _built(tree, store), store.__getitem__, LATE_MS)
    edited = edit(roots.get(own, EMPTY_ROOT), parts.own, store.__getitem__, store.__setitem__)
    check_tree(edited, store.__getitem__)

    # Every path that differs is somewhere, and nothing that differs of another line is in the own one.
    theirs = {path for path in laid if any(each.origin != own for each in sources.of(path))}
    differs = {path for path in laid.keys() | tree.keys() if laid.get(path) != tree.get(path)}
    foreign = {each.path for each in parts.foreign}
    assert foreign == differs & theirs
    waiting = {each.path for each in parts.waiting}
    assert waiting <= differs - laid.keys()
    published = tree.keys() & differs - foreign - waiting
    contents = {EMPTY_DIGEST, *(each.digest for each in found.get(own, {}).values())}
    contents |= {tree[path].digest for path in published}
    assert {each.digest for each in shown_by(edited, store).values()} <= contents

    # Published, everything new is shown, wherever.
    after = union_of(KnownLines({**roots, own: edited}, store.__getitem__), store)
    new = {tree[path].digest for path in published}
    assert new <= {each.digest for each in shown_by(after.root, store).values()}


@given(st.data(), lines)
@examples
def test_a_commit_of_the_own_line_moves_nothing_of_other_lines(data: st.DataObject, found: Lines) -> None:
    """Goal: the tree that was committed is divided again as before: no file of another line is new, or gone, because
    the own line let go of the name that it had lost against."""
    store: Store = {}
    own = ORIGINS[0]
    roots = in_store(found, store)
    many = KnownLines(roots, store.__getitem__)
    made = union_of(many, store)
    tree = data.draw(users_changes(shown_by(made.root, store), only_adds=False))
    parts = divide(made, many, own, _built(tree, store), store.__getitem__, LATE_MS)
    roots[own] = edit(roots.get(own, EMPTY_ROOT), parts.own, store.__getitem__, store.__setitem__)
    kept: tuple[KeptName, ...] = ()
    while True:
        then = KnownLines(roots, store.__getitem__, kept=kept)
        laid = union_of(then, store)
        known, kept = kept, kept_names(made, laid, own, kept)
        if kept == known:
            break
    again = divide(laid, then, own, _built(tree, store), store.__getitem__, LATE_MS + 1)
    assert {each.path for each in again.foreign} <= {each.path for each in parts.foreign}
    contents = {EMPTY_DIGEST, *(each.digest for each in found.get(own, {}).values())}
    contents |= {each.digest for path, each in tree.items() if each != shown_by(made.root, store).get(path)}
    assert {each.digest for _, each in again.own if each is not None} <= contents


@given(st.data(), lines)
@examples
def test_new_paths_are_published_where_they_were_made(data: st.DataObject, found: Lines) -> None:
    store: Store = {}
    own = ORIGINS[0]
    roots = in_store(found, store)
    many = KnownLines(roots, store.__getitem__)
    made = union_of(many, store)
    tree = data.draw(users_changes(shown_by(made.root, store), only_adds=True))
    parts = divide(made, many, own, _built(tree, store), store.__getitem__, LATE_MS)
    assert not parts.foreign
    assert not parts.chmodded
    roots[own] = edit(roots.get(own, EMPTY_ROOT), parts.own, store.__getitem__, store.__setitem__)
    then = KnownLines(roots, store.__getitem__)
    after = union_of(then, store)
    waiting = {each.path for each in parts.waiting}
    assert _unborn(shown_by(after.root, store)) == _unborn(
        {path: each for path, each in tree.items() if path not in waiting}
    )
    again = divide(after, then, own, _built(tree, store), store.__getitem__, LATE_MS + 1)
    assert again.own == ()


def _built(tree: Tree, store: Store) -> Digest:
    return build([tree[path] for path in sorted(tree, key=sort_key)], store.__setitem__)
