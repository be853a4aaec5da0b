"""A simulated cluster whose writer changes: handed over, promoted, claimed twice, back with a restored backup.

``simulate_succession(seed)`` draws faults and operators as ``simulation.simulate`` does, with its own checkers: no
member takes generations of two writers in one epoch; the generations that a writer published before it handed over
stay in the line; those that a promotion named are not in it, and nothing else that its node knew of is missing; after
the faults one member writes and all others are in step with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from instep.core.publish import vocabulary as p
from instep.core.publish.right_to_write import why_not_writer
from instep.core.publish.vocabulary import PublishFacts
from instep.core.writer_change import follows_by_itself, writer_by
from instep.model.ids import NodeName
from instep.model.standing import Standing
from instep.testing.cluster import Result, SessionEnd
from instep.testing.world.options import Options
from instep.testing.world.world import World
from instep.testing.writer_changes.member import SimMember
from instep.testing.writer_changes.operators import LineOperators
from instep.testing.writer_changes.plants import FOLLOWER_PLANTS, WRITER_PLANTS
from instep.testing.writers.restore_operators import has_to_decide

SPLIT_AT_MS = 55_000
DECIDE_MS = 6_000
BASE_WAIT_MS = 20_000
"""By then each member that has the base of an epoch has sent it."""


def simulate_succession(seed: int, plant: str | None = None, *, is_split: bool = False) -> Result:
    """Run one seed to its end or to its first broken promise. ``is_split``: shortly before the faults stop two
    members are promoted that cannot hear each other."""
    options = Options.drawn(World(seed, Options()).stream, "rollouts").but(
        partners=2 + seed % 2,
        edit_every_ms=400,
        has_hub=False,
        has_gates=False,
        is_one_observing=False,
        keeps_drift=False,
        forge=0.0,
        bad_generation=0.0,
        drift_every_ms=0,
        wipe_every_ms=0,
        unmount_every_ms=0,
        pause_every_ms=0,
        history_loss=0.0,
        files=3,
        has_rollouts=False,
        reconfigure_every_ms=0,
        heirs_apart=0.3,
        split_at_ms=SPLIT_AT_MS if is_split else 0,
    )
    return _Cluster(World(seed, options, plant)).run()


class _Cluster(LineOperators):
    def __init__(self, world: World) -> None:
        super().__init__(world)
        names = ("main", *(f"s{number}" for number in range(1, world.options.partners + 1)))
        for name in names:
            others = tuple(other for other in names if other != name)
            member = SimMember(world, self.net, name, self.line, others, self.ledger)
            member.members = self.members
            member.writes.world_machine = WRITER_PLANTS.get(world.plant or "")
            member.follows.world_machine = FOLLOWER_PLANTS.get(world.plant or "")
            member.on_commit = self._committing
            member.is_legitimate = self._is_legitimate
            self.members[name] = member
        for number in range(world.options.files):
            self.members["main"].follows.place.tree[b"f%02d" % number] = b"first %d" % number
        for member in self.members.values():
            member.boot()
            world.at(self.rng.uniform(0, 1_500), member.retell)
        self._tend_sessions()
        self._decide()

    def _decide(self) -> None:
        """An operator who sees that a writer stands ``held`` since it was restored says that the tree is right."""
        for member in self.members.values():
            if member.is_alive and member.is_writing and has_to_decide(member.writes.machine):
                member.writes.ask_publish(accept_deletions=True, is_over=True)
        self.world.at(DECIDE_MS, self._decide)

    def links(self) -> Iterator[tuple[SessionEnd, SessionEnd]]:
        """Every member dials the nodes that its file names and the ones that it dialled before."""
        for member in self.members.values():
            for source in member.dials:
                if source != member.name:
                    yield member, self.members[source]

    # --- operators ------------------------------------------------------------------------------------------

    def disturb(self) -> None:
        options = self.world.options
        self._every(options.edit_every_ms, self._edit)
        self._every(options.cut_every_ms, self._cut)
        self._every(
            options.crash_every_ms, lambda: self.rng.choice(list(self.members.values())).active.crash("power")
        )
        self._every(self.rng.choice((1_500, 5_000)), self._hand_over)
        self._every(self.rng.choice((0, 9_000, 20_000)), self._home_dies)
        if options.split_at_ms:
            self.world.at(options.split_at_ms, lambda: self._home_dies(is_split=True))
        self._every(self.rng.choice((0, 5_000, 15_000)), self._restore_former)
        self._every(self.rng.choice((0, 300)), lambda: None if options.split_at_ms else self._sign_back())
        self._every(1_500, self._back_up)
        self._always(40, self._look_at_heads)
        self._always(20, self._note_commits)
        self._always(4_000, self._tidy)

    def _is_troubled(self) -> bool:
        return self.world.is_faulty and not self._is_split()

    def _is_split(self) -> bool:
        """Two were promoted, and nothing else happens any more."""
        return 0 < self.world.options.split_at_ms <= self.world.now

    def _always(self, each_ms: int, do: Callable[[], None]) -> None:
        def again() -> None:
            do()
            self.world.at(each_ms, again)

        self.world.at(each_ms, again)

    def _edit(self) -> None:
        for member in self.members.values():
            if member.is_writing:
                self._edits += 1
                path = b"f%02d" % self.people.randrange(self.world.options.files + 3)
                member.writes.edit_tree(path, b"edit %d" % self._edits)

    def _cut(self) -> None:
        names = list(self.members)
        if self.rng.random() < 0.5:
            self.net.heal()
            return
        lonely = self.rng.choice(names)
        for name in names:
            if name != lonely:
                self.net.cut(lonely, name)
                self.net.cut(name, lonely)

    def _back_up(self) -> None:
        for member in self.members.values():
            if isinstance(member.follows.store.facts, PublishFacts):
                self._backups.append((member.name, member.follows.store.backup()))

    # --- peace ----------------------------------------------------------------------------------------------

    def make_peace(self) -> None:
        self.world.is_faulty = False
        self.world.record("world", "!", "the faults stop")
        self.net.heal()
        for member in self.members.values():
            self._revive(member)
        self.world.at(8_500, self._last_words)

    def _last_words(self) -> None:
        for member in self.members.values():
            if member.is_writing:
                member.writes.take(p.Resumed())
                member.writes.overflow()
                member.writes.ask_publish(accept_deletions=True)
        self._rest_since = None

    def _tidy(self) -> None:
        """The acts of operators once the faults are over: end a dispute, give in where the line went on, promote the
        member that has most where no member has the base that the writer has to build on."""
        if self.world.is_faulty or self.world.now < self.world.options.faulty_ms + 6_000:
            return
        alive = [one for one in self.members.values() if one.is_alive]
        disputed = [one for one in alive if one.facts.epochs.disputed is not None and one.held is not None]
        if disputed:
            self._promote_best(disputed)
            return
        if self.world.now >= self.world.options.faulty_ms + BASE_WAIT_MS and any(
            map(_misses_its_base, alive)
        ):
            self._promote_best([one for one in alive if not one.is_writing])
            return
        for member in alive:
            facts = member.facts
            writer = writer_by(facts.epochs)
            if not member.is_writing or writer is None or writer == member.name:
                continue
            if not follows_by_itself(facts, facts.epochs):
                self.world.record(member.name, "!", "its operator lets it follow")
                member.rewrite(writer)

    def _promote_best(self, fit: list[SimMember]) -> None:
        if fit:
            self._promote(max(fit, key=lambda one: (one.held.position if one.held else (0, 0), one.name)), 0)

    def lagging(self, *, is_short: bool = False) -> str:
        """The members that are not in step with the one writer, and why; empty when all are."""
        writers = [one for one in self.members.values() if one.is_writing]
        if len(writers) != 1:
            return f"{len(writers)} write: {', '.join(one.name for one in writers)}"
        writer = writers[0]
        head = writer.writes.announced
        if (
            head is None
            or writer.facts.head != head
            or writer_by(writer.facts.epochs) not in (None, writer.name)
        ):
            return f"{writer.name} is not at rest"
        late = []
        for member in self.members.values():
            report = self.ledger.reports.get(member.name)
            if member is writer:
                continue
            is_right = (
                member.is_alive
                and member.toml == writer.name
                and report is not None
                and report.standing is Standing.IN_STEP
                and member.facts.live == head
                and not member.follows.differing(head)
            )
            if not is_right:
                late.append(
                    f"{member.name} of {member.toml}: {report and report.standing} {report and report.reason}"
                )
        return "; ".join(late)


def _misses_its_base(member: SimMember) -> bool:
    """The condition that a writer's status shows as ``base_missing``."""
    facts = member.facts
    if not isinstance(facts, PublishFacts):
        return False
    why = why_not_writer(member.line, facts, NodeName(member.name))
    return why is not None and why.code == "base_missing"
