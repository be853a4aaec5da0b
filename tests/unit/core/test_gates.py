"""Gates: a strict grammar, versions in order, and a refusal that names both values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instep.core.follow.gates import BadGate, Comparator, Gate, parse_gate, refusal_of, version_key

NUMBERS = st.lists(st.integers(0, 999), min_size=1, max_size=5)


@given(
    st.from_regex(r"[a-z][a-z0-9_-]{0,20}", fullmatch=True).filter(lambda n: n != "clock"),
    st.sampled_from(Comparator),
    st.none() | st.from_regex(r"[0-9]\.[0-9]{1,3}[a-z]?", fullmatch=True),
)
def test_a_gate_reads_back_as_written(name: str, comparator: Comparator, literal: str | None) -> None:
    gate = Gate(name, comparator, literal)
    assert parse_gate(str(gate)) == gate


@pytest.mark.parametrize(
    "text", ["", "Java", "java  >= 17", "java > 17", "java =", "java >= ", " java", "java\n", "a >= x!\0", "clock >= 3",
             "java >= --", "java contains " + "x" * 300],
)  # fmt: skip
def test_anything_else_is_no_gate(text: str) -> None:
    with pytest.raises(BadGate):
        parse_gate(text)


@given(NUMBERS, NUMBERS)
def test_versions_order_like_their_numbers(one: list[int], other: list[int]) -> None:
    def trimmed(numbers: list[int]) -> list[int]:
        return trimmed(numbers[:-1]) if numbers and numbers[-1] == 0 else numbers

    first, second = (version_key(".".join(map(str, n))) for n in (one, other))
    assert (first < second) == (trimmed(one) < trimmed(other))
    assert (first == second) == (trimmed(one) == trimmed(other))
    assert version_key(".".join(map(str, one)) + "-rc1") < version_key(".".join(map(str, [*one, 1])))


def test_release_candidates_come_before_the_release() -> None:
    assert version_key("2.25-rc1") < version_key("2.25-rc2") < version_key("2.25") < version_key("2.25.1")


def test_a_refusal_names_both_values() -> None:
    def look(text: str, ours: dict[str, str], theirs: dict[str, str]) -> tuple[str, str] | None:
        found = refusal_of(parse_gate(text), ours, theirs, "s2", "main")
        return None if found is None else found[:2]

    assert look("geoserver", {"geoserver": "2.24.0"}, {"geoserver": "2.25.1"}) == (
        "gate_differs",
        "gate geoserver: main 2.25.1, s2 2.24.0",
    )
    assert look("java >= 17", {"java": "21.0.1"}, {}) is None
    assert look("java >=", {"java": "17.0.9"}, {"java": "17.0.10"}) is not None
    assert look("plugins contains", {"plugins": "wps\nwfs"}, {"plugins": "wfs"}) is None
    assert look("plugins contains", {"plugins": "wps"}, {"plugins": "wfs"}) is not None
    assert (look("java", {}, {"java": "17"}) or ("",))[0] == "no_such_fact"
    assert (look("java", {"java": "17"}, {}) or ("",))[0] == "no_such_fact"
    unreadable = {"java": "<cannot be read: No such file or directory>"}
    assert look("java", unreadable, unreadable) is not None, (
        "two nodes that cannot read the fact do not agree"
    )
    assert look("clock", {"clock": "1000000"}, {"clock": "1300000"}) is None
    assert look("clock", {"clock": "1000000"}, {"clock": "1600000"}) == (
        "gate_differs",
        "gate clock: s2 is -600 s from main, at most 300 s",
    )
