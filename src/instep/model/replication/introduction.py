"""A hub's signed word about the key that a node of another cluster signs with.

Implements the section "Introductions" of ``docs/spec/replication.md``.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from blake3 import blake3

from instep.errors import PeerError, UsageError
from instep.model.decoding import DECODE_ERRORS
from instep.model.generation import Signature
from instep.model.ids import Digest, FilesetName, NodeName, fileset_name, node_name

_DOMAIN = b"instep introduction 1\0"
VERSION = 1
RAW_MAX = 4_096


class IntroductionBody(msgspec.Struct, frozen=True, array_like=True):
    """``key`` is the raw Ed25519 key of ``origin``; ``time_ms`` is for people."""

    version: int
    fileset: FilesetName
    origin: NodeName
    key: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    time_ms: int

    def encoded(self) -> bytes:
        return msgspec.msgpack.encode(self)


class SignedIntroduction(msgspec.Struct, frozen=True, array_like=True):
    """An introduction as it travels: the exact signed bytes, and the signature beside them."""

    raw: bytes
    signature: Signature

    @property
    def id(self) -> Digest:
        return introduction_id(self.raw)

    def body(self) -> IntroductionBody:
        """The decoded body, or ``PeerError`` ``bad_record`` when it is not canonical or of a later version."""
        try:
            body = msgspec.msgpack.decode(self.raw, type=IntroductionBody)
            node_name(body.origin)  # it becomes the name of a file
            fileset_name(body.fileset)
        except (UsageError, *DECODE_ERRORS) as error:
            raise PeerError(f"introduction cannot be decoded: {error}", code="bad_record") from error
        if body.version != VERSION or body.encoded() != self.raw:
            raise PeerError("introduction is not canonical", code="bad_record")
        return body


def introduction_id(raw: bytes) -> Digest:
    """The digest that a hub signs."""
    return Digest(blake3(_DOMAIN + raw).digest())
