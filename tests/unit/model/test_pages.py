"""Pages: names, limits, tags, and one case for each refusal of a whole manifest."""

from __future__ import annotations

import pytest

from instep.errors import DamagedError, PeerError
from instep.model.ids import Digest
from instep.model.manifest import manifest
from instep.model.manifest.cutter import SPEC, Shape
from instep.model.manifest.entry import Entry, Extra
from instep.model.manifest.pages import (
    PAGE_MAX_BYTES,
    Child,
    PageMissing,
    decode_inner,
    decode_leaf,
    digest_of,
    encode_page,
    level_of,
    load,
    verify_page,
)
from tests.support.trees import directory, file
from tests.support.vectors import generated_entries

Store = dict[Digest, bytes]
D = Digest(b"d" * 32)
MANY = generated_entries(3000)


def built(entries: list[Entry], shape: Shape = SPEC) -> tuple[Digest, Store]:
    store: Store = {}
    return manifest.build(entries, store.__setitem__, shape), store


def refused(root: Digest, store: Store) -> str:
    with pytest.raises(PeerError) as error:
        manifest.check_tree(root, store.__getitem__)
    return error.value.error_code


def test_the_empty_tree() -> None:
    root, store = built([])
    assert root == manifest.EMPTY_ROOT
    assert list(manifest.iterate(root, store.__getitem__)) == []
    assert manifest.totals(root, store.__getitem__) == (0, 0)
    assert manifest.edit(root, [(b"a", None)], store.__getitem__, store.__setitem__) == root
    one = manifest.edit(root, [(b"a", file(b"a"))], store.__getitem__, store.__setitem__)
    assert one == built([file(b"a")])[0]
    assert manifest.edit(one, [(b"a", None)], store.__getitem__, store.__setitem__) == root


def test_one_change_touches_one_page_a_level() -> None:
    root, store = built(MANY)
    put: Store = {}
    read: list[Digest] = []

    def get(digest: Digest) -> bytes:
        read.append(digest)
        return store[digest]

    new = manifest.edit(root, [(MANY[1500].path, file(MANY[1500].path))], get, put.__setitem__)
    assert len(put) == len(read) == 2
    changes = list(manifest.diff(root, new, (store | put).__getitem__))
    assert [change.path for change in changes] == [MANY[1500].path]


def test_entries_out_of_order_are_never_built() -> None:
    for entries in ([file(b"b"), file(b"a")], [file(b"a"), file(b"a")]):
        with pytest.raises(AssertionError):
            built(entries)


def test_pages_stay_below_the_limit_however_large_the_entries() -> None:
    big = Extra(xattrs=tuple((b"user.%03d" % n, b"x" * 4096) for n in range(60)))
    root, store = built([file(b"%04d" % n, extra=big) for n in range(20)])
    assert max(map(len, store.values())) <= PAGE_MAX_BYTES
    manifest.check_tree(root, store.__getitem__)


def test_paths_chosen_against_the_cut_rule_still_come_to_a_root() -> None:
    everywhere = Shape(mask=0)
    root, store = built(MANY, everywhere)
    manifest.check_tree(root, store.__getitem__, everywhere)
    assert level_of(store[root]) == 3


def test_names_of_pages() -> None:
    leaf, inner = encode_page(0, []), encode_page(1, [Child(b"a", D, 1, 0)])
    verify_page(digest_of(leaf), leaf)
    for digest, raw in ((D, leaf), (digest_of(inner), leaf)):
        with pytest.raises(PeerError) as error:
            verify_page(digest, raw)
        assert error.value.error_code == "page_mismatch"
    for raw in (b"", b"\x92", b"\x92\x40\x90", b"\x93\x00\x90", leaf + bytes(PAGE_MAX_BYTES)):
        with pytest.raises(PeerError) as error:
            verify_page(D, raw)
        assert error.value.error_code == "bad_page"


