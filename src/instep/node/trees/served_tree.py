"""What partners get of a tree: its shelf, with the knowledge that outlives one request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from instep.model.manifest.entry import Entry
from instep.node.trees.fileset_tree import FilesetTree
from instep.node.trees.keeping.serving_checks import ServingChecks, note_rotten
from instep.node.trees.keeping.shelf import Shelf
from instep.tree.archive.lookup import ArchiveLookup


class ServedTree:
    """Keeps its knowledge of the archive, and of sent contents, from one request to the next. On the event loop,
    ``rotten`` gets the path of a file that holds other bytes under the stat of its entry, ``missed`` the path of
    contents that a partner asked for and that are nowhere any more."""

    def __init__(
        self,
        tree: FilesetTree,
        rotten: Callable[[bytes], None],
        missed: Callable[[bytes], None] = lambda _: None,
        shown: Callable[[bytes], bytes] | None = None,
    ) -> None:
        """``shown`` gives the path in the tree of a path of the line, where they may differ."""
        self._tree = tree
        self._archive: ArchiveLookup | None = None
        self._checks = ServingChecks(lambda entry: self._hand_in(self._name_rotten, entry))
        self._rotten = rotten
        self._missed = missed
        self._shown = shown
        self._loop: asyncio.AbstractEventLoop | None = None

    def shelf(self) -> Shelf:
        """For one request; called on the event loop."""
        place = self._tree.place()
        self._loop = asyncio.get_running_loop()
        if self._archive is None or self._archive.place != place:
            self._archive = ArchiveLookup(place)
        history = self._tree.history if self._tree.fileset.is_written_here else None
        missed = partial(self._hand_in, self._missed)
        return Shelf(place, history, self._archive, self._checks, missed, self._shown)

    def _hand_in(self, call: Callable[[bytes], None], entry: Entry) -> None:
        """Called by the thread that answers a request."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(call, entry.path)

    def _name_rotten(self, path: bytes) -> None:
        note_rotten(self._tree.runtime, self._tree.line, path)
        self._rotten(path)
