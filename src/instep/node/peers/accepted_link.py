"""One partner that dialled us: the offers and messages to it, and its reports."""

from __future__ import annotations

import asyncio

from instep.errors import InstepError, PeerError, UnavailableError
from instep.model.ids import HeadRef, LineId, NodeName
from instep.model.standing import Standing
from instep.net.messages import messages as m
from instep.net.messages.changing import LookReply
from instep.net.outbox import Outbox
from instep.net.service import PeerStream
from instep.node.lines.line_service import LineService
from instep.node.lines.signed_again import is_signed_since
from instep.node.peers.carrying import carry
from instep.node.peers.offering import is_other_offer, offer_of
from instep.node.peers.peer_clock import PeerClock
from instep.node.peers.peer_context import PeerContext
from instep.node.peers.questions.stream_requests import StreamRequests
from instep.node.runtime.driver import wall_ms

ANSWERS_MAX = 1_024
"""Of the messages that wait to leave, how many an asking partner may let wait."""
REPORT_BYTES_MAX = 64 << 10
REPORTS_MAX = 1_024


class AcceptedLink(StreamRequests):
    """Messages to the partner leave through an outbox."""

    def __init__(self, peers: PeerContext, who: NodeName, hello: m.Hello, stream: PeerStream) -> None:
        self.who = who
        self.hello = hello
        self.version = m.agree(m.VERSIONS, hello.versions)
        peers.access.takes[who] = hello.takes
        self.since_ms = wall_ms()
        self.last_heard_ms = self.since_ms
        self.accepted: dict[LineId, str] = {}
        """Lines that the partner accepted, with its path."""
        self.declined: set[LineId] = set()
        """Lines that the partner said it does not follow."""
        self.known: dict[LineId, HeadRef | None] = {
            line.line: line.head for line in hello.lines if peers.service(line.line) is not None
        }
        self._live = {line.line: line.live for line in hello.lines}
        """The generation of each line that the partner serves."""
        self.clock = PeerClock()
        self._peers = peers
        self._stream = stream
        self._outbox = Outbox()
        super().__init__()
        self._told_epochs: dict[LineId, m.Epochs] = {}
        self._offered: dict[LineId, m.Offer] = {}
        self._introduced: dict[LineId, m.Introductions] = {}
        self._noticed: dict[LineId, m.HeadNotice] = {}
        self._reader: asyncio.Task[None] | None = None
        self.ended: InstepError | OSError | None = None
        """Why the stream ended; None while it is open, and when this node ended it."""

    # Sending ------------------------------------------------------------------------------------------------

    def tell_head(self, head: m.Head) -> None:
        service = self._peers.service(head.line)
        known = self.known.get(head.line)
        self._outbox.put(head if service is None else service.with_beside(head, known))

    def tell_notice(self, service: LineService) -> None:
        """Send a partner that accepted a line what this hub knows of it, served here or not, when that changed."""
        head, is_accepted = service.facts.head, service.line in self.accepted
        if head is None or service.is_written_here or not is_accepted:
            return
        notice = m.HeadNotice(service.line, head, service.standing.standing is Standing.UNREACHABLE)
        is_theirs = self._peers.access.why_not(self.who, service) is None
        if is_theirs and self._noticed.get(service.line) != notice:
            self._noticed[service.line] = notice
            self._outbox.put(notice)

    def tell_word(self, service: LineService) -> None:
        """Send a partner that accepted a line the newest word of its writer."""
        is_theirs = service.line in self.accepted and self._peers.access.why_not(self.who, service) is None
        takes_it = is_theirs and service.writer != self.who and "fresh" in self.hello.takes
        message = self._peers.freshness.of_line(service) if takes_it else None
        if message is not None:
            self._outbox.put(message)

    def tell_order(self, order: m.OrderMessage) -> None:
        """Orders are levels: of all that wait for one line the newest is enough. A partner of a version without them
        applies when it is ready."""
        if m.since(m.OrderMessage) <= self.version:
            self._outbox.put(order)

    def tell_epochs(self, line: LineId) -> None:
        """Send the writers' records of a line that the partner named itself, once for each change: also when this
        node does not write it any more and lets the partner have nothing of it."""
        named = line in self.accepted or any(known.line == line for known in self.hello.lines)
        message = self._peers.epochs_of(line) if named else None
        if message is not None and self._told_epochs.get(line) != message:
            self._told_epochs[line] = message
            self.tell(message)

    def tell(self, message: m.StreamMessage) -> None:
        """Queue a message. A partner that lets too many pile up is cut: it comes back and gets the present state."""
        if not self._outbox.add(message) and self._reader is not None:
            self._reader.cancel()

    def tell_members(self) -> None:
        """The newest word about all members, once however often it changes before it leaves."""
        self._outbox.put_members()

    def offer_all(self) -> None:
        """Offer what the partner may have now, withdraw what it may not have any more."""
        offered: dict[LineId, m.Offer] = {}
        for service in self._peers.lines.values():
            offer = self._offer_of(service)
            if offer is not None:
                offered[service.line] = offer
        for line, old in self._offered.items():
            if line not in offered:
                self._withdraw(old)
        for line, offer in offered.items():
            self._introduce(self._peers.lines[line])
            if self._offered.get(line) != offer:
                self.tell(offer)
            self._tell_news(self._peers.lines[line])
        self._offered = offered

    def announce(self, head: m.Head) -> None:
        """Send a new head to a partner that may have it and did not send it itself. The offer of the line comes first,
        where the present one was not sent yet."""
        self.offer_again(head.line)
        service = self._peers.service(head.line)
        if service is not None and self._peers.access.why_not(self.who, service) is None:
            self._introduce(service)
            if not self._is_theirs(head):
                self.tell_head(head)

    def _is_theirs(self, head: m.Head) -> bool:
        """Whether the partner sent this head here, or reported that it serves it. One that knows it only may need
        this node as a source."""
        ref = head.generation.ref()
        sender = self._peers.senders.get(self.who)
        sent = None if sender is None else sender.their_heads.get(head.line)
        is_theirs = ref in (sent, self._live.get(head.line))
        return is_theirs and not is_signed_since(self._peers.runtime, head)

    def _introduce(self, service: LineService) -> None:
        """Send the keys of the nodes that signed a line which this node passes on, where they changed."""
        message = self._peers.introducing.of_line(service) if "introductions" in self.hello.takes else None
        if message is not None and self._introduced.get(service.line) != message:
            self._introduced[service.line] = message
            self.tell(message)

    def offer_again(self, line: LineId) -> None:
        """Offer one line where the partner was not offered it, or as something else. A hub knows what a line is only
        once its first head is here, and any head may bring another definition."""
        service, old = self._peers.service(line), self._offered.get(line)
        offer = self._offer_of(service) if service is not None else None
        if offer is None:
            if old is not None:
                self._withdraw(self._offered.pop(line))
        elif old is None or is_other_offer(old, offer):
            if service is not None:
                self._introduce(service)
            self._offered[line] = offer
            self.tell(offer)

    def _offer_of(self, service: LineService) -> m.Offer | None:
        may_have = self._peers.access.why_not(self.who, service) is None
        if not may_have or (service.writer == self.who and not self._is_short_of(service)):
            return None
        return offer_of(service)

    def _withdraw(self, offer: m.Offer) -> None:
        self.tell(m.Offer(offer.line, offer.writer, offer.mode, offer.fileset_class, is_withdrawn=True))

    def _is_short_of(self, service: LineService) -> bool:
        """Whether the line's own writer greeted with less than is live here: one that was given the line and then put
        back to an older state gets the base of its epoch from any node that has it."""
        told = next((known.head for known in self.hello.lines if known.line == service.line), None)
        live = service.live
        return live is not None and (told is None or told.position < live.position)

    def _tell_known(self, line: LineId) -> None:
        """A line was accepted just now: its head may have been sent before the partner listened."""
        service = self._peers.service(line)
        if service is not None and self._peers.access.why_not(self.who, service) is None:
            self._tell_news(service)
            self.tell_notice(service)
            self.tell_word(service)

    def _tell_news(self, service: LineService) -> None:
        """Send the line's head unless the partner knows it."""
        message, known = service.head_message(self.who, with_bundle=False), self.known.get(service.line)
        if message is not None and (
            known is None
            or known.id != message.generation.id
            or is_signed_since(self._peers.runtime, message)
        ):
            self.tell_head(message)

    def tell_signed_again(self) -> None:
        """This node has another signing certificate: the partner gets the heads that are written here under it."""
        for service in self._peers.lines.values():
            if service.is_written_here and self._peers.access.why_not(self.who, service) is None:
                self._tell_news(service)

    def resend(self) -> int:
        """Announce every head that the partner may have again; how many."""
        count = 0
        for service in self._peers.lines.values():
            message = service.head_message(self.who, with_bundle=False)
            if message is not None and self._peers.access.why_not(self.who, service) is None:
                self.tell_head(message)
                self.tell(m.Nudge(service.line, "resend"))
                count += 1
        return count

    # Life ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Welcome the partner and serve it until it goes."""
        runtime = self._peers.runtime
        lines = tuple(
            m.KnownLine(service.line, service.head, service.live)
            for service in self._peers.lines.values()
            if self._peers.access.why_not(self.who, service) is None
        )
        self._reader = asyncio.current_task()
        welcome = m.Welcome(
            version=self.version,
            name=runtime.name,
            session=runtime.session,
            time_ms=wall_ms(),
            lines=lines,
            sign_key=runtime.pki.sign_key,
            poll_ms=runtime.settings.poll_ms,
            takes=m.TAKES,
            seen_at=self._stream.address,
        )
        await self._stream.send(welcome)
        self._peers.membership.met(self.who, self.hello, self._stream.address)
        self.tell_members()
        self.tell(m.Revocations(runtime.pki.crl_pem()))
        for known in self.hello.lines:
            self.tell_epochs(known.line)
        self.offer_all()
        self.tell(m.Ping(0))
        listeners = self._peers.freshness.listeners
        if "fresh" in self.hello.takes:
            listeners[self.who] = self
        try:
            pump = self._outbox.pump(self._stream, self._peers.membership.members_message)
            last = await carry(self._stream, self._peers.lines, self._take, self._heard, pump)
            reason = f"it said goodbye: {last.reason}" if last is not None else "it closed the connection"
            self.ended = UnavailableError(reason, code="closed")
        except (InstepError, OSError) as error:
            self.ended = error
            if isinstance(error, PeerError):
                text = f"{self.who} was cut: {error.reason}"
                runtime.note_of_peer(self.who, "peer_refused", text, code=error.error_code, node=self.who)
                raise
        finally:
            if listeners.get(self.who) is self:
                del listeners[self.who]
            self._end_asking()

    async def close(self, reason: str) -> None:
        await self._stream.close(reason)

    def abandon(self, reason: str) -> None:
        """Close from a place that cannot wait."""
        self.tell(m.Goodbye(reason))
        if self._reader is not None:
            self._reader.cancel()

    def _heard(self) -> None:
        self.last_heard_ms = wall_ms()

    def _take(self, message: m.StreamMessage) -> None:  # noqa: C901  one line a kind
        if self._outbox.waiting >= ANSWERS_MAX:
            raise PeerError(f"{self.who} asks and does not read the answers", code="too_many_messages")
        match message:
            case m.Report():
                self._reported(message)
            case m.OfferReply(line, is_accepted, path):
                service = self._peers.service(line)
                if is_accepted and service is not None:
                    self.accepted[line] = path
                    self.tell_epochs(line)
                    self.declined.discard(line)
                    self._tell_known(line)
                else:
                    self.accepted.pop(line, None)
                    self.declined.update((line,) if service is not None else ())
                    self._peers.end_report(line, self.who)
                if service is not None:
                    service.partners_changed()
                self._peers.runtime.tell()
            case m.Head():
                service = self._peers.service(message.line)
                if service is not None and (service.is_written_here or service.writer == self.who):
                    service.head_seen(self.who, message)
            case m.Epochs():
                self._peers.heard_epochs(self.who, message)
            case m.HeadNotice(line, head):
                if self._peers.service(line) is not None:
                    self.known[line] = head
            case m.Pong(number, time_ms):
                self.clock.told(time_ms)
                if number == 0:
                    for service in self._peers.lines.values():
                        service.partner_told(self.who)
                self._requests.answer(number, message)
            case m.Ping(number):
                self.tell(m.Pong(number, wall_ms()))
            case m.Revocations(crl):
                if self.who not in self._peers.runtime.pki.pins.certificates():
                    self._peers.take_revocations(crl)
            case m.Members():
                self._peers.membership.told_self(self.who, message)
            case (
                m.PagesReply()
                | m.HasReply()
                | m.PartsReply()
                | m.VerifyReply()
                | m.FactsReply()
                | m.TakeOverReply()
                | m.TestReply()
                | m.SyncReply()
                | m.DrainReply()
                | LookReply()
            ):
                self._requests.answer(message.number, message)
            case m.ErrorReply():
                self._peers.told_error(self.who, message)
            case _:
                raise PeerError(
                    f"{self.who} sent a {type(message).__name__} to its sender", code="unexpected_message"
                )

    def _reported(self, report: m.Report) -> None:
        """A report is the partner's word about itself, or a hub's about nodes behind it (``via``)."""
        if report.node != self.who and report.via != self.who:
            raise PeerError(f"{self.who} reported for {report.node}", code="unexpected_message")
        service = self._peers.service(report.line)
        if service is None or self._peers.access.why_not(self.who, service) is not None:
            return
        raw = m.encode(report)
        if len(raw) > REPORT_BYTES_MAX:
            raise PeerError(f"{self.who} sent a report of {len(raw)} bytes", code="too_large")
        if report.node == self.who:
            self.known[report.line], self._live[report.line] = report.head, report.live
            self._peers.reported(report.line)[report.node] = True
        elif not self._may_pass_on(report):
            return
        if report.is_ended:
            self._peers.end_report(report.line, report.node)
            self._peers.runtime.tell()
            return
        self._peers.note_report(report)
        self._peers.runtime.deferred.write(
            (report.line, report.node), lambda store: store.save_report(report.line, report.node, raw)
        )
        service.reported(report)
        self._peers.pass_on(report)
        self._peers.runtime.tell()

    def _may_pass_on(self, report: m.Report) -> bool:
        """Whether a hub's word about another node is taken: not about us, nor about nodes that speak for themselves,
        nor about more nodes than a cluster has, nor one that came before: hubs that pass reports on to each other would
        do so for ever."""
        known = self._peers.reported(report.line)
        if report.node == self._peers.runtime.name or known.get(report.node, False):
            return False
        if report.node not in known and (report.is_ended or len(known) >= REPORTS_MAX):
            return False
        if not self._peers.is_news(report):
            return False
        known[report.node] = False
        return True
