"""Pictures made without any library, so that what reads them is not what made them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

__all__ = ["flat_png", "png", "png_claiming"]

Colour = tuple[int, int, int, int]


def png(
    width: int, height: int, at: Callable[[int, int], Colour] = lambda x, y: (x % 256, y % 256, 90, 255)
) -> bytes:
    """An RGBA picture whose pixels ``at`` gives."""
    rows = (b"\0" + bytes(part for x in range(width) for part in at(x, y)) for y in range(height))
    return _file(width, height, zlib.compress(b"".join(rows)))


def flat_png(side: int) -> bytes:
    """Many pixels in a small file, all of one colour."""
    packer = zlib.compressobj(9)
    row = bytes(1 + 4 * side)
    return _file(side, side, b"".join(packer.compress(row) for _ in range(side)) + packer.flush())


def png_claiming(side: int) -> bytes:
    """A file that says it unpacks to ``side`` x ``side`` pixels."""
    return _file(side, side, b"")


def _file(width: int, height: int, packed: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", packed), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
