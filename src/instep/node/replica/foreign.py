"""Paths of other homes that were changed in this tree, as the own line's looks found them, until they are as laid."""

from __future__ import annotations

from collections.abc import Iterator

from instep.core.union.divide import ForeignChange, Waiting
from instep.model.paths import parent_of
from instep.node.replica.own_scan import TreeDivided


class ForeignPaths:
    """On the event loop. A look at some paths says nothing of the others."""

    def __init__(self) -> None:
        self.changes: dict[bytes, ForeignChange] = {}
        self.waiting: dict[bytes, Waiting] = {}
        """New paths that are not published before the change of another path is answered."""
        self.chmodded: tuple[bytes, ...] = ()

    def take(self, looked: TreeDivided) -> None:
        """What a look found replaces what was known of the paths that it looked at."""
        if looked.is_full:
            self.changes.clear()
            self.waiting.clear()
        else:
            alone, trees = set(looked.alone), set(looked.trees)
            for known in (self.changes, self.waiting):
                for path in [
                    each for each in known if each in alone or any(up in trees for up in _upwards(each))
                ]:
                    del known[path]
        divided = looked.divided
        self.changes.update((change.path, change) for change in divided.foreign)
        self.waiting.update((each.path, each) for each in divided.waiting)
        self.chmodded = divided.chmodded

    @property
    def paths(self) -> tuple[bytes, ...]:
        return tuple(self.changes)


def _upwards(path: bytes) -> Iterator[bytes]:
    while path:
        yield path
        path = parent_of(path)
