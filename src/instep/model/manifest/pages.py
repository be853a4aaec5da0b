"""Pages: the Merkle nodes of manifests and chunk lists, their encoding, digests and limits.

Implements the section "Pages" of ``docs/spec/manifest.md``. A page is the canonical msgpack array
``[tag, items]``. The tag names the kind of the items: 0 for entries (a leaf), 1 to 31 for children (an inner
page of that level), 32 for chunks, 33 to 63 for runs of chunks. A peer's page is decoded with
``trusted=False``: every rule of the specification is checked. Pages out of our own store were checked
when they came and need only their digest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

import msgspec
from blake3 import blake3
from msgspec import Meta

from instep.errors import DamagedError, PeerError
from instep.model.decoding import DECODE_ERRORS
from instep.model.ids import DIGEST_BYTES, Digest
from instep.model.limits import ENTRY_MAX_BYTES
from instep.model.manifest.entry import Entry
from instep.model.manifest.entry_rules import check_entries, rising_keys
from instep.model.paths import shown, sort_key, validated

PAGE_MAX_ITEMS = 512
PAGE_MAX_BYTES = 1 << 20
PAGE_FULL_BYTES = PAGE_MAX_BYTES - ENTRY_MAX_BYTES
"""A page ends with the item that takes it to this many bytes, and so never exceeds the limit."""
LEVEL_MAX = 31
CHUNK_TAG = 32
TOTAL_MAX = (1 << 63) - 1

ItemT = TypeVar("ItemT", bound=msgspec.Struct)
GetPage = Callable[[Digest], bytes]
PutPage = Callable[[Digest, bytes], None]

_Digest32 = Annotated[Digest, Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
_Total = Annotated[int, Meta(ge=1, le=TOTAL_MAX)]


def drop_page(digest: Digest, raw: bytes) -> None:
    """A ``PutPage`` for pages that are built for their digest only."""


class PageMissing(KeyError):
    """Raised by a ``GetPage`` for a page that it does not have; the argument is the digest."""


class Child(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An inner page's item for one page of the level below: its last path, its digest, and how many entries and bytes
    of files lie below it."""

    last: bytes
    digest: _Digest32
    entries: _Total
    size_bytes: Annotated[int, Meta(ge=0, le=TOTAL_MAX)]


_DOMAINS = (
    b"instep page leaf 1\0",
    b"instep page inner 1\0",
    b"instep page chunk leaf 1\0",
    b"instep page chunk inner 1\0",
)
_encoder = msgspec.msgpack.Encoder()
_leaf_decoder = msgspec.msgpack.Decoder(tuple[int, list[Entry]])
_inner_decoder = msgspec.msgpack.Decoder(tuple[int, list[Child]])


def _tag_of(raw: bytes) -> int:
    if len(raw) < 3 or raw[0] != 0x92 or raw[1] >= 2 * CHUNK_TAG:
        raise PeerError("page has no known tag", code="bad_page")
    return raw[1]


def level_of(raw: bytes) -> int:
    """The level of an encoded page, without decoding it: 0 is a leaf."""
    return _tag_of(raw) & (CHUNK_TAG - 1)


def expect_level(raw: bytes, level: int) -> None:
    """Refuse a page of a manifest that is not of the level where it stands."""
    if _tag_of(raw) != level:
        raise PeerError(f"page of level {_tag_of(raw)} stands at level {level}", code="bad_shape")


def refuse_empty(entries: Sequence[Entry]) -> None:
    """Refuse a leaf without entries that is not the root. Leaves that cannot be out of order could be named
    again and again: a few pages would make a walk without end."""
    if not entries:
        raise PeerError("a leaf below the root is empty", code="bad_page")


def digest_of(raw: bytes) -> Digest:
    """The digest that names a page: BLAKE3-256 over the domain of its tag and its bytes."""
    tag = _tag_of(raw)
    hasher = blake3(_DOMAINS[2 * (tag >= CHUNK_TAG) + (tag & (CHUNK_TAG - 1) > 0)])
    hasher.update(raw)
    return Digest(hasher.digest())


