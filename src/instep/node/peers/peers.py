"""The node's connections: streams of partners that dialled us, and links to those that we dial.

The port ``PeerService`` answers requests, the port ``LineNet`` serves the lines. ``LinkPolicy`` alone decides which
peer may have which line; everything that a peer sends is handed to a machine or stored as a claim, never obeyed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable, Iterator

import msgspec

from instep.errors import InstepError, NotAllowedError, UnavailableError
from instep.model.generation import SignedGeneration
from instep.model.ids import Digest, HeadRef, LineId, NodeName
from instep.model.rollout import Order
from instep.net.connections.tls import TlsContexts
from instep.net.messages import messages as m
from instep.net.messages.faults import reply_of_error
from instep.net.service import PeerStream
from instep.net.task_group import TaskGroup
from instep.net.transfer import TransferAnswer
from instep.node.following.page_fetch import Fetcher
from instep.node.lines.line_service import LineService
from instep.node.peers.accepted_link import AcceptedLink
from instep.node.peers.dialled_link import DialledLink
from instep.node.peers.home_calls import HomeCalls
from instep.node.peers.membership import Membership
from instep.node.peers.new_names import NewNames
from instep.node.peers.offering import offer_of
from instep.node.peers.peer_context import Dial
from instep.node.peers.questions.passed_changes import PassedChanges
from instep.node.runtime.driver import wall_ms
from instep.node.runtime.runtime import Runtime
from instep.node.trees.keeping.page_walk import generation_gone
from instep.node.trees.keeping.shelf import chunk_pages_reply, entries_asked, entry_asked, pages_reply

ASK_S = 5.0
HEARD = "heard/"
"""Where the store has when a partner was heard of last before its connection ended."""
log = logging.getLogger(__name__)


class Peers(HomeCalls):
    """Sessions (peers that dialled us) and uplinks (peers that we dial), and the lines that flow over them."""

    def __init__(self, runtime: Runtime, tls: TlsContexts, membership: Membership, dial: Dial) -> None:
        super().__init__(runtime, tls, membership, dial)
        membership.on_news = self.tell_members
        self.new_names = NewNames(runtime, membership)
        self.sessions: dict[NodeName, AcceptedLink] = {}
        self.uplinks: dict[NodeName, DialledLink] = {}
        self.senders = self.uplinks
        self.passed = PassedChanges()
        self._leaving: list[DialledLink] = []
        """Links that are ending."""
        self._verifying: set[NodeName] = set()
        self.copies: dict[NodeName, int] = {}
        """When another process with a connected partner's keys was last refused, by the wall clock."""

    def heard_ms(self, name: NodeName) -> int | None:
        """When anything came from a node last, over a connection that either side dialled; None for never."""
        session, uplink = self.sessions.get(name), self.uplinks.get(name)
        kept = self.runtime.store.get(f"{HEARD}{name}")
        found = [int(kept)] if kept is not None else []
        found += [session.last_heard_ms] if session is not None else []
        if uplink is not None and uplink.last_heard_ms is not None:
            found.append(uplink.last_heard_ms)
        return max(found, default=None)

    # LineNet: the port of the lines ---------------------------------------------------------------------------

    async def announce(self, head: m.Head) -> None:
        """Offer a head to every connected partner that may have it and does not know it."""
        for session in list(self.sessions.values()):
            session.announce(head)

    async def ask_partners(self, line: LineId) -> tuple[NodeName, ...]:
        """Ping every connected partner; their heads of our lines come before their answer."""
        sessions = list(self.sessions.values())
        async with TaskGroup() as group:
            asked = {s.who: group.create_task(s.asks_told(ASK_S)) for s in sessions}
        return tuple(who for who, task in asked.items() if task.result())

    async def fetch_pages(self, line: LineId, source: NodeName, head: HeadRef) -> None:
        """The writer's way back: pages of its own line from a partner's stream."""
        session = self.sessions.get(source)
        if session is None:
            raise UnavailableError(f"{source} is not connected", code="not_connected", node=source)
        await Fetcher(self.runtime).pages(line, head, None, session.fetch_pages)

    def order(self, line: LineId, node: NodeName, order: Order) -> None:
        """A rollout's order for a partner, sent only while it may have the line."""
        service, session = self.service(line), self.sessions.get(node)
        if service is not None and session is not None and self.access.why_not(node, service) is None:
            session.tell_order(m.OrderMessage(line, order))

    def connected(self, line: LineId) -> tuple[NodeName, ...]:
        """Partners whose stream is open and that may have the line."""
        service = self.service(line)
        if service is None:
            return ()
        return tuple(sorted(who for who in self.sessions if self.access.why_not(who, service) is None))

    def lenders(self, line: LineId) -> tuple[AcceptedLink, ...]:
        """Connected partners that have accepted the line and understand a question about contents."""
        service = self.service(line)
        if service is None:
            return ()
        return tuple(
            session
            for who, session in sorted(self.sessions.items())
            if "contents" in session.hello.takes and self.access.why_not(who, service) is None
        )

    def nudge(self, line: LineId, what: str) -> None:
        """Pass an operator's nudge on to every connected partner that follows the line."""
        for who in self.followers(line):
            session = self.sessions.get(who)
            if session is not None:
                session.tell(m.Nudge(line, what))

    def followers(self, line: LineId) -> tuple[NodeName, ...]:
        """Direct partners that may have the line and accepted it: they say so, or reported of it before."""
        service = self.service(line)
        if service is None:
            return ()
        found = []
        for who in sorted(self.runtime.settings.partners):
            session = self.sessions.get(who)
            has_said = session is not None and (line in session.accepted or line in session.declined)
            is_in = (
                line in session.accepted
                if session is not None and has_said
                else self.reported(line).get(who, False)
            )
            if is_in and who != service.writer and self.access.why_not(who, service) is None:
                found.append(who)
        return tuple(found)

    async def report(self, line: LineId) -> None:
        """Report the line's standing here to every sender of this line."""
        service = self.service(line)
        if service is None or service.is_written_here:
            return
        for uplink in self.uplinks.values():
            uplink.tell_report(service.report_message())
        for session in self.sessions.values():
            session.tell_notice(service)

    def report_all(self) -> None:
        """What every report says of this node has changed: report all lines that are followed here."""
        for service in self.lines.values():
            if not service.is_written_here:
                for uplink in self.uplinks.values():
                    uplink.tell_report(service.report_message())

    def epochs_changed(self, line: LineId) -> None:
        """The line's writer changed: send the records to every peer that named the line, over whichever stream there
        is."""
        for session in self.sessions.values():
            session.tell_epochs(line)
            session.offer_again(line)
        for uplink in self.uplinks.values():
            uplink.tell_epochs(line)

    def pass_on(self, report: m.Report) -> None:
        """A hub passes its partners' reports on towards the writer."""
        service = self.service(report.line)
        if service is None or service.is_written_here:
            return
        passed = self.dated(report)
        for uplink in self.uplinks.values():
            uplink.tell_report(passed)

    def _pass_on_lost(self, service: LineService, who: NodeName) -> None:
        """A node behind this hub is gone: the writer, which sees the hub alone, gets to know it."""
        report = None if service.is_written_here else service.reports().get(who)
        if report is not None and not report.via:
            self.pass_on(self.of_a_lost(report))

    def connected_partners(self) -> Collection[NodeName]:
        return self.sessions.keys()

    # Lines and settings changed -------------------------------------------------------------------------------

    def offers_changed(self) -> None:
        """Send every session its present offers, and dial the senders that must be dialled."""
        for session in self.sessions.values():
            session.offer_all()
        for service in self.lines.values():
            service.partners_changed()
        self._dial()

    def tell_members(self) -> None:
        """The record of a member has changed: send it to every connected partner."""
        for session in self.sessions.values():
            session.tell_members()
        self.runtime.tell()

    def tell_self(self) -> None:
        """How this node serves has changed."""
        for uplink in self.uplinks.values():
            uplink.tell_self()
        self.tell_members()

    def tell_heads_again(self) -> None:
        """This node signs with another certificate now: send the heads of its lines under that one."""
        for session in self.sessions.values():
            session.tell_signed_again()

    def skews_ms(self) -> dict[NodeName, int]:
        """The wall clocks of the connected peers, less this node's, as they told them last."""
        links = [(name, uplink.clock) for name, uplink in self.uplinks.items() if uplink.is_up]
        links += [(name, session.clock) for name, session in self.sessions.items()]
        return {name: skew for name, clock in links if (skew := clock.skew_ms) is not None}

    def tell_revocations(self) -> None:
        """Send our revocation list to every connected peer."""
        message = m.Revocations(self.runtime.pki.crl_pem())
        for session in self.sessions.values():
            session.tell(message)
        for uplink in self.uplinks.values():
            uplink.tell_revocations()

    def dial_anew(self, names: Iterable[NodeName]) -> None:
        """End links that this node dialled; the next handshake of one that was revoked is refused."""
        for name in names:
            self._hang_up(name)
        self._dial()

    def _hang_up(self, name: NodeName) -> None:
        """End the link to a partner, if there is one; ``close`` waits for its end."""
        uplink = self.uplinks.pop(name, None)
        if uplink is not None:
            uplink.stop()
            self._leaving = [*(link for link in self._leaving if not link.has_ended), uplink]

    def _dial(self) -> None:
        partners = self.runtime.settings.partners
        wanted = {name: str(each.address) for name, each in partners.items() if each.address is not None}
        for name in [name for name, uplink in self.uplinks.items() if wanted.get(name) != uplink.address]:
            self._hang_up(name)
        for name, address in wanted.items():
            if name not in self.uplinks:
                self.uplinks[name] = DialledLink(self, name, address)
                self.uplinks[name].start()

    async def close(self) -> None:
        for name in list(self.uplinks):
            self._hang_up(name)
        await asyncio.gather(*(link.ended() for link in self._leaving))
        for session in list(self.sessions.values()):
            await session.close("stopping")

    def cut(self, name: NodeName) -> None:
        """A partner was removed or revoked: end what runs with it."""
        for known in self._reported.values():
            known.pop(name, None)
        session = self.sessions.get(name)
        if session is not None:
            session.abandon("unlinked")
        self._hang_up(name)

    # PeerService ----------------------------------------------------------------------------------------------

    async def join(self, request: m.JoinRequest, address: str) -> m.JoinReply:
        return await self.membership.join(request, address, self._offers_to(request.name))

    async def federate(self, request: m.FederateRequest, address: str) -> m.FederateReply:
        return self.membership.federate(request, address, self._offers_to(request.name))

    def _offers_to(self, name: NodeName) -> tuple[m.Offer, ...]:
        """The lines that ``to`` does not keep from a node that comes with a token."""
        return tuple(filter(None, (offer_of(each) for each in self.lines.values() if each.offers_to(name))))

    async def renew(self, who: NodeName, request: m.RenewRequest) -> m.RenewReply:
        self.access.require_partner(who)
        return self.new_names.renew(who, request, tuple(self.lines.values()))

    async def heads(self, who: NodeName, request: m.HeadsRequest) -> m.HeadsReply:
        self.access.require_partner(who)
        heads: list[m.Head] = []
        refused: list[tuple[LineId, m.ErrorReply]] = []
        room, holds = m.HEADS_REPLY_BYTES_MAX // 2, {each.line: each.head for each in request.holds}
        for known in {known.line: known for known in request.lines}.values():
            try:
                service = self.access.require(who, self.service(known.line), known.line)
            except InstepError as error:
                refused.append((known.line, reply_of_error(error)))
                continue
            message = service.head_message(who, with_bundle=request.with_bundles)
            if message is None or (known.head is not None and message.generation.id == known.head.id):
                continue
            message = service.with_beside(message, holds.get(known.line, known.head))
            size = len(m.encode(message))
            if size > room and message.bundle is not None:
                message = msgspec.structs.replace(message, bundle=None, base=None)
                size = len(m.encode(message))
            if size <= room:  # the others come when these are known
                room -= size
                heads.append(message)
        return m.HeadsReply(tuple(heads), tuple(refused))

    def _checked(
        self, who: NodeName, line: LineId, generation: bytes
    ) -> tuple[LineService, SignedGeneration]:
        service = self.access.require(who, self.service(line), line)
        signed = self.runtime.store.generation(Digest(generation))
        if signed is None or signed.body().line != line:
            raise generation_gone(line, generation)
        return service, signed

    async def pages(self, who: NodeName, request: m.PagesRequest) -> m.PagesReply:
        _, signed = self._checked(who, request.line, request.generation)
        self.require_pages(signed, request.digests)
        return pages_reply(self.runtime.store, request)

    async def chunk_pages(self, who: NodeName, request: m.ChunkPagesRequest) -> m.PagesReply:
        _, signed = self._checked(who, request.line, request.generation)
        self.require_pages(signed, (request.page,))
        return chunk_pages_reply(self.runtime.store, self.belonging, request)

    async def holdings(self, who: NodeName, request: m.HoldingsRequest) -> m.HoldingsReply:
        live = self.access.require(who, self.service(request.line), request.line).live
        return m.HoldingsReply(tuple(live is not None and g == live.id for g in request.generations))

    async def facts(self, who: NodeName, request: m.FactsRequest) -> m.FactsReply:
        """Only to a peer that may have the line, only built-in facts and those that its gates name."""
        service = self.access.require(who, self.service(request.line), request.line)
        found = await self.facts_of_line(service, request.key)
        return m.FactsReply(found, wall_ms())

    async def verify(self, who: NodeName, request: m.VerifyRequest) -> m.VerifyReply:
        service = self.access.require(who, self.service(request.line), request.line)
        if who in self._verifying:
            raise UnavailableError(
                f"a verification for {who} is under way", code="busy", node=self.runtime.name
            )
        self._verifying.add(who)
        try:
            return await service.verify(is_deep=request.is_deep)
        finally:
            self._verifying.discard(who)

    async def contents(self, who: NodeName, request: m.ContentsRequest) -> Iterator[TransferAnswer]:
        service, signed = self._checked(who, request.line, request.generation)
        self.require_pages(signed, (want.page for want in request.wants))
        shelf = service.shelf().of(signed, service.head, who)
        return shelf.contents(entries_asked(self.runtime.store, request))

    async def ranges(self, who: NodeName, request: m.RangesRequest) -> Iterator[TransferAnswer]:
        service, signed = self._checked(who, request.line, request.generation)
        self.require_pages(signed, (request.page,))
        entry = entry_asked(self.runtime.store, request.page, request.position)
        return service.shelf().of(signed, service.head, who).ranges(entry, request.ranges)

    async def stream(self, who: NodeName, hello: m.Hello, stream: PeerStream) -> None:
        self.access.require_partner(who)
        if self.new_names.finish(who):
            self.on_revoked()
            self.tell_revocations()
        other = self.sessions.get(who)
        if other is not None and other.hello.session != hello.session and await other.is_alive():
            self.copies[who] = wall_ms()
            text = f"two nodes use the identity of {who}: the one that came second was refused"
            self.runtime.note_of_peer(who, "identity_in_use", text, node=who)
            self.runtime.tell()
            raise NotAllowedError(
                f"{who} is connected already from another process: two nodes use one identity",
                hint=f"stop the copy; a new server gets its own keys, on {self.runtime.name}: instep invite NAME",
                code="identity_in_use",
                node=who,
            )
        if other is not None:
            await other.close("replaced")
        session = AcceptedLink(self, who, hello, stream)
        self.sessions[who] = session
        if other is None:
            self.note_link(who, f"{who} is connected")
        self.runtime.tell()
        try:
            await session.run()
        finally:
            if self.sessions.get(who) is session:
                del self.sessions[who]
                heard = b"%d" % session.last_heard_ms
                self.runtime.deferred.write(("heard", who), lambda store: store.put(f"{HEARD}{who}", heard))
                if session.ended is not None:
                    self.note_link(who, f"{who} is not connected any more", session.ended)
                for service in self.lines.values():
                    service.partner_lost(who)
                    self._pass_on_lost(service, who)
            self.runtime.tell()
