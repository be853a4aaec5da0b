"""Requests of partners to the home of a line: locks and submitted changes. Which partner may ask is decided here, all
else by the home."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence

import msgspec

from instep.core.sync.bases import with_mark
from instep.core.vocabulary import error_of
from instep.errors import InstepError, PeerError, RefusedError
from instep.model.change import change_set_of
from instep.model.ids import Digest, LineId, NodeName
from instep.model.sync import RUN_MAX, SyncMark
from instep.net.messages import messages as m
from instep.net.messages.changing import LOCKS_MAX
from instep.net.messages.syncing import (
    CARRIERS_MAX,
    EDITS_SENT,
    SERVERS_MAX,
    BasesReply,
    BasesRequest,
    DifferenceReply,
    DifferenceRequest,
    NodeFacts,
)
from instep.net.transfer import TransferAnswer
from instep.node.lines.line_home import LineHome
from instep.node.lines.line_service import LineService
from instep.node.lines.line_standing import REASON_MAX
from instep.node.peers.accepted_link import AcceptedLink
from instep.node.peers.peer_context import PeerContext
from instep.node.peers.questions.passed_changes import PassedChanges
from instep.node.profiles.answered_sets import made_by
from instep.node.profiles.bases import base_with
from instep.node.profiles.known_profiles import MOVED, keep_news, known_profiles, last_run, require_known
from instep.node.profiles.line_generations import has_generation
from instep.node.profiles.rollbacks import rollbacks_of
from instep.node.runtime.driver import wall_ms
from instep.node.trees.keeping.page_walk import generation_gone
from instep.node.trees.keeping.shelf import difference_reply, pages_reply

SYNC_MARKS = "sync/marks/"
"""Where the store has the marks of the bases of such a profile, by line, profile and carrier."""
FACTS_S = 20.0
FLUSH_S = 600.0
"""The longest that a home publishes before it says that it could not."""


class HomeCalls(PeerContext):
    """The calls of ``PeerService`` about locks and changes."""

    sessions: dict[NodeName, AcceptedLink]
    passed: PassedChanges

    def tell_holder(self, node: NodeName, news: m.LockNotice) -> None:
        """Send the node of an owner that its lock ended."""
        session = self.sessions.get(node)
        if session is not None and session.version >= m.since(m.LockNotice):
            session.tell(news)

    async def lock(self, who: NodeName, request: m.LockRequest) -> m.LockReply:
        hub = self._passes(who, request.line)
        if hub is not None:
            return await self.passed.lock(who, hub, request)
        home = self._home(who, request.line, takes_edits=request.fence is None)
        return m.LockReply(await home.lock(who, request))

    async def unlock(self, who: NodeName, request: m.UnlockRequest) -> m.LockReply:
        hub = self._passes(who, request.line)
        if hub is not None:
            return await self.passed.unlock(who, hub, request)
        return m.LockReply(await self._home(who, request.line).unlock(who, request))

    async def break_lock(self, who: NodeName, request: m.BreakRequest) -> m.LockReply:
        hub = self._passes(who, request.line)
        if hub is not None:
            return await self.passed.break_lock(who, hub, request)
        home = self._home(who, request.line, takes_edits=request.steals)
        return m.LockReply(await home.break_lock(who, request))

    async def locks(self, who: NodeName, request: m.LocksRequest) -> m.LocksReply:
        hub = self._passes(who, request.line)
        if hub is not None:
            return await self.passed.locks(hub, request)
        after = [lock for lock in self._home(who, request.line).locks() if lock.path > request.after]
        after.sort(key=lambda lock: lock.path)
        return m.LocksReply(tuple(after[:LOCKS_MAX]), len(after) <= LOCKS_MAX)

    async def submit_have(self, who: NodeName, request: m.SubmitHave) -> m.SubmitHaveReply:
        hub = self._passes(who, request.line)
        if hub is not None:
            return await self.passed.missing(hub, request)
        return m.SubmitHaveReply(await self._home(who, request.line).missing(request.contents))

    async def sync(self, who: NodeName, request: m.SyncRequest) -> m.SyncReply:
        self.access.require_partner(who)
        return await self.on_sync(who, request)

    async def flush(self, who: NodeName, request: m.FlushRequest) -> m.FlushReply:
        home = self._home(who, request.line)
        service = self.service(request.line)
        assert service is not None
        service.fileset.require_one_home()
        trouble = await service.catch_up(FLUSH_S)
        if trouble is not None:
            raise error_of(trouble)
        withheld = await home.withheld()
        rollbacks = rollbacks_of(self.runtime.store, request.line)
        refused = service.rollout_now().refused[:REASON_MAX]
        return m.FlushReply(service.head, service.fileset.external, withheld, rollbacks, refused)

    async def sync_marks(self, who: NodeName, request: m.MarksRequest) -> m.MarksReply:
        self._home(who, request.line)
        line, store = request.line, self.runtime.store
        key = f"{SYNC_MARKS}{line.origin}/{line.fileset}/{request.profile}/{who}"
        raw = store.get(key) or store.get(key.removesuffix(f"/{who}"))  # before, the carrier was not in it
        marks = msgspec.msgpack.decode(raw, type=tuple[SyncMark, ...]) if raw is not None else ()
        if request.new is not None:
            require_known(store, who, line.fileset, request.profile)
            marks = with_mark(marks, request.new)
            store.put(key, msgspec.msgpack.encode(marks))
        others = self._marks_of_others(who, line, request.profile)
        heads = tuple(each for each in request.heads if has_generation(store, line, each))
        return m.MarksReply(marks, others, heads, made_by(store, request.sets))

    def _marks_of_others(self, who: NodeName, line: LineId, profile: str) -> tuple[SyncMark, ...]:
        """The newest of each other node that named a profile of this name here."""
        store, prefix = self.runtime.store, f"{SYNC_MARKS}{line.origin}/{line.fileset}/{profile}"
        carriers = {each.carrier for each in known_profiles(store, line.fileset) if each.name == profile}
        found = (store.get(f"{prefix}/{each}") for each in sorted(carriers - {who}))
        kept = [
            msgspec.msgpack.decode(raw, type=tuple[SyncMark, ...])[-1:] for raw in found if raw is not None
        ]
        return tuple(mark for marks in kept for mark in marks)[:CARRIERS_MAX]

    async def sync_bases(self, who: NodeName, request: BasesRequest) -> BasesReply:
        """A base is of what both sides had: the nodes that may have the line may have it."""
        store, service = (
            self.runtime.store,
            self.access.require(who, self.service(request.line), request.line),
        )
        if request.mark is None and not service.is_written_here:
            return BasesReply(None)
        base = base_with(store, request.profile, request.mark)
        if base is None or request.tree is None:
            return BasesReply(base)
        if request.tree not in base.roots:
            return BasesReply(None)
        await asyncio.to_thread(self.belonging.require, request.tree, request.digests, store.get_page)
        asked = m.PagesRequest(request.line, base.left.id, request.digests)
        return BasesReply(base, pages_reply(store, asked).pages if request.digests else ())

    async def difference(self, who: NodeName, request: DifferenceRequest) -> DifferenceReply:
        self._home(who, request.line)
        old, new = (self._root_of(request.line, each) for each in (request.since, request.generation))
        return await asyncio.to_thread(difference_reply, self.runtime.store, old, new)

    def _root_of(self, line: LineId, generation: Digest) -> Digest:
        """Of a generation of this very line: naming another line shows nothing of it."""
        signed = self.runtime.store.generation(generation)
        if signed is None or signed.body().line != line:
            raise generation_gone(line, generation)
        return signed.body().root

    def _side(self, who: NodeName, request: m.ProfileNotice) -> LineId:
        """The line that a profile means by a fileset and this node: also one that another node wrote first.
        ``RefusedError`` where it is written elsewhere now, for the home that named the profile before."""
        asked, me = request.line, self.runtime.name
        written = (x for x in self.lines.values() if x.line.fileset == asked.fileset and x.home is not None)
        line = next((x.line for x in written), asked) if asked.origin == me else asked
        service = self.service(line)
        known = known_profiles(self.runtime.store, asked.fileset)
        if service is not None and service.home is None and any(each.carrier == who for each in known):
            raise RefusedError(
                f"{me} does not write {asked.fileset} any more: {service.writer} does",
                code=MOVED,
                node=me,
                writer=service.writer,
            )
        return line

    async def sync_profile(self, who: NodeName, request: m.ProfileNotice) -> m.ProfileReply:
        self.access.require_partner(who)
        line = self._side(who, request)
        home, news, fileset = self._home(who, line), request.profile, line.fileset
        if news.carrier != who:
            raise PeerError(f"{who} named a profile that {news.carrier} carries out", code="bad_profile")
        if news.run > RUN_MAX:
            raise PeerError(
                f"{who} named run {news.run} of {news.name}, and no run has a number above {RUN_MAX}",
                code="bad_profile",
            )
        known = last_run(self.runtime.store, fileset, who, news.name)
        run = max(known, news.run) if known <= RUN_MAX else news.run
        keep_news(self.runtime.store, fileset, msgspec.structs.replace(news, run=run))
        edits = [edit for edit in home.locked_edits() if edit.profile == news.name]
        shown = tuple(msgspec.structs.replace(edit, reference=None) for edit in edits[:EDITS_SENT])
        service = self.service(line)
        assert service is not None
        return m.ProfileReply(shown, len(edits), run, service.home_state())

    async def side_facts(self, who: NodeName, request: m.SideFactsRequest) -> m.SideFactsReply:
        self._home(who, request.line)
        return m.SideFactsReply(await self.facts_of_side(request.line, request.key, request.names))

    async def facts_of_side(self, line: LineId, key: bytes, names: Sequence[str]) -> tuple[NodeFacts, ...]:
        """The named facts of this home of a line and of the partners that follow it, which are asked together."""
        service, wanted = self.service(line), tuple(names)
        assert service is not None
        own = await self.facts_of_line(service, key, wanted)
        partners = sorted(service.reports())[: SERVERS_MAX - 1]
        others = await asyncio.gather(*(self._facts_of(name, line, key, wanted) for name in partners))
        return (NodeFacts(self.runtime.name, _named(own, wanted), wall_ms()), *others)

    async def _facts_of(self, name: NodeName, line: LineId, key: bytes, names: tuple[str, ...]) -> NodeFacts:
        session = self.sessions.get(name)
        if session is None:
            return NodeFacts(name, (), 0, f"{name} is not connected with {self.runtime.name}")
        try:
            found = await session.facts(line, FACTS_S, key, names)
        except InstepError as error:
            return NodeFacts(name, (), 0, error.reason)
        return NodeFacts(name, _named(found.facts, names), found.time_ms)

    async def submit(
        self, who: NodeName, request: m.SubmitRequest, contents: AsyncIterator[list[TransferAnswer]]
    ) -> m.SubmitReply:
        hub = self._passes(who, request.line)
        if hub is not None:
            return await self.passed.submit(who, hub, request, contents)
        home = self._home(who, request.line, takes_edits=True)
        change_set = change_set_of(request.change_set)
        if change_set.line != request.line:
            raise PeerError(
                f"{who} submitted changes of {change_set.line} as {request.line}", code="bad_change_set"
            )
        answer = await home.submit(
            who,
            change_set,
            contents,
            sizes=request.contents,
            releases=request.releases,
            accepts_deletions=request.accepts_deletions,
        )
        head = self.runtime.store.generation(answer.head.id) if answer.head is not None else None
        return m.SubmitReply(answer, head)

    def _passes(self, who: NodeName, line: LineId) -> LineService | None:
        """The line, where this node passes changes of this partner on to its home."""
        service = self.service(line)
        if service is None or service.home is not None or not service.passes_changes_of(who):
            return None
        return self.access.require(who, service, line)

    def _home(self, who: NodeName, line: LineId, *, takes_edits: bool = False) -> LineHome:
        """The home of this line for a partner whose changes it takes, else ``NotAllowedError``. ``takes_edits``: for a
        new edit, which a read-only node refuses."""
        home = self.access.require_home(who, self.service(line), line)
        if takes_edits:
            self.runtime.read_only.require_off(who)
        return home


def _named(facts: Sequence[tuple[str, str]], names: Collection[str]) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in facts if name in names)
