"""The union of the lines of a fileset, as a generation of this node alone: never signed, offered or reported.

Implements the section "The union as a generation" of ``docs/spec/replication.md``.
"""

from __future__ import annotations

import msgspec
from blake3 import blake3

from instep.errors import DamagedError
from instep.model.decoding import DECODE_ERRORS
from instep.model.ids import EMPTY_DIGEST, Count, Digest, HeadRef, NodeName
from instep.model.manifest.entry import Entry, Kind

_UNION_DOMAIN = b"instep union 1\0"
UNION_EPOCH = 1
DIRECTORY_MODE = 0o755


def plain_directory(path: bytes) -> Entry:
    """The entry of a directory in replicate mode. It says nothing but the path, so that a ``chmod`` or a time at one
    home does not run through the lines of all."""
    return Entry(path, Kind.DIR, DIRECTORY_MODE, 0, 0, EMPTY_DIGEST, 0)


class UnionPart(msgspec.Struct, frozen=True, array_like=True):
    """One line of a union, by its origin, at one of its heads."""

    origin: NodeName
    head: HeadRef


class Withheld(msgspec.Struct, frozen=True, array_like=True):
    """An entry of a line that cannot be had here, or has no place. While the line says ``wanted``, the union says
    ``kept``: the file or symlink that it said before, or nothing."""

    origin: NodeName
    wanted: Entry
    kept: Entry | None = None


class Collision(msgspec.Struct, frozen=True, array_like=True):
    """A name that two lines have and one of them does not get: everything of ``origin`` at and below ``component`` is
    shown at and below ``shown`` instead. ``tag`` is the part of the name that no user chose, and its id in lists.

    ``born_ms`` is that of the entry at ``component``, nothing where that is a directory. ``winner`` is the origin that
    has the name. ``entries`` counts what moves, less directories that have entries; ``too_long`` counts what is shown
    nowhere, because its path would be over the limit. ``tries`` names were taken before this one."""

    component: bytes
    origin: NodeName
    born_ms: int | None
    shown: bytes
    tag: str
    winner: NodeName
    entries: int
    too_long: int = 0
    tries: int = 0


class KeptName(msgspec.Struct, frozen=True, array_like=True):
    """A loser of ``origin`` whose winner left: the tree has it under its other name still, until the next switch."""

    origin: NodeName
    component: bytes
    shown: bytes


class UnionRecord(msgspec.Struct, frozen=True, array_like=True):
    """Which heads make the union, in the order of origins, and what came of them. ``number`` is a counter of this node
    and fileset; ``definition`` is the digest that the definitions of all parts have."""

    version: int
    number: Count
    parts: tuple[UnionPart, ...]
    root: Digest
    definition: Digest
    withheld: tuple[Withheld, ...] = ()
    kept: tuple[KeptName, ...] = ()

    def encoded(self) -> bytes:
        raw: bytes = msgspec.msgpack.encode(self if self.kept else msgspec.structs.astuple(self)[:-1])
        return raw

    @property
    def id(self) -> Digest:
        return Digest(blake3(_UNION_DOMAIN + self.encoded()).digest())

    def ref(self) -> HeadRef:
        """The union as a point that a tree can be brought to, like a generation."""
        return HeadRef(UNION_EPOCH, self.number, self.id, self.root)


def decode_union(raw: bytes) -> UnionRecord:
    """The record out of this node's state, or ``DamagedError``."""
    try:
        record = msgspec.msgpack.decode(raw, type=UnionRecord)
    except DECODE_ERRORS as error:
        raise DamagedError(f"the record of a union cannot be decoded: {error}", code="bad_union") from error
    if record.version != 1 or record.encoded() != raw:
        raise DamagedError("the record of a union is not one that this version writes", code="bad_union")
    return record
