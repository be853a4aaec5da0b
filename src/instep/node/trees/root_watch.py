"""Whether the root of a fileset can be seen now: what balancers and ``status`` say rests on a look at this moment.

A look opens the root and reads its marker. It has a thread of its own, for a file system that hangs keeps the thread:
nothing else waits behind it, and a question waits for it a moment only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable

from instep.core.vocabulary import Trouble, trouble_of
from instep.errors import InstepError, ResourceError
from instep.net.task_group import TaskGroup
from instep.node.facts.mounts import mount_at
from instep.node.runtime.driver import own_error
from instep.node.runtime.own_thread import in_own_thread
from instep.node.trees.fileset_tree import FilesetTree
from instep.tree.scan.touched import Identity

LOOK_S = 2.0
"""Between looks that no question asks for."""
ANSWER_S = 0.1
"""A question waits for a look that long, and then takes the answer of the look before."""
SILENT_S = 3.0
"""A look that takes longer says that the file system hangs."""


class RootWatch:
    """``trouble`` is why the root cannot be seen, None while it is seen. ``turned`` is called when that changes."""

    def __init__(
        self,
        tree: FilesetTree,
        turned: Callable[[Trouble | None], Awaitable[None]],
        see: Callable[[], Identity] | None = None,
    ) -> None:
        self.trouble: Trouble | None = None
        self._tree = tree
        self._turned = turned
        self._see = see
        self._look: asyncio.Future[Identity] | None = None
        self._begun_s = 0.0

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self.look(SILENT_S)
            await asyncio.sleep(LOOK_S)

    async def look(self, within_s: float = ANSWER_S) -> None:
        """Bring ``trouble`` up to now, in so much time at most. Questions that come together share one look."""
        if self._look is None:
            self._begun_s = time.monotonic()
            self._look = in_own_thread(self._see or self._tree.seeing())
        look = self._look
        await asyncio.wait([look], timeout=within_s)
        if look.done():
            if self._look is look:
                self._look = None
            try:
                identity = look.result()
            except (InstepError, OSError) as error:
                await self._say(trouble_of(own_error(error)))
                return
            if self._tree.watch is not None:
                self._tree.watch.seen(identity)
            await self._say(None)
        elif time.monotonic() - self._begun_s >= SILENT_S:
            await self._say(_silent(self._tree))

    async def _say(self, trouble: Trouble | None) -> None:
        if trouble != self.trouble:
            self.trouble = trouble
            await self._turned(trouble)


async def look_at_all(watches: Iterable[RootWatch]) -> None:
    """Look at several roots at once."""
    async with TaskGroup() as looks:
        for watch in watches:
            looks.create_task(watch.look())


def _silent(tree: FilesetTree) -> Trouble:
    root = tree.fileset.path
    mount = mount_at(root)
    at = mount.named if mount is not None else "its file system"
    behind = mount.at if mount is not None else root
    return trouble_of(
        ResourceError(
            f"the root {root} does not answer: {at} hangs",
            hint=f"repair the disk or the server behind {behind}; it goes on by itself",
            code="root_silent",
            root=str(root),
        )
    )
