"""A simulated home of many: the real machines of its own line, of each other home's line, and of their union.

It performs their effects over a tree that fails, and stands for ``node/replica``: what the own line's look finds, which
heads go into the union, when the union may move.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from instep.core.follow import vocabulary as f
from instep.core.guards.guards import DeletionPolicy
from instep.core.keep import vocabulary as k
from instep.core.keep.machine import KeepMachine
from instep.core.publish import vocabulary as p
from instep.core.publish.machine import PublishMachine
from instep.core.union.parts import KnownHead, choose_parts
from instep.core.unite import vocabulary as u
from instep.core.unite.machine import UniteMachine
from instep.core.vocabulary import Started
from instep.model.ids import FilesetName, HeadRef, LineId, NodeName
from instep.testing.unions.disk import UnionDisk
from instep.testing.unions.laid import DEFINITION, SimUnions
from instep.testing.unions.ledger import UnionLedger
from instep.testing.unions.options import UnionOptions
from instep.testing.unions.process import UnionProcess
from instep.testing.world.network import Network
from instep.testing.world.node import Crashed
from instep.testing.world.world import World

FILESET = FilesetName("catalog")
UNION = NodeName("*")
OWN, TREE = "own", "tree"
"""The machines of the own line and of the union; those of kept lines have the origin's name."""
POLL_MS = 3_000


def line_of(origin: str) -> LineId:
    return LineId(FILESET, NodeName(origin))


class HomeBase(UnionProcess):
    """The machines of a home and their facts."""

    kind_of_unions = SimUnions

    def __init__(
        self, world: World, net: Network, name: str, options: UnionOptions, ledger: UnionLedger
    ) -> None:
        super().__init__(world, net, name, options)
        self.me = NodeName(name)
        self.ledger = ledger
        self.disk = UnionDisk()
        self.partners: tuple[NodeName, ...] = ()
        self.is_hub = True
        self.unions = self.kind_of_unions(self.disk, self.me)
        self.kinds: dict[str, Any] = {OWN: PublishMachine, TREE: UniteMachine, "kept": KeepMachine}
        self.clock_ms = 0
        """How far its wall clock is ahead."""
        self.sources: dict[NodeName, dict[NodeName, None]] = {}
        """Of each kept line the connected nodes that offer it."""

    def wall_ms(self) -> int:
        return self.world.now + self.clock_ms + 1_000

    def began(self) -> None:
        self.unions = self.kind_of_unions(self.disk, self.me)
        facts = self.disk.state.facts
        config = p.PublishConfig(
            node=self.me, settle_ms=20, settle_max_ms=500, rescan_ms=POLL_MS, partners=self.partners,
            deletions=DeletionPolicy(count=1_000_000), ask_wait_ms=2_000, retry_min_ms=50, retry_max_ms=POLL_MS,
        )  # fmt: skip
        self.machines[OWN] = self.kinds[OWN](line_of(self.me), config, self._jitter(OWN), facts.get(OWN))
        follow = f.FollowConfig(
            writer=self.me, poll_ms=POLL_MS, drift=f.DriftPolicy.OFFER, retry_min_ms=50, retry_max_ms=POLL_MS
        )
        self.machines[TREE] = self.kinds[TREE](line_of(UNION), follow, self._jitter(TREE), facts.get(TREE))
        for origin in self.disk.state.origins:
            self._begin_line(origin)
        self.take(TREE, Started())
        self.take(OWN, Started())
        self.parts_changed()

    def save(self, name: str, facts: Any) -> None:
        """Durable at once."""
        self.disk.state.facts[name] = facts

    def step(self, where: str, probability: float | None = None) -> None:
        """The process may die here."""
        if self.chance(self.options.crash_at_effect if probability is None else probability):
            raise Crashed(where)

    def _jitter(self, name: str) -> Any:
        return self.world.stream(f"jitter {self.name} {name} {self.incarnation}")

    def keep_line(self, origin: NodeName) -> None:
        if origin != self.me and origin not in self.machines:
            state = self.disk.state
            state.origins = tuple(dict.fromkeys((*state.origins, origin)))
            self._begin_line(origin)

    def _begin_line(self, origin: NodeName) -> None:
        config = k.KeepConfig(writer=origin, poll_ms=POLL_MS, retry_min_ms=50, retry_max_ms=POLL_MS)
        facts = self.disk.state.facts.get(origin)
        self.machines[origin] = self.kinds["kept"](line_of(origin), config, self._jitter(origin), facts)
        self.sources[origin] = {}
        self.begin_offers_of(origin)
        self.take(origin, Started())

    @abstractmethod
    def begin_offers_of(self, origin: NodeName) -> None:
        """Begin the machine that offers edits to this home."""

    @property
    def own_facts(self) -> p.PublishFacts:
        found: p.PublishFacts = self.disk.state.facts.get(OWN) or p.PublishFacts()
        return found

    @property
    def tree_facts(self) -> u.UniteFacts:
        found: u.UniteFacts = self.disk.state.facts.get(TREE) or u.UniteFacts()
        return found

    def kept_facts(self, origin: NodeName) -> k.KeepFacts:
        found: k.KeepFacts = self.disk.state.facts.get(origin) or k.KeepFacts()
        return found

    def live_of(self, origin: NodeName) -> HeadRef | None:
        live = self.tree_facts.attempts.live
        return next((part.head for part in live if part.origin == origin), None)

    def parts_changed(self) -> None:
        known = []
        for origin in self.disk.state.origins:
            facts = self.kept_facts(origin)
            if facts.kept is not None:
                known.append(KnownHead(origin, facts.kept, facts.definition))
        chosen = choose_parts(known, DEFINITION)
        self.post(TREE, u.PartsKnown(chosen.parts))
