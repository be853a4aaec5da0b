"""The rules that travel with a line. Implements the section "Definitions" of ``docs/spec/manifest.md``."""

from __future__ import annotations

import enum

import msgspec
from blake3 import blake3

from instep.errors import PeerError
from instep.model.decoding import DECODE_ERRORS
from instep.model.ids import Digest

__all__ = ["Definition", "FilesetClass", "Mode", "Preserve", "decode_definition"]


class Mode(enum.Enum):
    MIRROR = "mirror"
    REPLICATE = "replicate"
    SHARED = "shared"


class FilesetClass(enum.Enum):
    METADATA = "metadata"
    DATA = "data"


class Preserve(enum.Enum):
    """What a definition can ask to keep beyond modes, times and symlinks."""

    OWNER = "owner"
    XATTR = "xattr"
    ACL = "acl"
    HARDLINKS = "hardlinks"
    SPARSE = "sparse"


class Definition(msgspec.Struct, frozen=True, array_like=True):
    """Set where a fileset is written; at a partner these keys are errors. ``rollout`` is the encoded
    rollout section or empty: carried, not interpreted here."""

    version: int = 1
    mode: Mode = Mode.MIRROR
    fileset_class: FilesetClass = FilesetClass.METADATA
    ignore: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    preserve: tuple[Preserve, ...] = ()
    packages: tuple[str, ...] = ()
    gates: tuple[str, ...] = ()
    rollout: bytes = b""

    def encoded(self) -> bytes:
        return msgspec.msgpack.encode(self)

    @property
    def digest(self) -> Digest:
        return Digest(blake3(self.encoded()).digest())


def decode_definition(raw: bytes) -> Definition:
    """The definition, or ``PeerError`` when it is malformed or not canonical."""
    try:
        definition = msgspec.msgpack.decode(raw, type=Definition)
    except DECODE_ERRORS as error:
        raise PeerError(f"definition cannot be decoded: {error}", code="bad_definition") from error
    if definition.encoded() != raw:
        raise PeerError("definition is not in canonical form", code="bad_definition")
    return definition
