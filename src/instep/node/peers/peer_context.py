"""The port of one link or session to the node's other connections, so that links do not know ``Peers``."""

from __future__ import annotations

import abc
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import msgspec

from instep.errors import InstepError
from instep.model.generation import SignedGeneration
from instep.model.ids import Digest, FilesetName, HeadRef, LineId, NodeName
from instep.model.standing import Standing, StandingRecord
from instep.net.connections.tls import TlsContexts
from instep.net.messages import messages as m
from instep.net.messages.faults import error_of_reply
from instep.net.service import PeerCalls
from instep.node.facts.facts import told
from instep.node.lines.epoch_records import epoch_of, records_of, unknown
from instep.node.lines.gating import known_gates
from instep.node.lines.line_service import LineService
from instep.node.lines.snapshot import reports_of
from instep.node.lines.standing_events import StandingEvents
from instep.node.peers.link_policy import LinkPolicy
from instep.node.peers.membership import Membership
from instep.node.peers.network.freshness import Freshness
from instep.node.peers.network.introducing import Introducing
from instep.node.runtime.driver import own_error, wall_ms
from instep.node.runtime.runtime import Runtime
from instep.node.runtime.signers import verdict_on
from instep.node.trees.keeping.page_walk import PageMembership

HEARD_AHEAD_MAX = 64
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


class SenderLink(Protocol):
    """A link to a node that may send lines."""

    offers: dict[LineId, m.Offer]
    their_heads: dict[LineId, HeadRef | None]

    def take_up(self, line: LineId) -> None: ...

    def let_go(self, line: LineId) -> None: ...


