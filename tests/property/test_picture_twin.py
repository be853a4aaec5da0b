"""Comparing pictures, against a twin that looks at one pixel after the other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instep.fleet.golden.answer_worker import compare
from tests.support.pictures import Colour, png

pytest.importorskip("PIL", reason="the extra images is not installed")

colours = st.tuples(*(st.integers(0, 255) for _ in range(3)), st.sampled_from((0, 255, 255)))
pictures = st.integers(1, 6).flatmap(
    lambda width: st.lists(
        st.tuples(colours, colours, st.booleans()), min_size=width, max_size=width * 4
    ).map(lambda found: (width, found[: len(found) // width * width]))
)


def _seen(colour: Colour) -> Colour:
    """A fully transparent pixel has no colour."""
    return colour if colour[3] else (0, 0, 0, 0)


@given(pictures, st.integers(0, 255))
def test_the_share_and_the_largest_difference_are_those_of_the_pixels(
    drawn: tuple[int, list[tuple[Colour, Colour, bool]]], tolerance: int
) -> None:
    width, pairs = drawn
    before = [one for one, _, _ in pairs]
    after = [other if differs else one for one, other, differs in pairs]
    height = len(pairs) // width
    one_file = png(width, height, lambda x, y: before[y * width + x])
    other_file = png(width, height, lambda x, y: after[y * width + x])
    differences = [
        max(abs(a - b) for a, b in zip(_seen(one), _seen(other), strict=True))
        for one, other in zip(before, after, strict=True)
    ]
    found = compare(one_file, other_file, tolerance)
    assert found["largest"] == max(differences)
    share = 100 * sum(one > tolerance for one in differences) / len(differences)
    assert found["share_percent"] == pytest.approx(share)
