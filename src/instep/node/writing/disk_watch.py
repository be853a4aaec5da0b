"""Whether the disk of a writer's root takes writes: looked at by the clock, for no watch of files reports it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from instep.errors import InstepError, ResourceError
from instep.node.trees.fileset_tree import FilesetTree
from instep.tree.root.writable import require_writable_folder

LOOK_S = 5.0


class DiskWatch:
    """Calls ``changed`` when the file system of the control folder stopped taking writes, or takes them again. The
    scan that follows decides about it."""

    def __init__(self, tree: FilesetTree, changed: Callable[[], None]) -> None:
        self._tree = tree
        self._changed = changed

    async def run(self) -> None:
        """Look until cancelled. A root that is not there is for the scan to report."""
        was_writable = True
        while True:
            await asyncio.sleep(LOOK_S)
            is_writable = await self._tree.worker.run(self._is_writable)
            if is_writable is not None and is_writable != was_writable:
                was_writable = is_writable
                self._changed()

    def _is_writable(self) -> bool | None:
        """None when it cannot be said."""
        try:
            place = self._tree.taken().place
        except (InstepError, OSError):
            return None
        try:
            require_writable_folder(place.control)
        except ResourceError:
            return False
        except OSError:
            return None
        return True
