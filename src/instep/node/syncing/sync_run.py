"""One run of a sync profile: look at both homes, plan, send the right home its changes, then the left, keep the base.

Implements the section "Runs" of ``docs/spec/sync.md``. A path is changed at a home only where it still is what the plan
saw. A run that ends anywhere leaves the base of before, and the next one comes to the same end.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from instep.core.sync.reconcile import Listed, SyncPlan, SyncStep, reconcile
from instep.core.sync.table import Direction, KindRules, Side
from instep.errors import InstepError, RefusedError, UnavailableError
from instep.model.change import (
    CHANGE_SET_MAX_BYTES,
    CHANGE_SET_VERSION,
    CHANGES_MAX,
    NONCE_BYTES,
    ChangeAnswer,
    ChangeSet,
    OutcomeKind,
    PathChange,
    PathOutcome,
    wanted_contents,
)
from instep.model.ids import Digest, HeadRef
from instep.model.manifest import manifest
from instep.model.manifest.entry import Entry, Kind
from instep.model.paths import is_below, shown
from instep.model.sync import PAST_MAX, SyncBase, SyncPhase
from instep.node.config.sync import SyncSettings
from instep.node.runtime.driver import wall_ms
from instep.node.runtime.runtime import Runtime
from instep.node.syncing.kinds import rules_of
from instep.node.syncing.sides import FarHome, NearHome, SeenTree, has_contents
from instep.tree.root.failpoints import failpoint, register

FAILPOINTS = {phase: register(f"sync.{phase.value}") for phase in SyncPhase if not phase.is_over}
"""As a phase begins."""
ROUNDS_MAX = 3
_BYTES_OF_CHANGE = 400
"""A change set with so many bytes for each change is sure to fit."""


@dataclass(slots=True)
class SyncWork:
    """What a run did until now. ``undone`` are paths that a home did not change, by side."""

    author: str
    message: str
    is_dry_run: bool = False
    initial: Side | None = None
    accepts_rollback: bool = False
    number: int = 0
    began_at_ms: int = field(default_factory=wall_ms)
    ended_at_ms: int | None = None
    phase: SyncPhase = SyncPhase.FLUSHING
    rounds: int = 0
    done: int = 0
    total: int = 0
    steps: tuple[SyncStep, ...] = ()
    listed: list[Listed] = field(default_factory=list)
    undone: list[tuple[Side, PathOutcome]] = field(default_factory=list)
    made: dict[Side, int] = field(default_factory=lambda: dict.fromkeys(Side, 0))
    heads: dict[Side, HeadRef] = field(default_factory=dict)
    error: InstepError | None = None

    @property
    def percent(self) -> int:
        return (
            100
            if self.phase is SyncPhase.DONE
            else min(99, 100 * self.done // self.total if self.total else 0)
        )


class SyncRun:
    """``near`` is the side of this node."""

    def __init__(
        self,
        runtime: Runtime,
        profile: SyncSettings,
        near: NearHome,
        far: FarHome,
        base: SyncBase | None,
        work: SyncWork,
        changed: Callable[[], None],
    ) -> None:
        self._runtime = runtime
        self._profile = profile
        self._near, self._far = near, far
        self._is_left_near = profile.left.home == near.node
        self._base = base
        self.work = work
        self._changed = changed
        self._made: dict[Side, set[bytes]] = {}
        """What the homes made in this round."""

    async def run(self) -> SyncBase | None:
        """The new base; None after a dry run, or when nothing at all changed."""
        work = self.work
        root = self._base.root if self._base is not None else manifest.EMPTY_ROOT
        if self._base is None and work.initial is None:
            raise RefusedError(
                f"{self._profile.name} has no base yet: nothing says what both sides had",
                hint=f"which side is right: instep sync run {self._profile.name} --initial left (or right)",
                code="no_base",
                profile=self._profile.name,
            )
        self._put_empty()
        while True:
            self._phase(SyncPhase.FLUSHING)
            left, right = await self._look(root)
            if self._is_settled(left, right):
                return None
            self._phase(SyncPhase.PLANNING)
            if work.initial is not None and work.rounds == 0:
                root = (right if work.initial is Side.LEFT else left).head.root
            plan = await asyncio.to_thread(self._plan, root, left.head.root, right.head.root)
            self._show_plan(plan)
            if work.is_dry_run:
                return None
            work.undone.clear()
            self._made = {Side.LEFT: set(), Side.RIGHT: set()}
            await self._send(Side.RIGHT, plan, left, right)
            await self._send(Side.LEFT, plan, left, right)
            self._phase(SyncPhase.BASE)
            root = await asyncio.to_thread(self._next_base, root, plan)
            work.rounds += 1
            moved = any(outcome.kind is OutcomeKind.OUTDATED for _, outcome in work.undone)
            if not moved or work.rounds >= ROUNDS_MAX:
                return self._new_base(root, left, right)

    # --- looking and planning -----------------------------------------------------------------------------------

    async def _look(self, root: Digest) -> tuple[SeenTree, SeenTree]:
        near, far = await asyncio.gather(self._near.look(root), self._far.look(root), return_exceptions=True)
        for found in (near, far):
            if isinstance(found, BaseException):
                raise found
        assert isinstance(near, SeenTree)
        assert isinstance(far, SeenTree)
        left, right = (near, far) if self._is_left_near else (far, near)
        for side, tree in ((Side.LEFT, left), (Side.RIGHT, right)):
            self.work.heads.setdefault(side, tree.head)
            self._refuse_gone_back(side, tree.head)
        return left, right

    def _is_settled(self, left: SeenTree, right: SeenTree) -> bool:
        base = self._base
        return (
            base is not None
            and base.is_whole
            and self.work.initial is None
            and (base.left.id, base.right.id) == (left.head.id, right.head.id)
        )

    def _refuse_gone_back(self, side: Side, head: HeadRef) -> None:
        """A rollback looks like changes, and would flow to the other side."""
        base = self._base
        if base is None or self.work.accepts_rollback:
            return
        last, past = (base.left, base.past_left) if side is Side.LEFT else (base.right, base.past_right)
        if head.root != last.root and head.root in past:
            home = self._profile.left if side is Side.LEFT else self._profile.right
            raise RefusedError(
                f"{home} went back: generation {head.number} has what it had before the last run",
                hint=f"take it as a change: instep sync run {self._profile.name} --accept-rollback",
                code="went_back",
                side=side.value,
                generation=head.number,
            )

    def _plan(self, root: Digest, left: Digest, right: Digest) -> SyncPlan:
        """A first run takes all of one side, whatever the kinds say: the other side is the base then."""
        initial = self.work.initial
        if initial is not None:
            whole = KindRules(Direction.UP if initial is Side.LEFT else Direction.DOWN)
            return reconcile(root, left, right, lambda _: whole, self._page)
        return reconcile(root, left, right, rules_of(self._profile), self._page)

    def _page(self, digest: Digest) -> bytes:
        raw = self._runtime.store.get_page(digest)
        if raw is None:
            raise UnavailableError(
                "a page that the run needs is not here any more",
                hint="start the run again",
                code="superseded",
            )
        return raw

    def _put_empty(self) -> None:
        pages: list[tuple[Digest, bytes]] = []
        manifest.build((), lambda digest, raw: pages.append((digest, raw)))
        self._runtime.store.put_pages(pages)

    def _show_plan(self, plan: SyncPlan) -> None:
        work = self.work
        known = {each.path for each in work.listed}
        work.listed += [each for each in plan.listed if each.path not in known]
        if work.rounds == 0:
            work.steps = plan.steps
        work.total += sum(step.changes_left + step.changes_right for step in plan.steps)

    # --- sending ------------------------------------------------------------------------------------------------

    async def _send(self, side: Side, plan: SyncPlan, left: SeenTree, right: SeenTree) -> None:
        """Have one home make its changes, with the contents that it lacks from the other side."""
        self._phase(SyncPhase.RIGHT if side is Side.RIGHT else SyncPhase.LEFT)
        is_right = side is Side.RIGHT
        is_near = is_right is not self._is_left_near
        home = self._near if is_near else self._far
        giver = left if is_right else right
        sources = _sources(plan, is_right)
        for changes in _sets(_changes(plan, is_right)):
            change_set = ChangeSet(
                CHANGE_SET_VERSION,
                home.line.fileset,
                home.line.origin,
                secrets.token_bytes(NONCE_BYTES),
                self.work.author,
                self.work.message,
                wall_ms(),
                changes,
            )
            wanted = wanted_contents(change_set)
            absent = [wanted[at] for at in await home.missing(wanted)] if wanted else []
            entries = [_source(sources, digest, self._profile.name) for digest, _ in absent]
            if is_near:
                answer = await self._near.take(change_set, entries, self._far, giver)
            else:
                answer = await self._far.take(change_set, entries, self._near, giver)
            self._answered(side, answer)

    def _answered(self, side: Side, answer: ChangeAnswer) -> None:
        work = self.work
        self._made[side].update(answer.made)
        work.made[side] += len(answer.made)
        work.undone += [(side, outcome) for outcome in answer.outcomes if not outcome.is_made]
        work.done += len(answer.outcomes)
        if answer.head is not None:
            work.heads[side] = answer.head
        self._changed()

    # --- the base -----------------------------------------------------------------------------------------------

    def _next_base(self, root: Digest, plan: SyncPlan) -> Digest:
        """The base after these steps: a path that a home did not change keeps its old one."""
        made = self._made
        changes = [
            (step.path, step.base_after)
            for step in plan.steps
            if step.changes_base
            and (not step.changes_left or step.path in made[Side.LEFT])
            and (not step.changes_right or step.path in made[Side.RIGHT])
        ]
        pages: dict[Digest, bytes] = {}

        def page(digest: Digest) -> bytes:
            return pages.get(digest) or self._page(digest)

        after = manifest.edit(root, changes, page, pages.__setitem__)
        self._runtime.store.put_pages(pages.items())
        return after

    def _new_base(self, root: Digest, left: SeenTree, right: SeenTree) -> SyncBase:
        work, old = self.work, self._base
        past = (old.past_left, old.past_right) if old is not None else ((), ())
        heads = work.heads[Side.LEFT], work.heads[Side.RIGHT]
        number = old.run + 1 if old is not None else 1
        return SyncBase(
            number,
            root,
            heads[0],
            heads[1],
            not work.undone,
            tuple(dict.fromkeys((left.head.root, *past[0])))[:PAST_MAX],
            tuple(dict.fromkeys((right.head.root, *past[1])))[:PAST_MAX],
        )

    def _phase(self, phase: SyncPhase) -> None:
        self.work.phase = phase
        failpoint(FAILPOINTS[phase])
        self._changed()


def _changes(plan: SyncPlan, is_right: bool) -> Iterator[PathChange]:
    for step in plan.steps:
        if is_right and step.changes_right:
            yield PathChange(step.path, step.right, step.to_right)
        elif not is_right and step.changes_left:
            yield PathChange(step.path, step.left, step.to_left)


def _sets(changes: Iterator[PathChange]) -> Iterator[tuple[PathChange, ...]]:
    """As few sets as hold them; a removed directory and what lay in it stay in one."""
    most = min(CHANGES_MAX, CHANGE_SET_MAX_BYTES // _BYTES_OF_CHANGE)
    group: list[PathChange] = []
    batch: list[PathChange] = []
    top: PathChange | None = None
    for change in changes:
        if top is not None and not is_below(change.path, top.path):
            top = None
        if top is None:
            if batch and len(batch) + len(group) > most:
                yield tuple(batch)
                batch = []
            batch += group
            group = []
            is_kept = change.new is not None and change.new.kind is Kind.DIR
            top = change if change.base is not None and change.base.kind is Kind.DIR and not is_kept else None
        group.append(change)
        if len(group) > CHANGES_MAX:
            raise RefusedError(
                f"{shown(group[0].path)} alone has more than {CHANGES_MAX} changes",
                hint="remove the directory on both sides, or in parts",
                code="too_many_changes",
                path=shown(group[0].path),
            )
    if batch and len(batch) + len(group) > most:
        yield tuple(batch)
        batch = []
    if batch or group:
        yield (*batch, *group)


def _sources(plan: SyncPlan, is_right: bool) -> dict[Digest, Entry]:
    """Where the other side has each content."""
    entries = (step.left if is_right else step.right for step in plan.steps)
    return {entry.digest: entry for entry in entries if entry is not None and has_contents(entry)}


def _source(sources: dict[Digest, Entry], digest: Digest, profile: str) -> Entry:
    found = sources.get(digest)
    if found is None:
        raise UnavailableError(
            "a content is on neither side any more",
            hint=f"start the run again: instep sync run {profile}",
            code="contents_missing",
            digest=digest.hex(),
        )
    return found
