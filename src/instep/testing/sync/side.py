"""One home of a sync profile: its tree, the generations that it published, and the persons who work in it.

The disk is that of ``testing/changes``: a change set is switched path by path, by compare-and-set and a journal. A home
that dies in a switch finishes it when it starts again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from instep.core.changes import home_vocabulary as h
from instep.core.changes.home_facts import Submission
from instep.core.sync.table import Side
from instep.errors import UnavailableError
from instep.model.change import (
    CHANGE_SET_VERSION,
    NONCE_BYTES,
    ChangeAnswer,
    ChangeSet,
    PathChange,
    PathOutcome,
)
from instep.model.ids import EMPTY_DIGEST, Digest, FilesetName, HeadRef, NodeName
from instep.model.manifest import manifest
from instep.model.manifest.entry import Entry, Kind
from instep.model.paths import is_below, parent_of, sort_key
from instep.model.sync import Rollback
from instep.testing.changes.home_disk import HomeDisk
from instep.testing.sync.options import SyncOptions
from instep.testing.world.disk import content_digest
from instep.testing.world.world import World

RESTART_MS = 300
Tree = dict[bytes, Entry]


class Died(Exception):
    """The home ended here."""


class SyncDisk(HomeDisk):
    """A home's disk whose generations have manifests."""

    def __init__(self) -> None:
        super().__init__()
        self.pages: dict[Digest, bytes] = {}
        self.heads: list[HeadRef] = []
        self.rollbacks: list[Rollback] = []

    def publish(self) -> HeadRef:
        return self.publish_tree(dict(self.tree))

    def publish_tree(self, tree: Tree) -> HeadRef:
        """That tree as a new generation, where it differs from the newest one."""
        if not self.heads or self.published[-1] != tree:
            root = manifest.build(
                sorted(tree.values(), key=lambda each: sort_key(each.path)), self.pages.__setitem__
            )
            number = len(self.heads) + 1
            self.published.append(tree)
            self.heads.append(HeadRef(1, number, content_digest(b"%d" % number + root), root))
        return self.heads[-1]


