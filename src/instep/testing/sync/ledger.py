"""The checkers of sync runs, seen from outside of what decides them.

S1: a path is changed only where it still is what the run saw. S2: what persons wrote is live at both homes in the end,
where its kind goes both ways, and else live or archived at its home, unless a person replaced or removed it. S3: one
content of one file has one copy at most. S4: the base follows only what a generation of each home has. S5: what a run
made at a path that no person touched, the next one leaves as it is. S6: one run at a time, and each one ends. S7: a
home that went back is not taken for one that changed, also with edits after it, and no other home is named so. S8: an
edit of contents that a run brought there is no collision with them, where no base was lost and homes publish at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from instep.core.sync.plan import SyncPlan, same
from instep.core.sync.run import ROUNDS_MAX
from instep.core.sync.table import Direction, Listing, RulesOf, Side
from instep.core.sync.work import Looked
from instep.model.change import is_alike
from instep.model.ids import Digest
from instep.model.manifest.entry import Entry, Kind
from instep.model.paths import is_below, shown
from instep.testing.changes.home_disk import Accepted
from instep.testing.sync.side import SyncHomeNode, Tree
from instep.testing.world.world import BrokenPromise, World

_COPY = re.compile(rb"\.collision-[^./]+")
_COPY_OF_A_FILE = re.compile(rb"\.collision-[^/]+$")


@dataclass(slots=True)
class Watched:
    """A run, as the checkers know it, with what persons did until ``known_ms``. ``seen``: the generations that
    each side had when it looked first."""

    number: int
    known_ms: int
    may_undo: bool
    seen: dict[Side, int]
    rounds: int = 0
    made: int = 0


class SyncLedger:
    """What persons wrote, what runs made, and whether all of it is still somewhere."""

    def __init__(self, world: World, homes: dict[Side, SyncHomeNode], rules: RulesOf) -> None:
        self._world = world
        self._homes = homes
        self._rules = rules
        self._written: dict[Digest, tuple[Side, bytes]] = {}
        """Contents of persons, with where they were written first."""
        self._superseded: dict[Digest, None] = {}
        """Contents that a person replaced or removed, somewhere."""
        self._rests_on: dict[Digest, Digest] = {}
        """What a person's contents replaced."""
        options = next(iter(homes.values())).options
        self._is_base_lost = options.manual_side is not None or options.held_back > 0
        self._touched: dict[bytes, int] = {}
        self._placed: dict[tuple[Side, bytes], tuple[int, int, Entry | None]] = {}
        """What a run made last: its number, when it began, and the entry."""
        self._gone_back: dict[Side, Digest] = {}
        """Sides that were rolled back, and the root that each had after the last run."""
        self._has_rolled_back = False
        self._may_name = False
        """Someone rolled a home back, or brought an older state back, since a run took that as it is."""
        self.run: Watched | None = None
        self.runs = 0
        for home in homes.values():
            home.on_edit = self._edited
            home.disk.on_accept = lambda accepted, side=home.side: self._accepted(side, accepted)  # type: ignore[misc]

    # --- persons ----------------------------------------------------------------------------------------------

    def _edited(self, home: SyncHomeNode, path: bytes, was: Entry | None, new: Entry | None) -> None:
        self._touched[path] = self._world.now
        if was is not None and was.kind is Kind.FILE:
            self._superseded[was.digest] = None
            if new is not None and new.kind is Kind.FILE:
                self._rests_on[new.digest] = was.digest
        if was is not None and was.kind is Kind.DIR:
            for digest, (side, below) in self._written.items():
                if side is home.side and is_below(below, path):
                    self._superseded[digest] = None  # Also where a run had renamed it.
        if new is not None and new.kind is Kind.FILE:
            self._written[new.digest] = (home.side, path)

    def went_back(self, home: SyncHomeNode, last: Digest) -> None:
        self._gone_back[home.side] = last
        self.brings_back()

    def brings_back(self) -> None:
        self._has_rolled_back = self._may_name = True

    def looks(self, looked: Looked) -> None:
        """A home that has what the last run left behind has nothing older to give."""
        for side in Side:
            if looked.of(side).root == self._gone_back.get(side):
                del self._gone_back[side]

    def names_rollback(self) -> None:
        if not self._may_name:
            raise BrokenPromise("S7", "a home is said to have gone back, and nothing was brought back")

    def accepts(self) -> None:
        """A run kept a base: a state brought back until then is taken as it is."""
        self._may_name = False

    def restored(self, home: SyncHomeNode, tree: Tree, generation: Tree) -> None:
        """The tree is an older one, which no person of today made. Contents that lay here alone are gone; those that a
        run had brought to the other home are that one's alone from now on."""
        (other,) = (each for each in self._homes.values() if each is not home)
        here, there = _contents(tree.values()), _contents(other.disk.tree.values())
        for digest, (_, path) in self._written.items():
            if digest in there and digest not in here:
                self._written[digest] = (other.side, path)
        kept = here | there
        for path in sorted({*home.disk.tree, *tree, *generation, *home.disk.published[-1]}):
            was = home.disk.tree.get(path)
            self._touched[path] = self._world.now  # Its newest generation may be another than the tree.
            if was is not None and was.digest not in kept:
                self._superseded[was.digest] = None

    def forgets(self) -> None:
        """The newest bases are gone: no run can know any more that a home went back."""
        self._gone_back.clear()
        self._may_name = self._has_rolled_back
        self._is_base_lost = True

    def gives_up(self, side: Side) -> None:
        """An operator says that the other side is right: all that is replaced here now was meant."""
        for entry in self._homes[side].disk.tree.values():
            self._superseded[entry.digest] = None
        self._rests_on.clear()

    # --- runs -------------------------------------------------------------------------------------------------

    def begins(self, *, may_undo: bool) -> None:
        if self.run is not None:
            raise BrokenPromise("S6", "two runs of one profile at once")
        self.runs += 1
        seen = {side: len(home.disk.published) for side, home in self._homes.items()}
        known_ms = min(home.known_ms for home in self._homes.values())
        self.run = Watched(self.runs, known_ms, may_undo, seen)
        if may_undo:
            self._gone_back.clear()  # An operator knows.

    def ends(self) -> None:
        assert self.run is not None
        self.run = None

    def plans(self, plan: SyncPlan) -> None:
        assert self.run is not None
        self.run.rounds += 1
        if self.run.rounds > ROUNDS_MAX:
            raise BrokenPromise("S6", "a run does not end")
        if self._is_base_lost or self._has_rolled_back:
            return
        listed = {each.path for each in plan.listed if each.why is Listing.COLLISION}
        for step in plan.steps:
            if step.path in listed and step.left is not None and step.right is not None:
                one, other = step.left.digest, step.right.digest
                if self._rests(one, other) or self._rests(other, one):
                    raise BrokenPromise(
                        "S8", f"{shown(step.path)} is a collision, and one side's text rests on the other's"
                    )

    def _rests(self, newer: Digest, older: Digest) -> bool:
        at: Digest | None = newer
        while at is not None and at != older:
            at = self._rests_on.get(at)
        return at is not None and newer != older

    def _accepted(self, side: Side, accepted: Accepted) -> None:
        change = accepted.change
        if not is_alike(accepted.was, change.base):
            raise BrokenPromise("S1", f"{_at(side, change.path)} was changed, and was not what the run saw")
        home, run = self._homes[side], self.run
        if not home.is_deciding or home.is_manual:  # Not published yet: runs do not know of it.
            self._touched[change.path] = self._world.now
        if run is None or not home.is_deciding:
            return  # A home finishes the switch of an earlier run.
        run.made += 1
        if self._gone_back and not run.may_undo:
            gone = ", ".join(self._gone_back)
            raise BrokenPromise("S7", f"{gone} went back, and a run changed {_at(side, change.path)} for it")
        before = self._placed.get((side, change.path))
        if (
            before is not None
            and before[0] != run.number
            and not run.may_undo
            and same(before[2], accepted.was)
            and not self._is_touched(change.path, before[1])
        ):
            raise BrokenPromise("S5", f"{_at(side, change.path)} is undone that run {before[0]} made")
        self._placed[side, change.path] = (run.number, run.known_ms, change.new)

    def _is_touched(self, path: bytes, since_ms: int) -> bool:
        whole = _COPY.sub(b"", path)
        return any(
            at >= since_ms
            and any(
                each == touched or is_below(each, touched) or is_below(touched, each)
                for each in (path, whole)
            )
            for touched, at in self._touched.items()
        )

    def keeps_base(self, before: Tree, after: Tree) -> None:
        run = self.run
        assert run is not None
        for path in sorted({*before, *after}):
            entry = after.get(path)
            if path in before and path in after and before[path] == entry:
                continue
            for side, home in self._homes.items():
                published = home.disk.published[run.seen[side] - 1 :]
                if not any(same(tree.get(path), entry) for tree in published):
                    raise BrokenPromise(
                        "S4", f"the base follows {shown(path)}, which no generation of the {side} has so"
                    )

    # --- the whole --------------------------------------------------------------------------------------------

    def check(self) -> None:
        """At every moment: no content of a file has two copies."""
        for side, home in self._homes.items():
            known: dict[tuple[bytes, Digest], bytes] = {}
            for path, entry in home.disk.tree.items():
                if (
                    entry.kind is Kind.FILE
                    and _COPY_OF_A_FILE.search(path)
                    and path.count(b".collision-") == 1
                ):
                    other = known.setdefault((_COPY.sub(b".collision", path), entry.digest), path)
                    if other != path:
                        raise BrokenPromise(
                            "S3", f"{shown(path)} and {shown(other)} on the {side} are one copy twice"
                        )

    def check_end(self) -> None:
        live = {side: _contents(home.disk.tree.values()) for side, home in self._homes.items()}
        kept = {side: live[side] | _contents(home.disk.archive) for side, home in self._homes.items()}
        for digest, (side, path) in self._written.items():
            if digest in self._superseded:
                continue
            if digest not in kept[side]:
                raise BrokenPromise("S2", f"what a person wrote to {_at(side, path)} is nowhere any more")
            rules = self._rules(path)
            is_shared = rules.direction is Direction.BOTH and rules.locked is None
            for other in Side:
                if is_shared and digest not in live[other]:
                    raise BrokenPromise(
                        "S2", f"what a person wrote to {_at(side, path)} is not on the {other}"
                    )


def _contents(entries: Iterable[Entry]) -> set[Digest]:
    return {each.digest for each in entries if each.kind is Kind.FILE}


def _at(side: Side, path: bytes) -> str:
    return f"{shown(path)} on the {side}"
