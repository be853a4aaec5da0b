"""Generations and epoch records: the signed nouns of a line.

Implements the sections "Generations", "Epoch records" and "Signatures" of ``docs/spec/manifest.md``.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec
from blake3 import blake3

from instep.errors import PeerError
from instep.model.decoding import DECODE_ERRORS
from instep.model.ids import Digest, FilesetName, HeadRef, LineId, NodeName

_GENERATION_DOMAIN = b"instep generation 1\0"
_EPOCH_DOMAIN = b"instep epoch 1\0"


class Signature(msgspec.Struct, frozen=True, array_like=True):
    """Detached Ed25519 signature over a record's id; ``chain`` is DER, the signing certificate first."""

    signer: NodeName
    key: bytes
    value: bytes
    chain: tuple[bytes, ...] = ()


UNSIGNED = Signature(NodeName(""), b"", b"")
"""Stands where a record's id is wanted before it is signed; never stored or sent."""


class _Body(msgspec.Struct, frozen=True, array_like=True):
    """The fields with which every record of a line begins."""

    version: int
    fileset: FilesetName
    origin: NodeName
    epoch: int

    @property
    def line(self) -> LineId:
        return LineId(self.fileset, self.origin)

    def encoded(self) -> bytes:
        return msgspec.msgpack.encode(self)


class GenerationBody(_Body, frozen=True, array_like=True):
    """The record that a writer signs. ``parent`` is empty for the first generation of a line; ``definition`` is the
    digest of the encoded definition; ``entries`` and ``size_bytes`` are totals of the manifest."""

    number: int
    parent: Digest
    root: Digest
    definition: Digest
    author: str
    message: str
    time_ms: int
    entries: int
    size_bytes: int


class SignedGeneration(msgspec.Struct, frozen=True, array_like=True):
    """A generation as it travels: the exact signed bytes, and the signature beside them."""

    raw: bytes
    signature: Signature

    @property
    def id(self) -> Digest:
        return Digest(blake3(_GENERATION_DOMAIN + self.raw).digest())

    def body(self) -> GenerationBody:
        """The decoded body, or ``PeerError`` when it is not canonical."""
        return _decode(self.raw, GenerationBody, "generation")

    def ref(self) -> HeadRef:
        body = self.body()
        return HeadRef(body.epoch, body.number, self.id, body.root)


class EpochBody(_Body, frozen=True, array_like=True):
    """The right to publish in a line from ``base`` on (``base`` is empty for epoch 1)."""

    writer: NodeName
    writer_key: bytes
    base: Digest


class SignedEpoch(msgspec.Struct, frozen=True, array_like=True):
    """An epoch record as it travels."""

    raw: bytes
    signature: Signature

    @property
    def id(self) -> Digest:
        return Digest(blake3(_EPOCH_DOMAIN + self.raw).digest())

    def body(self) -> EpochBody:
        return _decode(self.raw, EpochBody, "epoch record")


_T = TypeVar("_T", bound=_Body)


def _decode(raw: bytes, kind: type[_T], name: str) -> _T:
    try:
        body = msgspec.msgpack.decode(raw, type=kind)
    except DECODE_ERRORS as error:
        raise PeerError(f"{name} cannot be decoded: {error}", code="bad_record") from error
    if body.encoded() != raw:
        raise PeerError(f"{name} is not in canonical form", code="bad_record")
    return body
