"""Two answers beside each other: equal ones count as the same, and a crafted answer does no harm."""

from __future__ import annotations

import hashlib
import importlib.util

import pytest

from instep.fleet.golden.golden import judge
from instep.fleet.golden.spec import CompareBy, GoldenAnswer, GoldenSpec
from instep.fleet.hooks.spec import HookSpec
from tests.support.pictures import flat_png, png, png_claiming

needs_pillow = pytest.mark.skipif(
    importlib.util.find_spec("PIL") is None, reason="the extra images is not installed"
)


def _spec(compare: CompareBy, **keys: object) -> GoldenSpec:
    ask = HookSpec(http=("GET", "http://localhost:8080/map"), expect_status=200)
    return GoldenSpec("map", ask, compare, **keys)  # type: ignore[arg-type]


def _answer(spec: GoldenSpec, body: bytes, **keys: object) -> GoldenAnswer:
    sha256 = hashlib.sha256(body).hexdigest()
    return GoldenAnswer("map", spec.question, 200, sha256, len(body), body, **keys)  # type: ignore[arg-type]


async def test_a_digest_is_the_same_or_both_are_named() -> None:
    spec = _spec(CompareBy.DIGEST)
    same = await judge(spec, _answer(spec, b"one"), _answer(spec, b"one"))
    assert same.ok and same.is_compared
    other = await judge(spec, _answer(spec, b"one"), _answer(spec, b"other"))
    assert other.is_difference and not other.ok
    assert other.reason == "before 200 sha256 7692c3ad3540 (3 bytes), now 200 sha256 d9298a10d1b0 (5 bytes)"


async def test_what_there_is_nothing_to_compare_with_is_judged_alone() -> None:
    spec = _spec(CompareBy.DIGEST)
    now = _answer(spec, b"now")
    broken = _answer(spec, b"", problem="no answer within 10 s")
    of_another_question = _answer(_spec(CompareBy.DIGEST, ignore=("x",)), b"before")
    for before in (None, broken, of_another_question):
        verdict = await judge(spec, before, now)
        assert verdict.ok and not verdict.is_compared
    expected = _spec(CompareBy.DIGEST, is_change_expected=True)
    assert (await judge(expected, _answer(expected, b"before"), now)).ok
    verdict = await judge(expected, None, _answer(expected, b"", problem="answered 500, expected 200"))
    assert verdict.reason == "answered 500, expected 200"


@needs_pillow
@pytest.mark.parametrize(
    ("tolerance", "max_share", "reason"),
    [
        (
            0,
            0.0,
            "8.33% of the pixels differ by more than 0, at most 0% may; the largest difference is 60 of 255",
        ),
        (60, 0.0, ""),
        (59, 8.0, "8.33% of the pixels differ by more than 59, at most 8% may"),
        (59, 8.34, ""),
    ],
)
async def test_pictures_may_differ_as_far_as_allowed(tolerance: int, max_share: float, reason: str) -> None:
    spec = _spec(CompareBy.IMAGE, tolerance=tolerance, max_share_percent=max_share)
    before = png(12, 10, lambda x, y: (100, 100, 100, 255))
    now = png(12, 10, lambda x, y: (100, 160 if x == 3 else 100, 100, 255))
    verdict = await judge(spec, _answer(spec, before), _answer(spec, now))
    assert (reason in verdict.reason) if reason else verdict.ok, verdict
    assert verdict.largest == 60
    assert round(verdict.share_percent or 0, 2) == (0 if tolerance == 60 else 8.33)


@needs_pillow
async def test_what_is_not_seen_does_not_differ_and_another_size_does() -> None:
    spec = _spec(CompareBy.IMAGE)
    clear, other = png(9, 9, lambda x, y: (0, 0, 0, 0)), png(9, 9, lambda x, y: (200, 0, 0, 0))
    assert (await judge(spec, _answer(spec, clear), _answer(spec, other))).ok
    small = await judge(spec, _answer(spec, png(9, 9)), _answer(spec, png(8, 9)))
    assert small.reason.endswith("9 x 9 pixels before, 8 x 9 now")


@needs_pillow
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"<ServiceException/>", "is no PNG or JPEG image: it begins with b'<ServiceException/>'"),
        (png(300, 200)[:-600], "cannot be decoded as an image: image file is truncated"),
        (png_claiming(5_000), "is 5000 x 5000 pixels, the limit is 16000000"),
        (png_claiming(14_000), "cannot be decoded as an image: Image size (196000000 pixels) exceeds"),
        (b"GIF89a\x01\x00\x01\x00\x00\x00\x00;", "is no PNG or JPEG image"),
    ],
    ids=["text", "cut off", "too large", "bomb", "another format"],
)
async def test_no_picture_is_a_difference_with_a_reason(body: bytes, reason: str) -> None:
    spec = _spec(CompareBy.IMAGE, tolerance=255, max_share_percent=100.0)
    verdict = await judge(spec, _answer(spec, png(300, 200)), _answer(spec, body))
    assert verdict.is_difference and reason in verdict.reason, verdict


@needs_pillow
async def test_a_picture_as_large_as_allowed_fits_into_the_memory_of_its_reader() -> None:
    spec = _spec(CompareBy.IMAGE)
    one, other = flat_png(4_000), flat_png(4_000) + b"\0"
    verdict = await judge(spec, _answer(spec, one), _answer(spec, other))
    assert verdict.ok and verdict.share_percent == 0, verdict
