"""The port of one link or session to the node's other connections, so that links do not know ``Peers``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from instep.model.generation import SignedGeneration
from instep.model.ids import Digest, LineId, NodeName
from instep.net.connections.tls import TlsContexts
from instep.net.messages import messages as m
from instep.net.service import PeerCalls
from instep.node.lines.line_service import LineService
from instep.node.peers.link_policy import LinkPolicy
from instep.node.peers.membership import Membership
from instep.node.runtime.runtime import Runtime

Dial = Callable[[NodeName, str], PeerCalls]


class BehindLender(Protocol):
    """A partner of a hub that can be asked for contents on the writer's behalf."""

    who: NodeName
    hello: m.Hello

    async def held(
        self,
        line: LineId,
        wants: tuple[m.Wanted, ...],
        *,
        warrant: m.Warrant | None = None,
        within_s: float | None = None,
    ) -> tuple[bool, ...]:
        """Which of these contents the partner has: one answer for each."""
        ...

    async def parts(
        self,
        line: LineId,
        wants: tuple[m.PartWant, ...],
        *,
        warrant: m.Warrant | None = None,
        within_s: float | None = None,
    ) -> tuple[m.Part, ...]:
        """The first of these parts, as many as fit an answer; not verified."""
        ...


class PeerContext(Protocol):
    """The node as its links see it: lines, members, and the acts that concern every other link."""

    @property
    def runtime(self) -> Runtime: ...

    @property
    def tls(self) -> TlsContexts: ...

    @property
    def dial(self) -> Dial:
        """Calls to the partner of this name at this address."""
        ...

    @property
    def membership(self) -> Membership: ...

    @property
    def access(self) -> LinkPolicy: ...

    @property
    def lines(self) -> Mapping[LineId, LineService]: ...

    @property
    def on_revoked(self) -> Callable[[], None]:
        """Called after a revocation of our own CA was adopted."""
        ...

    def service(self, line: LineId) -> LineService | None:
        """The service of a line that this node writes or follows, None for any other line."""
        ...

    def lenders(self, line: LineId) -> Sequence[BehindLender]:
        """Connected partners that may have the line and understand a question about contents."""
        ...

    def epochs_of(self, line: LineId) -> m.Epochs | None:
        """The epoch records to send of a line; None while the line has had only one writer."""
        ...

    def heard_epochs(self, who: NodeName, message: m.Epochs) -> None:
        """A peer sent epoch records; the line's machine judges them by their signatures."""

    def reported(self, line: LineId) -> set[NodeName]:
        """The nodes that have a report of this line in the store."""
        ...

    def pass_on(self, report: m.Report) -> None:
        """Send a partner's report on towards the writer, where this node is a hub."""

    def told_error(self, who: NodeName, error: m.ErrorReply) -> None:
        """A peer answered with an error on its stream."""

    def require_pages(self, signed: SignedGeneration, asked: Iterable[Digest]) -> None:
        """Raise ``PeerError`` unless every page belongs to this generation's manifest."""

    async def facts_of_line(self, service: LineService, key: bytes) -> tuple[tuple[str, str], ...]:
        """The built-in facts and those that the line's gates name, blinded with the peer's ``key``."""
        ...

    def tell_revocations(self) -> None:
        """Send this node's revocation list to every connected peer."""
