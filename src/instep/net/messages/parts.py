"""The parts of messages between peers: checked names, bounded texts and counts, digests of the right length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from instep.errors import UsageError
from instep.model.ids import DIGEST_BYTES, Digest, HeadRef, LineId, NodeName, fileset_name, node_name
from instep.model.rollout import Order as RolloutOrder
from instep.model.rollout import why_not_order

TEXT_MAX = 4_096
INT_MAX = (1 << 63) - 1

RawDigest = Annotated[Digest, msgspec.Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
Text = Annotated[str, msgspec.Meta(max_length=TEXT_MAX)]
Name = Annotated[
    NodeName, msgspec.Meta(max_length=63, pattern=r"^(?!.*\.\.)[a-z0-9]([a-z0-9.-]*[a-z0-9])?\Z")
]
Count = Annotated[int, msgspec.Meta(ge=0, le=INT_MAX)]
Small = Annotated[bytes, msgspec.Meta(max_length=64 << 10)]
Address = Annotated[str, msgspec.Meta(max_length=300)]
Word = Annotated[str, msgspec.Meta(max_length=64)]
Takes = Annotated[tuple[Word, ...], msgspec.Meta(max_length=32)]


class Message(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Checks what types cannot say: names of nodes and filesets, positions, digests in shared nouns."""

    def __post_init__(self) -> None:
        for field in self.__struct_fields__:
            value = getattr(self, field)
            if (check := _CHECKS.get(type(value))) is not None:
                check(value)


class StreamMessage(Message, frozen=True, array_like=True, gc=False):
    """A message that may stand on the stream."""


def _check_line(value: LineId) -> None:
    _named(fileset_name, value.fileset)
    _named(node_name, value.origin)


def _check_head(value: HeadRef) -> None:
    if len(value.id) != DIGEST_BYTES or len(value.root) != DIGEST_BYTES:
        raise ValueError("a head's id and root are 32 bytes")
    if not (0 <= value.epoch <= INT_MAX and 0 <= value.number <= INT_MAX):
        raise ValueError("a head's position is out of range")


def _check_order(value: RolloutOrder) -> None:
    _check_head(value.head)
    if (why := why_not_order(value)) is not None:
        raise ValueError(f"order: {why}")


_CHECKS: dict[type, Callable[[Any], None]] = {
    LineId: _check_line,
    HeadRef: _check_head,
    RolloutOrder: _check_order,
}


def _named(rule: Any, text: str) -> None:
    try:
        rule(text)
    except UsageError as error:
        raise ValueError(error.reason) from error
