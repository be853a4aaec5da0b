"""Heads of several lines, some of which an application refuses: the others are live in the end, and only those are
refused."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from instep.core.union.attempts import UnionAttempts
from instep.model.ids import Digest, HeadRef, NodeName
from instep.model.replication.union import UnionPart

ORIGINS = [NodeName(name) for name in "abcde"]
Numbers = dict[NodeName, int]


def part(origin: NodeName, number: int) -> UnionPart:
    return UnionPart(origin, HeadRef(1, number, Digest(bytes([number]) * 32), Digest(bytes(32))))


rounds = st.lists(st.dictionaries(st.sampled_from(ORIGINS), st.booleans(), max_size=5), max_size=6)
"""The heads that come in each round, by origin, and whether the application takes them."""


@given(rounds, st.data())
def test_bad_heads_are_found_and_good_ones_do_not_wait_for_them(
    coming: list[dict[NodeName, bool]], data: st.DataObject
) -> None:
    attempts = UnionAttempts()
    newest: Numbers = {}
    is_good: dict[tuple[NodeName, int], bool] = {}
    for round_ in coming:
        for origin, good in round_.items():
            newest[origin] = newest.get(origin, 0) + 1
            is_good[origin, newest[origin]] = good
        known = [part(*each) for each in newest.items()]
        tries = 0
        while tried := attempts.wanted(data.draw(st.permutations(known))):
            before = attempts
            parts = attempts.parts_with(tried)
            assert {each.origin for each in parts} == {each.origin for each in (*attempts.live, *tried)}
            if all(is_good[each.origin, each.head.number] for each in tried):
                attempts = attempts.went_live(tried, known)
            else:
                attempts = attempts.failed(tried, known)
            assert attempts != before
            tries += 1
            assert tries <= 1 + len(round_) + len(attempts.refused), "it does not come to an end"
        assert not attempts.is_single
        live = {each.origin: each.head.number for each in attempts.live}
        for origin, number in newest.items():
            assert origin not in live or is_good[origin, live[origin]]
            assert (live.get(origin) == number) == is_good[origin, number]
        assert {each.origin for each in attempts.refused} == {
            o for o, n in newest.items() if not is_good[o, n]
        }
    again = attempts.retried()
    wanted = again.wanted([part(*each) for each in newest.items()])
    assert {each.origin for each in wanted} == {each.origin for each in attempts.refused}
