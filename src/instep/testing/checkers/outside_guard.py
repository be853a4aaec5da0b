"""P10 as it is seen from outside the simulated writer: no disaster becomes a generation unless an operator accepts
it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from instep.core.guards.guards import DeletionPolicy
from instep.core.guards.losses import WINDOW_MS
from instep.core.publish import vocabulary as p
from instep.model.ids import Digest, HeadRef
from instep.testing.world.node import SimNode
from instep.testing.world.world import BrokenPromise

DELETIONS = DeletionPolicy()


class OutsideGuard:
    """Keeps the entries of the generations of the last ten minutes, since the operator accepted a loss or the writer's
    state was put back."""

    def __init__(
        self, writer: SimNode, unreadable: Mapping[bytes, None], is_accepting: Callable[[], bool]
    ) -> None:
        self._writer = writer
        self._unreadable = unreadable
        self._is_accepting = is_accepting
        """Whether an operator accepts a loss at the moment."""
        self._hidden: frozenset[bytes] = frozenset()
        self._window: list[tuple[int, Digest, dict[bytes, Digest]]] = []

    def put_back(self) -> None:
        """The writer's state is an older one: it may hear of the newest head again, but not of that head's losses."""
        self._window.clear()

    def looked(self) -> None:
        """A scan reads the tree now: these paths are there and cannot be read."""
        self._hidden = frozenset(self._unreadable) & self._writer.place.tree.keys()

    def _entries(self, root: Digest) -> dict[bytes, Digest]:
        return self._writer.store.entries(root)

    def check(self, effect: p.Commit) -> None:
        """Check a generation before it is signed: its losses against its base, and against each generation in the
        window."""
        base = effect.facts.base
        if base is None:
            return
        after = self._entries(effect.root)
        for path in self._entries(base.root).keys() - after.keys():
            if path in self._hidden and path in self._writer.place.tree:
                raise BrokenPromise(
                    "P10", f"{path!r} cannot be read, and generation {effect.number} removes it"
                )
        if self._is_accepting():
            return
        if not self._window or self._window[-1][1] != base.id:
            self._window = [(self._writer.world.now, base.id, self._entries(base.root))]
        contents = set(after.values())
        for at, _, before in self._window:
            gone = [path for path, digest in before.items() if path not in after and digest not in contents]
            is_disaster = len(gone) > DELETIONS.allowed(len(before)) or (not after and len(gone) > 1)
            if self._writer.world.now - at < WINDOW_MS and is_disaster:
                raise BrokenPromise(
                    "P10",
                    f"generation {effect.number} removes {len(gone)} of {len(before)} paths unasked, "
                    f"within {self._writer.world.now - at} ms",
                )

    def committed(self, head: HeadRef, effect: p.Commit) -> None:
        if self._is_accepting():
            self._window.clear()
        self._window.append((self._writer.world.now, head.id, self._entries(effect.root)))
