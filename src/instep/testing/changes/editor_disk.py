"""The disk of a simulated follower whose tree is edited: tree, generation, archive, and what a follower does with them.

It stands for the ``FollowMachine`` and its tree: applies leave owned paths alone, losing ones are set aside, and looks
compare the tree with its generation.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from instep.core.changes import offer_vocabulary as o
from instep.core.changes.offer_vocabulary import (
    Edit,
    EditState,
    OfferEffect,
    OfferEvent,
    OfferFacts,
    OwnedPath,
)
from instep.model.change import is_alike, is_same_file
from instep.model.ids import Digest, HeadRef
from instep.model.manifest.entry import Entry
from instep.model.paths import sort_key


class EditorDisk:
    """Two planted bugs are switches: with ``offers_unlaid`` a path that was never laid here counts as removed, without
    ``keeps_losers`` nothing is archived."""

    def __init__(self) -> None:
        self.tree: dict[bytes, Entry] = {}
        self.generation: dict[bytes, Entry] = {}
        self.head: HeadRef | None = None
        self.laid: dict[bytes, Digest] = {}
        """Contents that were laid here, or made here, and seen since."""
        self.withheld: set[bytes] = set()
        """Paths that an apply cannot lay for now."""
        self.archive: list[Entry] = []
        self.drift_archived: list[Entry] = []
        """Archived by an apply, for no edit that lost."""
        self.facts: OfferFacts | None = None
        self.owned: tuple[OwnedPath, ...] = ()
        self.offers_unlaid = False
        self.keeps_losers = True
        self.on_replace: Callable[[bytes, Entry], None] = lambda *_: None
        """Called with each file that is replaced here, and not by a person."""

    def perform(self, effect: OfferEffect) -> OfferEvent | None:
        """Carry out an effect that concerns this disk; the event that answers it, if one is due."""
        match effect:
            case o.SaveOffers(facts):
                self.facts = facts
            case o.OwnPaths(owned):
                self.owned = owned
            case o.LookAtPaths(req, paths):
                wanted = frozenset(paths)
                found = tuple(edit for edit in self._edits() if edit.path in wanted)
                return o.PathsLooked(req, found, self.head)
            case _:
                pass
        return None

    def edit(self, path: bytes, entry: Entry | None) -> None:
        """A program here changes a path."""
        self.withheld.discard(path)
        if entry is None:
            self.tree.pop(path, None)
        else:
            self.tree[path] = entry
            self.laid[path] = entry.digest

    def look(self) -> o.TreeLooked:
        """The whole tree beside its generation."""
        entries = len(self.generation)
        return o.TreeLooked(self._edits(), (), is_whole=True, entries=entries, head=self.head)

    def _edits(self) -> tuple[Edit, ...]:
        paths = sorted({*self.tree, *self.generation}, key=sort_key)
        found = ((path, self._at_home(path), self.generation.get(path)) for path in paths)
        return tuple(
            Edit(path, here, base, self._is_seen(path, base) or self.offers_unlaid)
            for path, here, base in found
            if not is_alike(here, base)
        )

    def _is_seen(self, path: bytes, base: Entry | None) -> bool:
        return base is not None and self.laid.get(path) == base.digest

    def _at_home(self, path: bytes) -> Entry | None:
        """This tree keeps no owners: those of the generation count as kept."""
        here, base = self.tree.get(path), self.generation.get(path)
        return here if here is None or base is None else msgspec.structs.replace(here, extra=base.extra)

    def apply(self, head: HeadRef, generation: dict[bytes, Entry]) -> o.HeadReached:
        """Come to hold a generation. Local changes that are not owned are drift, and archived."""
        owned = {each.path for each in self.owned}
        before, self.generation, self.head = self.generation, dict(generation), head
        for path in sorted({*self.tree, *generation, *before}, key=sort_key):
            here, wanted = self.tree.get(path), generation.get(path)
            if path in owned or path in self.withheld or is_same_file(here, wanted):
                continue
            if is_alike(before.get(path), wanted):
                continue  # The apply changes only what differs between two generations: this is drift, for a look.
            if here is not None and not is_same_file(here, before.get(path)):
                self.drift_archived.append(here)
            self._lay(path, wanted)
        for path in [path for path in self.laid if path not in generation and path not in self.tree]:
            del self.laid[path]
        return self.reached()

    def reached(self) -> o.HeadReached:
        assert self.head is not None
        return o.HeadReached(
            self.head, tuple((each.path, self.generation.get(each.path)) for each in self.owned)
        )

    def set_aside(self) -> o.EditsSetAside | None:
        """Archive and restore the paths that are losing."""
        lost = tuple(each.path for each in self.owned if each.state is EditState.LOSING)
        for path in lost:
            here = self.tree.get(path)
            is_other = here is not None and not is_same_file(here, self.generation.get(path))
            if here is not None and is_other and self.keeps_losers:
                self.archive.append(here)
            self._lay(path, self.generation.get(path))
        return o.EditsSetAside(lost) if lost else None

    def restore_unlaid(self) -> None:
        """What an apply could not lay comes now."""
        owned = {each.path for each in self.owned}
        for path in sorted(self.withheld - owned):
            self.withheld.discard(path)
            if path in self.generation and path not in self.tree:
                self._lay(path, self.generation[path])

    def _lay(self, path: bytes, entry: Entry | None) -> None:
        here = self.tree.get(path)
        self.withheld.discard(path)
        if here is not None:
            self.on_replace(path, here)
        if entry is None:
            self.tree.pop(path, None)
            self.laid.pop(path, None)
        else:
            self.tree[path] = msgspec.structs.replace(entry, extra=None)
            self.laid[path] = entry.digest
