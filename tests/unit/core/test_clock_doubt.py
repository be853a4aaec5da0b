"""Clocks by which a node renews its certificates, over years."""

from __future__ import annotations

import pytest

from instep.core.clock_doubt import STEADY_MS, ClockLook, clock_doubt, looked_at
from instep.model.ids import node_name

DAY = 86_400_000
STEADY = ClockLook(0, STEADY_MS)


@pytest.mark.parametrize(
    ("look", "days_ahead", "doubt"),
    [
        (STEADY, {}, None),
        (ClockLook(0, STEADY_MS - 1), {}, "no partner is connected"),
        (ClockLook(0), {"s1": 0}, None),
        (STEADY, {"s1": -395}, "s1 is 395 days behind"),
        (STEADY, {"s1": 0, "s2": 1200}, "s2 is 1200 days ahead"),
        (STEADY, {"s1": 0, "s2": 1200, "s3": 0}, None),
        (STEADY, {"s1": -2, "s2": -2, "s3": 0}, "s1 is 2 days behind, s2 is 2 days behind"),
    ],
)
def test_most_partners_decide_and_without_any_a_day_of_watching(
    look: ClockLook, days_ahead: dict[str, int], doubt: str | None
) -> None:
    found = clock_doubt(look, {node_name(name): days * DAY for name, days in days_ahead.items()})
    assert (found is None) == (doubt is None)
    if found is not None:
        assert str(doubt) in found.reason
        assert found.is_against == bool(days_ahead)


def test_a_jump_begins_the_watch_again_whichever_way_it_goes() -> None:
    for jump in (395 * DAY, -395 * DAY, 301_000, -301_000):
        look = ClockLook(0)
        for minute in range(1, 1441):
            look = looked_at(look, minute * 60_000, 60_000)
        assert look.steady_ms == STEADY_MS
        jumped = looked_at(look, look.wall_ms + 60_000 + jump, 60_000)
        assert jumped.steady_ms == 0
        assert looked_at(jumped, jumped.wall_ms + 60_000, 60_000).steady_ms == 60_000
