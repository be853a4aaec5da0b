"""When a file counts as hot, and how seldom it is published then."""

from __future__ import annotations

from instep.core.hot import HOT_FILES_MAX, PACE_FIRST_MS, PACE_MOST_MS, WINDOW_MS, HotFiles


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
    assert (files.hot(1_000), files.cooling(1_000)) == ((b"a",), ())
    files.published([b"a", b"another"], 2_000)
    assert files.cooling(2_000 + PACE_FIRST_MS - 1) == (b"a",)
    assert files.cooling(2_000 + PACE_FIRST_MS) == ()


def test_what_goes_on_changing_is_published_more_and_more_seldom() -> None:
    files, now = hot_after_two_misses(), 1_000
    paces = []
    for _ in range(7):
        files.published([b"a"], now)
        began = now
        while files.cooling(now):
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
