"""One run of a sync profile at the home that carries it out: does what ``core/sync/run.py`` decides, at both homes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace

import msgspec

from instep.core.follow.gates import parse_gate
from instep.core.sync.answers import has_others
from instep.core.sync.bases import published_since
from instep.core.sync.gates import gate_rows, gates_due
from instep.core.sync.plan import SyncPlan, same
from instep.core.sync.reconcile import Merges, reconcile
from instep.core.sync.run import SyncRun
from instep.core.sync.table import Direction, GateRow, KindRules, Side
from instep.core.sync.work import (
    AwaitPartners,
    EditBase,
    FindAgain,
    FindOthers,
    HeldBack,
    KeepBase,
    LookAtHomes,
    Looked,
    MakePlan,
    ReadBases,
    RecordChanges,
    SendChanges,
    SyncRequest,
    SyncWork,
    TakeWaiting,
)
from instep.errors import PeerError, UnavailableError
from instep.model.change import PathChange
from instep.model.ids import Digest
from instep.model.manifest import manifest
from instep.model.manifest.entry import Entry
from instep.model.manifest.walk import Reader
from instep.model.sync import RUN_MAX, SyncPhase
from instep.net.transfer import TransferAnswer
from instep.node.config.sync import SyncSettings
from instep.node.profiles.known_profiles import news_of
from instep.node.runtime.runtime import Runtime
from instep.node.syncing.former_bases import FormerBases
from instep.node.syncing.kinds import gates_of, ignored_by, rules_of
from instep.node.syncing.merging import Merging, Reading
from instep.node.syncing.sending import Sending
from instep.node.syncing.sides import FarHome, NearHome, SeenTree
from instep.tree.root.failpoints import failpoint, register

FAILPOINTS = {phase: register(f"sync.{phase.value}") for phase in SyncPhase if not phase.is_over}
"""As a phase begins."""
PAGES_KEPT = 1_024
FOLLOWING_S = 900.0
"""How long a run waits for the partners of a home that made changes."""
ASK_AGAIN_S = 0.05
ASK_AGAIN_MAX_S = 1.0
EARLIER = "an earlier run or offer changed them there"


class SyncRunner:
    """``near`` is the side of this node. ``changed`` is called whenever the run moved on."""

    def __init__(
        self,
        runtime: Runtime,
        profile: SyncSettings,
        near: NearHome,
        far: FarHome,
        former: FormerBases,
        work: SyncWork,
        changed: Callable[[], None],
    ) -> None:
        self._runtime = runtime
        self._profile = profile
        self._near, self._far = near, far
        self._near_side = Side.LEFT if profile.left.home == near.node else Side.RIGHT
        self._run = SyncRun(profile.name, (str(profile.left), str(profile.right)), work)
        self._former, self._bases = former, former.bases
        self.work = work
        self._changed = changed
        self._merging = Merging(runtime, profile, near.line.fileset)
        side, note_set = self._near_side, self._note_set
        self._sending = Sending(profile.name, near, far, side, self._merging, work, self._page, note_set)
        self._trees: dict[Side, SeenTree] = {}
        """The sides as they were seen last."""
        self._pages: dict[Digest, bytes] = {}
        """Pages that were read: each step of a run reads nearly the same ones."""

    async def run(self) -> None:
        try:
            await self._done_all()
        finally:
            self._merging.clear()

    async def _done_all(self) -> None:
        self._put_empty()
        await self._announce()
        steps = self._run.run()
        answer: object = None
        while True:
            try:
                request = steps.send(answer)
            except StopIteration:
                return
            answer = await self._done(request)
            self._changed()

    async def _done(self, request: SyncRequest) -> object:
        match request:
            case ReadBases():
                return await self._former.known()
            case KeepBase(base):
                await self._far.marks(base.mark)
                self._bases.keep(base)
                return None
            case LookAtHomes(known):
                return await self._look(known)
            case MakePlan():
                return await self._planned(request)
            case RecordChanges(sent):
                self._bases.record(sent)
                return None
            case SendChanges():
                return await self._sending.send(request.parts, self._trees)
            case FindOthers(_, before, after, wanted):
                return await asyncio.to_thread(has_others, before, after, wanted, self._page)
            case TakeWaiting(root, waiting, left, right):
                heads = {Side.LEFT: left, Side.RIGHT: right}
                changes = await asyncio.to_thread(published_since, root, waiting, heads, self._page)
                return await asyncio.to_thread(self._edited, root, changes)
            case FindAgain(root, wanted_changes):
                return await asyncio.to_thread(self._has_all, root, wanted_changes)
            case AwaitPartners(side):
                return await self._partners_ended(side)
            case EditBase(root, changes):
                return await asyncio.to_thread(self._edited, root, changes)
            case _:
                failpoint(FAILPOINTS[request])
                return None

    # --- looking and planning -----------------------------------------------------------------------------------

    async def _announce(self) -> None:
        """Name the profile to the other home. It may have heard of a later run than this home remembers."""
        far_side = Side.RIGHT if self._near_side is Side.LEFT else Side.LEFT
        news = news_of(self._profile, far_side, self.work.number)
        reply = await self._far.announce(news)
        if reply.run >= RUN_MAX:
            name, far = self._profile.name, self._far.node
            raise PeerError(
                f"{far} has heard of run {reply.run} of {name}, and no run has a number above {RUN_MAX}",
                hint=f"give the profile another name in instep.toml; on {far}: instep sync list",
                code="bad_profile",
                node=far,
            )
        if reply.run > news.run:
            self.work.number = reply.run + 1

    async def _look(self, known: Digest) -> Looked:
        homes = (self._near.look(known), self._far.look(known))
        near, far = await asyncio.gather(*homes, return_exceptions=True)
        for found in (near, far):
            if isinstance(found, BaseException):
                raise found
        assert isinstance(near, SeenTree)
        assert isinstance(far, SeenTree)
        is_left_near = self._near_side is Side.LEFT
        left, right = (near, far) if is_left_near else (far, near)
        self._trees = {Side.LEFT: left, Side.RIGHT: right}
        self.work.external = {side: tree.external for side, tree in self._trees.items()}
        self.work.ignores = {side: tree.definition.ignore for side, tree in self._trees.items()}
        sides = ((Side.LEFT, left), (Side.RIGHT, right))
        withheld = tuple((side, HeldBack(tree.withheld, EARLIER)) for side, tree in sides if tree.withheld)
        refused = tuple((side, tree.refused) for side, tree in sides if tree.refused)
        return Looked(left.head, right.head, withheld, (left.rollbacks, right.rollbacks), refused)

    async def _planned(self, asked: MakePlan) -> SyncPlan:
        """The plan, with the files merged that both sides changed and whose kinds have a format."""
        plan = await asyncio.to_thread(self._plan, asked, {})
        left, right = self._reader(Side.LEFT), self._reader(Side.RIGHT)
        merges = await self._merging.merged(plan, self._reader(self._near_side), left, right)
        if merges:
            plan = await asyncio.to_thread(self._plan, asked, merges)
        return replace(plan, gates=await self._gates(plan))

    async def _gates(self, plan: SyncPlan) -> tuple[GateRow, ...]:
        """The gates that do not hold for what the plan changes; both sides are asked only where there are any."""
        due = await asyncio.to_thread(gates_due, plan, gates_of(self._profile))
        if not due:
            return ()
        names = sorted({parse_gate(each.gate).name for each in due})
        key = self._runtime.facts.key
        near, far = await asyncio.gather(self._near.facts(key, names), self._far.facts(key, names))
        far_side = Side.RIGHT if self._near_side is Side.LEFT else Side.LEFT
        return gate_rows(due, {self._near_side: near, far_side: far})

    def _reader(self, side: Side) -> Reading:
        """Contents of one side's tree; of this home's also former ones."""
        tree = self._trees[side]
        if side is not self._near_side:
            return lambda entries: self._far.contents(tree, entries)

        async def read(entries: Sequence[Entry]) -> AsyncGenerator[list[TransferAnswer], None]:
            yield await asyncio.to_thread(list, self._near.contents(tree, entries))

        return read

    def _plan(self, asked: MakePlan, merges: Merges) -> SyncPlan:
        """A first run takes all of one side, whatever the kinds say: the other side is the base then."""
        rules = rules_of(self._profile)
        if asked.initial is not None:
            whole = KindRules(Direction.UP if asked.initial is Side.LEFT else Direction.DOWN)
            rules = lambda _: whole  # noqa: E731
        ignored = ignored_by({side: tree.definition for side, tree in self._trees.items()})
        return reconcile(asked.base, asked.left, asked.right, rules, self._page, merges, ignored)

    def _page(self, digest: Digest) -> bytes:
        raw = self._pages.get(digest) or self._runtime.store.get_page(digest)
        if raw is None:
            raise UnavailableError(
                "a page that the run needs is not here any more",
                hint=f"start the run again: instep sync run {self._profile.name}",
                code="superseded",
            )
        if len(self._pages) >= PAGES_KEPT:
            self._pages.clear()
        self._pages[digest] = raw
        return raw

    def _put_empty(self) -> None:
        pages: list[tuple[Digest, bytes]] = []
        manifest.build((), lambda digest, raw: pages.append((digest, raw)))
        self._runtime.store.put_pages(pages)

    # --- sending and the base -----------------------------------------------------------------------------------

    async def _partners_ended(self, side: Side) -> str:
        """Asks the home until its partners have its newest generation, or one refused it; the reason then. Partners
        that need longer than ``FOLLOWING_S`` go on without the run."""
        home = self._near if side is self._near_side else self._far
        news = news_of(self._profile, side, self.work.number)
        pause_s = ASK_AGAIN_S
        try:
            async with asyncio.timeout(FOLLOWING_S):
                while True:
                    state = (await home.announce(news)).state
                    if state is None or not state.is_rolling_out:
                        return state.refused if state is not None else ""
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, ASK_AGAIN_MAX_S)
        except TimeoutError:
            return ""

    def _note_set(self, side: Side, change_set: Digest) -> None:
        """The id of a set joins the record before the set is sent."""
        sent = self._bases.recorded()
        if sent is not None:
            self._bases.record(msgspec.structs.replace(sent, sets=(*sent.sets, (side.value, change_set))))

    def _has_all(self, root: Digest, changes: Sequence[PathChange]) -> bool:
        reader = Reader(self._page)
        return all(same(reader.lookup(root, each.path), each.new) for each in changes)

    def _edited(self, root: Digest, changes: tuple[tuple[bytes, Entry | None], ...]) -> Digest:
        pages: dict[Digest, bytes] = {}

        def page(digest: Digest) -> bytes:
            return pages.get(digest) or self._page(digest)

        after = manifest.edit(root, changes, page, pages.__setitem__)
        self._runtime.store.put_pages(pages.items())
        return after
