"""The losses of a simulated home: where they count from, what sets made since the head, and what they may remove."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from instep.core.guards.losses import Checkpoint, LossGuard, judge_change, lost_between, next_checkpoints
from instep.model.ids import Digest, HeadRef
from instep.model.manifest.entry import Entry
from instep.model.manifest.manifest import build
from instep.model.paths import sort_key

Tree = Mapping[bytes, Entry]


class HomeLosses:
    """``on_publish`` is called with whether the guard stops a generation with the changes of sets alone."""

    def __init__(self) -> None:
        self.checkpoints: tuple[Checkpoint, ...] = ()
        self.made: dict[bytes, Entry | None] = {}
        """The paths that sets changed since the newest generation, as they left them."""
        self.on_publish: Callable[[bool], None] = lambda _: None
        self._pages: dict[Digest, bytes] = {}

    def publishes(self, before: Tree, after: Tree, guard: LossGuard, now_ms: int) -> None:
        """A generation is made: losses of the next ten minutes are counted from the one before as well. Sets removed
        too much where that is so with all that they made, and without what a program at the home changed since."""
        left = {path: entry for path, entry in self.made.items() if after.get(path) == entry}
        self.on_publish(all(self.stops(before, made, guard, now_ms) for made in (left, self.made)))
        old, new = self._root(before), self._root(after)
        lost, added = lost_between(old, new, self._get), len(after.keys() - before.keys())
        head = HeadRef(1, 1, old, old)
        self.checkpoints = next_checkpoints(self.checkpoints, head, lost, added, len(before), now_ms)
        self.made.clear()

    def stops(self, before: Tree, made: Mapping[bytes, Entry | None], guard: LossGuard, now_ms: int) -> bool:
        """Whether the guard stops the newest generation with these paths changed."""
        tree = {**before, **made}
        after = {path: entry for path, entry in tree.items() if entry is not None}
        return judge_change(self._root(before), self._root(after), self._get, guard, now_ms) is not None

    def _get(self, digest: Digest) -> bytes:
        return self._pages[digest]

    def _root(self, tree: Tree) -> Digest:
        entries = (tree[path] for path in sorted(tree, key=sort_key))
        return build(entries, self._pages.__setitem__)
