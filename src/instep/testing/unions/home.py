"""A whole simulated home: its links with others, on top of its tree and its own line."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import takewhile
from typing import Any

import msgspec

from instep.core import vocabulary as w
from instep.core.heads import vocabulary as h
from instep.core.keep import vocabulary as k
from instep.core.publish import vocabulary as p
from instep.core.publish.own_line import own_at
from instep.core.unite import vocabulary as u
from instep.errors import PeerError, Retry
from instep.model.generation import SignedGeneration
from instep.model.ids import Digest, HeadRef, NodeName
from instep.model.manifest.check import missing
from instep.model.manifest.pages import digest_of
from instep.model.replication.union import UnionPart
from instep.net.messages import messages as m
from instep.testing.unions.disk import State
from instep.testing.unions.home_base import OWN, TREE, line_of
from instep.testing.unions.laid import DEFINITION
from instep.testing.unions.offer_side import HOME, OFFER, PARCEL
from instep.testing.unions.process import trouble
from instep.testing.unions.tree_side import TreeSide
from instep.testing.world.signatures import signed_by, verdict_of


class SimUnionHome(TreeSide):
    """``sessions`` are the open streams, each with what the other node was offered and sent."""

    def began(self) -> None:
        self.sessions: dict[str, dict[NodeName, HeadRef | None]] = {}
        self._sent_here: dict[tuple[str, NodeName], HeadRef] = {}
        self.announced: HeadRef | None = None
        self.sources = {}
        self.began_own()
        self.began_offers()
        self.began_tree()
        super().began()

    def ended(self) -> None:
        self.sessions.clear()

    def lose_state(self, older: State | None) -> None:
        """The node's directory is empty, or an older copy."""
        self.crash("its state is lost" if older is None else "its state is an older one")
        self.disk.state = State() if older is None else older.copy()
        self.disk.stage = None
        self.ledger.restored(self.name)
        self.ledger.restored(f"tree of {self.name}")

    def perform(self, machine: str, effect: Any) -> None:
        match effect:
            case w.KeepGeneration(signed):
                self.disk.state.generations[signed.id] = signed
            case w.KeepEpoch(signed):
                self.disk.state.epochs[signed.id] = signed
            case _ if machine == HOME:
                self.perform_home(effect)
            case _ if machine.startswith(OFFER):
                self.perform_offer(NodeName(machine.removeprefix(OFFER)), effect)
            case _ if machine == OWN:
                self.perform_own(effect)
            case _ if machine == TREE:
                self.perform_tree(effect)
            case _:
                self._perform_kept(NodeName(machine), effect)

    def _perform_kept(self, origin: NodeName, effect: Any) -> None:
        match effect:
            case k.SaveKept(facts):
                self.save(origin, facts)
                if facts.head is not None:
                    self.ledger.keeps(self.name, origin, facts.head)
            case k.KeptHead():
                self.parts_changed()
            case k.KeepStand():
                self.union_stands()
            case h.OfferHead(source, head):
                self._send_head(source, origin, head)
            case w.FetchPages(req, source, head):
                self.fetch(origin, req, source, origin, head, lambda: k.PartFetched(req, DEFINITION))
            case h.AskHeads(req, source):
                self._ask_heads(origin, req, source)
            case _:
                raise AssertionError(effect)

    # --- streams ----------------------------------------------------------------------------------------------

    def opened(self, other: str, *, is_dialer: bool) -> None:
        self.sessions[other] = {}
        for origin in (self.me, *self.disk.state.origins):
            self._tell(other, origin)

    def closed(self, other: str) -> None:
        self.sessions.pop(other, None)
        for origin in list(self.sources):
            self.later(0, partial(self._source_down, origin, NodeName(other)))

    def _source_down(self, origin: NodeName, other: NodeName) -> None:
        self._sent_here.pop((other, origin), None)
        if self.sources[origin].pop(other, self) is not self:
            self.take(origin, h.SourceDown(other))

    def set_hub(self, *, is_hub: bool) -> None:
        """The operator lets others have the lines of others, or not any more."""
        self.world.record(self.name, "!", "is a hub" if is_hub else "is no hub")
        self.is_hub = is_hub
        for other, told in self.sessions.items():
            for origin in self.disk.state.origins if self.is_alive else ():
                if is_hub:
                    self._tell(other, origin)
                elif told.pop(origin, self) is not self:
                    self._stream(other, self._offer(origin, is_withdrawn=True))

    def announce(self, origin: NodeName) -> None:
        if origin == self.me:
            self.announced = self.own_facts.head
        for other in self.sessions:
            self._tell(other, origin)

    def union_stands(self) -> None:
        """Partners behind this node get what is live."""
        for origin in self.disk.state.origins:
            self.announce(origin)

    def _served(self, origin: NodeName) -> HeadRef | None:
        return self.announced if origin == self.me else self.live_of(origin)

    def _tell(self, other: str, origin: NodeName) -> None:
        """Offer a line and send its newest head, once; not to the node that it came from."""
        head, told = self._served(origin), self.sessions[other]
        if origin == other or head is None or (origin != self.me and not self.is_hub):
            return
        if origin not in told:
            told[origin] = None
            self._stream(other, self._offer(origin))
        if told[origin] != head and self._sent_here.get((other, origin)) != head:
            told[origin] = head
            self._send_head(other, origin, head)

    def _offer(self, origin: NodeName, *, is_withdrawn: bool = False) -> m.Offer:
        return m.Offer(line_of(origin), origin, "replicate", "data", is_withdrawn=is_withdrawn)

    def _send_head(self, other: str, origin: NodeName, head: HeadRef) -> None:
        message = self.head_message(origin, head)
        if message is None:
            return
        if origin != self.me and self.chance(self.options.lies):
            message = self._lie(message)
        if message is not None:
            self._stream(other, message)

    def _lie(self, message: m.Head) -> m.Head | None:
        """A hub passes on an older generation, one of its own making, or none."""
        body = message.generation.body()
        match self.rng.randrange(3):
            case 0:
                return None
            case 1:
                older = [
                    each for each in self.disk.state.generations.values() if each.body().line == message.line
                ]
                return msgspec.structs.replace(message, generation=self.rng.choice(older))
            case _:
                forged = msgspec.structs.replace(
                    body, number=body.number + 1, root=self.unions.nothing().united.root
                )
                return msgspec.structs.replace(
                    message, generation=signed_by(self.name, SignedGeneration, forged)
                )

    def head_message(self, origin: NodeName, head: HeadRef) -> m.Head | None:
        signed = self.disk.state.generations.get(head.id)
        if signed is None:
            return None
        line = line_of(origin)
        epochs = [each for each in self.disk.state.epochs.values() if each.body().line == line]
        return m.Head(line, signed, tuple(sorted(epochs, key=lambda each: each.body().epoch)))

    def _stream(self, other: str, message: m.StreamMessage) -> None:
        self.net.stream(self.name, other, m.encode(message))

    def hear(self, sender: str, raw: bytes) -> None:
        if raw.startswith(PARCEL):
            if self.is_alive:
                self.parcel(sender, raw.removeprefix(PARCEL))
            return
        message = m.decode_stream(raw)
        if self.is_alive and sender in self.sessions:
            self.later(0, partial(self._heard, NodeName(sender), message))

    def _heard(self, sender: NodeName, message: m.StreamMessage) -> None:
        match message:
            case m.Offer(line=line, is_withdrawn=True):
                if line.origin in self.sources:
                    self._source_down(line.origin, sender)
            case m.Offer(line=line):
                self.keep_line(line.origin)
                self.sources[line.origin][sender] = None
                self.take(line.origin, h.SourceUp(sender, sender == line.origin))
                self.take(TREE, u.LineReachable(line.origin))
            case m.Head(line=line):
                if line.origin != self.me:
                    self._sent_here[sender, line.origin] = message.generation.ref()
                self._head_seen(sender, message)
            case _:
                raise AssertionError(message)

    def _head_seen(self, sender: NodeName, message: m.Head) -> None:
        origin, signed = message.line.origin, message.generation
        machine = OWN if origin == self.me else origin
        for record in message.epochs:
            self.take(machine, w.EpochSeen(sender, record, verdict_of(record)))
        if origin != self.me:
            self.take(machine, h.HeadSeen(sender, signed, verdict_of(signed)))
            return
        stored = self.disk.state.generations
        mine = {each.ref().position: each for each in stored.values() if each.body().origin == self.me}
        try:
            ours = own_at(signed.ref(), lambda epoch, number: mine.get((epoch, number)), stored.get)
        except PeerError:
            ours = None
        self.take(
            OWN, p.HeadOfOursSeen(sender, signed, verdict_of(signed), None if ours is None else ours.id)
        )

    # --- calls ------------------------------------------------------------------------------------------------

    def _call(self, other: str, request: Any, done: Callable[[bytes | None], None]) -> None:
        life = self.incarnation

        def answered(raw: bytes | None) -> None:
            if self.is_alive and self.incarnation == life:
                self.later(0, lambda: done(raw))

        self.net.call(self.name, other, m.encode(request), answered)

    def serve(self, asker: str, raw: bytes) -> bytes | None:
        request = msgspec.msgpack.decode(raw, type=m.HeadsRequest | m.PagesRequest)
        if isinstance(request, m.PagesRequest):
            pages = self.disk.state.pages
            known = takewhile(pages.__contains__, request.digests)
            return m.encode(m.PagesReply(tuple(pages[digest] for digest in known)))
        origin = request.lines[0].line.origin
        head = self.kept_facts(origin).head if origin == asker else self._served(origin)
        is_offered = origin in (self.me, asker) or self.is_hub
        message = self.head_message(origin, head) if head is not None and is_offered else None
        return m.encode(m.HeadsReply(() if message is None else (message,)))

    def _ask_heads(self, origin: NodeName, req: int, source: NodeName) -> None:
        def done(raw: bytes | None) -> None:
            if raw is None:
                self.answer(origin, req, h.AskFailed(req, source, trouble("unavailable")))
                return
            for message in m.decode(raw, m.HeadsReply).heads:
                self._head_seen(source, message)
            self.answer(origin, req, h.HeadsAnswered(req, source))

        self._call(source, m.HeadsRequest((m.KnownLine(line_of(origin)),)), done)

    def ask_partners(self, req: int) -> None:
        waiting = dict.fromkeys(self.partners)
        answered: list[NodeName] = []

        def done(name: NodeName, raw: bytes | None) -> None:
            waiting.pop(name, None)
            if raw is not None:
                for message in m.decode(raw, m.HeadsReply).heads:
                    self._head_seen(name, message)
                answered.append(name)
            if not waiting:
                self.post(OWN, p.PartnersAnswered(req, tuple(answered)))

        for name in self.partners:
            self._call(name, m.HeadsRequest((m.KnownLine(line_of(self.me)),)), partial(done, name))

    def fetch(
        self,
        machine: str,
        req: int,
        source: NodeName,
        origin: NodeName,
        head: HeadRef,
        done: Callable[[], Any],
    ) -> None:
        def ended(failed: w.Trouble | None) -> None:
            if failed is None:
                self.answer(machine, req, done())
            elif failed.code == "superseded" and machine != OWN:
                self.answer(machine, req, h.HeadSuperseded(req))
            else:
                self.answer(machine, req, w.FetchFailed(req, failed))

        self._pages(source, origin, head, ended)

    def fetch_part(self, part: UnionPart) -> None:
        names = self.sessions if part.origin == self.me else self.sources.get(part.origin, {})
        for name in list(names):
            self._pages(NodeName(name), part.origin, part.head, partial(self._part_ended, part.origin))

    def _part_ended(self, origin: NodeName, failed: w.Trouble | None) -> None:
        if origin == self.me and failed is not None and failed.code == "superseded":
            self.asked_in_vain = True

    def _pages(
        self, source: NodeName, origin: NodeName, head: HeadRef, done: Callable[[w.Trouble | None], None]
    ) -> None:
        """Level by level, each page compared with its digest."""
        wanted = tuple(missing(head.root, self.disk.state.pages.get)[: m.DIGESTS_MAX])
        if not wanted:
            done(None)
            return

        def arrived(raw: bytes | None) -> None:
            pages = () if raw is None else m.decode(raw, m.PagesReply).pages
            if raw is None or not pages:
                done(trouble("unavailable") if raw is None else trouble("superseded", 6))
                return
            for digest, page in zip(wanted, pages, strict=False):
                if digest_of(page) != digest:
                    done(trouble("wrong_page", 9, Retry.ELSEWHERE))
                    return
                self.disk.state.pages[Digest(digest)] = page
            self._pages(source, origin, head, done)

        self._call(source, m.PagesRequest(line_of(origin), head.id, wanted), arrived)
