"""Pages of a scan go to the store in batches: memory stays bounded, and the head's bundle has what was new."""

from __future__ import annotations

from instep.model.ids import Digest
from instep.node.trees.scanning.scan_tally import BUNDLE_PAGES_MAX_BYTES, PAGES_BATCH, PageKeeper
from instep.store.memory import MemoryStore


def page(number: int, size: int = 4) -> tuple[Digest, bytes]:
    return Digest(number.to_bytes(32, "big")), number.to_bytes(size, "big")


def test_pages_are_stored_by_the_batch_and_the_rest_with_a_flush() -> None:
    store = MemoryStore()
    store.put_pages([page(0)])
    keeper = PageKeeper(store)
    pages = [page(number) for number in range(2 * PAGES_BATCH + 1)]
    for digest, raw in pages:
        keeper.put(digest, raw)
        assert keeper.get(digest) == raw
    assert store.has_pages(digest for digest, _ in pages) == {digest for digest, _ in pages[:-1]}
    keeper.flush()
    assert store.has_pages(digest for digest, _ in pages) == {digest for digest, _ in pages}
    assert keeper.new == dict(pages[1:])


def test_a_bundle_that_grows_too_large_is_given_up() -> None:
    keeper = PageKeeper(MemoryStore())
    keeper.put(*page(1, BUNDLE_PAGES_MAX_BYTES))
    keeper.flush()
    assert keeper.new is not None
    keeper.put(*page(2))
    keeper.flush()
    assert keeper.new is None
