"""The form of a history's packs: which contents are packed, their records, and where one lies."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from instep.errors import DamagedError
from instep.model.decoding import DECODE_ERRORS
from instep.model.ids import Digest
from instep.model.paths import shown
from instep.tree.root.descriptors import READ, Tolerated, closing_fd

PACKED_MAX = 64 << 10
"""Larger contents are files of their own."""
PACK_NAME = re.compile(rb"pack-(\d{8})")
RECORD_MAX = PACKED_MAX + 64
"""No record of a pack is longer: its content, a digest, and the array around them."""


@dataclass(frozen=True, slots=True)
class HistoryDamage:
    """Bytes of a history's file that are not what was put. ``is_tail``: the end of a pack, as a crash leaves it."""

    file: str
    offset: int
    length: int
    is_tail: bool = False


class Packed(msgspec.Struct, frozen=True, array_like=True, tag=6):
    digest: bytes
    data: bytes


class At(NamedTuple):
    """Where a packed content lies. Kept as one number: a million contents are a million of these."""

    pack: int
    offset: int
    length: int

    def number(self) -> int:
        return self.pack << 56 | self.offset << 24 | self.length

    @classmethod
    def of(cls, number: int) -> At:
        return cls(number >> 56, number >> 24 & 0xFFFF_FFFF, number & 0xFF_FFFF)


encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Packed)


def pack_name(number: int) -> bytes:
    return b"pack-%08d" % number


def decoded(payload: bytes) -> Packed | None:
    try:
        return _decoder.decode(payload)
    except DECODE_ERRORS:
        return None


def mismatch(digest: Digest) -> DamagedError:
    name = digest.hex()
    return DamagedError(
        f"the bytes put for {shown(name.encode())} are others", code="content_mismatch", digest=name
    )


def fsync_name(name: bytes, dir_fd: int) -> None:
    with closing_fd(os.open(name, READ, dir_fd=dir_fd)) as fd:
        os.fsync(fd)


def open_large(name: bytes, dir_fd: int) -> int | None:
    """A descriptor of a large content, synced or not."""
    for each in (name, name + b".new"):
        with contextlib.suppress(FileNotFoundError):
            return os.open(each, READ, dir_fd=dir_fd)
    return None


def read_and_close(fd: int) -> bytes:
    """All bytes of an open file; nothing where the disk cannot read them."""
    with closing_fd(fd), Tolerated(errno.EIO):
        return b"".join(iter(lambda: os.read(fd, 1 << 20), b""))
    return b""


def drop_file(name: bytes, dir_fd: int, unsynced: dict[bytes, None], keeps: Callable[[int], bool]) -> None:
    """Remove a large content, synced or not, unless ``keeps`` wants its size kept."""
    for each in (name, name + b".new"):
        with contextlib.suppress(FileNotFoundError):
            if not keeps(os.stat(each, dir_fd=dir_fd, follow_symlinks=False).st_size):
                os.unlink(each, dir_fd=dir_fd)
                unsynced.pop(each, None)


def large_files(directories: Iterable[bytes], path: bytes) -> Iterator[tuple[Digest, bytes]]:
    """The large contents below these directories of a history, with their names."""
    for directory in directories:
        for name in sorted(os.listdir(path + b"/" + directory)):
            if len(name) == 64:
                yield Digest(bytes.fromhex(name.decode())), directory + b"/" + name
