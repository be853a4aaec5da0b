"""When a simulated cluster is at rest, and the promises to check then."""

from __future__ import annotations

from instep.core.follow.vocabulary import FollowFacts
from instep.core.rollout.vocabulary import ended
from instep.model.standing import Standing
from instep.testing.partners.partner import SimPartner
from instep.testing.world.world import BrokenPromise, World
from instep.testing.writers.writer import SimWriter


class Rest:
    """Looks at the nodes of one cluster."""

    def __init__(self, world: World, writer: SimWriter, partners: list[SimPartner]) -> None:
        self.world = world
        self.writer = writer
        self.partners = partners
        self.ledger = writer.ledger
        self.rollouts = writer.rollouts

    def lagging(self, *, is_short: bool = False) -> str:
        """The nodes that are not in step, and why; empty when all are."""
        writer, head = self.writer, self.writer.announced
        if head is None or not writer.is_alive:
            return "the writer has announced nothing"
        if writer.machine.facts.head != head:
            return "the writer has not announced its head"
        if writer.place.tree != self._published():
            return "the writer has not published its tree"
        late = []
        for partner in self._members():
            facts: FollowFacts = partner.machine.facts
            report = self.ledger.reports.get(partner.name)
            standing = report.standing if report else None
            if partner.config.is_observing:
                is_right = standing is Standing.OBSERVING and facts.head == head
            elif partner.config.drift.value == "keep":
                is_right = standing in (Standing.IN_STEP, Standing.DRIFTED) and facts.live == head
            else:
                is_right = standing is Standing.IN_STEP and facts.live == head and not partner.differing(head)
            if not (partner.is_alive and is_right):
                if is_short:
                    return partner.name
                late.append(f"{partner.name} {standing and standing.value}: {report and report.reason}")
        if not late and self.rollouts is not None:
            rollout = self.rollouts.watch.facts
            if rollout.target != head or not ended(rollout.state):
                late.append(f"the rollout is {rollout.state.value}: {self.rollouts.watch.view}")
        return "; ".join(late)

    def _members(self) -> list[SimPartner]:
        """Only members must be in step; a partner that stays out is left out."""
        return [partner for partner in self.partners if partner.is_member]

    def _published(self) -> dict[bytes, bytes]:
        """The writer's tree as its head says, where the digests agree."""
        head = self.writer.announced
        assert head is not None
        is_same = self.writer.store.entries(head.root) == self.writer.place.digests()
        return self.writer.place.tree if is_same else {}

    def check_end(self) -> None:
        """Check the promises at rest."""
        for partner in self._members():
            if partner.config.is_observing:
                if partner.machine.facts.tree is not None:
                    raise BrokenPromise("P3", f"{partner.name} observes, and wrote")
                continue
            live = partner.machine.facts.live
            assert live is not None
            if partner.config.drift.value != "keep":
                differing = partner.differing(live)
                if differing:
                    raise BrokenPromise("P3", f"{partner.name} rests on a tree that differs: {differing[:3]}")
            if partner.never_reloaded(live.id):
                raise BrokenPromise(
                    "P2", f"{partner.name}: the reload hook that was due for {live.number} never ran"
                )
            if partner.place.stage:
                raise BrokenPromise("P2", f"{partner.name}: staging is not empty")
        if self.rollouts is not None:
            self.rollouts.watch.check_end({n.name: n.machine.facts for n in self._members()})
        unanswered = [r for r in self.ledger.asked if r not in self.ledger.answered]
        if unanswered:
            raise BrokenPromise("P9", f"requests without an answer: {unanswered[:5]}")
