"""The ``UniteMachine``: brings one tree to the union of several lines, and keeps it there.

It is a ``FollowMachine`` whose head is a union that this node makes itself: all newer heads of other homes go into one
target and one switch. What the own line publishes is in the tree already, so such a union is taken over without a
switch. Implements "The union as a generation" and "A refused union" of ``docs/spec/replication.md``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from msgspec.structs import replace

from instep.core import vocabulary as w
from instep.core.backoff import Chance
from instep.core.contract import PhaseRow, check_all
from instep.core.follow import contract
from instep.core.follow import vocabulary as f
from instep.core.follow.machine import FollowMachine
from instep.core.follow.state import INTERRUPTIBLE, QUIET, FollowJob, FollowPhase, Progress
from instep.core.follow.vocabulary import Due, FollowConfig
from instep.core.heads.stand import Stand, of_trouble
from instep.core.unite import vocabulary as u
from instep.core.vocabulary import Trouble
from instep.model.ids import HeadRef, LineId, NodeName
from instep.model.replication.union import UnionPart, Withheld
from instep.model.standing import Standing

_SWITCH = contract.PHASES[FollowPhase.SWITCH]
_STAGE = contract.PHASES[FollowPhase.STAGE]
ABSENT_MS = 5_000
"""So long a line of which nothing can be had stays out of the next union, unless a source of it comes."""
_NO_ROOM = frozenset({"no_space", "disk_full"})
_MEANWHILE = (*INTERRUPTIBLE, *QUIET, FollowPhase.REVERT)
"""Beside jobs of these phases a new union may be made: none of them brings a target into the tree."""


class UniteMachine(FollowMachine):
    """The tree of one fileset in replicate mode."""

    phases: ClassVar[Mapping[Any, PhaseRow]] = {
        **contract.PHASES,
        FollowPhase.SWITCH: dataclasses.replace(_SWITCH, events=(*_SWITCH.events, u.StageStale)),
        FollowPhase.STAGE: dataclasses.replace(_STAGE, events=(*_STAGE.events, u.ContentsMissing)),
    }
    numbered = (*FollowMachine.numbered, u.Unite)
    early = (*FollowMachine.early, u.Unite)
    _facts: u.UniteFacts

    def __init__(
        self, line: LineId, config: FollowConfig, rng: Chance, facts: u.UniteFacts | None = None
    ) -> None:
        super().__init__(line, config, rng, facts or u.UniteFacts())
        self._newest: tuple[UnionPart, ...] = ()
        self._uniting: u.Unite | None = None
        """The one under way."""
        self._united_over: tuple[UnionPart, ...] = ()
        """The live heads at the time when it was asked for."""
        self._is_known = False
        """Whether it is certain which union the tree holds. Until then nothing is staged, switched or restored."""
        self._absent: set[NodeName] = set()
        """Lines of which nothing could be had when it was tried last."""
        self._too_large: frozenset[UnionPart] = frozenset()
        """Heads for which there was no room when each was tried alone: the others go before them."""
        self._short: Trouble | None = None
        """Why there was no room, until there is."""
        self._is_apart = False
        """Whether heads are tried one at a time, for there was no room for them together."""
        self._is_withheld_due = bool(self._facts.withheld)
        self._forgotten: frozenset[NodeName] = frozenset()
        self._withheld = self._aim_withheld = self._facts.withheld
        """Of the next union, and of the one that was made last. The facts have those of the live one."""
        self._keeps_names = False
        """Whether the tree has names that its parts would not give: then their union is made anew."""
        self._sources.up(config.writer, is_writer=True)  # all pages of a union are here

    def step(self, event: u.UniteEvent, now_ms: int) -> tuple[u.UniteEffect, ...]:  # type: ignore[override]
        """As the ``FollowMachine``'s."""
        self._now = now_ms
        self._out = []
        self._take(event)
        if self._is_started:
            self._mind_parts()
            self._interrupt()
            if self._job is None:
                self._begin_next()
            self._tell()
        return check_all(contract.INVARIANTS, self, self._ordered())

    def _take(self, event: Any) -> None:
        match event:
            case u.TreeKnown():
                self._tree_known(event)
            case u.PartsKnown():
                self._newest, self._forgotten = event.parts, frozenset(event.forgotten)
                self._too_large &= frozenset(event.parts)
            case u.OwnCommitted():
                self._own_committed(event)
            case u.UnionMade():
                self._united(event)
            case u.UniteFailed():
                if self._is_answer(event.req):
                    self._fail("apply", event.trouble)
            case u.PartRefused():
                if self._is_answer(event.req):
                    self._refuse_part(event.part, event.trouble)
            case u.WithheldDue():
                self._is_withheld_due = True
            case u.LineReachable():
                self._absent.discard(event.origin)
            case f.SourceUp() | f.SourceDown() | f.WordHeard():
                pass  # contents come from the sources of the lines
            case _:
                super()._take(event)

    def _take_answer(self, job: FollowJob, event: Any) -> None:
        if isinstance(event, u.StageStale):
            self._progress = None
        elif isinstance(event, u.ContentsMissing):
            self._missed(event)
        else:
            super()._take_answer(job, event)

    # --- the union ------------------------------------------------------------------------------------------

    def _tree_known(self, event: u.TreeKnown) -> None:
        self._is_known = event.is_certain
        union = event.union
        self._keeps_names = not event.is_whole
        if union is None:
            return
        if union != self._facts.tree:
            self._hold(union, event.parts)
        self._know_withheld(union, event.withheld)

    def _know_withheld(self, union: HeadRef, withheld: tuple[Withheld, ...]) -> None:
        """Take what the tree does not have from its own record: the state may be an older one, or of the time before a
        switch that the recovery finished."""
        if union == self._facts.live:
            self._set(withheld=withheld)
        if union == self._facts.head:
            self._withheld = self._aim_withheld = withheld
        self._is_withheld_due = self._is_withheld_due or bool(withheld)

    def _own_committed(self, event: u.OwnCommitted) -> None:
        self._keeps_names = not event.is_whole
        self._hold(event.union, self._facts.attempts.parts_with((event.part,)))

    def _hold(self, union: HeadRef, parts: tuple[UnionPart, ...]) -> None:
        """The tree came to hold this union without a switch."""
        attempts = self._facts.attempts
        origins = {part.origin for part in parts}
        refused = tuple(part for part in attempts.refused if part.origin in origins or part in self._newest)
        self._set(
            tree=union,
            live=union,
            head=union,
            aim=parts,
            attempts=replace(attempts, live=parts, refused=refused),
            due=Due.NOTHING,
            replaced=None,
            begun=None,
            floor=None,
        )
        self._aim_withheld = self._facts.withheld
        self._forget_refusal()
        self._progress = None

    def _mind_parts(self) -> None:
        """Make the union that the tree shall hold next, when the one that was made last is another."""
        facts = self._facts
        if not self._is_at_rest() or self._uniting is not None:
            return
        tried, is_room_known = self._next_heads()
        if not is_room_known and not self._backoff.is_ready("apply", self._now):
            return
        wanted = facts.attempts.parts_with(tried)
        parts = tuple(part for part in wanted if part.origin not in self._forgotten)
        is_moved = bool(tried) or parts != wanted
        is_again = self._is_withheld_due and bool(facts.withheld)
        withheld = () if is_again else self._withheld
        is_other = (is_moved and parts != facts.aim) or withheld != self._aim_withheld
        if not is_other and not self._keeps_names:
            return
        self._is_withheld_due = False
        self._withheld = withheld
        req = self._next_req()
        self._uniting = u.Unite(req, parts, withheld, facts.allowed)
        self._united_over = facts.attempts.live
        self._say(self._uniting)

    def _is_at_rest(self) -> bool:
        """Whether the tree holds what is live for certain, and nothing is brought into it."""
        facts, job = self._facts, self._job
        is_live = facts.tree == facts.live and facts.due is Due.NOTHING
        return self._is_known and self._is_recovered and is_live and (job is None or job.phase in _MEANWHILE)

    def _next_heads(self) -> tuple[tuple[UnionPart, ...], bool]:
        """The heads to try next; and whether that waits for no back-off, for only a head without room failed."""
        heads = [part for part in self._newest if part.origin not in self._absent]
        fit = self._facts.attempts.wanted(part for part in heads if part not in self._too_large)
        if not fit:
            self._is_apart = False
            return self._facts.attempts.wanted(heads), False
        return fit[:1] if self._is_apart else fit, bool(self._too_large)

    def _has_no_room(self, trouble: Trouble) -> bool:
        """Whether other heads than those that were tried are next: one large head keeps no other home's out."""
        tried = self._tried()
        if trouble.code not in _NO_ROOM or self._too_large.issuperset(tried):
            return False
        self._is_apart = len(tried) > 1
        self._short = trouble
        if not self._is_apart:
            self._too_large |= frozenset(tried)
            return False
        self._set(head=self._facts.tree, aim=self._facts.attempts.live)
        return True

    def _stand(self) -> Stand:
        """A tree that holds all but a head without room is not in step, also while it is in no attempt."""
        stand = super()._stand()
        is_short = self._is_apart or not self._too_large.issubset(self._facts.attempts.live)
        if is_short and self._short is not None and stand.standing is Standing.IN_STEP:
            return of_trouble(self.line, self._short)
        return stand

    def _is_answer(self, req: int) -> bool:
        """Whether this ends the ``Unite`` under way."""
        if self._uniting is None or self._uniting.req != req:
            return False
        self._uniting = None
        return True

    def _refuse_part(self, part: UnionPart, trouble: Trouble) -> None:
        """The head goes into no union until its line has a newer one, or an operator asks."""
        self._set(attempts=self._facts.attempts.failed((part,), self._newest))
        self._note(
            "part_refused", f"generation {part.head.number} of {part.origin} is refused: {trouble.reason}"
        )

    def _missed(self, event: u.ContentsMissing) -> None:
        """Make another union, without the lines of which nothing can be had, and without single entries of others.
        After an answer that names nothing new the next attempt waits: its union would be the same."""
        self._progress = None
        facts = self._facts
        known = {(each.origin, each.wanted.path): each for each in self._aim_withheld}
        is_news = any(known.get((each.origin, each.wanted.path)) != each for each in event.withheld)
        if event.absent:
            is_news = is_news or not self._absent.issuperset(event.absent)
            self._absent.update(event.absent)
            self._out.append(w.SetTimer("absent", self._now + ABSENT_MS))
        known |= {(each.origin, each.wanted.path): each for each in event.withheld}
        if not is_news:
            self._fail("apply", event.trouble)
        self._withheld, self._aim_withheld = tuple(known.values()), facts.withheld
        self._set(head=facts.tree, aim=facts.attempts.live)
        if event.withheld:
            self._note("withheld", event.trouble.reason, total=len(event.withheld))

    def _timer(self, name: str) -> None:
        if name == "absent":
            self._absent.clear()
        else:
            self._is_withheld_due = self._is_withheld_due or name == "poll"
            super()._timer(name)

    def _united(self, event: u.UnionMade) -> None:
        """Take the union as the one to hold next. One that was made over other live heads than those of now may have
        older parts than the tree, also of another home, for a switch may have ended since."""
        made = self._uniting
        if made is None or not self._is_answer(event.req):
            return
        self._succeed("apply")
        tree = self._facts.tree
        is_passed = self._united_over != self._facts.attempts.live or not self._is_at_rest()
        if is_passed or (tree is not None and event.union.position <= tree.position):
            return  # the next step that finds the tree at rest asks again
        self._keeps_names = False
        self._aim_withheld = made.withheld
        self._set(head=event.union, aim=made.parts)
        self._head_accepted(event.union)

    def _tried(self) -> tuple[UnionPart, ...]:
        """The heads of the newest union that are not live."""
        live = self._facts.attempts.live
        return tuple(part for part in self._facts.aim if part not in live)

    def _replace_live(self, tree: HeadRef) -> None:
        facts = self._facts
        if tree == facts.head and tree != facts.live:
            attempts = facts.attempts.went_live(self._tried(), self._newest)
            self._set(attempts=attempts.without(self._forgotten), withheld=self._aim_withheld)
        super()._replace_live(tree)

    def _refuse(self, head: HeadRef, code: str, trouble: Trouble) -> None:
        super()._refuse(head, code, trouble)
        facts = self._facts
        tried = self._tried()
        if head == facts.head and tried:
            self._set(attempts=facts.attempts.failed(tried, self._newest))

    def _retry(self) -> None:
        super()._retry()
        facts = self._facts
        self._absent.clear()
        self._too_large, self._is_apart = frozenset(), False
        self._is_withheld_due = True
        self._set(attempts=facts.attempts.retried(), allowed=facts.attempts.refused)

    # --- the apply ------------------------------------------------------------------------------------------

    def _begin_next(self) -> None:
        if self._is_known or not self._is_recovered:
            super()._begin_next()

    def _interrupt(self) -> None:
        """A union that is not wanted any more is not finished first: its part of the own line is an old one."""
        job = self._job
        if job is None:
            return
        wanted = self._wanted()
        if job.phase is FollowPhase.CHECK and wanted is not None:
            self._drift.failed()
        elif job.phase not in INTERRUPTIBLE or job.head == wanted:
            return
        self._out.append(w.Cancel(job.req))
        self._job = None

    def _begin_apply(self) -> bool:
        """All pages of a union are here."""
        target = self._wanted()
        if target is not None and (self._progress is None or self._progress.target != target):
            self._progress = Progress(target, is_fetched=True)
        return super()._begin_apply()

    def _choose(self, target: HeadRef) -> NodeName | None:
        return self._config.writer

    def _penalize(self, name: NodeName | None) -> None:
        """There is no source of a union: its contents come over the lines."""

    def _apply_failed(self, job: FollowJob, trouble: Trouble) -> None:
        if self._has_no_room(trouble):
            return
        self._fail("apply", trouble)
        self._get_stuck(job, trouble)

    def _fail(self, key: str, trouble: Trouble, least_ms: int | None = None) -> None:
        if key == "apply" and trouble.code not in _NO_ROOM:
            self._too_large, self._is_apart = frozenset(), False
        super()._fail(key, trouble, least_ms)

    def _rest_on(self, holds: HeadRef) -> None:
        """The tree holds a union that the saved state does not know: ``TreeKnown`` says its parts."""
        if holds != self._facts.tree:
            self._is_known = False
