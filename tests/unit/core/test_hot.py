"""When a file counts as hot, and how seldom it is published then."""

from __future__ import annotations

from instep.core.guards.hot import (
    HOT_FILES_MAX,
    LARGE_TIMES,
    LARGE_WITHIN_MS,
    PACE_FIRST_MS,
    PACE_MOST_MS,
    WINDOW_MS,
    HotFiles,
)

SETTLE = (200, 10_000)


def hot_after_two_misses(path: bytes = b"a") -> HotFiles:
    files = HotFiles()
    assert not files.missed(path, 0)
    assert files.missed(path, 1_000)
    return files


def test_one_miss_is_everyday_life_and_two_far_apart_are_two_of_those() -> None:
    files = HotFiles()
    assert not files.missed(b"a", 0)
    assert not files.missed(b"a", WINDOW_MS + 1)
    assert files.hot(WINDOW_MS + 1) == ()


def test_a_hot_file_is_published_at_once_with_a_copy_and_then_cools() -> None:
    files = hot_after_two_misses()
    assert (files.hot(1_000), files.cooling(1_000, *SETTLE)) == ((b"a",), ())
    files.published([b"a", b"another"], 2_000)
    assert files.cooling(2_000 + PACE_FIRST_MS - 1, *SETTLE) == ((b"a", 10_000),)
    assert files.cooling(2_000 + PACE_FIRST_MS, *SETTLE) == ()


def test_what_goes_on_changing_is_published_more_and_more_seldom() -> None:
    files, now = hot_after_two_misses(), 1_000
    paces = []
    for _ in range(7):
        files.published([b"a"], now)
        began = now
        while files.cooling(now, *SETTLE):
            now += PACE_FIRST_MS // 2
        paces.append(now - began)
    assert paces == [PACE_FIRST_MS * factor for factor in (1, 2, 4, 8, 16, 20, 20)]
    assert paces[-1] == PACE_MOST_MS


def test_what_no_partner_missed_for_half_an_hour_is_forgotten() -> None:
    files = hot_after_two_misses()
    assert files.hot(1_000 + WINDOW_MS - 1) == (b"a",)
    assert files.hot(1_000 + WINDOW_MS) == ()


def test_only_so_many_files_are_remembered() -> None:
    files = hot_after_two_misses(b"first")
    for number in range(HOT_FILES_MAX):
        files.missed(b"%d" % number, 2_000)
    assert files.hot(2_000) == ()


def test_how_long_it_is_left_alone_before_it_is_quiet_is_a_matter_of_its_rhythm() -> None:
    """Goal: several times the longest pause of the last minute, within ``settle`` and ``settle_max``; nothing is known of a
    file that was not seen to change, and a pause of ``settle_max`` is none."""
    files = hot_after_two_misses()
    files.published([b"a"], 1_000)

    def quiet_ms(now_ms: int) -> int:
        ((_, found),) = files.cooling(now_ms, *SETTLE)
        return found

    files.changed([b"a", b"another"], 1_000, 10_000)
    assert quiet_ms(1_000) == 10_000
    for at in range(1_010, 1_100, 10):
        files.changed([b"a"], at, 10_000)
    assert quiet_ms(1_100) == 200
    files.changed([b"a"], 1_590, 10_000)
    files.changed([b"a"], 1_690, 10_000)
    assert quiet_ms(1_700) == 2_000
    files.changed([b"a"], 5_000, 10_000)
    assert quiet_ms(5_000) == 10_000
    files.changed([b"a"], 15_000, 10_000)
    files.changed([b"a"], 15_100, 10_000)
    files.published([b"a"], 65_000)
    assert quiet_ms(65_001) == 400


def test_a_large_file_that_is_published_again_and_again_is_hot_and_reported_once() -> None:
    files, step_ms = HotFiles(), LARGE_WITHIN_MS // LARGE_TIMES - 1
    for number in range(LARGE_TIMES - 1):
        assert files.large_published([b"log", b"once %d" % number], number * step_ms) == []
    now = LARGE_TIMES * step_ms
    assert files.large_published([b"log"], now) == [b"log"]
    assert (files.hot(now), files.cooling(now, *SETTLE)) == ((b"log",), ())
    files.published([b"log"], now)
    assert [each.path for each in files.cooling(now + PACE_FIRST_MS - 1, *SETTLE)] == [b"log"]
    later = now + WINDOW_MS
    assert files.hot(later) == ()
    for number in range(LARGE_TIMES):
        assert files.large_published([b"log"], later + number) == []
    assert files.hot(later + LARGE_TIMES) == (b"log",)


def test_a_large_file_that_is_published_now_and_then_is_like_any_other() -> None:
    files = HotFiles()
    for number in range(3 * LARGE_TIMES):
        assert files.large_published([b"log"], number * LARGE_WITHIN_MS // (LARGE_TIMES - 1)) == []
    assert files.hot(3 * LARGE_WITHIN_MS) == ()
