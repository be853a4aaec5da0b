"""The trees from before exchanges: taken down when their time is over, a few at once at most."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from functools import partial

from instep.errors import InstepError
from instep.model.paths import shown
from instep.node.runtime.driver import wall_ms
from instep.node.runtime.one_task import OneTask
from instep.node.trees.fileset_tree import FilesetTree
from instep.node.trees.scanning.stat_rows import LiveRows
from instep.tree.root.place import Place
from instep.tree.stage.next_tree import NEXT, Exchange, Relinked, take_apart
from instep.tree.stage.stages import prepared_stages
from instep.tree.switch.linger import end_linger, lingering

TREES_MAX = 4
"""So many old trees linger at once; before one more is built the oldest goes, whatever ``linger`` says."""
AGAIN_S = 60.0
GIVEN_WAY_MS = 1_000
NAMED_MAX = 20
log = logging.getLogger(__name__)


def end_due(
    tree: FilesetTree, place: Place, *, most: int = TREES_MAX, stopping: threading.Event | None = None
) -> int | None:
    """Take down the trees whose time is over, and the oldest of more than ``most``; milliseconds until the next is
    due, None when none is left. Once ``stopping`` is set the rest is left for later. In the tree's worker thread.
    ``OSError``."""
    batches = lingering(place)
    now = wall_ms()
    left: int | None = None
    for count, batch in enumerate(batches):
        due = _begun_ms(place, batch) + tree.fileset.linger_ms - now
        if due <= 0 or len(batches) - count > most:
            if not _end(tree, place, batch, stopping):
                return GIVEN_WAY_MS
        else:
            left = due if left is None else min(left, due)
    return left


def _begun_ms(place: Place, batch: bytes) -> int:
    """The exchange was the last to change the old root itself."""
    return os.stat(os.fsencode(place.archive) + b"/" + batch + b"/" + NEXT).st_ctime_ns // 1_000_000


def _end(tree: FilesetTree, place: Place, batch: bytes, stopping: threading.Event | None) -> bool:
    store, name = tree.store, tree.name
    ended = end_linger(
        place,
        batch,
        wall_ms(),
        live_row=LiveRows(store, name),
        keep_rows=partial(store.put_stat_rows, name),
        stopping=stopping,
    )
    if ended.late:
        paths = [shown(path) for path in ended.named[:NAMED_MAX]]
        text = f"{ended.late} local changes met an exchange of the root and went to the archive"
        tree.runtime.note("late_archived", text, tree.line, paths=paths)
    return ended.is_done


class Lingering:
    """The old trees of one followed fileset."""

    def __init__(self, tree: FilesetTree) -> None:
        self._tree = tree
        self._timer: asyncio.TimerHandle | None = None
        self._task = OneTask()
        self._stopping = threading.Event()

    def plan(self, delay_s: float = 0.0) -> None:
        """Look for trees that are due, now or later. On the event loop."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._begin)

    def give_way(self) -> None:
        """A stage or a switch wants the tree's thread: taking an old tree down goes on a second later."""
        self._stopping.set()

    def exchange(self) -> Exchange | None:
        """How the root is exchanged, where that was chosen; makes room for one more old tree. In the worker thread."""
        tree = self._tree
        if tree.fileset.switch != "exchange":
            return None
        end_due(tree, tree.place(), most=TREES_MAX - 1)
        self.give_up()
        return Exchange(tree.fileset.carry, partial(tree.store.put_stat_rows, tree.name))

    def give_up(self) -> None:
        """Give up the prepared tree: its links go, and the rows of the live files stay."""
        place, store, name = self._tree.place(), self._tree.store, self._tree.name
        for stage in prepared_stages(place):
            take_apart(place, stage, Relinked(LiveRows(store, name), partial(store.put_stat_rows, name)))

    def _begin(self) -> None:
        self._timer = None
        if self._task.is_running:
            self.plan(1.0)
        else:
            self._task.begin(self._end())

    async def _end(self) -> None:
        self._stopping = stopping = threading.Event()
        try:
            left = await self._tree.worker.run(self._end_now, stopping)
        except (InstepError, OSError) as error:
            log.warning("an old tree of %s was not taken down: %s", self._tree.line, error)
            left = round(AGAIN_S * 1000)
        if left is not None and self._timer is None:
            self.plan(left / 1000)

    def _end_now(self, stopping: threading.Event) -> int | None:
        return end_due(self._tree, self._tree.place(), stopping=stopping)

    async def close(self) -> None:
        """No tree is taken down from now on; remaining ones go after the next start."""
        if self._timer is not None:
            self._timer.cancel()
        self._stopping.set()
        await self._task.close()
