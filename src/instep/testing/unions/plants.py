"""Planted bugs of many homes: each breaks one rule, and the simulator must find it."""

from __future__ import annotations

from dataclasses import replace as with_options
from typing import Any

from msgspec.structs import replace

from instep.core.heads import vocabulary as h
from instep.core.keep.machine import KeepMachine
from instep.core.lines.accept import AcceptedHead
from instep.core.union.divide import Divided, divide
from instep.core.unite.machine import UniteMachine
from instep.core.vocabulary import SignerVerdict
from instep.model.change import PathChange
from instep.model.ids import Digest, HeadRef
from instep.model.manifest.entry import Entry
from instep.model.replication.union import UnionPart
from instep.testing.unions.home import SimUnionHome
from instep.testing.unions.laid import SimLaid, SimUnions
from instep.testing.unions.options import UnionOptions


class _LaidFromFacts(SimUnionHome):
    """Believes the state about what the tree holds, not the record of the tree."""

    def began(self) -> None:
        self.disk.held = None
        super().began()


class _HoldsOnInASwitch(SimUnions):
    """Says during a switch that the tree holds the union of before."""

    def lost(self) -> None:
        """Nothing is forgotten."""


class _LooksInASwitch(SimUnionHome):
    """Looks at the tree while a switch goes on."""

    kind_of_unions = _HoldsOnInASwitch

    @property
    def is_still(self) -> bool:
        return self.unions.now is not None

    def _is_of_now(self, laid: SimLaid) -> bool:
        return True


class _ForgetsGivenNames(SimUnions):
    """A commit of the own line gives other homes' files their names back, though nothing moved them in the tree."""

    def with_own(self, head: HeadRef | None) -> SimLaid:
        assert self.now is not None
        if head is None or self.now.part_of(self._me) == head:
            return self.now
        parts = {part.origin: part for part in self.now.parts} | {self._me: UnionPart(self._me, head)}
        return self._united(tuple(parts[name] for name in sorted(parts)), self.now, self.now.withheld)


class _GivesNamesBack(SimUnionHome):
    kind_of_unions = _ForgetsGivenNames


class _OfferedIsNew(SimUnionHome):
    """Takes a file whose edit is offered for a new one of its own, where its home removed it meanwhile."""

    def divide(self, laid: SimLaid, found: Digest) -> Divided:
        return divide(laid.united, laid.lines, self.me, found, self.disk.state.get_page, self.wall_ms())


class _LooksOverARevert(SimUnionHome):
    """Offers what a look found before a revert."""

    def is_since(self, reverts: int) -> bool:
        return True


class _BasesNotCompared(SimUnionHome):
    """Makes changes whatever lies there."""

    def is_base(self, here: Entry | None, change: PathChange) -> bool:
        return True


class _WithdrawnIsRemoved(UniteMachine):
    """Leaves a line out of the union that no node offers any more."""

    def _mind_parts(self) -> None:
        known = {part.origin for part in self._newest} | {self._config.writer}
        attempts = self._facts.attempts
        live = tuple(part for part in attempts.live if part.origin in known)
        if live != attempts.live:
            self._set(attempts=replace(attempts, live=live))
            self._keeps_names = True
        super()._mind_parts()


class _ForgetsLines(SimUnionHome):
    """Knows the lines that are offered now."""

    def parts_changed(self) -> None:
        known = self.disk.state.origins
        self.disk.state.origins = tuple(origin for origin in known if self.sources.get(origin))
        super().parts_changed()
        self.disk.state.origins = known


class _GivesUpWithheld(UniteMachine):
    """Does not try withheld entries again."""

    def _mind_parts(self) -> None:
        self._is_withheld_due = False
        super()._mind_parts()


class _HeadMayFall(KeepMachine):
    """Takes whatever generation comes, newer or not."""

    def _head_seen(self, event: h.HeadSeen) -> None:
        if (
            event.verdict.is_valid
            and event.verdict.signer == self.line.origin
            and self._facts.head is not None
        ):
            body = event.signed.body()
            ref = HeadRef(body.epoch, body.number, event.signed.id, body.root)
            self._accept(AcceptedHead(ref, body), event, self._sources.get(event.source))
        else:
            super()._head_seen(event)


class _AnybodyMayWrite(KeepMachine):
    """Does not look at the signer."""

    def _head_seen(self, event: h.HeadSeen) -> None:
        super()._head_seen(replace(event, verdict=SignerVerdict(True, self.line.origin)))


HOMES: dict[str, type[SimUnionHome]] = {
    "laid_from_facts": _LaidFromFacts,
    "looks_in_a_switch": _LooksInASwitch,
    "given_names_forgotten": _GivesNamesBack,
    "withdrawn_is_removed": _ForgetsLines,
    "offered_is_new": _OfferedIsNew,
    "bases_not_compared": _BasesNotCompared,
    "looks_over_a_revert": _LooksOverARevert,
}
KINDS: dict[str, dict[str, type[Any]]] = {
    "withdrawn_is_removed": {"tree": _WithdrawnIsRemoved},
    "withheld_for_ever": {"tree": _GivesUpWithheld},
    "head_may_fall": {"kept": _HeadMayFall},
    "anybody_may_write": {"kept": _AnybodyMayWrite},
}
UNION_PLANTS = tuple(dict.fromkeys((*HOMES, *KINDS)))
BUSY = UnionOptions(act_every_ms=150, renames=0.1, foreign=0.4, job_ms=100, step_ms=20)
EDITED = with_options(BUSY, act_every_ms=300, foreign=0.8, offers=True)
SCENARIOS: dict[str, UnionOptions] = {
    "laid_from_facts": with_options(BUSY, act_every_ms=500, lose_state_every_ms=3_000),
    "looks_in_a_switch": BUSY,
    "given_names_forgotten": BUSY,
    "withdrawn_is_removed": with_options(BUSY, shape="chain", withdraw_every_ms=2_000, crash_every_ms=3_000),
    "withheld_for_ever": with_options(BUSY, act_every_ms=1_000, withheld=0.2),
    "head_may_fall": with_options(BUSY, shape="chain", lies=0.5),
    "offered_is_new": with_options(EDITED, removes=0.4, cut_every_ms=2_000),
    "bases_not_compared": EDITED,
    "looks_over_a_revert": EDITED,
    "anybody_may_write": with_options(BUSY, act_every_ms=1_000, shape="chain", lies=0.5),
}
"""The options by which each bug comes up soon."""
