"""Copies wanted against a naive twin that compares whole trees, path by path."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from instep.core.copies import NO_PAGES, NodeWord, judge
from instep.model.ids import Digest, NodeName
from instep.model.manifest.entry import Entry, Kind
from instep.model.manifest.manifest import build
from instep.model.paths import sort_key
from instep.model.replication.copies import CopiesRule

NODES = tuple(NodeName(name) for name in ("k1", "k2", "k3", "k4"))
_Tree = dict[bytes, tuple[int, int]]
"""Contents and modes by path."""
trees = st.dictionaries(
    st.sampled_from(
        [
            b"%s%d.%s" % (name, at, kind)
            for name in (b"a", b"b")
            for at in range(8)
            for kind in (b"xml", b"txt")
        ]
    ),
    st.tuples(st.integers(0, 2), st.sampled_from((0o644, 0o600))),
)
nodes = st.lists(st.sampled_from(NODES), unique=True).map(tuple)


def _root(tree: _Tree, store: dict[Digest, bytes]) -> Digest:
    return build(
        (
            Entry(path, Kind.FILE, mode, 1, 0, Digest(bytes([contents]) * 32), 1)
            for path, (contents, mode) in sorted(tree.items(), key=lambda item: sort_key(item[0]))
        ),
        store.__setitem__,
    )


@given(
    trees,
    trees,
    st.dictionaries(st.sampled_from(NODES), st.tuples(trees, st.booleans())),
    st.integers(0, 4),
    nodes,
    nodes,
)
@settings(max_examples=150)
def test_copies_are_those_of_the_naive_twin(
    head: _Tree,
    settled: _Tree,
    told: dict[NodeName, tuple[_Tree, bool]],
    wanted: int,
    prefer: tuple[NodeName, ...],
    block: tuple[NodeName, ...],
) -> None:
    """Goal: counts by contents, of nodes whose word counts and that are not blocked, of documents that are settled."""
    store: dict[Digest, bytes] = {}
    rule = CopiesRule(("*.xml",), wanted, prefer, tuple(name for name in block if name not in prefer))
    words = [
        NodeWord(name, _root(tree, store), "away" if away else None) for name, (tree, away) in told.items()
    ]
    stand = judge(
        rule,
        lambda path: path.endswith(b"xml"),
        _root(head, store),
        _root(settled, store),
        words,
        store.__getitem__,
    )
    covered = [path for path in sorted(head) if path.endswith(b"xml")]
    old = [path for path in covered if path in settled and settled[path][0] == head[path][0]]

    def has(name: NodeName, path: bytes) -> bool:
        there = told[name][0].get(path)
        return there is not None and there[0] == head[path][0]

    sure = [name for name, (_, away) in told.items() if not away and name not in rule.block]
    silent = {name for name, (_, away) in told.items() if away and name not in rule.block}
    silent |= {name for name in prefer if name not in told}
    copies = {path: sum(has(name, path) for name in sure) for path in old}
    assert stand.documents == len(covered)
    assert stand.short == sum(each + len(silent) < wanted for each in copies.values())
    assert stand.short + stand.doubtful == sum(each < wanted for each in copies.values())
    assert stand.samples == [(path, copies[path]) for path in old if copies[path] < wanted][:10]
    lacking = {name: sum(not has(name, path) for path in old) for name in prefer if name in sure}
    assert {each.node: each.documents for each in stand.missing} == {k: x for k, x in lacking.items() if x}
    held = {name: sum(has(name, path) for path in covered) for name in rule.block if name in told}
    assert {each.node: each.documents for each in stand.blocked} == {k: x for k, x in held.items() if x}


@given(trees.filter(bool), trees)
@settings(max_examples=30)
def test_a_manifest_that_is_not_kept_is_not_known(head: _Tree, other: _Tree) -> None:
    """Goal: pages that are gone make a node unknown, and never a holder. Method: the store forgets the node's own pages."""
    store: dict[Digest, bytes] = {}
    gone = _root({**other, b"only_there": (0, 0o644)}, store)
    kept: dict[Digest, bytes] = {}
    root = _root(head, kept)
    rule = CopiesRule(("*",), 1)
    stand = judge(rule, lambda _: True, root, gone, [NodeWord(NODES[0], gone)], kept.__getitem__)
    assert stand.unknown == [(NODES[0], NO_PAGES)]
    assert stand.doubtful == len(head)
    assert not stand.is_well
