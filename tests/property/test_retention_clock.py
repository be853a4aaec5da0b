"""Whatever a wall clock does, no archive batch goes before it has really been there for the whole retention."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from instep.core.retention import Batch, RetentionClock, RetentionPolicy, looked_at, plan_prune

DAY = 86_400_000
POLICY = RetentionPolicy(keep_last=1, keep_within_ms=30 * DAY)
looks = st.lists(
    st.tuples(
        st.integers(0, 3 * DAY),  # the time that really passes
        st.sampled_from(
            (0, 0, 0, 32 * DAY, -32 * DAY, 400 * DAY, -400 * DAY, DAY, -DAY)
        ),  # the jump of the clock
        st.booleans(),  # whether something is archived
    ),
    max_size=80,
)


@given(looks)
def test_a_jump_makes_nothing_old(looks: list[tuple[int, int, bool]]) -> None:
    true_ms = offset = 1_800_000_000_000
    clock: RetentionClock | None = None
    batches: dict[str, tuple[Batch, int]] = {}
    for number, (passes, jump, is_archived) in enumerate(looks):
        true_ms += passes
        offset += jump
        wall = true_ms + offset
        if is_archived:
            batches[str(number)] = (Batch(str(number), wall, 1), true_ms)
        listed = [batch for batch, _ in batches.values()]
        newest = max((batch.at_ms for batch in listed), default=wall)
        clock = looked_at(clock, wall, passes, newest, POLICY.keep_within_ms)
        assert clock.now_ms <= wall
        for name in plan_prune(listed, POLICY, clock.now_ms).names:
            _, made_ms = batches.pop(name)
            assert true_ms - made_ms >= POLICY.keep_within_ms


def test_a_clock_alone_makes_nothing_old() -> None:
    """A node that is started with a clock 32 days ahead and that knows of no earlier look: all batches are hours old."""
    hours = [Batch(str(number), 1_800_000_000_000 + number * DAY // 24, 1) for number in range(9)]
    ahead_ms = hours[-1].at_ms + 32 * DAY
    assert plan_prune(hours, POLICY, ahead_ms).names == ()
    assert plan_prune(hours, POLICY, ahead_ms, from_newest=False).names == tuple("01234567"), "by hand it may"
    old = Batch("old", hours[-1].at_ms - 31 * DAY, 1)
    assert plan_prune([old, *hours], POLICY, ahead_ms).names == ("old",)


def test_it_still_prunes_and_follows_a_clock_that_was_set() -> None:
    clock: RetentionClock | None = None
    batches = []
    for day in range(200):
        wall = 1_800_000_000_000 + day * DAY + (32 * DAY if day >= 50 else 0)
        batches.append(Batch(str(day), wall, 1))
        clock = looked_at(clock, wall, DAY, batches[-1].at_ms, POLICY.keep_within_ms)
        gone = plan_prune(batches, POLICY, clock.now_ms).names
        batches = [batch for batch in batches if batch.name not in gone]
    assert len(batches) == 31
    assert clock is not None
    assert clock.now_ms == clock.wall_ms
