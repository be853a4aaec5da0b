"""The word of a line's writer about its newest head, as it is sent and passed on."""

from __future__ import annotations

from instep.model.ids import LineId
from instep.model.replication.freshness import RAW_MAX, SignedWord
from instep.net.messages.parts import StreamMessage


class Fresh(StreamMessage, tag="fresh", frozen=True, array_like=True):
    """From a sender to a partner that takes ``fresh`` and may have the line. Level: of each line the newest counts."""

    line: LineId
    word: SignedWord

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.word.raw) > RAW_MAX:
            raise ValueError("a word about a line is too long")
