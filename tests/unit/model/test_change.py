"""Change sets that a peer may send: the rules that each of them must keep, and tokens as text."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instep.errors import PeerError
from instep.model.change import (
    CHANGE_SET_MAX_BYTES,
    CHANGES_MAX,
    Fence,
    PathChange,
    change_set_of,
    fence_of,
    is_alike,
    wanted_contents,
)
from instep.model.ids import EMPTY_DIGEST, Digest
from instep.model.manifest.entry import Entry, Extra, Kind
from tests.support.vectors import digest, sample_change_set


def a_file(path: bytes, text: str = "x", **fields: Any) -> Entry:
    return msgspec.structs.replace(Entry(path, Kind.FILE, 0o644, len(text), 1, digest(text), 0), **fields)


def a_dir(path: bytes, mtime_ns: int = 0) -> Entry:
    return Entry(path, Kind.DIR, 0o755, 0, mtime_ns, EMPTY_DIGEST, 0)


def changed(**fields: Any) -> bytes:
    return msgspec.structs.replace(sample_change_set(), **fields).encoded()


def puts(*entries: Entry) -> tuple[PathChange, ...]:
    return tuple(PathChange(entry.path, None, entry) for entry in entries)


def removes(*entries: Entry) -> tuple[PathChange, ...]:
    return tuple(PathChange(entry.path, entry, None) for entry in entries)


def test_a_set_comes_back_as_it_was_sent_and_every_bit_of_it_makes_another_id() -> None:
    sample = sample_change_set()
    assert change_set_of(sample.encoded()) == sample
    others = {msgspec.structs.replace(sample, **{name: value}).id for name, value in OTHER_VALUES.items()}
    assert len(others | {sample.id}) == len(OTHER_VALUES) + 1


OTHER_VALUES: dict[str, Any] = {
    "fileset": "other", "origin": "other", "nonce": bytes(16), "author": "bob", "message": "", "made_at_ms": 0,
    "changes": sample_change_set().changes[:1], "token": None, "whole": False,
}  # fmt: skip


@pytest.mark.parametrize(
    ("raw", "code", "word"),
    [
        (changed(version=2), "bad_change_set", "version 2"),
        (changed(nonce=b"short"), "bad_change_set", "nonce"),
        (changed(author="é" * 129), "bad_change_set", "author"),
        (changed(message="m" * 4097), "bad_change_set", "message"),
        (changed(token=Fence(1, 1, b"short")), "bad_change_set", "lock id"),
        (changed(changes=()), "bad_change_set", "0 changes"),
        (changed(changes=(PathChange(b"a", None, None),)), "bad_change_set", "nothing at a"),
        (changed(changes=(PathChange(b"a", None, a_file(b"b")),)), "bad_change_set", "entry of b at a"),
        (changed(changes=puts(a_file(b"b"), a_file(b"a"))), "bad_change_set", "do not rise"),
        (changed(changes=puts(a_file(b"a"), a_file(b"a"))), "bad_change_set", "do not rise"),
        (changed(changes=puts(a_file(b"../a"))), "bad_path", "'..'"),
        (changed(changes=puts(a_file(b".instep/id"))), "bad_path", "reserved"),
        (changed(changes=puts(a_file(b"/".join([b"a" * 255] * 17)))), "bad_path", "limit"),
        (changed(changes=puts(a_file(b"a", digest=Digest(b"")))), "bad_entry", "digest of 0 bytes"),
        (changed(changes=removes(a_dir(b"d")) + puts(a_file(b"d/x"))), "bad_change_set", "no directory after it"),
        (changed(changes=puts(a_file(b"d"), a_file(b"d/e/f"))), "bad_change_set", "no directory after it"),
        (sample_change_set().encoded() + b"\0", "bad_change_set", "decoded"),
        (b"\x90", "bad_change_set", "decoded"),
        (b"\x91" * 100_000, "bad_change_set", "decoded"),
        (bytes(CHANGE_SET_MAX_BYTES + 1), "bad_change_set", "the limit is"),
    ],
)  # fmt: skip
def test_a_set_that_breaks_a_rule_is_refused_by_name(raw: bytes, code: str, word: str) -> None:
    with pytest.raises(PeerError, match=word) as caught:
        change_set_of(raw)
    assert caught.value.error_code == code


def test_a_set_that_is_not_canonical_is_refused() -> None:
    """A set that decodes to the same fields under other bytes would have two ids."""
    raw = sample_change_set().encoded()
    assert raw[:2] == b"\x9a\x01"
    with pytest.raises(PeerError, match="canonical"):
        change_set_of(b"\x9a\xcc\x01" + raw[2:])


def test_the_largest_set_is_taken_and_one_change_more_is_not() -> None:
    many = [a_file(b"%05d" % number) for number in range(CHANGES_MAX + 1)]
    assert len(change_set_of(changed(changes=puts(*many[:-1]))).changes) == CHANGES_MAX
    with pytest.raises(PeerError, match="length <= 65536"):
        change_set_of(changed(changes=puts(*many)))


def test_what_replaces_a_directory_may_come_with_the_removal_of_all_that_is_below_it() -> None:
    turned = PathChange(b"d", a_dir(b"d"), a_file(b"d"))
    raw = changed(changes=(turned, *removes(a_file(b"d/a"), a_file(b"d/b")), *puts(a_file(b"d-x"))))
    assert [change.path for change in change_set_of(raw).changes] == [b"d", b"d/a", b"d/b", b"d-x"]


def test_birth_and_times_of_directories_make_no_difference_and_all_else_does() -> None:
    one = a_file(b"a")
    assert is_alike(one, msgspec.structs.replace(one, born_ms=9))
    assert is_alike(a_dir(b"d"), a_dir(b"d", 7))
    assert is_alike(None, None)
    for other in (None, a_dir(b"a"), a_file(b"a", "y"), a_file(b"a", mode=0o600), a_file(b"a", mtime_ns=2)):
        assert not is_alike(one, other)
        assert not is_alike(other, one)


def test_the_chunk_list_of_a_large_file_may_be_left_out() -> None:
    large = a_file(b"a", size=2 << 20)
    listed = msgspec.structs.replace(large, extra=Extra(chunks=digest("chunks")))
    made = change_set_of(changed(changes=(PathChange(b"a", listed, a_file(b"a", "y", size=2 << 20)),)))
    assert is_alike(made.changes[0].base, large)
    assert not is_alike(made.changes[0].base, made.changes[0].new)


def test_contents_are_wanted_once_each_in_the_order_of_the_changes() -> None:
    value = ((b"user.big", digest("big"), 5000),)
    changes = puts(
        a_file(b"a", "one", extra=Extra(large_xattrs=value)),
        a_dir(b"d"),
        a_file(b"d/b", "one"),
        a_file(b"e", "two"),
    )
    made = msgspec.structs.replace(sample_change_set(), changes=changes + removes(a_file(b"f", "gone")))
    assert wanted_contents(made) == ((digest("one"), 3), (digest("big"), 5000), (digest("two"), 3))


@given(st.integers(0, 1 << 62), st.integers(0, 1 << 62), st.binary(min_size=16, max_size=16))
def test_a_token_is_the_same_after_it_was_text(epoch: int, counter: int, lock_id: bytes) -> None:
    fence = Fence(epoch, counter, lock_id)
    assert fence_of(str(fence)) == fence


@pytest.mark.parametrize(
    "text",
    ["", "1.2", "1.2.3.4", "a.2." + "0" * 32, "1.2." + "0" * 31, "01.2." + "0" * 32, "1.2." + "A" * 32],
)
def test_what_is_no_token_is_none(text: str) -> None:
    assert fence_of(text) is None
