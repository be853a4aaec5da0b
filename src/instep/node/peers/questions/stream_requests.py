"""A sender's questions to a partner over the partner's own stream: numbered, each with a deadline."""

from __future__ import annotations

import abc
from typing import TypeVar

import msgspec

from instep.errors import PeerError, RefusedError, UnavailableError
from instep.model.ids import LineId, NodeName
from instep.net.messages import messages as m
from instep.net.messages.changing import LookReply, LookRequest
from instep.net.messages.faults import error_of_reply
from instep.node.peers.peer_context import PeerContext
from instep.node.peers.questions.warrants import HAS_S, PARTS_S, reading_s, warrant_of
from instep.node.runtime.requests import Requests

ALIVE_S = 3.0

R = TypeVar("R", bound=msgspec.Struct)
E = TypeVar("E", m.TakeOverReply, m.TestReply, m.FactsReply, m.DrainReply)
L = TypeVar("L", m.HasReply, m.PartsReply)


class StreamRequests(abc.ABC):
    """The asking half of a session."""

    who: NodeName
    hello: m.Hello
    version: int
    _peers: PeerContext

    def __init__(self) -> None:
        self._requests: Requests[m.StreamMessage, m.StreamMessage] = Requests(self.tell)

    @abc.abstractmethod
    def tell(self, message: m.StreamMessage) -> None:
        """Queue a message."""

    def _end_asking(self) -> None:
        """The stream has ended: callers that wait for an answer get an error, and later callers get it at once."""
        self._requests.close(
            lambda: UnavailableError(f"{self.who} went away", code="not_connected", node=self.who)
        )

    async def _ask(self, kind: type[R], question: m.StreamMessage, within_s: float) -> R:
        """The answer to a question, which gets its number here."""
        try:
            reply = await self._requests.ask(
                lambda number: msgspec.structs.replace(question, number=number), within_s
            )
        except TimeoutError as error:
            raise UnavailableError(
                f"{self.who} did not answer within {within_s:.0f} s", code="timed_out", node=self.who
            ) from error
        if not isinstance(reply, kind):
            asked = question.__struct_config__.tag
            raise PeerError(f"{self.who} answered {asked} with {type(reply).__name__}", code="bad_answer")
        return reply

    async def _ask_or_raise(self, kind: type[E], question: m.StreamMessage, within_s: float) -> E:
        """The same, and an error that the answer carries is raised."""
        reply = await self._ask(kind, question, within_s)
        if reply.error is not None:
            raise error_of_reply(reply.error, self.who)
        return reply

    def _require(self, word: str, refusal: RefusedError) -> None:
        """Raise the refusal where the partner's version does not understand a question."""
        if word not in self.hello.takes:
            raise refusal

    async def asks_told(self, within_s: float) -> bool:
        """Whether the partner, asked now, reported all it holds of our lines."""
        try:
            await self._ask(m.Pong, m.Ping(0), within_s)
        except (UnavailableError, PeerError):
            return False
        return True

    async def look(self, line: LineId, within_s: float) -> bool:
        """Whether the partner, asked now, had all edits of before decided. False also for one of a version that does
        not know the question: its reports are all there is."""
        if "looks" not in self.hello.takes:
            return False
        try:
            question = LookRequest(0, line, int(within_s * 1000))
            return not (await self._ask(LookReply, question, within_s)).refusal
        except (UnavailableError, PeerError):
            return False

    async def is_alive(self) -> bool:
        """Whether the process at the other end still answers."""
        return await self.asks_told(ALIVE_S)

    async def fetch_pages(self, request: m.PagesRequest) -> m.PagesReply:
        """Pages by the partner's own stream: for a writer that lost them."""
        reply = await self._ask(m.PagesReply, request, 60.0)
        if reply.error is not None and not reply.pages:
            raise error_of_reply(reply.error, self.who)
        return reply

    async def verify(self, line: LineId, *, is_deep: bool, within_s: float) -> m.VerifyReply:
        """The root that the partner's tree really holds."""
        return await self._ask(m.VerifyReply, m.VerifyRequest(0, line, is_deep), within_s)

    async def could_take_over(
        self, line: LineId, partners: tuple[NodeName, ...], within_s: float
    ) -> tuple[m.Obstacle, ...]:
        """The obstacles to this partner going on with the line as its writer, for these nodes."""
        question = m.TakeOverRequest(0, line, partners)
        return (await self._ask_or_raise(m.TakeOverReply, question, within_s)).obstacles

    async def test(self, line: LineId, within_s: float) -> m.TestReply:
        """The present results of the partner's own probes and golden requests."""
        cannot = RefusedError(
            f"{self.who} runs a version of instep that cannot be tested from elsewhere",
            hint=f"on {self.who}: instep test {line.fileset}",
            code="cannot_test",
            node=self.who,
        )
        self._require("test", cannot)
        return await self._ask_or_raise(m.TestReply, m.TestRequest(0, line), within_s)

    async def sync(self, request: m.SyncRequest, within_s: float) -> m.SyncReply:
        """A command about a sync profile whose runs the partner carries out."""
        cannot = RefusedError(
            f"{self.who} runs a version of instep that cannot be asked about its sync runs from here",
            hint=f"on {self.who}: instep sync show {request.profile}",
            code="cannot_ask",
            node=self.who,
        )
        self._require("sync", cannot)
        reply = await self._ask(m.SyncReply, request, within_s)
        if reply.refusal is not None:
            why = reply.refusal
            error = m.ErrorReply(why.code, why.reason, hint=why.hint, exit_code=why.exit_code)
            raise error_of_reply(error, self.who)
        return reply

    async def facts(
        self, line: LineId, within_s: float, key: bytes = b"", names: tuple[str, ...] = ()
    ) -> m.FactsReply:
        """The partner's facts that the gates of a line written here are about, and others by their names."""
        key = key or self._peers.runtime.facts.key
        since = m.since(m.FactsRequest)
        if since > self.version:
            raise UnavailableError(
                f"{self.who} speaks protocol {self.version}, facts are sent since {since}",
                hint=f"upgrade instep on {self.who}; it looks at the gates itself in any case",
                code="version",
                node=self.who,
            )
        return await self._ask_or_raise(m.FactsReply, m.FactsRequest(line, 0, key, names), within_s)

    async def held(
        self,
        line: LineId,
        wants: tuple[m.Wanted, ...],
        *,
        warrant: m.Warrant | None = None,
        within_s: float | None = None,
    ) -> tuple[bool, ...]:
        """Which of these contents the partner has, or one behind it. ``warrant`` is that of another node, which is the
        line's writer."""
        within_s = HAS_S + reading_s(wants) if within_s is None else within_s
        shown = self._shown(line, warrant)
        question = m.HasRequest(0, line, wants, shown, int(within_s * 1000) if shown else 0)
        reply = await self._ask_lender(m.HasReply, question, within_s)
        if len(reply.is_there) != len(wants):
            raise PeerError(f"{self.who} answered {len(reply.is_there)} of {len(wants)}", code="bad_answer")
        return reply.is_there

    async def parts(
        self,
        line: LineId,
        wants: tuple[m.PartWant, ...],
        *,
        warrant: m.Warrant | None = None,
        within_s: float | None = None,
    ) -> tuple[m.Part, ...]:
        """The first of these parts of contents, as many as fit an answer."""
        within_s = PARTS_S + reading_s([each.wanted for each in wants]) if within_s is None else within_s
        shown = self._shown(line, warrant)
        question = m.PartsRequest(0, line, wants, shown, int(within_s * 1000) if shown else 0)
        reply = await self._ask_lender(m.PartsReply, question, within_s)
        if len(reply.parts) > len(wants):
            raise PeerError(f"{self.who} answered more than it was asked for", code="bad_answer")
        return reply.parts

    async def _ask_lender(self, kind: type[L], question: m.StreamMessage, within_s: float) -> L:
        reply = await self._ask(kind, question, within_s)
        if reply.refusal:
            raise UnavailableError(f"{self.who}: {reply.refusal}", code="contents_denied", node=self.who)
        return reply

    def _shown(self, line: LineId, warrant: m.Warrant | None) -> m.Warrant | None:
        """The warrant that goes along: none to a partner of a version that knows none."""
        if "warrant" not in self.hello.takes:
            return None
        return warrant if warrant is not None else warrant_of(self._peers, line, self.who)

    async def drain(self, *, is_drained: bool, reason: str, for_ms: int, within_s: float) -> m.DrainReply:
        """Ask the partner to be drained, or to end the drain that was asked for here. Its own configuration decides."""
        cannot = RefusedError(
            f"{self.who} runs a version of instep that cannot be drained from elsewhere",
            hint=f"on {self.who}: instep node {'drain' if is_drained else 'undrain'}",
            code="cannot_drain",
            node=self.who,
        )
        self._require("drain", cannot)
        question = m.DrainRequest(0, is_drained, reason, for_ms)
        return await self._ask_or_raise(m.DrainReply, question, within_s)
