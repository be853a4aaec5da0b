"""The laws of many homes, seen from outside the machines.

R1: no home's line has contents that no person made, or moved, at that home. R2: after the faults all trees are equal,
and no contents are in two lines unless a person moved them. R3: what persons wrote is in the trees, in an archive, or
was replaced by a person who saw it; no line leaves a tree. R4: a text in place of another home's file is never
published by the node where it was written, unless it was moved to another name or the node's state was lost. H1: a home
makes the change of another node only where its file is what the author saw. P4: heads of a line only rise at each
node, but for an older state.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from instep.model.change import PathChange, is_alike
from instep.model.ids import Digest, HeadRef
from instep.model.manifest.entry import Entry, Kind
from instep.testing.world.world import BrokenPromise


class UnionLedger:
    """All that persons did, and what became of it."""

    def __init__(self) -> None:
        self._made_at: defaultdict[Digest, set[str]] = defaultdict(set)
        self._path: dict[Digest, bytes] = {}
        self._gone: set[Digest] = set()
        """Contents that a person replaced or removed, or that went with a machine."""
        self._moved: set[Digest] = set()
        self._edits: dict[Digest, tuple[str, str]] = {}
        """Of contents that a person wrote in place of another home's file: the node and that home."""
        self._forgetful: set[str] = set()
        self._heads: dict[tuple[str, str], HeadRef] = {}
        self._lines: dict[str, set[str]] = {}

    # --- persons ----------------------------------------------------------------------------------------------

    def wrote(self, node: str, entry: Entry) -> None:
        self._made_at[entry.digest].add(node)
        self._path[entry.digest] = entry.path

    def makers(self, entry: Entry) -> set[str]:
        """The nodes at which these contents were made or moved."""
        return self._made_at[entry.digest]

    def replaced(self, entry: Entry) -> None:
        """A person who saw it replaced or removed a file."""
        self._gone.add(entry.digest)

    def moved(self, node: str, entry: Entry) -> None:
        """A person gave a file another name."""
        self._made_at[entry.digest].add(node)
        self._moved.add(entry.digest)

    def edits(self, node: str, entry: Entry, home: str) -> None:
        """A person wrote this at a node, in place of the file of another home."""
        self._edits[entry.digest] = node, home

    def accepted(self, home: str, change: PathChange, here: Entry | None) -> None:
        """A home made the change of another node where ``here`` lay."""
        if not is_alike(here, change.base):
            raise BrokenPromise("H1", f"{home} changed {change.path!r}, which was not what its author saw")
        if change.new is not None:
            self._made_at[change.new.digest].add(home)

    def lost_with_a_machine(self, digests: Iterable[Digest]) -> None:
        self._gone.update(digests)

    # --- nodes ------------------------------------------------------------------------------------------------

    def committed(self, node: str, entries: Iterable[Entry]) -> None:
        for entry in entries:
            if entry.kind is not Kind.DIR and node not in self._made_at[entry.digest]:
                by = ", ".join(sorted(self._made_at[entry.digest]))
                raise BrokenPromise("R1", f"{node} publishes {entry.path!r}, which was made at {by}")
            if entry.digest in self._edits and entry.digest not in self._moved:
                at, home = self._edits[entry.digest]
                if at == node and node not in self._forgetful:
                    raise BrokenPromise(
                        "R4", f"{node} publishes the edit of {entry.path!r}, a file of {home}"
                    )

    def keeps(self, node: str, origin: str, head: HeadRef) -> None:
        before = self._heads.get((node, origin))
        if before is not None and head.position < before.position:
            raise BrokenPromise(
                "P4", f"{node} went from generation {before.number} of {origin} to {head.number}"
            )
        self._heads[node, origin] = head

    def lives(self, node: str, origins: Iterable[str]) -> None:
        """The lines in the live union of a node: none leaves it but by an operator, and here none does."""
        known, now = self._lines.get(node, set()), set(origins)
        if not known - {node} <= now:
            raise BrokenPromise("R3", f"the lines of {sorted(known - now)} left the tree of {node}")
        self._lines[node] = now

    def restored(self, node: str) -> None:
        """The node's state is an older one."""
        for key in [key for key in self._heads if key[0] == node]:
            del self._heads[key]
        self._lines.pop(node, None)
        self._forgetful.add(node)

    # --- the end ----------------------------------------------------------------------------------------------

    def check_end(self, there: set[Digest], archived: set[Digest], lines: dict[str, list[Entry]]) -> None:
        for digest, path in self._path.items():
            if digest not in there and digest not in archived and digest not in self._gone:
                raise BrokenPromise("R3", f"what a person wrote to {path!r} is nowhere any more")
        many = Counter(e.digest for entries in lines.values() for e in entries if e.kind is not Kind.DIR)
        for digest, times in many.items():
            if times > 1 and digest not in self._moved:
                raise BrokenPromise("R2", f"the contents of {self._path[digest]!r} are in {times} lines")
