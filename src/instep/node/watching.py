"""A tree's watcher on the event loop: what was touched, until somebody drains it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from instep.errors import InstepError
from instep.tree.rules import Rules
from instep.tree.watch import Gone, Overflow, Touched, Watcher

__all__ = ["PATHS_MAX", "Drained", "TreeWatch"]

AGAIN_S = 2.0
"""A root that cannot be watched (not mounted yet) is tried again after this long."""
PATHS_MAX = 50_000
"""More touched paths than this between two scans are an overflow: a full scan is cheaper."""

log = logging.getLogger(__name__)


class Drained(NamedTuple):
    """Touched paths as ``(path, is_tree)``: a tree wants all below it looked at. ``is_overflow``: track was lost, only
    a full scan will do. Both are told once and together, so that nobody takes one and leaves the other behind."""

    paths: tuple[tuple[bytes, bool], ...]
    is_overflow: bool


class TreeWatch:
    """Tells ``touched(paths, is_overflow)`` as the kernel tells. ``drain`` reads what the kernel has queued
    right now, so that a scan takes in everything that was written before it began."""

    def __init__(self, root: Path, rules: Rules, touched: Callable[[tuple[bytes, ...], bool], None]) -> None:
        self._root = root
        self._rules = rules
        self._touched = touched
        self._watcher: Watcher | None = None
        self._again: asyncio.TimerHandle | None = None
        self._starting: asyncio.Task[None] | None = None
        self._attempt = 0
        """Counts starts and closes: a start that ends late is of no use any more."""
        self._paths: dict[bytes, bool] = {}
        self._lost_track = False

    @property
    def is_watching(self) -> bool:
        return self._watcher is not None

    async def start(self) -> None:
        """Begin; what changed before is for a full scan to find. In a thread: 20,000 directories take 2 s."""
        self._again = None
        self._attempt += 1
        attempt = self._attempt
        watcher = Watcher(self._root, self._rules)
        starting = asyncio.get_running_loop().run_in_executor(None, watcher.start)
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(lambda ended: _close_after(ended, watcher))
            raise
        except (OSError, InstepError) as error:
            watcher.close()
            log.info("cannot watch %s: %s", self._root, error)
            if attempt == self._attempt:
                self._again = asyncio.get_running_loop().call_later(AGAIN_S, self._start_again)
            return
        if attempt != self._attempt:
            watcher.close()  # closed or restarted meanwhile
            return
        self._watcher = watcher
        asyncio.get_running_loop().add_reader(watcher.fd, self._read)

    def _start_again(self) -> None:
        self._again = None
        self._starting = asyncio.get_running_loop().create_task(self._started_again())

    async def _started_again(self) -> None:
        await self.start()
        if self._watcher is not None:
            self._lost_track = True
            self._touched((), True)

    def restart(self, root: Path, rules: Rules) -> None:
        """Watch with other rules or another root."""
        self.close()
        self._root, self._rules = root, rules
        self._start_again()

    def close(self) -> None:
        self._attempt += 1
        if self._starting is not None:
            self._starting.cancel()
            self._starting = None
        if self._again is not None:
            self._again.cancel()
            self._again = None
        if self._watcher is not None:
            asyncio.get_running_loop().remove_reader(self._watcher.fd)
            self._watcher.close()
            self._watcher = None

    def drain(self) -> Drained:
        """What was touched or lost since the last drain, up to now."""
        self._take()
        drained = Drained(tuple(self._paths.items()), self._lost_track)
        self._paths = {}
        self._lost_track = False
        return drained

    def _read(self) -> None:
        new = self._take()
        if new or self._lost_track:
            self._touched(tuple(new), self._lost_track)

    def _take(self) -> list[bytes]:
        watcher = self._watcher
        if watcher is None:
            self._lost_track = True
            return []
        new: list[bytes] = []
        for event in watcher.read():
            match event:
                case Touched(path, kind):
                    if path not in self._paths:
                        new.append(path)
                    self._paths[path] = self._paths.get(path, False) or kind == "tree"
                case Overflow():
                    self._lost_track = True
                case Gone():
                    self._lost_track = True
                    self.close()
                    self._again = asyncio.get_running_loop().call_later(AGAIN_S, self._start_again)
                    break
        if len(self._paths) > PATHS_MAX:
            self._paths = {}
            self._lost_track = True
        return new


def _close_after(ended: asyncio.Future[Watcher], watcher: Watcher) -> None:
    """Nobody waits for this start any more; its outcome is of no interest, its descriptors are."""
    if not ended.cancelled():
        ended.exception()
    watcher.close()
