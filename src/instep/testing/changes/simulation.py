"""One home and the nodes that edit its files elsewhere: faults first, then peace, then all trees must be equal.

``simulate_changes(seed)`` draws faults, persons, programs with locks and operators. It stands apart from the clusters
of lines: generations arrive as wholes, and the machines under test are ``HomeMachine`` and ``OfferMachine``.
"""

from __future__ import annotations

from collections.abc import Iterator

from instep.core.changes import offer_vocabulary as o
from instep.model.change import is_same_file
from instep.model.ids import HeadRef, NodeName
from instep.model.manifest.entry import Entry, Kind
from instep.testing.changes.editor_node import SimEditor
from instep.testing.changes.home_node import SimHome
from instep.testing.changes.options import ChangeOptions, network_options
from instep.testing.changes.plants import EDITOR_DISKS, HOME_DISKS, HOME_MACHINES, OFFER_MACHINES
from instep.testing.changes.process import SimProcess
from instep.testing.cluster import Result, SessionEnd, SimCluster
from instep.testing.world.disk import content_digest
from instep.testing.world.options import Options
from instep.testing.world.world import World


def simulate_changes(seed: int, plant: str | None = None, options: ChangeOptions | None = None) -> Result:
    """Run one seed to its end or to its first broken promise."""
    stream = World(seed, Options()).stream
    drawn = options or ChangeOptions.drawn(stream("change options"))
    return _Cluster(World(seed, network_options(stream("network options")), plant), drawn).run()


