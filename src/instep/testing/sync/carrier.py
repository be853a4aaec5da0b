"""The node that carries runs out: drives the real ``SyncRun`` step by step, over a link that breaks."""

from __future__ import annotations

from collections.abc import Callable, Generator
from random import Random
from typing import Any

from msgspec.structs import replace

from instep.core.sync.answers import has_others
from instep.core.sync.bases import common_base, published_since, waiting_of, with_base, with_mark
from instep.core.sync.plan import SyncPlan
from instep.core.sync.reconcile import reconcile
from instep.core.sync.run import SyncRun
from instep.core.sync.table import Direction, KindRules, RulesOf, Side
from instep.core.sync.work import (
    AwaitPartners,
    EditBase,
    FindOthers,
    KeepBase,
    KnownBases,
    LookAtHomes,
    Looked,
    MakePlan,
    ReadBases,
    RecordChanges,
    SendChanges,
    SideChanges,
    SyncWork,
    TakeWaiting,
)
from instep.errors import InstepError, UnavailableError
from instep.model.ids import Digest, NodeName
from instep.model.manifest import manifest
from instep.model.manifest.entry import Entry
from instep.model.manifest.walk import iterate
from instep.model.sync import SentChanges, SyncBase, SyncMark
from instep.testing.sync.ledger import SyncLedger
from instep.testing.sync.options import SyncOptions
from instep.testing.sync.side import SyncHomeNode
from instep.testing.world.world import World

OTHER = {Side.LEFT: Side.RIGHT, Side.RIGHT: Side.LEFT}
NOT_SENT = 0.5
"""How often a home gets nothing where the other one failed before: its contents had not come yet."""


