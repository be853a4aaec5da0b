"""A second implementation of ``docs/spec/manifest.md``, written from the page and sharing no code with ours.

It is slow and plain on purpose. Golden tests hold it against the test vectors, property tests against the
real thing: where the two differ, one of them or the page is wrong.
"""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple

from blake3 import blake3

LEAF = b"instep page leaf 1\0"
INNER = b"instep page inner 1\0"
CHUNK_LEAF = b"instep page chunk leaf 1\0"
CHUNK_INNER = b"instep page chunk inner 1\0"


def pack(value: Any) -> bytes:
    """MessagePack in its shortest form, as far as the specification uses it."""
    if value is None:
        return b"\xc0"
    if value is True or value is False:
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        return _pack_int(value)
    if isinstance(value, bytes):
        for width, code in ((1, 0xC4), (2, 0xC5), (4, 0xC6)):
            if len(value) < 1 << 8 * width:
                return bytes([code]) + len(value).to_bytes(width, "big") + value
    if isinstance(value, str):
        raw = value.encode()
        if len(raw) < 32:
            return bytes([0xA0 + len(raw)]) + raw
        for width, code in ((1, 0xD9), (2, 0xDA), (4, 0xDB)):
            if len(raw) < 1 << 8 * width:
                return bytes([code]) + len(raw).to_bytes(width, "big") + raw
    if len(value) < 16:
        head = bytes([0x90 + len(value)])
    else:
        head = b"\xdc" + len(value).to_bytes(2, "big")
    return head + b"".join(pack(item) for item in value)


def _pack_int(value: int) -> bytes:
    if 0 <= value < 128:
        return bytes([value])
    if -32 <= value < 0:
        return value.to_bytes(1, "big", signed=True)
    if value > 0:
        for width, code in ((1, 0xCC), (2, 0xCD), (4, 0xCE), (8, 0xCF)):
            if value < 1 << 8 * width:
                return bytes([code]) + value.to_bytes(width, "big")
    for width, code in ((1, 0xD0), (2, 0xD1), (4, 0xD2), (8, 0xD3)):
        if value >= -(1 << 8 * width - 1):
            return bytes([code]) + value.to_bytes(width, "big", signed=True)
    raise ValueError(value)


class Tree(NamedTuple):
    """A root and all pages by digest."""

    root: bytes
    pages: dict[bytes, bytes]


class Numbers(NamedTuple):
    """The numbers of the cut rule, to be made small by tests."""

    max_items: int = 512
    full_bytes: int = 768 * 1024
    mask: int = 0xFF
    inner_min: int = 16


SPECIFIED = Numbers()


def order(path: bytes) -> bytes:
    return path.replace(b"/", b"\0")


def manifest(entries: list[list[Any]], numbers: Numbers = SPECIFIED) -> Tree:
    """Entries as the arrays of the specification, in any order."""
    level_items = sorted(entries, key=lambda entry: order(entry[0]))
    pages: dict[bytes, bytes] = {}
    if not level_items:
        raw = pack([0, []])
        root = blake3(LEAF + raw).digest()
        return Tree(root, {root: raw})
    level = 0
    while True:
        above = []
        for items in _cut(level_items, level, numbers):
            raw = pack([level, items])
            digest = blake3((INNER if level else LEAF) + raw).digest()
            pages[digest] = raw
            if level:
                above.append([items[-1][0], digest, sum(i[2] for i in items), sum(i[3] for i in items)])
            else:
                above.append([items[-1][0], digest, len(items), sum(i[3] for i in items if i[1] == 0)])
        if len(above) == 1:
            return Tree(above[0][1], pages)
        level_items, level = above, level + 1


def _cut(items: list[list[Any]], level: int, numbers: Numbers) -> list[list[list[Any]]]:
    pages: list[list[list[Any]]] = [[]]
    item_bytes = 0
    for item in items:
        page = pages[-1]
        page.append(item)
        item_bytes = len(pack(item)) + (item_bytes if len(page) > 1 else 0)
        says_hash = (zlib.crc32(item[0]) >> 8 * (level % 4)) & numbers.mask == 0
        if (
            (says_hash and (level == 0 or len(page) >= numbers.inner_min))
            or len(page) == numbers.max_items
            or item_bytes + (3 if len(page) < 16 else 5) >= numbers.full_bytes
        ):
            pages.append([])
    return pages if pages[-1] else pages[:-1]


def chunk_list(chunks: list[tuple[int, bytes]]) -> Tree:
    """The pages of a chunk list."""
    pages: dict[bytes, bytes] = {}
    items: list[Any] = [list(chunk) for chunk in chunks]
    level = 0
    while True:
        above = []
        page: list[Any] = []
        for at, item in enumerate(items):
            page.append(item)
            digest = item[0] if level else item[1]
            if (len(page) >= 16 and digest[0] == 0) or len(page) == 512 or at == len(items) - 1:
                raw = pack([32 + level, page])
                name = blake3((CHUNK_INNER if level else CHUNK_LEAF) + raw).digest()
                pages[name] = raw
                if level:
                    above.append([name, sum(i[1] for i in page), sum(i[2] for i in page)])
                else:
                    above.append([name, len(page), sum(i[0] for i in page)])
                page = []
        if len(above) == 1:
            return Tree(above[0][0], pages)
        items, level = above, level + 1


def fastcdc(
    data: bytes, average: int, minimum: int, maximum: int, gear: list[int], mask_s: int, mask_l: int
) -> list[int]:
    """The lengths of the chunks of ``data``."""
    lengths = []
    start = 0
    while start < len(data):
        length = _first_chunk(data[start : start + maximum], average, minimum, gear, mask_s, mask_l)
        lengths.append(length)
        start += length
    return lengths


def _first_chunk(data: bytes, average: int, minimum: int, gear: list[int], mask_s: int, mask_l: int) -> int:
    if len(data) <= minimum:
        return len(data)
    fingerprint = 0
    for at in range(minimum, len(data) // 2 * 2):
        mask = mask_s if at < min(average, len(data)) // 2 * 2 else mask_l
        if at % 2 == 0:
            fingerprint = ((fingerprint << 2) + (gear[data[at]] << 1)) % (1 << 64)
            mask <<= 1
        else:
            fingerprint = (fingerprint + gear[data[at]]) % (1 << 64)
        if not fingerprint & mask:
            return at
    return len(data)