class PeerContext(abc.ABC):
    """The node as its links see it: lines, members, and the acts that concern every other link."""

    def __init__(self, runtime: Runtime, tls: TlsContexts, membership: Membership, dial: Dial) -> None:
        self.runtime = runtime
        self.tls = tls
        self.membership = membership
        self.dial = dial
        """Calls to the partner of this name at this address."""
        self.access = LinkPolicy(runtime)
        self.introducing = Introducing(runtime, membership)
        self.lines: dict[LineId, LineService] = {}
        self.freshness = Freshness(runtime, self.lines, self.skews_ms)
        self.senders: Mapping[NodeName, SenderLink] = {}
        self.highest_heard: dict[LineId, int] = {}
        """The highest epoch that a node of the cluster signed for, accepted here or not: a promotion goes above it."""
        self.on_revoked: Callable[[], None] = lambda: None
        """Called after a revocation of our own CA was adopted."""
        self.on_offer: Callable[[m.Offer], None] = lambda _: None
        """Called with each offer before it is answered: it may bring a new line of a fileset of many."""
        self.on_sync: Callable[[NodeName, m.SyncRequest], Awaitable[m.SyncReply]]
        """Answers commands about sync profiles of other nodes; set by the daemon."""
        self.belonging = PageMembership()
        self._reported: dict[LineId, dict[NodeName, bool]] = {}
        self._passed_ms: dict[tuple[LineId, NodeName], int] = {}
        """The moment of the newest report of each node that this hub passed on."""
        self._standings: dict[tuple[LineId, NodeName], StandingEvents] = {}
        self._drifts: dict[tuple[LineId, NodeName], int] = {}
        """When a partner last archived or restored local changes, by its own clock."""
        self._refused_configs: dict[NodeName, str] = {}
        self._fresh: set[tuple[LineId, NodeName]] = set()
        """Whose reports came since this node started; other reports of the store are of before."""

    @abc.abstractmethod
    def lenders(self, line: LineId) -> Sequence[BehindLender]:
        """Connected partners that may have the line and understand a question about contents."""

    @abc.abstractmethod
    def pass_on(self, report: m.Report) -> None:
        """Send a partner's report on towards the writer, where this node is a hub."""

    @abc.abstractmethod
    def skews_ms(self) -> dict[NodeName, int]:
        """The wall clocks of the connected peers, less this node's."""

    @abc.abstractmethod
    def connected_partners(self) -> Collection[NodeName]:
        """The nodes whose connections were accepted here."""

    @abc.abstractmethod
    def tell_revocations(self) -> None:
        """Send this node's revocation list to every connected peer."""

    def service(self, line: LineId) -> LineService | None:
        """The service of a line that this node writes or follows, None for any other line."""
        return self.lines.get(line)

    def add_line(self, service: LineService) -> None:
        """A line of another home in a fileset of many begins."""
        self.lines[service.line] = service
        for link in self.senders.values():
            link.take_up(service.line)

    def drop_line(self, line: LineId) -> None:
        """It is not kept here any more."""
        self.lines.pop(line, None)
        for link in self.senders.values():
            link.let_go(line)

    def offers_of(self, fileset: FilesetName) -> tuple[m.Offer, ...]:
        """The lines of this fileset that are offered here now."""
        offers = (offer for link in self.senders.values() for offer in link.offers.values())
        return tuple(offer for offer in offers if offer.line.fileset == fileset)

    def offerers(self, line: LineId) -> tuple[NodeName, ...]:
        """The connected senders that offer this line now."""
        return tuple(name for name, link in self.senders.items() if line in link.offers)

    def epochs_of(self, line: LineId) -> m.Epochs | None:
        """The message about the writers of a line; None while it has had only one."""
        service = self.service(line)
        if service is None or service.facts.epochs.current is None or service.facts.epochs.current.epoch < 2:
            return None
        return m.Epochs(line, records_of(self.runtime, line, service.facts.epochs))

    def heard_epochs(self, who: NodeName, message: m.Epochs) -> None:
        """A peer sent the records of a line's writers; the machine judges the records by their signatures."""
        service = self.service(message.line)
        if service is None:
            return
        book = service.facts.epochs
        known = book.current.epoch if book.current is not None else 0
        for record in unknown(message.records, book):
            epoch = epoch_of(record)
            is_near = epoch <= known + HEARD_AHEAD_MAX  # one node alone cannot use up the numbers
            if is_near and verdict_on(self.runtime, record.signature, record.id).is_valid:
                self.highest_heard[message.line] = max(self.highest_heard.get(message.line, 0), epoch)
        service.epochs_seen(who, message.records)

    def reported(self, line: LineId) -> dict[NodeName, bool]:
        """The nodes of whose reports the store holds one, and whether it is the node's own word, not a hub's; read
        once."""
        known = self._reported.get(line)
        if known is None:
            reports = reports_of(self.runtime.store, line)
            known = self._reported[line] = {name: not report.via for name, report in reports.items()}
        return known

    def end_report(self, line: LineId, node: NodeName) -> None:
        """The node does not follow the line any more: its last report says nothing, here and at the senders."""
        if self.reported(line).pop(node, None) is None:
            return
        self._fresh.discard((line, node))
        self._standings.pop((line, node), None)
        self._drifts.pop((line, node), None)
        self.runtime.deferred.write((line, node), lambda store: store.delete_report(line, node))
        record = StandingRecord(
            Standing.UNKNOWN, wall_ms(), f"{node} does not follow it any more", "not_accepted"
        )
        self.pass_on(m.Report(line, node, None, None, record, at_ms=wall_ms(), is_ended=True))

    def is_news(self, report: m.Report) -> bool:
        """Whether a report that a hub passed on is newer than the last one that this hub passed on itself."""
        return report.at_ms > self._passed_ms.get((report.line, report.node), -1)

    def dated(self, report: m.Report) -> m.Report:
        """The report as this hub passes it on. The hub that has it from the node itself lets the moments of its reports
        rise, whatever the node's clock does: hubs behind it take no older one."""
        key, at_ms = (report.line, report.node), report.at_ms
        if not report.via:
            at_ms = max(at_ms, self._passed_ms.get(key, -1) + 1)
        self._passed_ms[key] = at_ms
        return msgspec.structs.replace(report, via=self.runtime.name, at_ms=at_ms)

    def has_reported(self, line: LineId, node: NodeName) -> bool:
        """As ``LineNet``."""
        return (line, node) in self._fresh

    def reports_behind(self, service: LineService) -> Iterator[m.Report]:
        """What a hub passes on to a sender that it has a connection with again: the reports of the nodes behind it, but
        for those of before this node started."""
        for name, report in service.reports().items():
            if self.has_reported(service.line, name):
                is_connected = NodeName(report.via or name) in self.connected_partners()
                if is_connected or not report.via:
                    known = report if is_connected else self.of_a_lost(report)
                    passed_ms = self._passed_ms.get((service.line, name), 0)
                    at_ms = max(known.at_ms, passed_ms)
                    yield msgspec.structs.replace(known, via=self.runtime.name, at_ms=at_ms)

    def of_a_lost(self, report: m.Report) -> m.Report:
        """What a hub passes on of a node behind it that is not connected any more, after this last report."""
        who = report.node
        why = f"{who} is not connected to {self.runtime.name}; before: {report.standing.standing.value}"
        steps = (f"on {who}: instep status; instep check",)
        record = StandingRecord(Standing.UNREACHABLE, wall_ms(), why, "not_connected", steps)
        return msgspec.structs.replace(report, standing=record, at_ms=report.at_ms + 1)

    def note_link(self, who: NodeName, text: str, error: InstepError | OSError | None = None) -> None:
        """A connection with this node began, or ended with ``error``."""
        if error is None:
            self.runtime.note_of_peer(who, "link_up", text, node=who)
        else:
            trouble = own_error(error)
            text = f"{text}: {trouble.reason}"
            self.runtime.note_of_peer(who, "link_down", text, node=who, code=trouble.error_code)

    def note_report(self, report: m.Report) -> None:
        """What a report says of another node is an event here, where it is trouble or the end of trouble."""
        node, refused, key = report.node, report.refused_config, (report.line, report.node)
        self._fresh.add(key)
        if key not in self._standings:
            self._standings[key] = StandingEvents(self.runtime, *key)
        self._standings[key].take(report.standing)
        if key not in self._drifts:
            before = reports_of(self.runtime.store, report.line).get(node)
            self._drifts[key] = before.drift[1] if before is not None else 0
        text, at_ms = report.drift
        if at_ms > self._drifts[key]:
            self.runtime.note_of_peer(node, "drift_reverted", f"{node}: {text}", report.line, node=node)
            self._drifts[key] = at_ms
        if refused != self._refused_configs.get(node, ""):
            self._refused_configs[node] = refused
            is_refused = "is refused: " + refused if refused else "is in use again"
            kind = "config_refused" if refused else "config_taken"
            self.runtime.note_of_peer(node, kind, f"instep.toml of {node} {is_refused}", node=node)

    def told_error(self, who: NodeName, error: m.ErrorReply) -> None:
        """A peer answered with an error on its stream."""
        reason = error_of_reply(error, who).reason
        self.runtime.note_of_peer(who, "peer_error", f"{who} answers: {reason}", code=error.code, node=who)

    def take_revocations(self, crl: bytes) -> None:
        """A peer's lists: a new revocation cuts both directions at once, and is passed on."""
        if self.membership.adopt_crl(crl):
            self.on_revoked()
            self.tell_revocations()

    def require_pages(self, signed: SignedGeneration, asked: Iterable[Digest]) -> None:
        """``PeerError`` unless all these pages are of this generation's manifest."""
        self.belonging.require(signed.body().root, asked, self.runtime.store.get_page)

    async def facts_of_line(
        self, service: LineService, key: bytes, names: Sequence[str] = ()
    ) -> tuple[tuple[str, str], ...]:
        """The built-in facts, those that the line's gates name, and those of ``names``, for a peer that asked with
        ``key``."""
        gates = [gate.name for gate in known_gates(service.known_definition())[0]]
        asked = [*gates, *(name for name in names if name not in gates)]
        found = await self.runtime.facts.facts(self.runtime.settings, service.fileset, asked)
        return tuple(sorted(told(found, key).items()))