class SyncHomeNode:
    """``on_edit`` is called for every path that a person changes, with the entries before and after."""

    def __init__(self, world: World, side: Side, options: SyncOptions, disk: SyncDisk) -> None:
        self.world = world
        self.side = side
        self.options = options
        self.rng = world.stream(f"home {side}")
        self.people = world.stream(f"people {side}")
        self.disk = disk
        disk.tick = self._tick
        self.is_alive = True
        self.incarnation = 0
        self.on_edit: Callable[[SyncHomeNode, bytes, Entry | None, Entry | None], None] = lambda *_: None
        self.published_ms = 0
        self.is_deciding = False
        self._edits = 0

    @property
    def name(self) -> str:
        return self.side.value

    @property
    def is_manual(self) -> bool:
        return self.world.is_faulty and self.options.manual_side is self.side

    def chance(self, probability: float) -> bool:
        return self.world.is_faulty and probability > 0 and self.rng.random() < probability

    # --- life and death ---------------------------------------------------------------------------------------

    def crash(self, why: str) -> None:
        if self.is_alive:
            self.world.record(self.name, "!", f"ends: {why}")
            self.is_alive = False
            self.incarnation += 1
            self.world.at(RESTART_MS, self._start)

    def _start(self) -> None:
        """Finish the switch that was under way. Its paths are published with the next generation."""
        try:
            if self.disk.journal is not None:
                self._finish(self.disk.journal.id)
        except Died:
            self.world.at(RESTART_MS, self._start)
            return
        self.world.record(self.name, "!", "starts")
        self.is_alive = True

    def _finish(self, id_: Digest) -> None:
        """The switch that was under way; the set is answered then, as far as anyone asks."""
        found = self.disk.perform(h.RecoverChanges(0, id_))
        assert isinstance(found, h.ChangesRecovered)
        if found.outcomes is not None:
            answer = ChangeAnswer(id_, found.outcomes, None, "")
            self.disk.perform(h.KeepAnswer(answer, NodeName("left")))

    def _tick(self) -> None:
        if self.chance(self.options.crash_at_step):
            raise Died

    # --- what a run asks --------------------------------------------------------------------------------------

    def look(self) -> HeadRef:
        """Publish what was saved before; the head."""
        self._mind_life()
        if self.is_manual and self.disk.heads:
            return self.disk.heads[-1]
        return self.publish()

    def set_of(self, changes: tuple[PathChange, ...]) -> ChangeSet:
        nonce, fileset = self.rng.randbytes(NONCE_BYTES), FilesetName("site")
        return ChangeSet(
            CHANGE_SET_VERSION, fileset, NodeName("main"), nonce, "", "", self.world.now, changes
        )

    def made_of(self, sets: Iterable[Digest]) -> set[bytes]:
        """The paths that these sets changed here, as far as they were answered."""
        answers = (self.disk.answers[id_] for id_ in sets if id_ in self.disk.answers)
        return {outcome.path for answer in answers for outcome in answer.outcomes if outcome.is_made}

    def decide(self, change_set: ChangeSet, sender: NodeName, *, accepts: bool) -> ChangeAnswer:
        """Make the changes whose base is live, publish them, and answer path by path."""
        self._mind_life()
        changes = change_set.changes
        id_, disk = change_set.id, self.disk
        disk.now_ms = self.world.now
        self.is_deciding = True
        try:
            disk.perform(h.KeepChange(id_, Submission(sender, change_set), ()))
            paths = tuple(each.path for each in changes)
            applied = disk.perform(h.ApplyChanges(0, id_, change_set, paths, accepts))
        except Died:
            self.crash("power, while it changes its tree")
            raise UnavailableError("the home does not answer") from None
        finally:
            self.is_deciding = False
        assert isinstance(applied, h.ChangesApplied)
        head = self._published(applied.outcomes)
        answer = ChangeAnswer(id_, applied.outcomes, head, "" if head is not None else "held back")
        disk.perform(h.KeepAnswer(answer, sender))
        return answer

    def _published(self, outcomes: tuple[PathOutcome, ...]) -> HeadRef | None:
        """The head that has what was made, unless the publish is held back."""
        is_made = any(outcome.is_made for outcome in outcomes)
        if not is_made or self.is_manual or self.chance(self.options.held_back):
            return None
        return self.publish()

    def _mind_life(self) -> None:
        if not self.is_alive:
            raise UnavailableError("the home does not answer")

    # --- persons ----------------------------------------------------------------------------------------------

    def write(self, path: bytes, *, is_removed: bool = False) -> None:
        """A person writes or removes a file, a whole directory, or puts one in place of the other."""
        for each in [each for each in self.disk.tree if is_below(each, path)]:
            self._replace(each, None)
        old = self.disk.tree.get(path)
        if is_removed:
            if old is not None:
                self._replace(path, None)
            return
        self._make_parents(path)
        self._edits += 1
        text = f"{self.side} {self._edits}".encode()
        born = old.born_ms if old is not None and old.kind is Kind.FILE else self.world.now
        self._replace(
            path, Entry(path, Kind.FILE, 0o644, len(text), self.world.now, content_digest(text), born)
        )

    def _make_parents(self, path: bytes) -> None:
        above = parent_of(path)
        parent = self.disk.tree.get(above)
        if above and (parent is None or parent.kind is not Kind.DIR):
            self._make_parents(above)
            self._replace(above, Entry(above, Kind.DIR, 0o755, 0, 0, EMPTY_DIGEST, self.world.now))

    def publish_by_hand(self) -> None:
        if self.is_alive:
            self.publish()

    def publish(self) -> HeadRef:
        self.published_ms = self.world.now
        return self.disk.publish()

    @property
    def known_ms(self) -> int:
        """A run that looks now learns what persons did until then."""
        return self.published_ms if self.is_manual else self.world.now

    def roll_back(self, number: int) -> None:
        """An operator brings back an earlier generation."""
        target = self.disk.published[number - 1]
        self.world.record(self.name, "!", f"is rolled back to generation {number}")
        for path in sorted({*self.disk.tree, *target}, key=sort_key, reverse=True):
            if self.disk.tree.get(path) != target.get(path):
                self._replace(path, target.get(path))
        before, head = self.disk.heads[-1], self.publish()
        if head != before:
            self.disk.rollbacks.append(Rollback(*head.position, *self.disk.heads[number - 1].position))

    def restore(self, tree: Tree, generations: int) -> None:
        """The machine comes back from a copy with this tree and so many generations."""
        self.world.record(self.name, "!", f"is restored to generation {generations}")
        self.disk.tree = dict(tree)
        del self.disk.heads[generations:], self.disk.published[generations:]
        self.disk.rollbacks = [each for each in self.disk.rollbacks if each.number <= generations]

    def _replace(self, path: bytes, entry: Entry | None) -> None:
        was = self.disk.tree.get(path)
        self.world.record(self.name, "!", f"a person {'removes' if entry is None else 'writes'} {path!r}")
        self.disk.edit(path, entry)
        self.on_edit(self, path, was, entry)
