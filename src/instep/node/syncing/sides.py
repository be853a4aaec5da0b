"""The two sides of a sync run as the node that carries it out sees them: its own line, and one of a partner."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from typing import NamedTuple, Protocol

import msgspec

from instep.core.follow.gates import CLOCK
from instep.core.sync.answers import check_answer
from instep.core.sync.gates import SideFacts
from instep.core.vocabulary import error_of
from instep.errors import PeerError, RefusedError, UnavailableError
from instep.model.change import ChangeAnswer, ChangeSet
from instep.model.definition import Definition, decode_definition
from instep.model.external import External
from instep.model.generation import SignedGeneration
from instep.model.ids import Digest, HeadRef, LineId, NodeName
from instep.model.manifest.entry import Entry
from instep.model.manifest.walk import Reader
from instep.model.sync import ProfileNews, Rollback, SyncMark
from instep.net.messages import messages as m
from instep.net.messages.faults import error_of_reply
from instep.net.messages.syncing import EDITS_SENT, SETS_ASKED, NodeFacts
from instep.net.service import (
    DIFFERENCE,
    FLUSH,
    HEADS,
    PAGES,
    SIDE_FACTS,
    SUBMIT_HAVE,
    SYNC_MARKS,
    SYNC_PROFILE,
    PeerCalls,
)
from instep.net.transfer import TransferAnswer
from instep.node.config.sync import SyncSettings
from instep.node.following.page_fetch import Fetcher, OfferedHeads
from instep.node.lines.line_home import LineHome
from instep.node.lines.line_service import LineService
from instep.node.profiles.rollbacks import rollbacks_of
from instep.node.runtime.runtime import Runtime
from instep.node.runtime.signers import verdict_on

FLUSH_S = 600.0
FACTS_S = 60.0
ANNOUNCE_S = 10.0
FactsOfSide = Callable[[LineId, bytes, Sequence[str]], Awaitable[tuple[NodeFacts, ...]]]
"""Asks this node and the partners that follow a line which is written here."""
_WANTS = 4_096
"""Contents in one request."""


class SeenTree(NamedTuple):
    """A side as a run sees it: a generation whose pages are all here."""

    head: HeadRef
    signed: SignedGeneration
    external: tuple[External, ...] = ()
    """What the home names as not carried."""
    withheld: int = 0
    """So many paths that change sets made are in no generation yet."""
    rollbacks: tuple[Rollback, ...] = ()
    """The newest generations of the line that brought an older one back, the newest last."""
    definition: Definition = Definition()
    """That of the generation: what it ignores is not in its tree, and may lie there all the same."""
    refused: str = ""
    """Why partners of the home refused the generation."""


class SyncHome(Protocol):
    """One side of a run."""

    @property
    def node(self) -> NodeName: ...

    @property
    def line(self) -> LineId: ...

    async def look(self, known: Digest) -> SeenTree:
        """Have the home publish what was saved before. ``known`` is a root whose pages are here."""
        ...

    async def missing(self, contents: Sequence[tuple[Digest, int]]) -> tuple[int, ...]:
        """The positions of those contents that the home lacks."""
        ...

    async def facts(self, key: bytes, names: Sequence[str]) -> SideFacts:
        """The named facts of the side's servers."""
        ...

    async def announce(self, news: ProfileNews) -> m.ProfileReply:
        """Name the profile to the home; its edits of locked paths."""
        ...


def size_of(entry: Entry) -> tuple[Digest, int]:
    """How the contents of a file or link are named when they are submitted."""
    return entry.digest, entry.size


