"""The port between lines, written or followed here, and the node's connections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from instep.core.lines.accept import EpochBook
from instep.errors import InstepError
from instep.model.definition import Definition
from instep.model.generation import SignedEpoch
from instep.model.ids import HeadRef, LineId, NodeName
from instep.model.rollout import Order
from instep.model.standing import StandingRecord
from instep.net.messages import messages as m
from instep.net.service import PeerCalls
from instep.node.config.filesets import FilesetSettings
from instep.node.runtime.runtime import Runtime
from instep.node.trees.keeping.lending import Lending
from instep.node.trees.keeping.shelf import Shelf

__all__ = ["LineService", "Source"]


class HasEpochs(Protocol):
    """The saved facts of a line, in either role."""

    @property
    def epochs(self) -> EpochBook: ...


class Source(Protocol):
    """A sender of a followed line: a link that this node dialled."""

    @property
    def name(self) -> NodeName: ...

    @property
    def client(self) -> PeerCalls:
        """For requests of pages and contents."""
        ...

    @property
    def version(self) -> int:
        """The protocol version that was agreed on last."""
        ...

    def reply(self, message: m.StreamMessage) -> None:
        """Queue a message on the stream; it is dropped where no room is left."""


class LineService(Protocol):
    """A line, written or followed here, as the connections need it."""

    line: LineId
    fileset: FilesetSettings
    is_written_here: bool
    standing: StandingRecord

    @property
    def runtime(self) -> Runtime: ...

    @property
    def facts(self) -> HasEpochs: ...

    @property
    def head(self) -> HeadRef | None: ...

    @property
    def writer(self) -> NodeName: ...

    @property
    def live(self) -> HeadRef | None: ...

    async def room(self) -> None:
        """Return once what a peer sends can be taken in; its stream waits for this."""

    def known_definition(self) -> Definition | None:
        """The definition of the newest head, None while none is known."""

    def offers_to(self, partner: NodeName) -> bool: ...

    def head_message(self, to: NodeName | None, *, with_bundle: bool) -> m.Head | None:
        """The head to send to ``to``: to the line's own writer the newest accepted head, to others the one that they
        can have here."""
        ...

    def shelf(self) -> Shelf: ...

    @property
    def lending(self) -> Lending:
        """Every content of the fileset on this node, for the line's writer."""
        ...

    def head_seen(self, source: NodeName, head: m.Head) -> None:
        """A peer sent a head of this line."""

    def epochs_seen(self, source: NodeName, records: Sequence[SignedEpoch]) -> None:
        """A peer sent epoch records of this line."""

    def partner_told(self, source: NodeName) -> None:
        """A partner reported everything that it holds of this line."""

    def partner_lost(self, who: NodeName) -> None:
        """A partner's stream ended."""

    def partners_changed(self) -> None:
        """The partners that follow this line here may have changed."""

    def source_up(self, source: NodeName, link: Source, head: HeadRef | None) -> None: ...

    def source_down(self, source: NodeName, error: InstepError | None) -> None: ...

    def asked_to(self, what: str) -> None:
        """An operator's nudge from the sender: ``retry`` or ``resend``."""

    def reported(self, report: m.Report) -> None:
        """A partner, or a hub for it, reported the line's standing there."""

    def order_given(self, source: NodeName, order: Order) -> None:
        """A sender ordered this node what to do with a head; refused by name unless ``source`` may order here."""

    async def verify(self, *, is_deep: bool) -> m.VerifyReply: ...

    async def test(self) -> tuple[m.TestRow, ...]:
        """Run this node's own probes and golden requests now."""
        ...

    def report_message(self) -> m.Report: ...
