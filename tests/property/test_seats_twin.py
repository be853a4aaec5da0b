"""The places of a pool, against a twin that keeps one row for every time that a user sat down."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instep.core.cluster.seats import (
    KeyRule,
    PoolRules,
    Seat,
    SeatVerdict,
    judge,
    kept_until_ms,
    renewed,
    sat_down,
    stood_up,
    taken,
    user_key,
)
from instep.errors import UsageError

POOL = PoolRules("editors", "authorized", places=3, linger_ms=30, grace_ms=100)
USERS = ("ana", "Ana", "bo", "cy", "di", "ed")
NODES = ("s1", "s2", "s3")
steps = st.lists(
    st.tuples(
        st.sampled_from(("sit", "sit", "stand", "renew")),
        st.sampled_from(USERS),
        st.sampled_from(NODES),
        st.integers(0, 60),
    ),
    max_size=60,
)


@dataclass
class Twin:
    """Rows of (user, node) with the moment at which each ends, and until when a user's place lingers."""

    rows: list[list[object]] = field(default_factory=list)
    lingers: dict[str, int] = field(default_factory=dict)

    def forget(self, now: int) -> None:
        self.rows = [row for row in self.rows if row[2] > now]  # type: ignore[operator]
        self.lingers = {user: until for user, until in self.lingers.items() if until > now}

    def seated(self) -> set[str]:
        return {str(row[0]) for row in self.rows} | self.lingers.keys()

    def sit(self, user: str, node: str, now: int) -> bool:
        if user not in self.seated() and len(self.seated()) >= POOL.places:
            return False
        self.lingers.pop(user, None)
        self.renew(user, node, now)
        self.rows.append([user, node, now + POOL.grace_ms])
        return True

    def renew(self, user: str, node: str, now: int) -> None:
        for row in self.rows:
            if row[:2] == [user, node]:
                row[2] = now + POOL.grace_ms

    def stand(self, user: str, node: str, now: int) -> None:
        here = next((row for row in self.rows if row[:2] == [user, node]), None)
        if here is not None:
            self.rows.remove(here)
            if user not in {str(row[0]) for row in self.rows}:
                self.lingers[user] = now + POOL.linger_ms
        else:
            self.lingers.pop(user, None)


@given(steps)
def test_a_pool_counts_as_the_twin_does(taken_steps: list[tuple[str, str, str, int]]) -> None:
    seats: dict[str, Seat] = {}
    twin, now = Twin(), 1_000
    for act, name, node, passes in taken_steps:
        now += passes
        twin.forget(now)
        user = user_key(name, KeyRule.FOLD)
        seat = seats.get(user)
        if act == "sit":
            verdict = judge(POOL, POOL.kind, seat, taken(seats.values(), now), now)
            may = verdict in (SeatVerdict.SEATED, SeatVerdict.ALREADY)
            assert (verdict is SeatVerdict.ALREADY) == (user in twin.seated())
            assert may == twin.sit(user, node, now)
            if may:
                seats[user] = sat_down(POOL, seat, node, now)
        elif seat is not None and act == "stand":
            seats[user] = stood_up(POOL, seat, node, now)
            twin.stand(user, node, now)
        elif seat is not None:
            seats[user] = renewed(POOL, seat, node, now)
            twin.renew(user, node, now)
        assert {user for user, seat in seats.items() if seat.ends_at_ms > now} == twin.seated()
        assert taken(seats.values(), now) <= POOL.places
        for user, seat in seats.items():
            uses = {use.node: use.times for use in seat.uses if use.ends_at_ms > now}
            assert uses == Counter(str(row[1]) for row in twin.rows if row[0] == user)


def test_kinds_do_not_mix() -> None:
    assert judge(POOL, "floating", None, 0, 0) is SeatVerdict.OTHER_KIND
    assert judge(POOL, "authorized", None, 2, 0) is SeatVerdict.SEATED
    assert judge(POOL, "authorized", None, 3, 0) is SeatVerdict.FULL


@pytest.mark.parametrize("name", ["", "  ", "a\0b", "a\nb", "x" * 201])
def test_what_is_no_user(name: str) -> None:
    with pytest.raises(UsageError, match="not the name of a user"):
        user_key(name, KeyRule.EXACT)


@given(st.text("aAéÉßſẞİıﬀǅＡ \u0345\u0307Ωϓ", min_size=1, max_size=20))
def test_a_key_has_one_form(name: str) -> None:
    try:
        key = user_key(name, KeyRule.FOLD)
    except UsageError:
        return
    assert user_key(key, KeyRule.FOLD) == key
    assert user_key(f" {name} ", KeyRule.FOLD) == key


def test_names_and_rules() -> None:
    assert user_key("ANA", KeyRule.FOLD) == user_key("ana", KeyRule.FOLD) == user_key("ａｎａ", KeyRule.FOLD)
    assert user_key("Ana", KeyRule.EXACT) != user_key("ana", KeyRule.EXACT)


@given(st.integers(10_000, 10_000_000), st.floats(0.95, 1.05))
def test_a_node_lets_go_before_the_database_does(grace_ms: int, rate: float) -> None:
    """Clocks 5 % apart: what the node's clock shows at the end of the grace is later than its own last moment."""
    assert kept_until_ms(0, grace_ms) < grace_ms * rate
