"""The base from which a run goes, also where another node was the home of a side before: "When a home moves" of
``docs/spec/sync.md``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping

from instep.core.sync.bases import common_base, waiting_of
from instep.core.sync.table import Side
from instep.core.sync.work import KnownBases
from instep.errors import InstepError, UnavailableError
from instep.model.ids import Digest, HeadRef, NodeName
from instep.model.sync import SentChanges, SyncBase, SyncMark, WaitingTree
from instep.net.messages.syncing import HEADS_ASKED, MarksReply
from instep.net.service import PeerCalls
from instep.node.config.sync import SyncSettings
from instep.node.profiles.answered_sets import made_by
from instep.node.profiles.bases import SyncBases, base_with
from instep.node.profiles.line_generations import has_generation
from instep.node.runtime.runtime import Runtime
from instep.node.syncing.base_fetch import fetched_base
from instep.node.syncing.sides import FarHome, NearHome

log = logging.getLogger(__name__)


class FormerBases:
    """Of one profile, at the home that carries its runs out. ``calls_of`` finds a partner that this node dials."""

    def __init__(
        self,
        runtime: Runtime,
        profile: SyncSettings,
        near: NearHome,
        far: FarHome,
        calls_of: Callable[[NodeName], PeerCalls | None],
    ) -> None:
        self._runtime = runtime
        self._name = profile.name
        self._near, self._far = near, far
        self._near_at = 0 if profile.left.home == near.node else 1
        self._calls_of = calls_of
        self.bases = SyncBases(runtime.store, profile)

    async def known(self) -> KnownBases:
        """What both homes know. A base of former homes is kept by both of now before a run goes from it."""
        kept = self.bases.kept()
        formers = self._of_former_far_homes()
        sent = self.bases.recorded()
        seen = (self._far_head(sent),) if sent is not None else ()
        asked = tuple(dict.fromkeys(head.id for head in (*map(self._far_head, formers), *seen)))[
            -HEADS_ASKED:
        ]
        reply = await self._far.marks(None, asked, self._far_sets(sent))
        common = common_base(kept, reply.marks)
        run = common.run if common is not None else 0
        newer = [each for each in reply.others if each.run > run and self._is_near(self._near_id(each))]
        if newer:
            mark = max(newer, key=lambda each: each.run)
            found = await self._of_former_near_home(mark)
            return await self._moved(found) if found is not None else KnownBases((), (mark,))
        held = [
            each
            for each in formers
            if each.run > run
            and self._far_head(each).id in reply.heads
            and self._is_near(self._near_id(each.mark))
        ]
        if held:
            return await self._moved(max(held, key=lambda each: each.run))
        return await self._with_made(KnownBases(kept, reply.marks), common, sent, reply)

    async def _with_made(
        self, known: KnownBases, common: SyncBase | None, sent: SentChanges | None, reply: MarksReply
    ) -> KnownBases:
        """With the changes of a run that went from this base and ended without a new one, as far as homes made them."""
        if sent is None or common is None or sent.base != common.mark:
            return known
        near = sent.left if self._near_at == 0 else sent.right
        if self._far_head(sent).id not in reply.heads or not self._is_near(near.id):
            return known  # a home came back from an older copy
        sides = tuple(Side) if self._near_at == 0 else tuple(reversed(Side))
        of_near = [each for side, each in sent.sets if side == sides[0]]
        store = self._runtime.store
        made = {
            sides[0]: frozenset(made_by(store, of_near)),
            sides[1]: frozenset(reply.made),
        }
        return known._replace(since=sent, made=await asyncio.to_thread(self._waiting, sent, made))

    def _waiting(self, sent: SentChanges, made: Mapping[Side, Collection[bytes]]) -> tuple[WaitingTree, ...]:
        pages: dict[Digest, bytes] = {}

        def page(digest: Digest) -> bytes:
            raw = pages.get(digest) or self._runtime.store.get_page(digest)
            if raw is None:
                raise UnavailableError("a page of the last run is not here any more", code="superseded")
            return raw

        found = waiting_of(sent, made, page, pages.__setitem__)
        self._runtime.store.put_pages(pages.items())
        return found

    def _far_sets(self, sent: SentChanges | None) -> tuple[Digest, ...]:
        far = Side.RIGHT if self._near_at == 0 else Side.LEFT
        return tuple(each for side, each in sent.sets if side == far) if sent is not None else ()

    async def _moved(self, base: SyncBase) -> KnownBases:
        await self._far.marks(base.mark)
        self.bases.keep(base)
        return KnownBases((base,), (base.mark,))

    def _of_former_far_homes(self) -> list[SyncBase]:
        """The bases that this node made with other homes of the other side."""
        own, at = self.bases.pair, self._near_at
        pairs = (pair for pair in self.bases.pairs() if pair != own and pair[at] == own[at])
        return sorted((base for pair in pairs for base in self.bases.of(pair)), key=lambda each: each.run)

    async def _of_former_near_home(self, mark: SyncMark) -> SyncBase | None:
        """The base with this mark from one of the nodes that wrote this side before. None where none has it."""
        line, store = self._near.line, self._runtime.store
        copied = base_with(store, self._name, mark)
        if copied is not None:
            return copied
        writers = [each.body().writer for each in reversed(store.epochs(line))]
        for name in dict.fromkeys((*writers, line.origin)):
            calls = self._calls_of(name) if name != self._near.node else None
            if calls is None:
                continue
            try:
                base = await fetched_base(self._runtime, calls, line, self._name, mark)
            except InstepError as error:  # another former home may have it; without one the run is refused
                log.warning("%s did not give the base of %s: %s", name, self._name, error.reason)
                continue
            if base is not None:
                return base
        return None

    def _is_near(self, generation: Digest) -> bool:
        return has_generation(self._runtime.store, self._near.line, generation)

    def _near_id(self, mark: SyncMark) -> Digest:
        return mark.left if self._near_at == 0 else mark.right

    def _far_head(self, base: SyncBase | SentChanges) -> HeadRef:
        return base.right if self._near_at == 0 else base.left
