"""The changes that a tree can take: every refusal has its reason, and the accepted ones make a tree."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from instep.core.changes.fitting import fit, takes_directory
from instep.model.change import OutcomeKind, PathChange, is_alike
from instep.model.ids import EMPTY_DIGEST
from instep.model.manifest.entry import Entry, Kind
from instep.model.paths import is_below, parent_of, sort_key
from tests.support.vectors import digest

PATHS = (b"a", b"a/a", b"a/a/a", b"a/b", b"b", b"b/a", b"c")
WHATS = (None, "dir", "one", "two")

Tree = dict[bytes, Entry]


def _entry(path: bytes, what: str | None) -> Entry | None:
    if what is None:
        return None
    if what == "dir":
        return Entry(path, Kind.DIR, 0o755, 0, 1, EMPTY_DIGEST, 0)
    return Entry(path, Kind.FILE, 0o644, len(what), 1, digest(what), 0)


def _is_tree(tree: Tree) -> bool:
    return all(
        not parent_of(path) or (parent_of(path) in tree and tree[parent_of(path)].kind is Kind.DIR)
        for path in tree
    )


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    tree: Tree = {}
    for path in PATHS:
        parent = parent_of(path)
        if not parent or (parent in tree and tree[parent].kind is Kind.DIR):
            entry = _entry(path, draw(st.sampled_from(WHATS)))
            if entry is not None:
                tree[path] = entry
    return tree


@st.composite
def sets(draw: st.DrawFn) -> tuple[Tree, tuple[PathChange, ...]]:
    """A live tree, and the difference of two trees that an author saw and made."""
    live, seen, made = draw(trees()), draw(trees()), draw(trees())
    if draw(st.booleans()):
        seen = live | {path: entry for path, entry in seen.items() if path in (b"b", b"c")}
    changes = [
        PathChange(path, seen.get(path), made.get(path))
        for path in PATHS
        if not is_alike(seen.get(path), made.get(path)) and draw(st.integers(0, 9))
    ]
    return live, tuple(sorted(changes, key=lambda change: sort_key(change.path)))


@given(sets(), st.booleans())
def test_what_is_left_makes_a_tree_and_the_rest_has_an_outcome(
    case: tuple[Tree, tuple[PathChange, ...]], is_whole: bool
) -> None:
    live, changes = case
    taken = [c.path for c in changes if takes_directory(c, live.get(c.path))]
    below = [path for path in live if any(is_below(path, directory) for directory in taken)]
    fitted = fit(changes, live, below, is_alike, {}, is_whole=is_whole)
    kept = {change.path for change in fitted.changes}
    assert kept | set(fitted.outcomes) == {change.path for change in changes}
    assert not kept & set(fitted.outcomes)
    after = dict(live)
    for change in fitted.changes:
        assert is_alike(live.get(change.path), change.base)
        after.pop(change.path, None)
        if change.new is not None:
            after[change.path] = change.new
    assert _is_tree(after)
    for change in changes:
        outcome = fitted.outcomes.get(change.path)
        entry = live.get(change.path)
        if outcome is None:
            continue
        if outcome.kind is OutcomeKind.SAME:
            assert is_alike(entry, change.new)
        elif outcome.kind is OutcomeKind.OUTDATED:
            assert outcome.entry == entry
            assert not is_alike(entry, change.base) and not is_alike(entry, change.new)
        else:
            assert outcome.code in ("not_empty", "not_a_directory", "not_whole")
    if is_whole:
        assert not fitted.changes or all(outcome.is_made for outcome in fitted.outcomes.values())


def test_a_directory_that_a_file_should_replace_goes_whole_or_stays_whole() -> None:
    live = {p: _entry(p, w) for p, w in ((b"a", "dir"), (b"a/a", "one"), (b"a/b", "two"))}
    tree = {path: entry for path, entry in live.items() if entry is not None}
    changes = (
        PathChange(b"a", tree[b"a"], _entry(b"a", "one")),
        PathChange(b"a/a", tree[b"a/a"], None),
    )
    fitted = fit(changes, tree, [b"a/a", b"a/b"], is_alike, {}, is_whole=False)
    assert not fitted.changes
    assert {outcome.code for outcome in fitted.outcomes.values()} == {"not_empty"}
