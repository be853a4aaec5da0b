"""The ticks of a cron line, against a twin that looks at every minute of a day around which clocks are moved."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from instep.core.cluster.schedule import BadCronLine, Schedule, schedule_of

ZONES = (
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Africa/Cairo",
    "America/Havana",
    "Asia/Kolkata",
)
DAYS = (
    date(2024, 3, 31),
    date(2024, 10, 27),
    date(2024, 3, 10),
    date(2024, 11, 3),
    date(2024, 4, 7),
    date(2024, 10, 6),
    date(2024, 4, 26),
    date(2024, 10, 31),
    date(2024, 7, 1),
)
MINUTE = timedelta(minutes=1)


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def field(least: int, most: int, few: int) -> st.SearchStrategy[tuple[str, frozenset[int]]]:
    """A field's text, and its values."""
    named = st.frozensets(st.integers(least, most), min_size=1, max_size=few)
    steps = st.integers(1, most + 1)
    return st.one_of(
        st.just(("*", frozenset(range(least, most + 1)))),
        steps.map(lambda step: (f"*/{step}", frozenset(range(least, most + 1, step)))),
        named.map(lambda values: (",".join(map(str, sorted(values))), values)),
        st.tuples(st.integers(least, most), st.integers(least, most)).map(
            lambda ends: (f"{min(ends)}-{max(ends)}", frozenset(range(min(ends), max(ends) + 1)))
        ),
    )


def twin(
    minute: tuple[str, frozenset[int]],
    hour: tuple[str, frozenset[int]],
    zone: ZoneInfo,
    begin: datetime,
    end: datetime,
) -> list[int]:
    """All ticks after one moment up to another, by looking at each minute of the wall clock from three days before."""
    shown = [
        (utc, utc.astimezone(zone).replace(tzinfo=None))
        for utc in (begin - timedelta(days=3) + MINUTE * step for step in range(6 * 1440))
    ]
    if minute[0].startswith("*") or hour[0].startswith("*"):
        found = {utc for utc, wall in shown if wall.minute in minute[1] and wall.hour in hour[1]}
    else:
        found, highest = set(), shown[0][1]
        for utc, wall in shown:
            while highest < wall:
                highest += MINUTE
                if highest.minute in minute[1] and highest.hour in hour[1]:
                    found.add(utc)
    return sorted(int(utc.timestamp()) for utc in found if begin < utc <= end)


@given(
    minute=field(0, 59, 3),
    hour=field(0, 23, 4),
    zone=st.sampled_from(ZONES),
    day=st.sampled_from(DAYS),
    late=st.integers(0, 1439),
)
@example(("30", frozenset({30})), ("2", frozenset({2})), "Europe/Berlin", date(2024, 3, 31), 0)
@example(("15", frozenset({15})), ("1,2", frozenset({1, 2})), "Australia/Lord_Howe", date(2024, 4, 7), 0)
@example(("0", frozenset({0})), ("0", frozenset({0})), "Africa/Cairo", date(2024, 4, 26), 0)
def test_each_tick_is_the_twins(
    minute: tuple[str, frozenset[int]], hour: tuple[str, frozenset[int]], zone: str, day: date, late: int
) -> None:
    begin = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(days=1) + MINUTE * late
    end = begin + timedelta(days=2)
    expected = twin(minute, hour, ZoneInfo(zone), begin, end)
    for line in (f"{minute[0]} {hour[0]} * * *", f"0 {minute[0]} {hour[0]} * * *"):
        schedule = schedule_of(line, ZoneInfo(zone))
        found: list[int] = []
        now = int(begin.timestamp())
        while len(found) < 40 and (tick := schedule.next_after(now)) is not None and tick <= end.timestamp():
            assert tick > now
            found.append(now := tick)
        assert found == expected[:40]
        assert schedule.latest_in(int(begin.timestamp()), int(end.timestamp())) == (
            expected[-1] if expected else None
        )


@pytest.mark.parametrize("zone", ZONES[:5])
def test_ten_years_of_nights(zone: str) -> None:
    """A nightly job runs once each calendar day, and an hourly one once each hour, whatever the clocks do."""
    schedule, now = schedule_of("30 2 * * *", ZoneInfo(zone)), at("2020-01-01T00:00:00Z")
    nights, hours = [], 0
    while (tick := schedule.next_after(now)) is not None and tick < at("2030-01-01T00:00:00Z"):
        nights.append(datetime.fromtimestamp(tick, ZoneInfo(zone)).date())
        now = tick
    assert len(set(nights)) == len(nights)
    assert abs(len(nights) - 3653) <= 1, "2020 to 2029 have 3,653 days"
    schedule, now = schedule_of("0 * * * *", ZoneInfo(zone)), at("2024-01-01T00:00:00Z")
    while (tick := schedule.next_after(now)) is not None and tick < at("2025-01-01T00:00:00Z"):
        hours, now = hours + 1, tick
    half = zone == "Australia/Lord_Howe"  # its wall clock shows 1:30 twice, and no 2:00 once
    assert abs(hours - 366 * 24) <= 1 + half


def test_each_second_and_rare_days() -> None:
    each = schedule_of("* * * * * *", ZoneInfo("Europe/Berlin"))
    chance = random.Random(1)
    for now in (at("2024-03-31T00:59:58Z"), at("2024-10-27T00:59:58Z"), chance.randrange(1 << 32)):
        assert [each.next_after(now + late) for late in range(4)] == [now + late + 1 for late in range(4)]
    assert each.latest_in(1_000, 2_000_000_000) == 2_000_000_000
    leap = schedule_of("0 0 * 2 MON#5", UTC)
    assert leap.next_after(at("2024-01-01T00:00:00Z")) == at("2044-02-29T00:00:00Z")
    assert leap.latest_in(at("2024-01-01T00:00:00Z"), at("2044-02-28T23:59:59Z")) is None


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("0 0 30 2 *", "never comes"),
        ("0 0 32 * *", "day-of-month"),
        ("* * */20 * 1L", "never comes"),
        ("61 * * * *", "minute"),
        ("0 24 * * *", "hour"),
        ("@daily", "five fields"),
        ("", "five fields"),
        ("* * * *", "five fields"),
        ("*/0 * * * *", "minute"),
        ("0 " * 300, "longer"),
    ],
)
def test_what_is_no_line(line: str, why: str) -> None:
    with pytest.raises(BadCronLine, match=why):
        schedule_of(line, UTC)


@given(
    st.lists(
        st.text(st.sampled_from("0123456789*/,-L#W²AMON "), min_size=1, max_size=7), min_size=1, max_size=7
    ).map(" ".join)
)
def test_any_text_is_a_line_or_refused(text: str) -> None:
    try:
        schedule = schedule_of(text, UTC)
    except BadCronLine:
        return
    assert isinstance(schedule, Schedule)
    tick = schedule.next_after(at("2024-01-01T00:00:00Z"))
    assert tick is None or tick > at("2024-01-01T00:00:00Z")
