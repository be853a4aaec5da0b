"""Two homes whose persons work, mirrors that follow, and initiators that start runs: faults first, then peace.

``simulate_sync(seed)`` draws what happens. The real ``SyncRun`` and ``reconcile`` decide; homes and network are models.
After the faults runs come to nothing left to do, and both sides are as their kinds say.
"""

from __future__ import annotations

from collections.abc import Iterator

from instep.core.sync.bases import common_base
from instep.core.sync.plan import same
from instep.core.sync.run import SyncRun
from instep.core.sync.table import Direction, Side
from instep.model.manifest.entry import Kind
from instep.model.sync import SyncMark
from instep.testing.cluster import Result, SessionEnd, SimCluster
from instep.testing.sync.carrier import SyncCarrier
from instep.testing.sync.ledger import SyncLedger
from instep.testing.sync.options import RULES, SyncOptions
from instep.testing.sync.plants import CARRIERS, DISKS, RUNS
from instep.testing.sync.side import SyncDisk, SyncHomeNode, Tree
from instep.testing.world.options import Options
from instep.testing.world.world import World

PATHS = (b"f", b"g.txt", b"a", b"t", b"d/f", b"d/a", b"d/x", b"d/e/f", b"x/f")
TOPS = (b"d", b"d/e", b"x")
INITIATORS = ("s1", "s2")


def simulate_sync(seed: int, plant: str | None = None, options: SyncOptions | None = None) -> Result:
    """Run one seed to its end or to its first broken promise."""
    stream = World(seed, Options()).stream
    drawn = options or SyncOptions.drawn(stream("sync options"))
    return _Site(World(seed, Options(faulty_ms=30_000, bound_ms=60_000), plant), drawn).run()