class NearHome:
    """The line that is written on this node."""

    def __init__(self, runtime: Runtime, service: LineService, facts: FactsOfSide) -> None:
        self._runtime = runtime
        self._facts = facts
        self._service = service
        self.node = runtime.name
        self.line = service.line

    async def look(self, known: Digest) -> SeenTree:
        self._service.fileset.require_one_home()
        trouble = await self._service.catch_up(FLUSH_S)
        if trouble is not None:
            raise error_of(trouble)
        head = _there(self._service.head, self)
        signed = self._runtime.store.generation(head.id)
        if signed is None:
            raise UnavailableError(f"generation {head.number} is not kept here", code="superseded")
        withheld = await self._home.withheld()
        rollbacks = rollbacks_of(self._runtime.store, self.line)
        definition = _definition_of(self._runtime, self.node, signed)
        external, refused = self._service.fileset.external, self._service.rollout_now().refused
        return SeenTree(head, signed, external, withheld, rollbacks, definition, refused)

    async def missing(self, contents: Sequence[tuple[Digest, int]]) -> tuple[int, ...]:
        return await self._home.missing(contents)

    async def facts(self, key: bytes, names: Sequence[str]) -> SideFacts:
        return _side_facts(self.node, await self._facts(self.line, key, names))

    async def announce(self, news: ProfileNews) -> m.ProfileReply:
        edits = [edit for edit in self._home.locked_edits() if edit.profile == news.name]
        return m.ProfileReply(tuple(edits[:EDITS_SENT]), len(edits), 0, self._service.home_state())

    async def take(
        self,
        change_set: ChangeSet,
        sizes: Sequence[tuple[Digest, int]],
        contents: AsyncGenerator[list[TransferAnswer], None],
        *,
        accepts_deletions: bool,
    ) -> ChangeAnswer:
        """Decide about changes. ``contents`` are those that ``sizes`` names, as they come from the other side."""
        async with aclosing(contents):
            answer = await self._home.submit(
                self.node, change_set, contents, sizes=sizes, accepts_deletions=accepts_deletions
            )
        check_answer(change_set, answer, self.node)
        return answer

    def contents(self, tree: SeenTree, sources: Sequence[Entry]) -> Iterator[TransferAnswer]:
        """Those of entries of this side's tree, in their order; pulled in threads."""
        return self._service.shelf().of(tree.signed, self._service.head, self.node).contents(sources)

    @property
    def _home(self) -> LineHome:
        home = self._service.home
        if home is None:
            raise RefusedError(
                f"{self.node} does not write {self.line.fileset}",
                hint=f"at {self._service.writer}: instep status {self.line.fileset}",
                code="not_the_writer",
            )
        return home


