"""A hub's introductions of the nodes that sign the lines which it passes on."""

from __future__ import annotations

from typing import Annotated

import msgspec

from instep.model.ids import LineId
from instep.model.replication.introduction import RAW_MAX, SignedIntroduction
from instep.net.messages.parts import StreamMessage

INTRODUCED_MAX = 64
"""Most nodes that may have signed one line."""


class Introductions(StreamMessage, tag="introductions", frozen=True, array_like=True):
    """From a sender to a partner that takes ``introductions``, before it offers a line that it does not write: the keys
    of the nodes that signed it. Believed only where the partner says so (``introduces``)."""

    line: LineId
    records: Annotated[tuple[SignedIntroduction, ...], msgspec.Meta(max_length=INTRODUCED_MAX)]

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(len(record.raw) > RAW_MAX for record in self.records):
            raise ValueError("an introduction is too long")
