"""Paths and names: their rules, their order, and the form that a person sees."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instep.errors import PeerError, UsageError
from instep.model.ids import Digest, HeadRef, fileset_name, node_name
from instep.model.paths import is_below, parent_of, path_fields, shown, sort_key, validated


@pytest.mark.parametrize(
    "path", [b"a", b"a/b", b"...", b"a/.instep", b".inste", b"\xff\n\"'", b"x" * 255, b"a/" * 2047 + b"ab"]
)
def test_paths(path: bytes) -> None:
    assert validated(path) == path


@pytest.mark.parametrize(
    ("path", "why"),
    [
        (b"", "is empty"),
        (b"/etc/passwd", "component"),
        (b"a/../../b", "component"),
        (b"a//b", "component"),
        (b"a/", "component"),
        (b".", "component"),
        (b"a\0b", "NUL"),
        (b"x" * 256, "255"),
        (b"a/" * 2048 + b"a", "4096"),
        (b".instep", "reserved"),
        (b".InStEp-x/id", "reserved"),
    ],
)
def test_what_is_no_path_is_refused_with_the_reason(path: bytes, why: str) -> None:
    with pytest.raises(PeerError) as refused:
        validated(path)
    assert refused.value.error_code == "bad_path"
    assert why in refused.value.reason


def test_the_order_is_that_of_a_depth_first_scan() -> None:
    assert sorted([b"a-b", b"a.c", b"a/b", b"a", b"a/b/c", b"ab"], key=sort_key) == [
        b"a", b"a/b", b"a/b/c", b"a-b", b"a.c", b"ab",
    ]  # fmt: skip


@given(
    st.lists(st.binary(min_size=1, max_size=3).filter(lambda c: not {0, 47} & set(c)), min_size=1, max_size=5)
)
def test_a_path_lies_below_its_parents_only(components: list[bytes]) -> None:
    path = b"/".join(components)
    parent = parent_of(path)
    assert is_below(path, parent)
    assert not is_below(path, path)
    assert not is_below(path + b"x", path)
    assert sort_key(parent) < sort_key(path)


def test_paths_for_people_and_programs() -> None:
    assert shown(b"a\n\x1b[31m\xff\xc3\xa9") == "a\\n\\x1b[31m\ufffd\xe9"
    assert path_fields(b"a\xc3\xa9") == {"path": "a\xe9"}
    assert path_fields(b"a\xff") == {"path": "a\ufffd", "path_b64": "Yf8="}


@pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a.", "a..b", "x" * 64, "a b", "a\n", "é"])
def test_what_is_no_node_name(name: str) -> None:
    with pytest.raises(UsageError) as refused:
        node_name(name)
    assert refused.value.error_code == "bad_node_name"


def test_names() -> None:
    assert node_name("web-1.example.org") == "web-1.example.org"
    assert fileset_name("geo_server.data-2") == "geo_server.data-2"
    for name in ("", "../x", "a/b", "a..b", ".a", "x" * 64):
        with pytest.raises(UsageError):
            fileset_name(name)


def test_heads_are_ordered_by_epoch_then_number() -> None:
    a, b = Digest(b"a" * 32), Digest(b"b" * 32)
    assert HeadRef(2, 1, a, a).position > HeadRef(1, 99, b, b).position > HeadRef(1, 98, b, b).position
