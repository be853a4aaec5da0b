"""Three-way reconciliation against what people were promised: nothing lost, repeated runs change nothing, sides alike."""

from __future__ import annotations

import os
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from instep.core.sync.plan import SyncPlan, same
from instep.core.sync.reconcile import IgnoredBy, reconcile
from instep.core.sync.table import Direction, KindRules, Listing, Side
from instep.model.ids import EMPTY_DIGEST, Digest
from instep.model.manifest import manifest
from instep.model.manifest.entry import Entry, Kind
from instep.model.paths import is_below, sort_key
from tests.support.trees import Tree, in_order, is_whole, with_parents

EXAMPLES = int(os.environ.get("INSTEP_EXAMPLES", "200"))
examples = settings(max_examples=EXAMPLES)

Rules = Callable[[bytes], KindRules]

NAMES = st.sampled_from([b"a", b"b", b"c.x"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(b"/".join)


def _file(path: bytes, content: int, born: int) -> Entry:
    return Entry(path, Kind.FILE, 0o644, content, content, Digest(bytes([content]) * 32), born)


def _directory(path: bytes, born: int) -> Entry:
    return Entry(path, Kind.DIR, 0o755, 0, 0, EMPTY_DIGEST, born)


@st.composite
def _files(draw: st.DrawFn, first: int) -> Tree:
    found = draw(st.lists(st.tuples(PATHS, st.integers(0, 3), st.integers(0, 3)), max_size=6))
    return {path: _file(path, first + content, born) for path, content, born in found}


@st.composite
def _edited(draw: st.DrawFn, base: Tree, first: int) -> Tree:
    """The tree after a few hands' work: a subtree removed, files written, a directory made empty or a file."""
    tree = dict(base)
    for path in draw(st.lists(PATHS, max_size=3)):
        tree = {each: e for each, e in tree.items() if each != path and not is_below(each, path)}
    for path, entry in draw(_files(first)).items():
        tree = {each: e for each, e in tree.items() if not is_below(each, path)}
        old = tree.get(path)
        born = old.born_ms if old is not None and old.kind is Kind.FILE else entry.born_ms
        tree[path] = _file(path, entry.size, born)
    if draw(st.booleans()):
        path = draw(PATHS)
        if path not in tree:
            tree[path] = _directory(path, 2)
    return with_parents(tree)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Tree, Tree, Tree]:
    base = with_parents(draw(_files(10)))
    return base, draw(_edited(base, 20)), draw(_edited(base, 30 if draw(st.booleans()) else 20))


DIRECTIONS = st.sampled_from(list(Direction))


def _all(direction: Direction, locked: Side | None = None) -> Rules:
    return lambda path: KindRules(direction, locked)


KINDS = (
    *map(KindRules, Direction),
    KindRules(Direction.UP, Side.RIGHT),
    KindRules(Direction.DOWN, Side.LEFT),
)


def _by_name(a: KindRules, b: KindRules, others: KindRules) -> Rules:
    """Kinds by the last name of a path, so that paths of one directory go different ways."""
    return lambda path: {b"a": a, b"b": b}.get(path.rpartition(b"/")[2], others)


_mixed = _by_name(KindRules(Direction.UP), KindRules(Direction.DOWN), KindRules(Direction.BOTH))


def _plan(
    base: Tree, left: Tree, right: Tree, rules: Rules, ignored_by: IgnoredBy = lambda path, is_dir: None
) -> SyncPlan:
    store: dict[Digest, bytes] = {}
    roots = [manifest.build(in_order(tree), store.__setitem__) for tree in (base, left, right)]
    return reconcile(roots[0], roots[1], roots[2], rules, store.__getitem__, ignored_by=ignored_by)


def _after(plan: SyncPlan, base: Tree, left: Tree, right: Tree) -> tuple[Tree, Tree, Tree]:
    trees = dict(base), dict(left), dict(right)
    for step in plan.steps:
        for tree, entry in zip(trees, (step.base_after, step.to_left, step.to_right), strict=True):
            if entry is None:
                tree.pop(step.path, None)
            else:
                tree[step.path] = entry
    return trees


def _alike(a: Tree, b: Tree) -> bool:
    return a.keys() == b.keys() and all(same(a[path], b[path]) for path in a)


def _contents(tree: Tree) -> set[Digest]:
    return {entry.digest for entry in tree.values() if entry.kind is Kind.FILE}


RULES = st.one_of(
    DIRECTIONS.map(_all),
    st.just(_all(Direction.UP, Side.RIGHT)),
    st.just(_all(Direction.DOWN, Side.LEFT)),
    st.builds(_by_name, *[st.sampled_from(KINDS)] * 3),
)


@given(worlds(), RULES)
@examples
def test_a_run_leaves_whole_trees_and_a_second_changes_nothing(
    world: tuple[Tree, Tree, Tree], rules: Rules
) -> None:
    base, left, right = _after(_plan(*world, rules), *world)
    assert is_whole(in_order(left)), in_order(left)
    assert is_whole(in_order(right)), in_order(right)
    again = _plan(base, left, right, rules)
    assert again.is_empty, again.steps


@given(worlds())
@examples
def test_both_ways_make_the_sides_alike_and_lose_no_change(world: tuple[Tree, Tree, Tree]) -> None:
    base, left, right = world
    plan = _plan(*world, _all(Direction.BOTH))
    after, both, other = _after(plan, *world)
    assert _alike(both, other) and _alike(after, both)
    for side in (left, right):
        changed = {path: e for path, e in side.items() if e.kind is Kind.FILE and not same(e, base.get(path))}
        assert _contents(changed) <= _contents(both)


@given(worlds())
@examples
def test_no_side_is_the_better_one(world: tuple[Tree, Tree, Tree]) -> None:
    base, left, right = world
    _, both, _ = _after(_plan(base, left, right, _all(Direction.BOTH)), *world)
    _, other, _ = _after(_plan(base, right, left, _all(Direction.BOTH)), base, right, left)
    assert _alike(both, other)


@given(worlds(), RULES, st.booleans())
@examples
def test_a_crash_between_the_sides_changes_nothing_in_the_end(
    world: tuple[Tree, Tree, Tree], rules: Rules, is_left_done: bool
) -> None:
    base, left, right = world
    _, to_left, to_right = _after(_plan(*world, rules), *world)
    halfway = (base, to_left, right) if is_left_done else (base, left, to_right)
    _, again_left, again_right = _after(_plan(*halfway, rules), *halfway)
    found, wanted = (again_left, again_right), (to_left, to_right)
    assert all(map(_alike, found, wanted))


@given(worlds(), DIRECTIONS)
@examples
def test_a_one_way_run_does_not_hide_what_it_left_alone(
    world: tuple[Tree, Tree, Tree], direction: Direction
) -> None:
    """What no one-way run touched arrives in a later two-way run as if that had been the first."""
    base, left, right = _after(_plan(*world, _all(direction)), *world)
    _, both, other = _after(_plan(base, left, right, _all(Direction.BOTH)), base, left, right)
    assert _alike(both, other)
    for side, before in ((left, world[1]), (right, world[2])):
        kept = {
            p: e
            for p, e in before.items()
            if e.kind is Kind.FILE and not same(e, world[0].get(p)) and same(e, side.get(p))
        }
        assert _contents(kept) <= _contents(both)


@given(worlds(), RULES)
@examples
def test_a_path_that_one_home_ignores_stays_as_it_is_on_both_sides(
    world: tuple[Tree, Tree, Tree], rules: Rules
) -> None:
    """The left ignores ``b`` and all below one: its tree has none, and the right keeps its own."""
    base, whole, right = world
    left = {path: each for path, each in whole.items() if not _is_ignored(path)}
    plan = _plan(base, left, right, rules, _ignored_by_left)
    after = _after(plan, base, left, right)
    assert is_whole(in_order(after[1])) and is_whole(in_order(after[2]))
    assert {p: e for p, e in after[2].items() if _is_ignored(p)} == {
        p: e for p, e in right.items() if _is_ignored(p)
    }
    assert not any(map(_is_ignored, after[1]))
    again = _plan(*after, rules, _ignored_by_left)
    assert again.is_empty, again.steps


def _is_ignored(path: bytes) -> bool:
    return b"b" in path.split(b"/")


def _ignored_by_left(path: bytes, is_dir: bool) -> Side | None:
    return Side.LEFT if _is_ignored(path) else None


def _flat(number: int) -> st.SearchStrategy[Tree]:
    files = st.lists(st.tuples(NAMES, st.integers(0, 2), st.integers(0, 2)), max_size=4)
    return files.map(lambda found: {name: _file(name, 1 + content, born) for name, content, born in found})


def _twin(
    base: Tree, left: Tree, right: Tree, direction: Direction
) -> tuple[dict[bytes, Digest | None], ...]:
    """The table for files alone, naively: what each side holds of each path (copies left out)."""
    after: tuple[dict[bytes, Digest | None], ...] = ({}, {})
    for path in {*base, *left, *right}:
        b, l, r = base.get(path), left.get(path), right.get(path)
        is_l, is_r = not same(b, l), not same(b, r)
        winner: tuple[Entry | None, Entry | None] = (l, r)
        if not same(l, r):
            if direction is Direction.UP and is_l:
                winner = (l, l)
            elif direction is Direction.DOWN and is_r:
                winner = (r, r)
            elif direction is Direction.BOTH:
                if is_l and is_r and l is not None and r is not None:
                    first = min(l, r, key=lambda e: (e.born_ms, e.digest))
                    winner = (first, first)
                elif is_l and is_r:
                    winner = (l or r, l or r)
                else:
                    winner = (l, l) if is_l else (r, r)
        for side, entry in zip(after, winner, strict=True):
            side[path] = entry.digest if entry is not None else None
    return after


@given(_flat(0), _flat(1), _flat(2), DIRECTIONS)
@examples
def test_single_files_end_as_the_table_says(
    base: Tree, left: Tree, right: Tree, direction: Direction
) -> None:
    _, to_left, to_right = _after(_plan(base, left, right, _all(direction)), base, left, right)
    for side, wanted in zip((to_left, to_right), _twin(base, left, right, direction), strict=True):
        assert {path: e.digest for path, e in side.items() if b".collision-" not in path} == {
            path: digest for path, digest in wanted.items() if digest is not None
        }


@given(worlds(), st.sampled_from(list(Side)))
@examples
def test_a_locked_side_gives_nothing_and_ends_as_the_other(
    world: tuple[Tree, Tree, Tree], locked: Side
) -> None:
    _, left, right = world
    direction = Direction.UP if locked is Side.RIGHT else Direction.DOWN
    plan = _plan(*world, _all(direction, locked))
    _, to_left, to_right = _after(plan, *world)
    free, before = (to_left, left) if locked is Side.RIGHT else (to_right, right)
    assert _alike(free, before) and _alike(to_left, to_right)
    assert all(each.why is Listing.LOCKED_EDIT for each in plan.listed)


def test_a_directory_removed_here_and_worked_in_there_comes_back_whole() -> None:
    base = with_parents({b"d/a": _file(b"d/a", 1, 0), b"d/b": _file(b"d/b", 2, 0)})
    right = {**base, b"d/a": _file(b"d/a", 3, 0)}
    plan = _plan(base, {}, right, _all(Direction.BOTH))
    assert _alike(_after(plan, base, {}, right)[1], right)
    assert [(each.path, each.why, each.loser) for each in plan.listed] == [
        (b"d", Listing.CHANGE_OVER_DELETION, Side.LEFT)
    ]


def test_a_rename_beside_an_edit_is_listed_as_one() -> None:
    base = {b"old": _file(b"old", 1, 0)}
    left = {b"new": _file(b"new", 1, 5)}
    right = {b"old": _file(b"old", 2, 0)}
    plan = _plan(base, left, right, _all(Direction.BOTH))
    assert sorted(_after(plan, base, left, right)[1]) == [b"new", b"old"]
    assert [(each.path, each.renamed_to) for each in plan.listed] == [(b"old", b"new")]


def test_a_file_against_a_directory_moves_one_of_them_whole() -> None:
    left = {b"d.x": _file(b"d.x", 1, 0)}
    right = with_parents({b"d.x/a": _file(b"d.x/a", 2, 7), b"d.x/b/c": _file(b"d.x/b/c", 3, 8)})
    plan = _plan({}, left, right, _all(Direction.BOTH))
    _, both, _ = _after(plan, {}, left, right)
    (listed,) = plan.listed
    copy = listed.copy
    assert copy is not None and copy.startswith(b"d.collision-") and copy.endswith(b".x")
    assert sorted(both, key=sort_key) == sorted(
        [b"d.x", copy, copy + b"/a", copy + b"/b", copy + b"/b/c"], key=sort_key
    )


def test_paths_that_both_sides_removed_do_not_make_a_component_go_different_ways() -> None:
    """Found among 20,000 examples: the second run took away what the first one had kept."""
    base = with_parents({b"a/b": _file(b"a/b", 1, 0)})
    right = with_parents({b"a/a": _file(b"a/a", 2, 2)})
    plan = _plan(base, {}, right, _mixed)
    after = _after(plan, base, {}, right)
    assert _plan(*after, _mixed).is_empty
    assert _alike(after[2], right)


def test_one_way_keeps_what_the_other_side_added_in_a_removed_directory() -> None:
    base = with_parents({b"d/a": _file(b"d/a", 1, 0), b"d/b": _file(b"d/b", 1, 0)})
    right = base | {b"d/b": _file(b"d/b", 2, 0), b"d/new": _file(b"d/new", 3, 0)}
    plan = _plan(base, {}, right, _all(Direction.UP))
    after = _after(plan, base, {}, right)
    assert (sorted(after[1]), sorted(after[2])) == ([], [b"d", b"d/new"])
    assert [(each.path, each.why) for each in plan.listed] == [(b"d/b", Listing.OVERRULED)]


def test_a_directory_that_is_made_while_the_run_is_interrupted_decides_nothing() -> None:
    """Found among 5,000 examples: the left got directories for a path of theirs, and after a crash the rest was judged as
    in a directory that both sides have."""
    rules = _by_name(KindRules(Direction.UP), KindRules(Direction.DOWN), KindRules(Direction.BOTH))
    base = {b"a": _file(b"a", 1, 0)}
    right = with_parents({b"a/b/a": _file(b"a/b/a", 2, 0)})
    _, left, other = _after(_plan(base, {}, right, rules), base, {}, right)
    again = _plan(base, left, right, rules)
    assert _alike(_after(again, base, left, right)[2], other)


def test_a_copy_goes_the_way_of_its_original() -> None:
    """Found among 20,000 examples: after a crash between the sides, the rules of its own name took the copy away."""
    both = KindRules(Direction.BOTH)

    def rules(path: bytes) -> KindRules:
        return both if path == b"conf.x" else KindRules(Direction.UP, Side.RIGHT)

    left, right = {b"conf.x": _file(b"conf.x", 1, 0)}, {b"conf.x": _file(b"conf.x", 2, 5)}
    _, both_sides, _ = _after(_plan({}, left, right, rules), {}, left, right)
    _, again, other = _after(_plan({}, left, both_sides, rules), {}, left, both_sides)
    assert len(again) == 2 and _alike(again, both_sides) and _alike(other, both_sides)


def test_below_a_directory_that_goes_different_ways_components_are_whole() -> None:
    """Found among 20,000 examples: the first run treated a directory that had been a file path by path, the second as one."""
    base = with_parents({b"a/b": _file(b"a/b", 1, 0)})
    left = with_parents({b"a/b/b": _file(b"a/b/b", 2, 0), b"a/a": _file(b"a/a", 2, 0)})
    after = _after(_plan(base, left, {}, _mixed), base, left, {})
    assert _plan(*after, _mixed).is_empty


def test_a_directory_is_one_with_the_paths_below_it_that_have_its_rules() -> None:
    """Found among 20,000 examples: a path of other rules beside them made the first run keep what the second took away."""
    base = with_parents({b"a/c.x": _file(b"a/c.x", 1, 0)})
    right = base | {b"a/a": _file(b"a/a", 2, 0)}
    after = _after(_plan(base, {}, right, _mixed), base, {}, right)
    assert _plan(*after, _mixed).is_empty
