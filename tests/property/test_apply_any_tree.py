"""From any tree to any tree, with the disk failing anywhere: exactly one of both, then exactly the new one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instep.errors import InstepError
from instep.tree.root import failpoints
from instep.tree.stage.next_tree import Exchange
from instep.tree.switch.recover import RecoveredKind, recover
from instep.tree.switch.switch import finish, switch
from tests.support.apply_world import Dir, File, Link, Tree, World

POINTS = [
    name
    for name in failpoints.registered()
    if name.split(".")[0] in ("stage", "journal", "switch", "archive", "exchange")
]

_names = st.sampled_from([b"a", b"b", b"c", b"d-", b"d"])
_leaf = st.one_of(
    st.builds(File, st.sampled_from([b"", b"1", b"2", b"33"]), st.sampled_from([0o644, 0o600, 0o444])),
    st.builds(Link, st.sampled_from([b"a", b"../.."])),
    st.builds(Dir, st.sampled_from([0o755, 0o555])),
)
_nested = st.recursive(
    _leaf, lambda inner: st.dictionaries(_names, inner, min_size=1, max_size=3), max_leaves=8
)


def _flat(nested: object, at: bytes = b"") -> Iterator[tuple[bytes, File | Dir | Link]]:
    if isinstance(nested, dict):
        for name, inner in nested.items():
            yield from _flat(inner, at + b"/" + name if at else name)
    elif at:
        assert isinstance(nested, File | Dir | Link)
        yield at, nested


_trees = st.dictionaries(_names, _nested, max_size=4).map(lambda nested: dict(_flat(nested)))


@pytest.fixture(autouse=True)
def _nothing_stays_armed() -> Iterator[None]:
    yield
    failpoints.disarm_all()


@settings(max_examples=90, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_trees, _trees, st.sampled_from(POINTS), st.integers(1, 4), st.sampled_from([None, Exchange()]))
def test_from_any_tree_to_any_tree(
    first: Tree, second: Tree, point: str, hit: int, exchange: Exchange | None
) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as directory:
        world = World.make(Path(directory))
        world.exchange = exchange
        world.apply(first)
        assert world.holds(first)
        old, target = world.live, world.generation(second)
        failpoints.arm(f"{point}:{hit}", "eio")
        try:
            journal = world.stage(target)
            switched = switch(world.place, journal, local=world.local, get_page=world.page, now_ms=1)
            finish(world.place, switched.journal)
            world.end_linger()
        except (InstepError, OSError):
            failpoints.disarm_all()
            recovered = recover(world.place, local=world.local, get_page=world.page, now_ms=2)
            if recovered.kind is RecoveredKind.FINISHED and recovered.journal is not None:
                is_new = recovered.target == target
                assert world.holds(second if is_new else first)
                finish(world.place, recovered.journal)
            elif not world.place.journal.exists() and world.holds(second):
                is_new = True  # it failed after the journal was removed: all had been recorded
            else:
                assert world.holds(first)
                is_new = False
            world.live = target if is_new else old
        else:
            world.live = target
        failpoints.disarm_all()
        world.end_linger()
        world.apply(second)
        assert world.holds(second)
        world.apply(first)
        assert world.holds(first)
