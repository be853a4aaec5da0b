"""Partners that are taken out of the simulated cluster, and listed again: as they were, or as a new machine."""

from __future__ import annotations

from instep.core.follow.vocabulary import FollowFacts
from instep.model.ids import NodeName
from instep.testing.partners.partner import SimPartner
from instep.testing.world.network import Network
from instep.testing.world.world import World
from instep.testing.writers.writer import SimWriter


class MembershipOperators:
    """The direct partners of the writer come and go. A removed partner reaches the writer no more, keeps its tree and
    its other sources, and the checkers promise it nothing."""

    def __init__(self, world: World, net: Network, writer: SimWriter, partners: list[SimPartner]) -> None:
        self._world = world
        self._net = net
        self._writer = writer
        self._direct = [partner for partner in partners if partner.name in writer.partners]
        self._rng = world.stream("members")

    def change(self) -> None:
        """An operator types ``instep partner remove``, or lists a partner again."""
        partner = self._rng.choice(self._direct)
        if partner.is_member:
            self._world.record(partner.name, "!", "is taken out of the cluster")
            self._set(partner, is_member=False)
        else:
            if self._rng.random() < 0.4 and self._may_be_new():
                self._renew(partner)
            self._world.record(partner.name, "!", "is listed again")
            self._set(partner, is_member=True)

    def settle(self) -> None:
        """Peace: one partner that others do not depend on may stay out; the rest is listed again."""
        out = [partner for partner in self._direct if not partner.is_member]
        may_stay = [partner for partner in out if partner.name != "hub"]
        stays = self._rng.choice(may_stay) if may_stay and self._rng.random() < 0.5 else None
        for partner in out:
            if partner is not stays:
                self._set(partner, is_member=True)

    def _set(self, partner: SimPartner, *, is_member: bool) -> None:
        partner.is_member = is_member
        self._net.know(self._writer.name, partner.name, is_known=is_member)
        rollouts = self._writer.rollouts
        if rollouts is not None:
            (rollouts.watch.listed if is_member else rollouts.watch.left)(partner.name)
        self._writer.change_partners(tuple(NodeName(each.name) for each in self._direct if each.is_member))

    def _may_be_new(self) -> bool:
        """Where the writer's state is put back, an empty partner could be the last that knew its newest number; where a
        partner's own is, or a rollout has to account for its orders, the world could not distinguish two machines."""
        options = self._world.options
        is_put_back = options.restore_every_ms or options.snapshot_every_ms or options.old_state_every_ms
        return not (is_put_back or options.has_rollouts)

    def _renew(self, partner: SimPartner) -> None:
        partner.crash("its machine is a new one")
        partner.store.restore()
        place = partner.place
        place.put_back()
        place.tree, place.archive, place.holds, place.is_copied = {}, {}, None, False
        partner.is_unproven, partner.switching = False, None
        partner.ledger.last[partner.name] = FollowFacts()
        partner.ledger.floors.pop(partner.name, None)
