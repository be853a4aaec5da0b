"""Chunk lists: the pieces of one large file, as a Merkle tree of pages named by its root.

Implements the section "Chunk lists" of ``docs/spec/manifest.md``. The list is a pure function of the
contents: FastCDC 2020 with the parameters of ``chunk_params`` says where a file is cut, and the digests of
the chunks say where the pages are. Cutting a file is the business of ``tree``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from instep.errors import PeerError
from instep.model.ids import DIGEST_BYTES, Digest
from instep.model.manifest.cutter import Cutter
from instep.model.manifest.pages import (
    CHUNK_TAG,
    LEVEL_MAX,
    PAGE_FULL_BYTES,
    PAGE_MAX_ITEMS,
    TOTAL_MAX,
    GetPage,
    PutPage,
    decode_items,
    drop_page,
    level_of,
    load,
)

CHUNK_MAX = 1 << 20
_GIB = 1 << 30

_Digest32 = Annotated[Digest, Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
_Count = Annotated[int, Meta(ge=1, le=TOTAL_MAX)]


class Chunk(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A piece of a large file."""

    length: Annotated[int, Meta(ge=1, le=CHUNK_MAX)]
    digest: _Digest32


class ChunkRun(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An inner page's item for one page of the level below: its digest, how many chunks lie below
    it and how many bytes they have together."""

    digest: _Digest32
    chunks: _Count
    size_bytes: _Count


class ChunkParams(NamedTuple):
    """How a file is cut: FastCDC 2020 with these sizes and this level of normalization."""

    average: int
    minimum: int
    maximum: int
    normalization: Literal[0, 1, 2, 3] = 1


class ChunkShape(NamedTuple):
    """The numbers of the cut rule of chunk lists; the defaults are the specification, tests cut smaller
    pages. A page has at least ``min_items`` before a digest may end it, because chunks may repeat."""

    max_items: int = PAGE_MAX_ITEMS
    min_items: int = 16
    mask: int = 0xFF


SPEC = ChunkShape()


def chunk_params(size: int) -> ChunkParams:
    """How a file of ``size`` bytes is cut; files of 1 MiB and less are not."""
    if size <= 4 * _GIB:
        return ChunkParams(8 << 10, 2 << 10, 64 << 10)
    if size <= 64 * _GIB:
        return ChunkParams(32 << 10, 8 << 10, 256 << 10)
    return ChunkParams(128 << 10, 32 << 10, 1 << 20)


def build_chunks(chunks: Iterable[tuple[int, Digest]], put: PutPage, shape: ChunkShape = SPEC) -> Digest:
    """The root of the list of ``chunks`` (length and digest, in the order of the file, at least one).
    Streams: one open page a level is held."""
    levels: list[_Level] = []
    leaves = _Level(0, put, shape, levels)
    levels.append(leaves)
    add = leaves.cutter.add
    for length, digest in chunks:
        add(Chunk(length, digest))
    return _finish(levels)


class _Level:
    """One level of a chunk list that is being built."""

    __slots__ = ("cutter", "newest")

    def __init__(self, level: int, put: PutPage, shape: ChunkShape, levels: list[_Level]) -> None:
        assert level <= LEVEL_MAX
        assert shape.min_items >= 2
        self.newest: ChunkRun | None = None
        max_items, min_items, mask = shape

        def ends(items: list[Chunk | ChunkRun]) -> bool:
            count = len(items)
            return count >= max_items or (count >= min_items and not items[-1].digest[0] & mask)

        def up(digest: Digest, items: list[Chunk | ChunkRun]) -> None:
            self.newest = _describe(digest, items)
            if level + 1 == len(levels):
                levels.append(_Level(level + 1, put, shape, levels))
            levels[level + 1].cutter.add(self.newest)

        self.cutter: Cutter[Chunk | ChunkRun] = Cutter(CHUNK_TAG + level, PAGE_FULL_BYTES, ends, put, up)


def _describe(digest: Digest, items: list[Chunk | ChunkRun]) -> ChunkRun:
    chunks = size = 0
    for item in items:
        if isinstance(item, Chunk):
            chunks += 1
            size += item.length
        else:
            chunks += item.chunks
            size += item.size_bytes
    return ChunkRun(digest, chunks, size)


def _finish(levels: list[_Level]) -> Digest:
    """Close the levels from below until one has exactly one page: the root."""
    for current in levels:
        current.cutter.close(final=True)
        assert current.newest is not None, "a chunk list has at least one chunk"
        if current.cutter.pages == 1:
            return current.newest.digest
    raise AssertionError("the last level has one page")


_leaf_decoder = msgspec.msgpack.Decoder(tuple[int, list[Chunk]])
_inner_decoder = msgspec.msgpack.Decoder(tuple[int, list[ChunkRun]])


def decode_chunks(raw: bytes) -> list[Chunk]:
    """The chunks of a leaf page, checked by itself (``PeerError``)."""
    _expect(raw, 0)
    return decode_items(raw, CHUNK_TAG, _leaf_decoder, "chunk")


def decode_runs(raw: bytes, level: int) -> list[ChunkRun]:
    """The runs of an inner page of ``level``, checked by itself (``PeerError``)."""
    _expect(raw, level)
    return decode_items(raw, CHUNK_TAG + level, _inner_decoder, "chunk")


def _expect(raw: bytes, level: int) -> None:
    if level_of(raw) != level or raw[1] != CHUNK_TAG + level:
        raise PeerError("page is not the chunk page that belongs here", code="bad_page")


def iterate_chunks(root: Digest, get: GetPage) -> Iterator[tuple[int, int, Digest]]:
    """``(offset, length, digest)`` of all chunks in the order of the file; one open page a level. Each
    page is checked by itself; ``check_chunks`` judges the whole."""
    offset = 0
    for chunk in _chunks(root, level_of(load(root, get)), get):
        yield offset, chunk.length, chunk.digest
        offset += chunk.length


def _chunks(digest: Digest, level: int, get: GetPage) -> Iterator[Chunk]:
    raw = load(digest, get)
    if not level:
        yield from decode_chunks(raw)
        return
    for run in decode_runs(raw, level):
        yield from _chunks(run.digest, level - 1, get)


def check_chunks(root: Digest, size: int, get: GetPage, shape: ChunkShape = SPEC) -> None:
    """Refuse (``PeerError``) a chunk list that cannot be that of a file of ``size`` bytes: lengths
    outside the limits, another sum, or pages that are not the ones that these chunks make."""
    built = build_chunks(_limited(root, size, get), drop_page, shape)
    if built != root:
        raise PeerError(
            "the pages of this chunk list are not the ones that its chunks make",
            code="bad_shape",
            root=root.hex(),
            built=built.hex(),
        )


def _limited(root: Digest, size: int, get: GetPage) -> Iterator[tuple[int, Digest]]:
    params = chunk_params(size)
    end = 0
    for offset, length, digest in iterate_chunks(root, get):
        end = offset + length
        if not (params.minimum <= length or end == size) or length > params.maximum or end > size:
            raise PeerError(
                f"chunk of {length} bytes at {offset} cannot be in a file of {size} bytes",
                code="bad_chunk_list",
                offset=offset,
                length=length,
                size=size,
            )
        yield length, digest
    if end != size:
        raise PeerError(
            f"the chunks have {end} bytes together, the file {size}",
            code="bad_chunk_list",
            sum=end,
            size=size,
        )


def most_chunk_pages(size: int) -> int:
    """More pages the chunk list of a file of ``size`` bytes cannot have: every chunk but the last has the least length,
    every page but the last of its level the fewest items. The pages above the leaves are fewer than a fifteenth."""
    chunks = size // chunk_params(size).minimum + 1
    return chunks // (SPEC.min_items - 1) + LEVEL_MAX + 1


def missing_chunk_pages(root: Digest, get_or_none: Callable[[Digest], bytes | None]) -> list[Digest]:
    """The pages of a chunk list to fetch next, as ``manifest.missing`` does it: empty when all are here, to be called
    again after each round."""
    raw = get_or_none(root)
    if raw is None:
        return [root]
    absent: dict[Digest, None] = {}
    seen: set[Digest] = set()

    def look_below(raw: bytes, level: int) -> None:
        if not level:
            _expect(raw, 0)
            return
        for run in decode_runs(raw, level):
            if run.digest in seen:
                continue
            seen.add(run.digest)
            below = get_or_none(run.digest)
            if below is None:
                absent[run.digest] = None
            else:
                look_below(below, level - 1)

    look_below(raw, level_of(raw))
    return list(absent)