def test_a_stored_page_that_rots_is_damaged_not_missing() -> None:
    root, store = built(MANY)
    store[root] = store[root][:-1] + bytes([store[root][-1] ^ 1])
    with pytest.raises(DamagedError) as error:
        list(manifest.iterate(root, store.__getitem__))
    assert error.value.error_code == "page_damaged"

    def get(digest: Digest) -> bytes:
        raise PageMissing(digest)

    with pytest.raises(PageMissing):
        load(root, get)


def test_leaves_and_inner_pages_are_not_taken_for_each_other() -> None:
    with pytest.raises(PeerError):
        decode_inner(encode_page(0, [file(b"a")]))
    with pytest.raises(PeerError):
        decode_leaf(encode_page(1, [Child(b"a", D, 1, 0)]))
    for children in ([], [Child(b"b", D, 1, 0), Child(b"a", D, 1, 0)], [Child(b"../a", D, 1, 0)]):
        with pytest.raises(PeerError):
            decode_inner(encode_page(1, children))
    with pytest.raises(PeerError):
        decode_inner(encode_page(1, [Child(b"a", Digest(b"short"), 1, 0)]))


def test_too_many_items_are_refused() -> None:
    with pytest.raises(PeerError):
        decode_leaf(encode_page(0, [file(b"%04d" % n) for n in range(513)]))


@pytest.mark.parametrize(
    ("entries", "code"),
    [
        ([file(b"a/b")], "bad_parent"),
        ([file(b"a"), file(b"a/b")], "bad_parent"),
        ([directory(b"a"), file(b"a/b/c")], "bad_parent"),
        ([file(b"a"), file(b"b", extra=Extra(link_group=b"a"))], "bad_link_group"),
        ([file(b"b", extra=Extra(link_group=b"a"))], "bad_link_group"),
    ],
)
def test_what_entries_say_of_each_other(entries: list[Entry], code: str) -> None:
    assert refused(*built(entries)) == code
    root, store = built(entries)
    store[manifest.EMPTY_ROOT] = encode_page(0, [])
    with pytest.raises(PeerError) as error:
        manifest.check_diff(manifest.EMPTY_ROOT, root, store.__getitem__)
    assert error.value.error_code == code


def test_a_hard_link_group_whose_first_path_changes_is_looked_at_whole() -> None:
    linked = Extra(link_group=b"a")
    old, store = built([file(b"a", 1, linked), file(b"b", 1, linked)])
    new, more = built([file(b"a", 2, linked), file(b"b", 1, linked)])
    with pytest.raises(PeerError) as error:
        manifest.check_diff(old, new, (store | more).__getitem__)
    assert error.value.error_code == "bad_link_group"


def test_other_shapes_of_the_same_entries_are_refused() -> None:
    store: Store = {}
    leaves = [MANY[:100], MANY[100:]]
    children = []
    for leaf in leaves:
        raw = encode_page(0, leaf)
        store[digest_of(raw)] = raw
        size = sum(entry.size for entry in leaf)
        children.append(Child(leaf[-1].path, digest_of(raw), len(leaf), size))
    for level in (1, 2):
        raw = encode_page(level, children)
        store[digest_of(raw)] = raw
        assert refused(digest_of(raw), store) in ("bad_shape", "bad_page")


@pytest.mark.parametrize("leaf", [[], [file(b"a")]])
def test_a_few_pages_that_name_each_other_again_and_again_are_no_endless_walk(leaf: list[Entry]) -> None:
    store: Store = {manifest.EMPTY_ROOT: encode_page(0, [])}
    below = encode_page(0, leaf)
    for level in range(1, 32):
        store[digest_of(below)] = below
        below = encode_page(level, [Child(b"a%03d" % n, digest_of(below), 1, 0) for n in range(512)])
    root = digest_of(below)
    store[root] = below
    assert manifest.missing(root, store.get) == []
    assert refused(root, store) in ("bad_page", "bad_order")
    with pytest.raises(PeerError):
        manifest.check_diff(manifest.EMPTY_ROOT, root, store.__getitem__)
