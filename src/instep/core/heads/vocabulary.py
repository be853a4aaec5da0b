"""Events and effects of every machine that takes heads of a line from other nodes."""

from __future__ import annotations

from instep.core.vocabulary import MachineWord, RequestDone, SignerVerdict, Trouble
from instep.model.generation import SignedGeneration
from instep.model.ids import Digest, HeadRef, NodeName


class SourceUp(MachineWord):
    """A node that may send this line is connected; ``is_writer`` when it writes the line itself.

    ``has`` is the id of the head that it greeted with: a head that we know is not sent again. ``poll_ms`` is how often
    this source is asked, where that is not the interval of all; 0 for never. ``passes_words``: it passes the words of
    the line's writer on.
    """

    source: NodeName
    is_writer: bool
    has: Digest | None = None
    poll_ms: int | None = None
    passes_words: bool = False


class SourceDown(MachineWord):
    source: NodeName
    trouble: Trouble | None = None


class SourceNoticed(MachineWord):
    """A source that does not write the line said which head it knows, served there or not; ``is_cut_off`` when none of
    its own sources is connected."""

    source: NodeName
    head: HeadRef
    is_cut_off: bool = False


class WordHeard(MachineWord):
    """The line's writer said ``age_ms`` ago that the generation at ``position`` is its newest, over whatever nodes; the
    next word follows within ``every_ms``. ``as_of`` is that moment for people."""

    position: tuple[int, int]
    age_ms: int
    every_ms: int
    as_of: str


class HeadSeen(MachineWord):
    """A source announced a head whose signature gave ``verdict``; ``beside`` is its ancestor at our position."""

    source: NodeName
    signed: SignedGeneration
    verdict: SignerVerdict
    beside: HeadRef | None = None


class HeadsAnswered(MachineWord):
    """Answer to ``AskHeads``: the source's heads and records came as ``EpochSeen``/``HeadSeen`` before this."""

    req: int
    source: NodeName


class AskFailed(MachineWord):
    req: int
    source: NodeName
    trouble: Trouble


class HeadSuperseded(RequestDone):
    """Answer to ``FetchPages`` or ``StageContents``: the source no longer has this generation; ask for its head."""


class PollAsked(MachineWord):
    """A caller waits: ask the sources for heads now."""


class AskHeads(MachineWord):
    """Ask for epoch records and head; ``is_repeated``: a known one too. Answer: ``HeadsAnswered``, ``AskFailed``."""

    req: int
    source: NodeName
    is_repeated: bool = False


class OfferHead(MachineWord):
    """A writer that offers less than we know lost state: send it ``head`` and epoch records, each time. No answer."""

    source: NodeName
    head: HeadRef
