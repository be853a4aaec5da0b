"""Leaves that are kept decoded: bounded, and no proof that a page is here or was checked."""

from __future__ import annotations

import pytest

from instep.errors import DamagedError, PeerError
from instep.model.ids import Digest
from instep.model.manifest.entry import Entry, Kind
from instep.model.manifest.leaves import KeptLeaves, Leaf, leaf_of
from instep.model.manifest.manifest import build, lookup
from instep.model.manifest.pages import digest_of, encode_page


def _file(path: bytes, born_ms: int = 1) -> Entry:
    return Entry(path, Kind.FILE, 0o644, 1, 1, Digest(bytes(32)), born_ms)


def _leaf(number: int) -> Leaf:
    return Leaf(Digest(bytes([number]) * 32), [_file(b"path")], [b"path"])


def test_the_leaves_that_were_used_last_are_kept() -> None:
    kept = KeptLeaves(most=2)
    first, second, third = (_leaf(number) for number in (1, 2, 3))
    kept.keep(first, is_checked=False)
    kept.keep(second, is_checked=True)
    assert kept.find(first.digest, trusted=True) is first
    kept.keep(third, is_checked=False)
    assert kept.find(second.digest, trusted=True) is None
    assert kept.find(first.digest, trusted=True) is first
    assert kept.find(third.digest, trusted=True) is third


def test_a_leaf_that_only_a_trusting_reader_saw_is_checked_for_the_next() -> None:
    raw = encode_page(0, [_file(b"b"), _file(b"a")])
    digest = digest_of(raw)
    assert [entry.path for entry in leaf_of(digest, raw, trusted=True).entries] == [b"b", b"a"]
    with pytest.raises(PeerError) as refused:
        leaf_of(digest, raw, trusted=False)
    assert refused.value.error_code == "bad_order"


def test_a_page_that_is_kept_decoded_is_missing_and_damaged_all_the_same() -> None:
    pages: dict[Digest, bytes] = {}
    root = build([_file(b"kept", born_ms=77)], pages.__setitem__)
    assert lookup(root, b"kept", pages.__getitem__) is not None
    raw = pages.pop(root)
    with pytest.raises(KeyError):
        lookup(root, b"kept", pages.__getitem__)
    pages[root] = raw[:-1] + bytes([raw[-1] ^ 1])
    with pytest.raises(DamagedError):
        lookup(root, b"kept", pages.__getitem__)