class _Site(SimCluster):
    def __init__(self, world: World, options: SyncOptions) -> None:
        super().__init__(world)
        self.options = options
        world.record("world", "!", str(options))
        disk, plant = DISKS.get(world.plant or "", SyncDisk), world.plant or ""
        self.rules = RULES[options.rules]
        self.homes = {side: SyncHomeNode(world, side, options, disk()) for side in Side}
        self.checks = SyncLedger(world, self.homes, self.rules)
        self.carrier = CARRIERS.get(plant, SyncCarrier)(world, self.homes, self.rules, options, self.checks)
        self.carrier.make_run = RUNS.get(plant, SyncRun)
        self._backups: list[tuple[Tree, int, tuple[SyncMark, ...]]] = []
        self.mirrors: dict[Side, Tree] = {side: {} for side in Side}
        for path in PATHS[:5]:
            self.homes[Side.LEFT].write(path)
        for home in self.homes.values():
            home.publish()

    def links(self) -> Iterator[tuple[SessionEnd, SessionEnd]]:
        return iter(())

    # --- trouble ----------------------------------------------------------------------------------------------

    def disturb(self) -> None:
        options = self.options
        for home in self.homes.values():
            self._every(options.edit_every_ms, lambda home=home: self._edit(home))  # type: ignore[misc]
            self._every(5_000, home.publish_by_hand)
            self._every(900, lambda home=home: self._follow(home))  # type: ignore[misc]
            self._every(options.roll_back_every_ms, lambda home=home: self._roll_back(home))  # type: ignore[misc]
        for _ in INITIATORS:
            self._every(options.run_every_ms, self._start)
        self._every(options.crash_every_ms, lambda: self.rng.choice(list(self.homes.values())).crash("power"))
        self._every(options.cut_every_ms, self._cut)
        self._every(options.lose_base_every_ms, self._lose_base)
        self._every(options.older_base_every_ms, self._bring_back_base)
        self._every(2_000, self._back_up)
        self._every(options.restore_every_ms, self._restore)
        self._every(300, self.checks.check)

    def _edit(self, home: SyncHomeNode) -> None:
        people = home.people
        can_clash = self.options.rules != "by name" and people.random() < 0.1
        path = people.choice(TOPS if can_clash else PATHS)
        if people.random() < self.options.removes:
            home.write(people.choice(TOPS) if people.random() < 0.2 else path, is_removed=True)
        else:
            home.write(path)

    def _follow(self, home: SyncHomeNode) -> None:
        self.mirrors[home.side] = home.disk.published[-1]

    def _start(self) -> None:
        """An initiator starts a run; its operator reads how the last one ended."""
        if self.carrier.is_running:
            return
        ended = self.carrier.ended
        initial = self.people.choice(list(Side)) if ended == "no_base" else None
        self.carrier.begin(initial, accepts_rollback=ended == "went_back")

    def _roll_back(self, home: SyncHomeNode) -> None:
        """To a generation that a run saw, while no run is under way."""
        base = common_base(self.carrier.bases, self.carrier.marks)
        if base is None or self.carrier.is_running or not home.is_alive or home.is_manual:
            return
        last = base.left if home.side is Side.LEFT else base.right
        older = [head for head in home.disk.heads if head.position < last.position and head.root != last.root]
        if older:
            home.publish()
            before = home.disk.heads[-1]
            home.roll_back(self.people.choice(older).number)
            if home.disk.heads[-1] != before:
                self.checks.went_back(home, last.root)

    def _cut(self) -> None:
        self.carrier.is_cut = self.rng.random() < 0.5
        self.world.record("net", "!", "cut" if self.carrier.is_cut else "healed")

    def _lose_base(self) -> None:
        if self.carrier.is_running:
            return
        self.checks.forgets()
        which = self.rng.choice(("left", "right", "both"))
        self.world.record("world", "!", f"the bases are lost: {which}")
        if which != "right":
            self.carrier.bases = ()
        if which != "left":
            self.carrier.marks = ()

    def _bring_back_base(self) -> None:
        """The state of a home comes back from an older copy; its tree stays."""
        if self.carrier.is_running or not self.carrier.bases:
            return
        self.checks.forgets()
        lost = self.rng.randrange(1, 4)
        self.world.record("world", "!", f"{lost} bases are older at one home")
        if self.rng.random() < 0.5:
            self.carrier.bases = self.carrier.bases[:-lost]
        else:
            self.carrier.marks = self.carrier.marks[:-lost]

    def _back_up(self) -> None:
        right = self.homes[Side.RIGHT].disk
        self._backups.append((dict(right.tree), len(right.heads), self.carrier.marks))

    def _restore(self) -> None:
        """What persons did there since the copy, and no run carried over, is lost with the machine."""
        if self._backups and not self.carrier.is_running:
            tree, generations, marks = self.rng.choice(self._backups[-3:])
            home = self.homes[Side.RIGHT]
            self.checks.restored(home, tree, home.disk.published[generations - 1])
            self.checks.brings_back()
            self.checks.forgets()
            home.restore(tree, generations)
            self.carrier.marks = marks
            self._backups.clear()

    # --- peace ------------------------------------------------------------------------------------------------

    def make_peace(self) -> None:
        self.world.is_faulty = False
        self.world.record("world", "!", "the faults stop")
        self.carrier.is_cut = False
        self._run_again()
        for home in self.homes.values():
            self._follow_again(home)

    def _run_again(self) -> None:
        self._start()
        self.world.at(1_000, self._run_again)

    def _follow_again(self, home: SyncHomeNode) -> None:
        self._follow(home)
        self.world.at(500, lambda: self._follow_again(home))

    def lagging(self, *, is_short: bool = False) -> str:
        left, right = (home.disk for home in self.homes.values())
        if not self.carrier.did_nothing:
            return f"the last run still had something to do, or ended: {self.carrier.ended}"
        for home in self.homes.values():
            if not home.disk.published[-1] == home.disk.tree == self.mirrors[home.side]:
                return f"the mirror of the {home.side} has another tree"
        for path in sorted({*left.tree, *right.tree}):
            entries = [entry for entry in (left.tree.get(path), right.tree.get(path)) if entry is not None]
            rules = self.rules(path)
            is_shared = rules.locked is not None or rules.direction is Direction.BOTH
            if (
                is_shared
                and entries[0].kind is not Kind.DIR
                and not same(left.tree.get(path), right.tree.get(path))
            ):
                return f"{path!r} differs"
        return ""

    def check_end(self) -> None:
        self.checks.check()
        self.checks.check_end()
