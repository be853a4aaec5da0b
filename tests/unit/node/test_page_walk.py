"""Walks over the stored pages go on beside pages that a hostile writer made, and stop at those that the disk changed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import msgspec
import pytest

from instep.errors import DamagedError
from instep.model.generation import UNSIGNED, GenerationBody, SignedGeneration
from instep.model.ids import EMPTY_DIGEST, Digest, LineId, fileset_name, node_name
from instep.model.manifest.entry import Entry, Extra, Kind
from instep.model.manifest.pages import CHUNK_TAG, Child, digest_of, encode_page
from instep.node.node import Node
from instep.node.trees.keeping.page_walk import new_leaves
from instep.node.upkeep.housekeeping import Housekeeping
from instep.store.memory import MemoryStore

LINE = LineId(fileset_name("data"), node_name("main"))


def entry(path: bytes, chunks: Digest | None = None) -> Entry:
    found = Entry(path, Kind.FILE, 0o644, 1, 1, EMPTY_DIGEST, 1)
    return found if chunks is None else msgspec.structs.replace(found, extra=Extra(chunks=chunks))


LEAF = encode_page(0, [entry(b"a")])
BRANCH = encode_page(1, [Child(b"a", digest_of(LEAF), 1, 1)])
OTHER = encode_page(1, [Child(b"b", digest_of(LEAF), 1, 1)])
TREES = {
    "trailing bytes": [LEAF + b"\xc0"],
    "a leaf of other things": [encode_page(0, [Child(b"a", EMPTY_DIGEST, 1, 1)])],
    "an inner page of entries": [encode_page(1, [entry(b"a")])],
    "a chunk page for a leaf": [encode_page(1, [Child(b"a", digest_of(chunk := b"\x92" + bytes([CHUNK_TAG]) + b"\x91\xc0"), 1, 1)]), chunk],
    "an inner page for chunks": [encode_page(0, [entry(b"a", digest_of(OTHER))]), OTHER],
}  # fmt: skip
"""The root first, then pages below it."""


def generation(number: int, root: Digest) -> SignedGeneration:
    body = GenerationBody(
        version=1, fileset=LINE.fileset, origin=LINE.origin, epoch=1, number=number, parent=EMPTY_DIGEST, root=root,
        definition=EMPTY_DIGEST, author="main", message="", time_ms=1, entries=1, size_bytes=1,
    )  # fmt: skip
    return SignedGeneration(body.encoded(), UNSIGNED)


@pytest.mark.parametrize("name", TREES)
async def test_a_sweep_goes_on_beside_pages_that_cannot_be_read(name: str) -> None:
    """Goal: pages that a writer made unreadable end no daemon. Method: the root of a refused generation beside an honest
    one; the sweep takes what no generation names, and the evil pages once theirs is gone."""
    store, refused = MemoryStore(), generation(2, digest_of(TREES[name][0]))
    honest, stray = [BRANCH, LEAF], encode_page(0, [entry(b"stray")])
    store.put_pages((digest_of(raw), raw) for raw in [*honest, *TREES[name], stray])
    store.save_line(LINE, b"")
    store.add_generation(generation(1, digest_of(BRANCH)))
    store.add_generation(refused)
    node = SimpleNamespace(services={}, runtime=SimpleNamespace(store=store))
    housekeeping = Housekeeping(cast("Node", node))
    assert await housekeeping.sweep() == 1
    store.delete_generations([refused.id])
    await housekeeping.sweep()
    assert store.has_pages(map(digest_of, [*honest, *TREES[name], stray])) == set(map(digest_of, honest))


def test_a_page_that_the_disk_changed_ends_a_walk() -> None:
    """Goal: no sweep takes the pages below a rotten one for pages that no generation names."""
    store = MemoryStore()
    store.put_pages([(digest_of(BRANCH), BRANCH[:-1] + b"\xc1")])
    with pytest.raises(DamagedError, match="is damaged"):
        list(new_leaves(store, [digest_of(BRANCH)], set()))
