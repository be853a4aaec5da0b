"""One simulated cluster from a seed: faults first, then peace, then every node must be in step within
a bound."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from instep.core.follow.vocabulary import Paused, Resumed, RetryAsked
from instep.testing.checkers.rollout_watch import RolloutWatch
from instep.testing.cluster import Result, SessionEnd, SimCluster
from instep.testing.membership import MembershipOperators
from instep.testing.partners.old_states import OldStates
from instep.testing.partners.partner import BAD, SimPartner
from instep.testing.partners.rollout_partner import RolloutSide
from instep.testing.plants import FOLLOW_PLANTS, NEEDED, PUBLISH_PLANTS, ROLLOUT_PLANTS
from instep.testing.rest import Rest
from instep.testing.world.disk import ERRNOS
from instep.testing.world.node import SimNode
from instep.testing.world.options import Options, drawn_policy
from instep.testing.world.world import World
from instep.testing.writers.hot_file import HotProgram
from instep.testing.writers.restore_operators import RestoreOperators
from instep.testing.writers.rollouts import SimRollouts
from instep.testing.writers.writer import SimWriter

ENOUGH_MS = 30_000
"""Within that time every switch of this world is finished."""


def simulate(
    seed: int,
    plant: str | None = None,
    options: Options | None = None,
    *,
    always_rollouts: bool = False,
    without: tuple[str, ...] = (),
) -> Result:
    """Run one seed to its end or to its first broken promise. Half of the seeds have rollouts, or all. ``without``
    names options that are zero whatever the seed draws: a kept seed was drawn before there were such faults."""
    options = options or Options.drawn(
        World(seed, Options()).stream, "rollout options", always_rollouts=always_rollouts
    )
    options = options.but(**dict.fromkeys(without, 0))
    options = options.but(**NEEDED.get(plant or "", {}))
    return _Cluster(World(seed, options, plant)).run()


class _Cluster(SimCluster):
    """One writer, its partners, and maybe a hub."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.editors = world.stream("settings")
        self.disks = world.stream("disks")
        options = world.options
        names = tuple(f"p{n}" for n in range(options.partners))
        direct = ("hub", *names[: len(names) // 2]) if options.has_hub else names
        self.writer = SimWriter(world, self.net, "main", self.line, direct, self.ledger)
        self.writer.world_machine = PUBLISH_PLANTS.get(world.plant or "")
        self.partners: list[SimPartner] = []
        if options.has_hub:
            self.partners.append(self._partner("hub", ("main",)))
        for name in names:
            sources = ("hub", "main") if name in direct and options.has_hub else ("main",)
            self.partners.append(self._partner(name, sources if name in direct else ("hub",)))
        self.nodes: list[SimWriter | SimPartner] = [self.writer, *self.partners]
        self.rollouts = self._rollouts(direct) if options.has_rollouts else None
        self.rest = Rest(world, self.writer, self.partners)
        self.restorers = RestoreOperators(world, self.writer, self.rollouts)
        self.old_states = OldStates(self.partners, self.disks)
        self.members = MembershipOperators(world, self.net, self.writer, self.partners)
        for number in range(options.files):
            self.writer.place.tree[b"f%02d" % number] = b"first %d" % number
        self.writer.place.tree[b"config"] = b"good"
        self.hot = HotProgram(self.writer, self.partners, options.hot_every_ms)
        for node in self.nodes:
            node.boot()
        if options.hot_every_ms:
            self.hot.write()
        self._tend_sessions()

    def _partner(self, name: str, sources: tuple[str, ...]) -> SimPartner:
        partner = SimPartner(self.world, self.net, name, self.line, sources, self.ledger)
        partner.world_machine = FOLLOW_PLANTS.get(self.world.plant or "")
        return partner

    def _rollouts(self, direct: tuple[str, ...]) -> SimRollouts:
        watch = RolloutWatch(self.world, direct)
        rollouts = SimRollouts(self.writer, watch, self.world.options.policy)
        rollouts.world_machine = ROLLOUT_PLANTS.get(self.world.plant or "")
        self.writer.rollouts = rollouts
        for partner in self.partners:
            partner.rollouts = RolloutSide(partner, watch)
        return rollouts

    def links(self) -> Iterator[tuple[SessionEnd, SessionEnd]]:
        for partner in self.partners:
            for source in partner.sources:
                other = self.net.peers[source]
                assert isinstance(other, SimNode)
                yield partner, other

    def lagging(self, *, is_short: bool = False) -> str:
        return self.rest.lagging(is_short=is_short)

    def check_end(self) -> None:
        self.rest.check_end()

    # --- trouble --------------------------------------------------------------------------------------------

    def disturb(self) -> None:
        options = self.world.options
        self._every(options.edit_every_ms, self._edit)
        self._every(options.cut_every_ms, self._cut)
        self._every(options.crash_every_ms, self._crash)
        self._every(options.drift_every_ms, self._drift)
        self._every(options.wipe_every_ms, self._wipe)
        self._every(options.unmount_every_ms, self._unmount)
        self._every(options.restore_every_ms, self._restore_backup)
        self._every(options.pause_every_ms, self._pause)
        if self.rollouts is not None:
            self._every(options.policy_every_ms, self._change_policy)
            self._every(options.ask_rollout_every_ms, self._ask_rollout)
        self._every(options.reconfigure_every_ms, self._reconfigure)
        self._every(options.stick_every_ms, self._stick)
        if not (options.restore_every_ms or options.snapshot_every_ms or options.has_rollouts):
            # With the writer's state restored as well, no node might be left that knows its newest number.
            self._every(options.old_state_every_ms, self.old_states.restore_one)
        self._every(7_000, self.writer.ask_publish)
        self._every(options.rollback_every_ms, self.restorers.roll_back)
        self._every(options.snapshot_every_ms, self.restorers.snapshot)
        self._every(options.member_every_ms, self.members.change)
        self._every(6_000, self.restorers.decide)
        self._every(5_000, self.restorers.back_up)

    def _edit(self) -> None:
        self._edits += 1
        path = b"f%02d" % self.people.randrange(self.world.options.files + 3)
        if self.people.random() < 0.2:
            self.writer.edit_tree(path, None)
        else:
            self.writer.edit_tree(path, b"edit %d" % self._edits)
        if self.people.random() < self.world.options.bad_generation:
            self.writer.edit_tree(b"config", BAD if self.people.random() < 0.5 else b"good %d" % self._edits)

    def _cut(self) -> None:
        names = [node.name for node in self.nodes]
        if self.rng.random() < 0.4:
            self.net.heal()
        elif self.rng.random() < 0.3:
            lonely = self.rng.choice(names)
            for name in names:
                self.net.cut(lonely, name)
                self.net.cut(name, lonely)
        else:
            self.net.cut(self.rng.choice(names), self.rng.choice(names))

    def _crash(self) -> None:
        self.rng.choice(self.nodes).crash("power")

    def _drift(self) -> None:
        partner = self.rng.choice(self.partners)
        path = b"f%02d" % self.people.randrange(self.world.options.files + 3)
        partner.edit_live(path, None if self.people.random() < 0.3 else b"local %d" % self.world.now)

    def _wipe(self) -> None:
        """Files of the writer cannot be read for a while, or most of them vanish, at once or in three parts; the
        operator brings them back later."""
        writer, kept = self.writer, dict(self.writer.place.tree)
        chance = self.rng.random()
        if chance < 0.4:
            hidden = [b"f%02d" % number for number in range(self.rng.choice((1, 1, 5)))]
            self.world.record("main", "!", f"{len(hidden)} files cannot be read")
            writer.unreadable.update(dict.fromkeys(hidden))
            writer.overflow()
            self.world.at(5_000, writer.unreadable.clear)
            return
        parts = 1 if chance < 0.7 else 3
        paths = sorted(writer.place.tree)
        self.world.record("main", "!", f"the root is emptied in {parts} parts")
        for part in range(parts):
            gone = paths[part::parts]
            self.world.at(part * 2_000, lambda gone=gone: self._lose(gone))  # type: ignore[misc]
        self.world.at(self.rng.uniform(6_000, 12_000), lambda: self._bring_back(kept))

    def _lose(self, paths: list[bytes]) -> None:
        for path in paths:
            self.writer.place.tree.pop(path, None)
        self.writer.overflow()

    def _bring_back(self, kept: dict[bytes, bytes]) -> None:
        """In peace an operator overwrites nothing with it: the good ``config`` of the last words was written since."""
        tree = self.writer.place.tree
        tree.update(kept if self.world.is_faulty else kept | tree)
        self.writer.overflow()

    def _unmount(self) -> None:
        node = self.rng.choice(self.nodes)
        place = node.place
        self.world.record(node.name, "!", "the mount is gone")
        kept = dict(place.tree)
        is_writer = node is self.writer
        place.has_marker = False
        if is_writer:
            place.tree = {}
            self.writer.overflow()

        def mount() -> None:
            place.has_marker = True
            if is_writer:
                self._bring_back(kept)

        self.world.at(self.rng.uniform(1_000, 6_000), mount)

    def _restore_backup(self) -> None:
        """The writer's node directory is restored from an older copy, or lost altogether."""
        writer = self.writer
        writer.crash("its node directory is restored")
        if self.rollouts is not None:
            self.rollouts.watch.restored()
        backups = self.restorers.backups
        if backups and self.rng.random() < 0.8:
            writer.store.restore(self.rng.choice(backups)[0])
        else:
            writer.store.restore()
        writer.restores.came_back(writer.store.facts)

    def _change_policy(self) -> None:
        self.writer.change_policy(drawn_policy(self.people))

    def _reconfigure(self) -> None:
        """An operator edits a node's file."""
        self.editors.choice(self.nodes).toggle_a_setting(self.editors)

    def _stick(self) -> None:
        """No step can change a path of a partner for a while: immutable, busy, another mount."""
        place, disks = self.disks.choice(self.partners).place, self.disks
        path = disks.choice((b"config", *(b"f%02d" % n for n in range(self.world.options.files + 3))))
        place.stuck[path] = disks.choice(ERRNOS)
        self.world.record(place.name, "!", f"{path!r} is stuck: {place.stuck[path]}")
        self.world.at(disks.uniform(500, 15_000), lambda: place.free(path))

    def _ask_rollout(self) -> None:
        assert self.rollouts is not None
        if self.people.random() < 0.8:
            self.rollouts.ask_something(self.people)
        else:
            self._retry(self.people.choice(self.partners))

    def _retry(self, partner: SimPartner) -> None:
        """``instep retry`` at a partner."""
        if partner.is_alive:
            if partner.rollouts is not None:
                partner.rollouts.watch.forgiven(partner.name)
            partner.post(RetryAsked())

    def _pause(self) -> None:
        partner = self.rng.choice(self.partners)
        if partner.is_alive:
            partner.post(Paused("maintenance") if self.rng.random() < 0.5 else Resumed())

    # --- peace ----------------------------------------------------------------------------------------------

    def make_peace(self) -> None:
        """Faults stop. Operators finish what only they can: resume, mount, accept what they meant, write
        once."""
        self.world.is_faulty = False
        self.world.record("world", "!", "the faults stop")
        self.net.heal()
        self.members.settle()
        self.writer.place.has_marker = True
        for partner in self.partners:
            partner.place.has_marker = True
            partner.place.stuck.clear()
        if self.world.options.hot_every_ms:
            self.hot.end_after(self.world.options.bound_ms // 2)
        self.world.at(8_500, self._last_words)

    def _last_words(self) -> None:
        for partner in self.partners:
            if partner.is_alive:
                partner.post(Resumed())
        for node in self.nodes:
            node.restore_settings()
        self._end_fights()
        if self.rollouts is not None:
            # An operator who sees that a switch takes longer than its deadline gives it more.
            self.writer.change_policy(
                msgspec.structs.replace(self.rollouts.policy, finish_within_ms=ENOUGH_MS)
            )
            self._end_rollouts()
        self.writer.unreadable.clear()
        self.restorers.end_holds()
        self.writer.edit_tree(b"config", b"good in the end")
        self.writer.overflow()
        self.writer.ask_publish(accept_deletions=True)
        self._rest_since = None  # something was changed: the rest before that counts no more
        if self.world.options.reconfigure_every_ms:
            self.world.at(4_000, lambda: self._change_hook(is_there=False))
            self.world.at(5_000, lambda: self._change_hook(is_there=True))

    def _change_hook(self, *, is_there: bool) -> None:
        """A partner's reload hook goes and comes back with no generation after it."""
        self.partners[-1].change_hook(is_there=is_there)
        self._rest_since = None

    def _end_fights(self) -> None:
        """The programs are stopped; an operator who sees a fight in the status types ``instep retry``."""
        for partner in self.partners:
            report = self.ledger.reports.get(partner.name)
            if report is not None and report.code == "drift_fight":
                self._retry(partner)
        self.world.at(20_000, self._end_fights)

    def _end_rollouts(self) -> None:
        assert self.rollouts is not None
        self.rollouts.end_well()
        self.world.at(1_000, self._end_rollouts)
