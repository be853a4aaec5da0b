"""Homes of one fileset whose persons work: faults first, then peace, then all trees must be equal and nothing lost.

``simulate_union(seed)`` draws homes, links, faults and persons. The machines of lines and union are the real ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, pairwise

from instep.core.vocabulary import RetryAsked
from instep.model.ids import NodeName
from instep.model.manifest.entry import Entry, Kind
from instep.model.manifest.manifest import iterate
from instep.model.standing import Standing
from instep.testing.cluster import Result, SessionEnd, SimCluster
from instep.testing.unions.disk import State
from instep.testing.unions.home import SimUnionHome
from instep.testing.unions.home_base import OWN, TREE
from instep.testing.unions.ledger import UnionLedger
from instep.testing.unions.options import UnionOptions, network_options
from instep.testing.unions.plants import HOMES, KINDS
from instep.testing.world.disk import content_digest
from instep.testing.world.options import Options
from instep.testing.world.world import World

PATHS = tuple(
    folder + name for folder in (b"", b"x/", b"x/y/", b"z/") for name in (b"1.xml", b"2.xml", b"x", b"y")
)
"""Among them names that are a file at one home and a directory at another."""
BACKUP_MS = 3_000


def simulate_union(seed: int, plant: str | None = None, options: UnionOptions | None = None) -> Result:
    """Run one seed to its end or to its first broken promise."""
    stream = World(seed, Options()).stream
    drawn = options or UnionOptions.drawn(stream("union options"))
    return _Homes(World(seed, network_options(stream("network options")), plant), drawn).run()


class _Homes(SimCluster):
    def __init__(self, world: World, options: UnionOptions) -> None:
        super().__init__(world)
        self.options = options
        world.record("world", "!", str(options))
        self.checks = UnionLedger()
        plant = world.plant or ""
        kind = HOMES.get(plant, SimUnionHome)
        names = tuple(NodeName("abcdef"[number]) for number in range(options.homes))
        self.homes = {name: kind(world, self.net, name, options, self.checks) for name in names}
        self.pairs = tuple(_pairs(names, options.shape))
        self._backups: dict[str, list[tuple[State, dict[bytes, Entry], object]]] = {
            name: [] for name in names
        }
        self._written = 0
        self.forgetful = self.rng.choice(list(self.homes.values()))
        """The only home that loses state: of two that do, each may need a manifest that the other has lost."""
        for home in self.homes.values():
            home.partners = tuple(
                NodeName(other)
                for pair in self.pairs
                if home.name in pair
                for other in pair
                if other != home.name
            )
            home.kinds.update(KINDS.get(plant, {}))
            home.clock_ms = self.rng.randrange(options.ahead_ms + 1)
            self._write(home, b"of-" + home.name.encode() + b".xml")
        for home in self.homes.values():
            home.boot()
        self._tend_sessions()

    def links(self) -> Iterator[tuple[SessionEnd, SessionEnd]]:
        return ((self.homes[NodeName(one)], self.homes[NodeName(other)]) for one, other in self.pairs)

    # --- persons ----------------------------------------------------------------------------------------------

    def disturb(self) -> None:
        options = self.options
        for home in self.homes.values():
            self._every(options.act_every_ms, lambda home=home: self._act(home))  # type: ignore[misc]
            self._every(BACKUP_MS, lambda home=home: self._back_up(home))  # type: ignore[misc]
        self._every(options.crash_every_ms, lambda: self._any().crash("power"))
        self._every(options.cut_every_ms, self._cut)
        self._every(options.withdraw_every_ms, lambda: self._any().set_hub(is_hub=self.rng.random() < 0.5))
        self._every(options.lose_state_every_ms, lambda: self._lose_state(self.forgetful, is_older=False))
        self._every(options.older_state_every_ms, lambda: self._lose_state(self.forgetful, is_older=True))
        self._every(options.older_machine_every_ms, lambda: self._older_machine(self.forgetful))
        self._every(4_000, self._operate)

    def _any(self) -> SimUnionHome:
        return self.rng.choice(list(self.homes.values()))

    def _act(self, home: SimUnionHome) -> None:
        """A person writes, removes or renames a file, of this home or of another one."""
        people, tree = self.people, home.disk.tree
        files = sorted(
            path for path, entry in tree.items() if entry.kind is Kind.FILE and not path.startswith(b"of-")
        )
        own = [path for path in files if home.name in self.checks.makers(tree[path])]
        among = files if people.random() < self.options.foreign else own
        draw = people.random()
        if draw < self.options.removes and among:
            self._remove(home, people.choice(among))
        elif draw < self.options.removes + self.options.renames and among:
            self._rename(home, people.choice(among))
        elif among and people.random() < 0.4:
            self._write(home, people.choice(among))
        else:
            path = people.choice(PATHS)
            if path not in tree or path in own or people.random() < self.options.foreign:
                self._write(home, path)

    def _write(self, home: SimUnionHome, path: bytes) -> None:
        self._written += 1
        text = b"text %d" % self._written
        entry = Entry(path, Kind.FILE, 0o644, len(text), self._written, content_digest(text), 0)
        before = home.disk.tree.get(path)
        if home.disk.write(path, entry):
            self.world.record(home.name, "!", f"a person writes {path!r}")
            self.checks.wrote(home.name, entry)
            if before is not None:
                self.checks.replaced(before)
                self._edited(home, entry)
            self._touched(home)

    def _edited(self, home: SimUnionHome, entry: Entry) -> None:
        now = home.unions.now if home.is_alive else None
        owners = [] if now is None else [each.origin for each in now.ownership.of(entry.path)]
        if owners and home.me not in owners:
            self.checks.edits(home.name, entry, owners[0])

    def _remove(self, home: SimUnionHome, path: bytes) -> None:
        self.world.record(home.name, "!", f"a person removes {path!r}")
        self.checks.replaced(home.disk.tree.pop(path))
        self._touched(home)

    def _rename(self, home: SimUnionHome, path: bytes) -> None:
        self._written += 1
        entry = home.disk.tree.pop(path)
        other = b"moved-%d.xml" % self._written
        self.world.record(home.name, "!", f"a person renames {path!r} to {other!r}")
        moved = Entry(other, entry.kind, entry.mode, entry.size, entry.mtime_ns, entry.digest, 0)
        home.disk.tree[other] = moved
        self.checks.moved(home.name, moved)
        self._touched(home)

    def _touched(self, home: SimUnionHome) -> None:
        if home.is_alive:
            home.touch(everything=True)

    # --- trouble ----------------------------------------------------------------------------------------------

    def _cut(self) -> None:
        if self.rng.random() < 0.5:
            self.net.heal()
        else:
            one, other = self.rng.choice(self.pairs)
            self.net.cut(one, other)
            self.net.cut(other, one)

    def _back_up(self, home: SimUnionHome) -> None:
        if home.disk.journal is None:
            self._backups[home.name].append((home.disk.state.copy(), dict(home.disk.tree), home.disk.held))

    def _lose_state(self, home: SimUnionHome, *, is_older: bool) -> None:
        backups = self._backups[home.name]
        if not is_older:
            home.lose_state(None)
        elif backups:
            home.lose_state(self.rng.choice(backups)[0])

    def _older_machine(self, home: SimUnionHome) -> None:
        """What only this machine had is lost with it."""
        backups = self._backups[home.name]
        if not backups:
            return
        state, tree, held = self.rng.choice(backups)
        home.lose_state(state)
        disk = home.disk
        lost = {entry.digest for entry in disk.tree.values()} - {entry.digest for entry in tree.values()}
        disk.tree, disk.held, disk.journal = dict(tree), held, None  # type: ignore[assignment]
        self.checks.lost_with_a_machine(lost)
        backups.clear()

    def _operate(self) -> None:
        """Operators look at the status of a node."""
        home = self._any()
        if home.is_alive:
            self._help(home)

    def _help(self, home: SimUnionHome) -> None:
        home.post(TREE, RetryAsked())
        report = home.machines[OWN].report
        if report is not None and report.standing is Standing.HELD:
            home.publish_over()

    # --- peace ------------------------------------------------------------------------------------------------

    def make_peace(self) -> None:
        self.world.is_faulty = False
        self.world.record("world", "!", "the faults stop")
        self.net.heal()
        for home in self.homes.values():
            home.set_hub(is_hub=True)
        self._help_again()

    def _help_again(self) -> None:
        for home in self.homes.values():
            if home.is_alive:
                self._help(home)
        self.world.at(15_000, self._help_again)

    def lagging(self, *, is_short: bool = False) -> str:
        first = next(iter(self.homes.values()))
        for home in self.homes.values():
            if not home.is_alive or not home.is_still:
                return f"{home.name} does not rest"
            if home.kept_paths():
                return f"{home.name} has offers under way: {sorted(home.kept_paths())[:3]}"
            if home.foreign or home.waiting:
                return f"{home.name} has changes of others' paths: {[*home.foreign, *home.waiting][:3]}"
            if home.disk.tree != first.disk.tree:
                differing = sorted({path for path, _ in home.disk.tree.items() ^ first.disk.tree.items()})
                return f"the trees of {home.name} and {first.name} differ at {differing[:4]}"
            for other in self.homes.values():
                head = other.own_facts.head if other is not home else None
                if head is not None and home.live_of(other.me) != head:
                    return f"{home.name} does not hold the head of {other.name}"
            now = home.unions.now
            if now is None or {e.path for e in iterate(now.united.root, home.disk.state.get_page)} != set(
                home.disk.tree
            ):
                return f"the tree of {home.name} is not its union"
        return ""

    def check_end(self) -> None:
        there, archived = set(), set()
        lines = {}
        for home in self.homes.values():
            there |= {entry.digest for entry in home.disk.tree.values()}
            archived |= home.disk.archive
            head = home.own_facts.head
            root = head.root if head is not None else None
            lines[str(home.name)] = [] if root is None else list(iterate(root, home.disk.state.get_page))
        self.checks.check_end(there, archived, lines)


def _pairs(names: tuple[NodeName, ...], shape: str) -> Iterator[tuple[str, str]]:
    if shape == "mesh":
        yield from combinations(names, 2)
    elif shape == "star":
        yield from ((names[0], other) for other in names[1:])
    else:
        yield from pairwise(names)
        if shape == "ring" and len(names) > 2:
            yield names[-1], names[0]
