"""Two texts line by line: the lines lead from one to the other, and no text makes their number endless."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from instep.node.retrieval.line_difference import LINES_MAX, difference

TEXTS = st.lists(st.sampled_from(["a", "b", "}", "", " c"]), max_size=30).map(
    lambda lines: "".join(f"{x}\n" for x in lines)
)


@given(TEXTS, TEXTS)
def test_the_lines_that_are_shown_lead_from_one_text_to_the_other(old: str, new: str) -> None:
    lines, is_cut = difference(old.encode(), new.encode())
    assert not is_cut
    kept = [line[1:] for line in lines if line[0] == " "]
    before = [line[1:] for line in lines if line[0] in " -"]
    after = [line[1:] for line in lines if line[0] in " +"]
    for shown, text in ((before, old), (after, new)):
        rest = iter(text.split("\n"))
        assert all(line in rest for line in shown), "in this order they stand in the text"
    assert len(old.split("\n")) - len(before) == len(new.split("\n")) - len(after), (
        "the rest is the same on both sides"
    )
    assert len(kept) <= min(len(before), len(after))


def test_a_text_that_is_made_to_be_slow_is_shown_as_a_whole() -> None:
    lines = [f"{number % 90}" for number in range(3_900)]
    old, new = "\n".join(lines), "\n".join(reversed(lines))
    found, is_cut = difference(old.encode(), new.encode())
    assert (len(found), is_cut, found[1][0]) == (LINES_MAX, True, "-")
