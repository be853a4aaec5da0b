"""Chunk lists that are kept here, as a peer once sent them: believed only for the file that they fit."""

from __future__ import annotations

from instep.model.ids import Digest
from instep.model.manifest.chunklist import Chunk, ChunkRun, build_chunks
from instep.model.manifest.pages import CHUNK_TAG, digest_of, encode_page
from instep.node.trees.keeping.chunk_lists import kept_chunks
from tests.support.vectors import digest

MIB = 1 << 20


def test_a_list_counts_when_it_is_whole_and_of_that_size() -> None:
    store: dict[Digest, bytes] = {}
    root = build_chunks([(MIB // 32, digest(f"{n}")) for n in range(64)], store.__setitem__)
    found = kept_chunks(root, 2 * MIB, store.get)
    assert found is not None and [offset for offset, _, _ in found] == [n * MIB // 32 for n in range(64)]
    assert kept_chunks(root, 3 * MIB, store.get) is None
    del store[root]
    assert kept_chunks(root, 2 * MIB, store.get) is None


def test_a_few_pages_that_name_each_other_again_and_again_are_no_endless_list() -> None:
    """Seven pages that stand for 500 to the seventh chunks."""
    raw = encode_page(CHUNK_TAG, [Chunk(2048, digest("x"))] * 500)
    store = {digest_of(raw): raw}
    for level in range(1, 7):
        raw = encode_page(CHUNK_TAG + level, [ChunkRun(digest_of(raw), 500, 500)] * 500)
        store[digest_of(raw)] = raw
    assert kept_chunks(digest_of(raw), 2 * MIB, store.get) is None
