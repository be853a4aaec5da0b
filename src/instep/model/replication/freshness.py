"""A writer's signed word about which head of its line is the newest, and when that was so.

Implements the section "Freshness" of ``docs/spec/replication.md``.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from blake3 import blake3

from instep.errors import PeerError
from instep.model.decoding import DECODE_ERRORS
from instep.model.generation import Signature
from instep.model.ids import DIGEST_BYTES, Digest, FilesetName, LineId, NodeName

_DOMAIN = b"instep fresh 1\0"
VERSION = 1
RAW_MAX = 4_096
EVERY_MIN_MS, EVERY_MAX_MS = 1_000, 3_600_000
_Number = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]


class WordBody(msgspec.Struct, frozen=True, array_like=True):
    """``time_ms`` is the writer's wall clock; the next word follows within ``every_ms``."""

    version: int
    fileset: FilesetName
    origin: NodeName
    epoch: _Number
    number: _Number
    head: Annotated[Digest, msgspec.Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
    time_ms: _Number
    every_ms: Annotated[int, msgspec.Meta(ge=EVERY_MIN_MS, le=EVERY_MAX_MS)]

    @property
    def line(self) -> LineId:
        return LineId(self.fileset, self.origin)

    def encoded(self) -> bytes:
        return msgspec.msgpack.encode(self)


class SignedWord(msgspec.Struct, frozen=True, array_like=True):
    """A word as it travels: the exact signed bytes, and the signature beside them."""

    raw: bytes
    signature: Signature

    @property
    def id(self) -> Digest:
        return word_id(self.raw)

    def body(self) -> WordBody:
        """The decoded body, or ``PeerError`` ``bad_record`` when it is not canonical or of a later version."""
        try:
            body = msgspec.msgpack.decode(self.raw, type=WordBody)
        except DECODE_ERRORS as error:
            raise PeerError(f"word about a line cannot be decoded: {error}", code="bad_record") from error
        if body.version != VERSION or body.encoded() != self.raw:
            raise PeerError("word about a line is not canonical", code="bad_record")
        return body


def word_id(raw: bytes) -> Digest:
    """The digest that a writer signs."""
    return Digest(blake3(_DOMAIN + raw).digest())
