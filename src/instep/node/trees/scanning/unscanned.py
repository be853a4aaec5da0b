"""Paths that the watch reported and no generation has yet, so that a scan that fails or is refused loses none of
them."""

from __future__ import annotations

from instep.core.publish.vocabulary import ScanSummary
from instep.node.trees.scanning.watching import PATHS_MAX, WatchDrained

__all__ = ["Unscanned"]


class Unscanned:
    """Kept from the drain until a scan of it was committed, or found nothing to publish and nothing in its way.

    The machine keeps the paths of its events; paths that a scan itself drains from the kernel never reach it.
    """

    def __init__(self) -> None:
        self._paths: dict[bytes, bool] = {}
        self.is_everything = False
        """Track was lost: only a full scan will do."""

    def take_in(self, drained: WatchDrained) -> None:
        """Add what the watch drained."""
        self.is_everything = self.is_everything or drained.is_overflow
        for path, is_tree in drained.paths:
            self._paths[path] = self._paths.get(path, False) or is_tree
        if len(self._paths) > PATHS_MAX:
            self.is_everything = True
        if self.is_everything:
            self._paths.clear()

    @property
    def trees(self) -> list[bytes]:
        """To be looked at with all below them."""
        return [path for path, is_tree in self._paths.items() if is_tree]

    @property
    def entries(self) -> list[bytes]:
        """To be looked at alone."""
        return [path for path, is_tree in self._paths.items() if not is_tree]

    def scanned(self, summary: ScanSummary) -> None:
        """A scan of all this ended: without changes, and with nothing that refuses them, nothing of it is left to
        publish. Held paths are the machine's to look at again."""
        if not (summary.added or summary.changed or summary.removed or summary.problems):
            self.committed()

    def committed(self) -> None:
        """The drained paths stand in a generation."""
        self._paths.clear()
        self.is_everything = False
