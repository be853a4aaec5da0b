"""One key of a properties file: every value comes back, and every other byte stays."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from instep.core.layout.properties import KeyTwiceError, property_value, with_property

OTHERS = [
    b"# a comment with key=1", b"! key", b"", b"  other : value \\", b"   continued", b"x=\\u0041", b"key\\ 2=z",
    b"keys=none", b"path=C:\\\\dir", b"only", b"key.more=1",
]  # fmt: skip
LINES = st.lists(st.sampled_from(OTHERS))
VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
ENDS = st.sampled_from([b"\n", b"\r\n"])


@given(
    LINES,
    LINES,
    ENDS,
    VALUES,
    st.sampled_from([b"key=old", b"  key : old", b"key old", b"key = o\\\n   ld", b"key"]),
)
def test_a_key_is_set_in_its_own_place(
    before: list[bytes], after: list[bytes], end: bytes, value: str, line: bytes
) -> None:
    head = b"".join(each + end for each in before if not each.endswith(b"\\"))
    tail = b"".join(end + each for each in after)
    raw = head + line + tail
    found = with_property(raw, "key", value)
    assert property_value(found, "key") == value
    assert found.startswith(head) and found.endswith(tail)
    assert with_property(found, "key", value) == found


@given(LINES, ENDS, VALUES)
def test_a_new_key_stands_at_the_end(lines: list[bytes], end: bytes, value: str) -> None:
    raw = end.join(each for each in lines if not each.endswith(b"\\"))
    found = with_property(raw, "a key", value)
    assert found.startswith(raw) and property_value(found, "a key") == value


def test_a_key_that_stands_twice_is_refused() -> None:
    for raw in (b"key=1\nkey=2\n", b"key=1\nk\\u0065y 2"):
        try:
            with_property(raw, "key", "x")
        except KeyTwiceError:
            continue
        raise AssertionError(raw)
