"""Touched paths of a tree, as its watch reports them, until a look has taken them in."""

from __future__ import annotations

from collections.abc import Sequence

from instep.core.publish.vocabulary import ScanSummary

PATHS_MAX = 50_000
"""More touched paths than this between two looks are an overflow: a full scan is cheaper."""


class TouchedPaths:
    """Paths, each with whether all below it was touched as well."""

    def __init__(self) -> None:
        self._is_tree: dict[bytes, bool] = {}
        self.is_everything = False
        """Track was lost: only a full scan will do."""

    def add(self, path: bytes, *, is_tree: bool) -> bool:
        """Whether the path is a new one."""
        known = self._is_tree.get(path)
        self._is_tree[path] = is_tree or bool(known)
        if len(self._is_tree) > PATHS_MAX:
            self._is_tree.clear()
            self.is_everything = True
        return known is None

    def take_in(self, others: TouchedPaths) -> None:
        """Add the paths of another watch or look."""
        for path, is_tree in others._is_tree.items():
            self.add(path, is_tree=is_tree)
        self.is_everything = self.is_everything or others.is_everything

    def pop(self, paths: Sequence[bytes]) -> TouchedPaths:
        """Take out the named paths, or all where none is named."""
        taken = TouchedPaths()
        for path in paths or tuple(self._is_tree):
            if path in self._is_tree:
                taken._is_tree[path] = self._is_tree.pop(path)
        return taken

    @property
    def paths(self) -> tuple[bytes, ...]:
        return tuple(self._is_tree)

    @property
    def trees(self) -> list[bytes]:
        """To be looked at with all below them."""
        return [path for path, is_tree in self._is_tree.items() if is_tree]

    @property
    def entries(self) -> list[bytes]:
        """To be looked at alone."""
        return [path for path, is_tree in self._is_tree.items() if not is_tree]

    def scanned(self, summary: ScanSummary) -> None:
        """A scan of all this ended: without changes, and with nothing that refuses them, nothing of it is left to
        publish. Held paths are the machine's to look at again."""
        if not (summary.added or summary.changed or summary.removed or summary.problems):
            self.clear()

    def clear(self) -> None:
        """All of it stands in a generation."""
        self._is_tree.clear()
        self.is_everything = False
