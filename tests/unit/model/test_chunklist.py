"""Chunk lists: a built list is read, fetched and accepted; every other one is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instep.errors import PeerError
from instep.model.ids import Digest
from instep.model.manifest.chunklist import (
    Chunk,
    ChunkRun,
    build_chunks,
    check_chunks,
    chunk_params,
    iterate_chunks,
    missing_chunk_pages,
    most_chunk_pages,
)
from instep.model.manifest.pages import CHUNK_TAG, digest_of, encode_page, verify_page
from tests.support import reference
from tests.support.vectors import digest

Store = dict[Digest, bytes]
chunks_drawn = st.lists(
    st.tuples(st.integers(2048, 65536), st.sampled_from([digest(f"{n}") for n in range(40)])), min_size=1
)


def built(chunks: list[tuple[int, Digest]]) -> tuple[Digest, Store]:
    store: Store = {}
    return build_chunks(chunks, store.__setitem__), store


@given(chunks_drawn, st.sampled_from([1, 7, 60]))
def test_lists_against_the_reference(chunks: list[tuple[int, Digest]], times: int) -> None:
    chunks = chunks * times
    root, store = built(chunks)
    assert (root, store) == tuple(reference.chunk_list(list(chunks)))
    found = list(iterate_chunks(root, store.__getitem__))
    assert [(length, name) for _, length, name in found] == chunks
    assert [offset for offset, _, _ in found] == [sum(n for n, _ in chunks[:at]) for at in range(len(chunks))]
    check_chunks(root, sum(length for length, _ in chunks), store.__getitem__)


def test_a_file_of_one_repeated_chunk_that_asks_for_cuts_comes_to_a_root() -> None:
    zero = Digest(bytes(32))
    root, store = built([(65536, zero)] * 5000)
    check_chunks(root, 65536 * 5000, store.__getitem__)


def test_pages_are_fetched_a_level_at_a_time() -> None:
    root, there = built([(4096, digest(f"{n}")) for n in range(3000)])
    here: Store = {}
    rounds = 0
    while absent := missing_chunk_pages(root, here.get):
        rounds += 1
        for name in absent:
            verify_page(name, there[name])
            here[name] = there[name]
    assert (rounds, here) == (2, there)


@pytest.mark.parametrize(
    ("lengths", "size"),
    [
        ([2047, 5000], 7047),
        ([65537, 5000], 70537),
        ([5000, 5000], 9999),
        ([5000, 5000], 10001),
        ([5000, 100, 5000], 10100),
    ],
)
def test_lengths_that_no_cutting_makes(lengths: list[int], size: int) -> None:
    root, store = built([(length, digest("x")) for length in lengths])
    with pytest.raises(PeerError) as refused:
        check_chunks(root, size, store.__getitem__)
    assert refused.value.error_code == "bad_chunk_list"


def test_the_last_chunk_may_be_short() -> None:
    root, store = built([(5000, digest("x")), (1, digest("y"))])
    check_chunks(root, 5001, store.__getitem__)


def test_other_pages_for_the_same_chunks_are_refused() -> None:
    store: Store = {}
    runs = []
    for name in ("x", "y"):
        raw = encode_page(CHUNK_TAG, [Chunk(5000, digest(name))])
        store[digest_of(raw)] = raw
        runs.append(ChunkRun(digest_of(raw), 1, 5000))
    for tag, code in ((CHUNK_TAG + 1, "bad_shape"), (CHUNK_TAG + 2, "bad_page"), (1, "bad_page")):
        raw = encode_page(tag, runs)
        store[digest_of(raw)] = raw
        with pytest.raises(PeerError) as refused:
            check_chunks(digest_of(raw), 10000, store.__getitem__)
        assert refused.value.error_code == code


def test_a_chunk_list_has_chunks() -> None:
    raw = encode_page(CHUNK_TAG, [])
    with pytest.raises(PeerError):
        check_chunks(digest_of(raw), 0, {digest_of(raw): raw}.__getitem__)


def test_parameters_grow_with_the_file() -> None:
    gib = 1 << 30
    sizes = (1, 4 * gib, 4 * gib + 1, 64 * gib, 64 * gib + 1)
    assert [chunk_params(size).average >> 10 for size in sizes] == [8, 8, 32, 32, 128]
    for size in sizes:
        params = chunk_params(size)
        assert (params.minimum * 4, params.maximum) == (params.average, params.average * 8)


def test_the_list_with_the_most_pages_has_no_more_than_are_fetched() -> None:
    """The least chunks, each with a digest that ends a page wherever one may end."""
    for count in (1, 17, 5_000):
        chunks = [(2048, Digest(b"\0" + n.to_bytes(31, "big"))) for n in range(count)]
        assert len(built(chunks)[1]) <= most_chunk_pages(2048 * count)