class _Cluster(SimCluster):
    def __init__(self, world: World, options: ChangeOptions) -> None:
        super().__init__(world)
        self.options = options
        world.record("world", "!", str(options))
        names = tuple(NodeName(f"s{number}") for number in range(1, options.editors + 1))
        self.home = SimHome(world, self.net, self.line, options, names)
        self._plant_at_home()
        self.paths = [b"f%d" % number for number in range(options.files)]
        for path in self.paths[:-1] or self.paths:
            self.home.disk.tree[path] = _first(path)
        first = self.home.disk.publish()
        self.editors = [self._editor(name, first) for name in names]
        self.processes: list[SimProcess] = [self.home, *self.editors]
        self.home.on_head = self._tell_head
        for process in self.processes:
            process.start()

    def _plant_at_home(self) -> None:
        plant = self.world.plant or ""
        self.home.make_machine = HOME_MACHINES.get(plant, self.home.make_machine)
        if plant in HOME_DISKS:
            self.home.disk = HOME_DISKS[plant]()
            self.home.disk.deletions = self.home.config.deletions
            self.home.disk.tick = self.home.tick
            self.home.ledger.watch(self.home.disk)

    def _editor(self, name: str, first: HeadRef) -> SimEditor:
        plant = self.world.plant or ""
        editor = SimEditor(self.world, self.net, name, self.line, self.options, self.home.ledger)
        if plant in EDITOR_DISKS:
            editor.hold(EDITOR_DISKS[plant]())
        editor.make_machine = OFFER_MACHINES.get(plant, editor.make_machine)
        editor.generation_of = lambda head: self.home.disk.published[head.number - 1]
        editor.disk.apply(first, self.home.disk.published[0])
        return editor

    def _tell_head(self, head: HeadRef) -> None:
        for editor in self.editors:
            self.world.at(self.rng.uniform(5, 800), lambda editor=editor: editor.head_seen(head))  # type: ignore[misc]

    def links(self) -> Iterator[tuple[SessionEnd, SessionEnd]]:
        return iter(())

    # --- trouble ----------------------------------------------------------------------------------------------

    def disturb(self) -> None:
        options = self.options
        for editor in self.editors:
            self._every(options.edit_every_ms, lambda editor=editor: self._edit(editor))  # type: ignore[misc]
            self._every(
                options.lock_every_ms,
                lambda editor=editor: editor.begin_session(self.people.choice(self.paths)),  # type: ignore[misc]
            )
        self._every(options.home_edit_every_ms, self._edit_home)
        self._every(options.crash_every_ms, lambda: self.rng.choice(self.processes).crash("power"))
        self._every(options.pause_every_ms, self._pause)
        self._every(options.restore_every_ms, self.home.restore)
        self._every(options.epoch_every_ms, self.home.raise_epoch)
        self._every(options.cut_every_ms, self._cut)
        self._every(4_000, self.home.back_up)
        self._every(5_000, self._judge)

    def _edit(self, editor: SimEditor) -> None:
        path = self.people.choice(self.paths)
        is_removal = self.people.random() < self.options.removes
        editor.write(path, None if is_removal else editor.new_file(path))

    def _edit_home(self) -> None:
        if self.people.random() < self.options.undo:
            self.home.take_back()
            return
        self._edits += 1
        path = self.people.choice(self.paths)
        is_removal = self.people.random() < self.options.removes
        self.home.edit(path, None if is_removal else _written(path, b"home %d" % self._edits, self._edits))

    def _pause(self) -> None:
        for_ms = self.rng.randrange(1, 3 * self.options.ttl_ms)
        self.rng.choice(self.processes).stop_for(for_ms, with_clock=self.rng.random() < 0.4)

    def _cut(self) -> None:
        if self.rng.random() < 0.5:
            self.net.heal()
        else:
            editor = self.rng.choice(self.editors).name
            ways = [("main", editor), (editor, "main")]
            for way in ways if self.rng.random() < 0.5 else ways[:1]:
                self.net.cut(*way)

    def _judge(self) -> None:
        """An operator looks at the status of a node."""
        editor = self.people.choice(self.editors)
        if editor.is_alive:
            editor.post(o.RemovalsJudged(self.people.random() < 0.5))
            editor.post(o.OffersRetried())

    # --- peace ------------------------------------------------------------------------------------------------

    def make_peace(self) -> None:
        self.world.is_faulty = False
        self.world.record("world", "!", "the faults stop")
        self.net.heal()
        for process in self.processes:
            process.go_on()
        self.world.at(3 * self.options.ttl_ms + 4_000, self._last_words)

    def _last_words(self) -> None:
        """Every program has ended by now. Operators do what only they can; one more edit at each node."""
        for number, editor in enumerate(self.editors):
            editor.post(o.RemovalsJudged(are_accepted=False))
            editor.post(o.OffersRetried())
            path = self.paths[number % len(self.paths)]
            editor.write(path, editor.new_file(path))
        self._rest_since = None

    def is_at_rest(self) -> bool:
        is_early = self.world.now < self.world.options.faulty_ms + 3 * self.options.ttl_ms + 8_000
        return not is_early and super().is_at_rest()

    def lagging(self, *, is_short: bool = False) -> str:
        home = self.home
        if home.disk.facts is not None and home.disk.facts.applying is not None:
            return "the home still applies a set"
        if home.machine.facts.locks:
            return "a lock is still in force"
        if home.disk.published[-1] != home.disk.tree:
            return "the home has not published its tree"
        for editor in self.editors:
            why = self._why_not_at_rest(editor)
            if why:
                return f"{editor.name} {why}"
        return ""

    def _why_not_at_rest(self, editor: SimEditor) -> str:
        disk, tree = editor.disk, self.home.disk.tree
        if disk.owned:
            return f"owns {disk.owned[0].path!r}, {disk.owned[0].state.value}"
        for path in sorted({*disk.tree, *tree}):
            if not is_same_file(disk.tree.get(path), tree.get(path)):
                return f"has another {path!r} than the home"
        if editor.machine.facts.submitting is not None or editor.machine.facts.held:
            return "still asks or holds something"
        return ""

    def check_end(self) -> None:
        """The ledger has checked everything on the way."""


def _first(path: bytes) -> Entry:
    return _written(path, b"first " + path, 1)


def _written(path: bytes, text: bytes, mtime_ns: int) -> Entry:
    return Entry(path, Kind.FILE, 0o644, len(text), mtime_ns, content_digest(text), 0)
