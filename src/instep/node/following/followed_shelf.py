"""The shelf of a fileset that is followed here, from which a hub sends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from instep.model.manifest.entry import Entry
from instep.node.trees.fileset_tree import FilesetTree
from instep.node.trees.keeping.serving_checks import ServingChecks, note_rotten
from instep.node.trees.keeping.shelf import Shelf
from instep.tree.archive.lookup import ArchiveLookup

__all__ = ["FollowedShelf"]


class FollowedShelf:
    """Keeps its knowledge of the archive, and of sent contents, from one request to the next."""

    def __init__(self, tree: FilesetTree, doubt: Callable[[tuple[bytes, ...]], None]) -> None:
        self._tree = tree
        self._doubt = doubt
        self._archive: ArchiveLookup | None = None
        self._checks = ServingChecks(self._rotten)
        self._loop: asyncio.AbstractEventLoop | None = None

    def shelf(self) -> Shelf:
        """For one request; called on the event loop."""
        place = self._tree.place()
        self._loop = asyncio.get_running_loop()
        if self._archive is None or self._archive.place != place:
            self._archive = ArchiveLookup(place)
        return Shelf(place, None, self._archive, self._checks)

    def _rotten(self, entry: Entry) -> None:
        """A file to be sent holds other bytes under the stat of its entry; called by the thread that answers."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._suspect, entry)

    def _suspect(self, entry: Entry) -> None:
        """The file's stat is not believed any more, so that the drift policy decides."""
        note_rotten(self._tree.runtime, self._tree.line, entry.path)
        self._doubt((entry.path,))