class SyncCarrier:
    """On the left home. Its durable state is ``bases`` and ``pages``."""

    def __init__(
        self,
        world: World,
        homes: dict[Side, SyncHomeNode],
        rules: RulesOf,
        options: SyncOptions,
        ledger: SyncLedger,
    ) -> None:
        self.world = world
        self.homes = homes
        self.rules = rules
        self.options = options
        self.ledger = ledger
        self.rng: Random = world.stream("carrier")
        self.bases: tuple[SyncBase, ...] = ()
        self.marks: tuple[SyncMark, ...] = ()
        """Those of the other home."""
        self.pages: dict[Digest, bytes] = {}
        self.recorded: SentChanges | None = None
        self.is_cut = False
        self.ended: str | None = None
        """How the last run ended: ``done``, or the code of its error."""
        self.did_nothing = False
        """The last run left nothing undone, and changed nothing."""
        self.make_run: type[SyncRun] = SyncRun
        self.work: SyncWork | None = None
        self._steps: Generator[Any, Any, None] | None = None
        self._life = 0
        self._root: Digest | None = None
        """What the run took for the base; of a first run, the tree that is not right."""
        manifest.build((), self.pages.__setitem__)

    @property
    def is_running(self) -> bool:
        return self._steps is not None

    # --- runs ---------------------------------------------------------------------------------------------------

    def begin(self, initial: Side | None = None, *, accepts_rollback: bool = False) -> bool:
        """Start a run, unless one is under way."""
        if self._steps is not None or not self.homes[Side.LEFT].is_alive:
            return False
        self.world.record("run", "!", f"begins, initial {initial}, accepts rollback {accepts_rollback}")
        self.ledger.begins(may_undo=initial is not None or accepts_rollback)
        lost = self.work is not None and any(each.code == "max_deletions" for _, each in self.work.undone)
        self.work = SyncWork(
            "", "", self.world.now, initial=initial, accepts_rollback=accepts_rollback, accepts_deletions=lost
        )
        self._steps = self.make_run("site", ("left", "right"), self.work).run()
        self._life, self._root = self.homes[Side.LEFT].incarnation, None
        self._go_on(None)
        return True

    def _go_on(self, answer: object) -> None:
        """One step more; what it asks for takes a while, and its node may die meanwhile."""
        assert self._steps is not None
        self.world.events += 1
        try:
            request = self._steps.send(answer)
        except StopIteration:
            self._ends("done")
            return
        except InstepError as error:
            self._ends(error.error_code)
            return
        self.world.record("run", "<", request if isinstance(request, str) else type(request).__name__)
        self._later(lambda: self._perform(request))

    def _later(self, do: Callable[[], None]) -> None:
        self.world.at(self.rng.uniform(0, self.options.step_ms), lambda: self._if_alive(do))

    def _if_alive(self, do: Callable[[], None]) -> None:
        if self.homes[Side.LEFT].incarnation != self._life:
            self._ends("carrier_died")
            return
        do()

    def _perform(self, request: object) -> None:
        try:
            match request:
                case LookAtHomes():
                    self._look()
                    return
                case ReadBases():
                    self._mind_link()
                    self._mind_life_there()
                    answer: object = self._known()
                case KeepBase(base):
                    self._keep(base)
                    answer = None
                case TakeWaiting(root, waiting, left, right):
                    heads = {Side.LEFT: left, Side.RIGHT: right}
                    get = self.pages.__getitem__
                    changes = published_since(root, waiting, heads, get)
                    answer = manifest.edit(root, changes, get, self.pages.__setitem__)
                case AwaitPartners():
                    answer = ""
                case MakePlan():
                    answer = self.planned(request)
                case RecordChanges(sent):
                    self.recorded, answer = sent, None
                case SendChanges(parts):
                    self._send(parts)
                    return
                case FindOthers(side, before, after, wanted):
                    pages = {**self.pages, **self.homes[side].disk.pages}
                    answer = has_others(before, after, wanted, pages.__getitem__)
                case EditBase(root, changes):
                    self._root = self._root or root
                    answer = manifest.edit(root, changes, self.pages.__getitem__, self.pages.__setitem__)
                case _:
                    answer = None
        except InstepError as error:
            self._ends(error.error_code)
            return
        self._if_alive(lambda: self._go_on(answer))

    def _ends(self, how: str) -> None:
        self.world.record("run", "!", f"ends: {how}")
        if how == "went_back":
            self.ledger.names_rollback()
        self._steps, self.ended = None, how
        work = self.work
        self.did_nothing = how == "done" and work is not None and not (work.undone or any(work.made.values()))
        self.ledger.ends()

    def _keep(self, base: SyncBase) -> None:
        """The other home first; both may die, or the answer be lost, between the two."""
        self.ledger.keeps_base(self._tree(self._root or base.root), self._tree(base.root))
        self._mind_link()
        self._mind_life_there()
        self.marks = with_mark(self.marks, base.mark)
        near, far = self.homes[Side.LEFT], self.homes[Side.RIGHT]
        if far.chance(self.options.answer_lost):
            raise UnavailableError("the answer was lost")
        if near.chance(self.options.crash_at_step):
            near.crash("power, before it keeps its base")
            return
        self.bases = with_base(self.bases, base)
        self.recorded = None
        self.ledger.accepts()

    def _known(self) -> KnownBases:
        """With the changes of a run that ended without a base, as the homes answer now."""
        base, sent = common_base(self.bases, self.marks), self.recorded
        if sent is None or base is None or sent.base != base.mark:
            return KnownBases(self.bases, self.marks)
        seen = {Side.LEFT: sent.left, Side.RIGHT: sent.right}
        if any(head not in self.homes[side].disk.heads for side, head in seen.items()):
            return KnownBases(self.bases, self.marks)
        waiting = waiting_of(sent, self._made(sent), self.pages.__getitem__, self.pages.__setitem__)
        return KnownBases(self.bases, self.marks, sent, waiting)

    def _made(self, sent: SentChanges) -> dict[Side, set[bytes]]:
        return {side: self.homes[side].made_of(id_ for at, id_ in sent.sets if at == side) for side in Side}

    def _tree(self, root: Digest) -> dict[bytes, Entry]:
        return {entry.path: entry for entry in iterate(root, self.pages.__getitem__)}

    # --- what a run asks ------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """One home after the other: persons work between them."""
        near, far = self.homes[Side.LEFT].look(), Side.RIGHT
        rollbacks_near = tuple(self.homes[Side.LEFT].disk.rollbacks)

        def look_there() -> None:
            try:
                self._mind_link()
                head = self.homes[far].look()
            except InstepError as error:
                self._ends(error.error_code)
                return
            for home in self.homes.values():
                self.pages.update(home.disk.pages)
            assert self.work is not None
            if self.work.initial is not None and self.work.rounds == 0:
                self.ledger.gives_up(OTHER[self.work.initial])
            looked = Looked(near, head, rollbacks=(rollbacks_near, tuple(self.homes[far].disk.rollbacks)))
            self.ledger.looks(looked)
            self._go_on(looked)

        self._later(look_there)

    def planned(self, asked: MakePlan) -> SyncPlan:
        rules = self.rules
        if asked.initial is not None:
            whole = KindRules(Direction.UP if asked.initial is Side.LEFT else Direction.DOWN)
            rules = lambda _: whole  # noqa: E731
        plan = reconcile(asked.base, asked.left, asked.right, rules, self.pages.__getitem__)
        self.ledger.plans(plan)
        return plan

    def _send(self, parts: tuple[SideChanges, ...]) -> None:
        """Both homes at once: either may be the first, and be done before the other fails or its answer is lost."""
        order = sorted(range(len(parts)), key=lambda _: self.rng.random())
        answers: dict[int, object] = {}
        failed: list[InstepError] = []

        def one() -> None:
            at = order.pop()
            try:
                answers[at] = self.sent(parts[at])
            except InstepError as error:
                failed.append(error)
            if order and not (failed and self.rng.random() < NOT_SENT):
                self._later(one)
            elif failed:
                self._ends(failed[0].error_code)
            else:
                self._go_on(tuple(answers[x] for x in range(len(parts))))

        one()

    def sent(self, asked: SideChanges) -> object:
        home = self.homes[asked.side]
        if home.side is Side.RIGHT:
            self._mind_link()
        assert self.work is not None
        change_set = home.set_of(asked.changes)
        if self.recorded is not None:
            self.recorded = replace(
                self.recorded, sets=(*self.recorded.sets, (home.side.value, change_set.id))
            )
        answer = home.decide(change_set, NodeName("left"), accepts=self.work.accepts_deletions)
        if home.side is Side.RIGHT and (home.chance(self.options.answer_lost) or self.is_cut):
            raise UnavailableError("the answer was lost")
        return answer

    def _mind_life_there(self) -> None:
        if not self.homes[Side.RIGHT].is_alive:
            raise UnavailableError("the home does not answer")

    def _mind_link(self) -> None:
        if self.is_cut:
            raise UnavailableError("no link to the other home")
