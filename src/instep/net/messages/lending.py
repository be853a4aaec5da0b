"""The way back of contents: requests of a line's writer to a partner for lost contents. By digest, over the partner's
stream.

Implements the section "Contents for the writer" of ``docs/spec/wire.md``.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from blake3 import blake3

from instep.model.generation import Signature
from instep.model.ids import Digest, LineId, NodeName
from instep.net.messages.parts import Count, Message, Name, RawDigest, StreamMessage, Text

_WARRANT_DOMAIN = b"instep warrant 1\0"

HAS_MAX = 2_048
PARTS_MAX = 1_024
PARTS_BYTES_MAX = 1 << 20
"""Contents in one answer, together."""

_Path = Annotated[bytes, msgspec.Meta(max_length=4096)]
_Part = Annotated[bytes, msgspec.Meta(max_length=PARTS_BYTES_MAX)]


class Wanted(Message, frozen=True, array_like=True):
    """Contents by digest; ``path`` is where the line had them, ``is_link`` says that they are a symlink's target."""

    digest: RawDigest
    size: Count
    path: _Path
    is_link: bool = False


class Warrant(Message, frozen=True, array_like=True):
    """The writer's word that the hub ``via`` may ask for contents of this line on its behalf until then."""

    until_ms: Count
    via: Name
    signature: Signature


def warrant_id(line: LineId, via: NodeName, until_ms: int) -> Digest:
    """The digest that a writer signs."""
    return Digest(
        blake3(_WARRANT_DOMAIN + msgspec.msgpack.encode((line.fileset, line.origin, via, until_ms))).digest()
    )


class HasRequest(StreamMessage, tag="has", frozen=True, array_like=True):
    """The line's writer asks which of these contents the partner has, anywhere in the fileset."""

    number: Count
    line: LineId
    wants: Annotated[tuple[Wanted, ...], msgspec.Meta(max_length=HAS_MAX)]
    warrant: Warrant | None = None
    """With it a hub asks its own partners for what it has not."""
    within_ms: Count = 0
    """How long the asker waits; 0 where it does not say."""


class HasReply(StreamMessage, tag="has_reply", frozen=True, array_like=True):
    """One answer for each want; ``refusal`` says why there is none."""

    number: Count
    is_there: Annotated[tuple[bool, ...], msgspec.Meta(max_length=HAS_MAX)] = ()
    refusal: Text = ""


class PartWant(Message, frozen=True, array_like=True):
    """``length`` bytes at ``offset`` of one content."""

    wanted: Wanted
    offset: Count
    length: Annotated[int, msgspec.Meta(ge=0, le=PARTS_BYTES_MAX)]


class PartsRequest(StreamMessage, tag="parts", frozen=True, array_like=True):
    number: Count
    line: LineId
    wants: Annotated[tuple[PartWant, ...], msgspec.Meta(max_length=PARTS_MAX)]
    warrant: Warrant | None = None
    within_ms: Count = 0


class Part(Message, frozen=True, array_like=True):
    is_there: bool
    data: _Part = b""


class PartsReply(StreamMessage, tag="parts_reply", frozen=True, array_like=True):
    """The first ``len(parts)`` of the requested parts; fewer means: ask for the rest. The asker verifies."""

    number: Count
    parts: Annotated[tuple[Part, ...], msgspec.Meta(max_length=PARTS_MAX)] = ()
    refusal: Text = ""
