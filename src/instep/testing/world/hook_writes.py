"""A reload hook that rewrites a file in the tree each time it runs, and what the node's watch knows of that."""

from __future__ import annotations

from collections.abc import Iterable

from instep.core.vocabulary import HookWrite
from instep.testing.world.node import SimNode

WRITTEN = b"by-the-hook"


class SimHookWrites:
    """One per node. Half of the nodes name the path in ``writes``."""

    def __init__(self, node: SimNode) -> None:
        self._node = node
        self._is_expected = node.world.stream(f"hook writes {node.name}").random() < 0.5
        self._runs = 0
        self._known_in = -1
        """The incarnation that saw the hook write, and no other write since; the watch of another one did not."""

    def run(self) -> bool:
        """The hook runs now; whether the watch sees what it writes."""
        options = self._node.world.options
        if not options.hook_writes:
            return False
        self._runs += 1
        self._node.place.tree[WRITTEN] = b"run %d" % self._runs
        if self._node.fails(options.watch_loss):
            return False
        self._known_in = self._node.incarnation
        return True

    def touched(self, path: bytes) -> None:
        """Another program wrote the path."""
        if path == WRITTEN:
            self._known_in = -1

    def among(self, paths: Iterable[bytes]) -> tuple[HookWrite, ...]:
        """Those of ``paths`` that the hook wrote."""
        is_known = self._known_in == self._node.incarnation and WRITTEN in paths
        return (HookWrite(WRITTEN, "reload", self._is_expected),) if is_known else ()