class FarHome:
    """The line of a partner, which this node dials and whose changes it takes from here."""

    def __init__(
        self,
        runtime: Runtime,
        line: LineId,
        profile: SyncSettings,
        calls: Callable[[], PeerCalls],
        seen: HeadRef | None = None,
    ) -> None:
        """``seen`` is a head of the line whose pages are here."""
        self._runtime = runtime
        self._seen = seen
        self._profile = profile.name
        self._calls = calls
        self.node = line.origin
        self.line = line

    async def look(self, known: Digest) -> SeenTree:
        client = self._calls()
        reply = await client.call(FLUSH, m.FlushRequest(self.line), total_s=FLUSH_S)
        head = _there(reply.head, self)
        signed = await self._signed(head)
        await self._fetch(client, head, known)
        definition = _definition_of(self._runtime, self.node, signed)
        external, rollbacks = reply.external, reply.rollbacks
        return SeenTree(head, signed, external, reply.withheld, rollbacks, definition, reply.refused)

    async def _fetch(self, client: PeerCalls, head: HeadRef, known: Digest) -> None:
        """All pages of a head. A path that changed costs its entry, where this side was seen before."""
        fetcher, seen = Fetcher(self._runtime), self._seen
        if seen is None or not await fetcher.difference(
            self.line, head, seen, lambda asked: client.call(DIFFERENCE, asked)
        ):
            await fetcher.pages(self.line, head, known, lambda asked: client.call(PAGES, asked))
        self._seen = head

    async def marks(
        self, new: SyncMark | None, heads: tuple[Digest, ...] = (), sets: tuple[Digest, ...] = ()
    ) -> m.MarksReply:
        """The marks of the bases that the home keeps; with ``new``, it keeps this one first. Which of ``heads`` are
        generations of its line; which paths the ``sets`` changed there."""
        asked = m.MarksRequest(self.line, self._profile, new, heads, sets[-SETS_ASKED:])
        return await self._calls().call(SYNC_MARKS, asked)

    async def require_readable(self) -> m.HeadsReply:
        """The head of the line, or why this node may not have it."""
        asked = m.HeadsRequest((m.KnownLine(self.line, None),), with_bundles=False)
        heads = await self._calls().call(HEADS, asked)
        for _, error in heads.refused:
            raise error_of_reply(error, self.node)
        return heads

    async def _signed(self, head: HeadRef) -> SignedGeneration:
        """The record of a head, whose signature holds here. Its definition is kept."""
        heads = await self.require_readable()
        message = next((each for each in heads.heads if each.generation.id == head.id), None)
        if message is None:
            raise UnavailableError(f"the head of {self.line} at {self.node} moved on", code="superseded")
        self._check_head(message.generation, head)
        OfferedHeads(self._runtime).keep(message)
        return message.generation

    def _check_head(self, signed: SignedGeneration, head: HeadRef) -> None:
        verdict = verdict_on(self._runtime, signed.signature, signed.id)
        body = signed.body()
        if not verdict.is_valid or signed.id != head.id or body.root != head.root or body.line != self.line:
            why = verdict.reason or "it is another line's"
            raise PeerError(
                f"the head of {self.line} that {self.node} sent does not hold: {why}", code="bad_head"
            )

    async def missing(self, contents: Sequence[tuple[Digest, int]]) -> tuple[int, ...]:
        reply = await self._calls().call(SUBMIT_HAVE, m.SubmitHave(self.line, tuple(contents)))
        return reply.missing

    async def announce(self, news: ProfileNews) -> m.ProfileReply:
        asked = m.ProfileNotice(self.line, news)
        reply = await self._calls().call(SYNC_PROFILE, asked, total_s=ANNOUNCE_S)
        self.take_line(reply)
        return reply

    def take_line(self, reply: m.ProfileReply) -> None:
        """The line is named by the node that wrote it first."""
        if reply.state is not None and reply.state.line is not None:
            self.line = LineId(self.line.fileset, reply.state.line.origin)

    async def facts(self, key: bytes, names: Sequence[str]) -> SideFacts:
        asked = m.SideFactsRequest(self.line, key, tuple(names))
        reply = await self._calls().call(SIDE_FACTS, asked, total_s=FACTS_S)
        return _side_facts(self.node, reply.servers)

    async def take(
        self,
        change_set: ChangeSet,
        sizes: Sequence[tuple[Digest, int]],
        contents: Iterator[TransferAnswer],
        *,
        accepts_deletions: bool,
        known: SeenTree,
    ) -> ChangeAnswer:
        """Send changes, with the contents that ``sizes`` names from this node's tree. ``known`` is the side as it was
        seen before; the pages of the head in the answer are here."""
        request = m.SubmitRequest(
            self.line, change_set.encoded(), tuple(sizes), accepts_deletions=accepts_deletions
        )
        reply = await self._calls().submit(request, contents)
        check_answer(change_set, reply.answer, self.node)
        if reply.answer.head is None:
            return reply.answer
        return await self._shown(reply.answer, reply.answer.head, reply.generation, known)

    async def _shown(
        self, answer: ChangeAnswer, head: HeadRef, signed: SignedGeneration | None, known: SeenTree
    ) -> ChangeAnswer:
        """The answer with a head that this home signed and whose pages are here: the one that it names, or a newer."""
        client = self._calls()
        if signed is not None:
            self._check_head(signed, head)
            try:
                await self._fetch(client, head, known.head.root)
            except UnavailableError as error:
                if error.error_code != "superseded":
                    raise
            else:
                return answer
        newest = await self.look(known.head.root)
        if newest.head.position < head.position:
            raise PeerError(
                f"{self.node} named generation {head.number} of {self.line}, and has {newest.head.number}",
                code="bad_head",
            )
        return msgspec.structs.replace(answer, head=newest.head)

    async def contents(
        self, tree: SeenTree, sources: Sequence[Entry]
    ) -> AsyncGenerator[list[TransferAnswer], None]:
        """Those of entries of this side's tree, in their order, as they come."""
        reader = Reader(self._page)
        for start in range(0, len(sources), _WANTS):
            batch = sources[start : start + _WANTS]
            wants = []
            for entry in batch:
                at = reader.address(tree.head.root, entry.path)
                assert at is not None, entry.path
                wants.append(m.PageWant(at[0], (at[1],)))
            asked = m.ContentsRequest(self.line, tree.head.id, tuple(wants))
            async with aclosing(
                self._calls().contents(asked, sizes=[each.size for each in batch])
            ) as answers:
                async for each in answers:
                    yield [answer._replace(want=answer.want + start) for answer in each]

    def _page(self, digest: Digest) -> bytes:
        raw = self._runtime.store.get_page(digest)
        if raw is None:
            raise UnavailableError("a page of the other side is not here any more", code="superseded")
        return raw


def _side_facts(home: NodeName, servers: Sequence[NodeFacts]) -> SideFacts:
    if servers[0].node != home:
        raise PeerError(f"{home} gave the facts of another node", code="bad_answer", node=home)
    known = {each.node: dict(each.facts) | {CLOCK: str(each.time_ms)} for each in servers if not each.away}
    return SideFacts(home, known, {each.node: each.away for each in servers if each.away})


def _definition_of(runtime: Runtime, node: NodeName, signed: SignedGeneration) -> Definition:
    raw = runtime.store.get_blob(signed.body().definition)
    if raw is None:
        raise PeerError(f"{node} named a generation without its definition", code="bad_head")
    return decode_definition(raw)


def _there(head: HeadRef | None, home: SyncHome) -> HeadRef:
    if head is None:
        raise RefusedError(
            f"{home.node} has not published {home.line.fileset} yet",
            hint=f"on {home.node}: instep publish {home.line.fileset}",
            code="nothing_published",
            node=home.node,
        )
    return head