def verify_page(digest: Digest, raw: bytes) -> None:
    """Refuse what a peer sent as the page ``digest`` unless it is within the limit and hashes to it."""
    if len(raw) > PAGE_MAX_BYTES:
        raise PeerError(f"page has {len(raw)} bytes, the limit is {PAGE_MAX_BYTES}", code="bad_page")
    if digest_of(raw) != digest:
        raise PeerError(f"page is not {digest.hex()}", code="page_mismatch", page=digest.hex())


def load(digest: Digest, get: GetPage) -> bytes:
    """A page of our own store; ``DamagedError`` when the stored bytes are not what their name says."""
    raw = get(digest)
    try:
        found: Digest | None = digest_of(raw)
    except PeerError:
        found = None
    if found != digest:
        raise DamagedError(
            f"stored page {digest.hex()} is damaged",
            hint="instep fetches damaged pages again; if this repeats: instep check",
            code="page_damaged",
            page=digest.hex(),
        )
    return raw


def header_bytes(count: int) -> int:
    """The bytes of an encoded page of ``count`` items besides the items themselves."""
    return 3 if count < 16 else 5


def encode_page(tag: int, items: Sequence[msgspec.Struct]) -> bytes:
    """The one encoding of a page. Limits are the cutter's business."""
    return _encoder.encode((tag, items))


def body_of(item: msgspec.Struct) -> bytes:
    """The encoding of one item, for counting bytes."""
    return _encoder.encode(item)


def decode_leaf(raw: bytes, *, trusted: bool = False) -> list[Entry]:
    """The entries of a leaf. Untrusted bytes are checked in full, and of trusted ones only whether they can be read;
    ``PeerError`` otherwise."""
    if trusted:
        return _readable(raw, _leaf_decoder)
    if level_of(raw) or raw[1] >= CHUNK_TAG:
        raise PeerError("page is not a leaf of a manifest", code="bad_page")
    entries = decode_items(raw, 0, _leaf_decoder, "leaf")
    check_entries(entries)
    return entries


def decode_inner(raw: bytes, *, trusted: bool = False) -> list[Child]:
    """The children of an inner page, checked as ``decode_leaf`` does; ``PeerError``."""
    if trusted:
        return _readable(raw, _inner_decoder)
    tag = _tag_of(raw)
    if not 0 < tag < CHUNK_TAG:
        raise PeerError("page is not an inner page of a manifest", code="bad_page")
    children = decode_items(raw, tag, _inner_decoder, "inner")
    for child in children:
        validated(child.last)
    if not rising_keys([sort_key(child.last) for child in children]):
        raise PeerError("children are not in order", code="bad_order", path=shown(children[0].last))
    return children


def _readable(raw: bytes, decoder: msgspec.msgpack.Decoder[tuple[int, list[ItemT]]]) -> list[ItemT]:
    try:
        return decoder.decode(raw)[1]
    except msgspec.MsgspecError as error:
        raise PeerError(f"page cannot be read: {error}", code="bad_page") from error


def decode_items(
    raw: bytes, tag: int, decoder: msgspec.msgpack.Decoder[tuple[int, list[ItemT]]], name: str
) -> list[ItemT]:
    """The items of a page that a peer sent. Refuses one over the limits, one of which there is a second encoding, and
    an empty one that is no leaf."""
    try:
        items = decoder.decode(raw)[1]
    except DECODE_ERRORS as error:
        raise PeerError(f"{name} page cannot be decoded: {error}", code="bad_page") from error
    if len(items) > PAGE_MAX_ITEMS or len(raw) > PAGE_MAX_BYTES:
        raise PeerError(
            f"page has {len(items)} items in {len(raw)} bytes",
            code="bad_page",
            items=len(items),
            bytes=len(raw),
        )
    if encode_page(tag, items) != raw:
        raise PeerError("page is not in canonical form", code="bad_page")
    if tag and not items:
        raise PeerError(f"{name} page is empty", code="bad_page")
    return items
