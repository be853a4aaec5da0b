"""A tree's watcher on the event loop, which keeps touched paths until a caller drains them; and mounts below the root,
which no watch of files reports."""

from __future__ import annotations

import asyncio
import logging
import os
import select
from collections.abc import Callable, Container
from pathlib import Path
from typing import Literal

from instep.core.vocabulary import Trouble, trouble_of
from instep.errors import InstepError, ResourceError
from instep.node.runtime.one_task import OneTask
from instep.node.runtime.own_thread import in_own_thread
from instep.node.trees.scanning.touched_paths import TouchedPaths
from instep.tree.root.kernel import MOUNTS, mount_point
from instep.tree.root.resolving import resolved
from instep.tree.scan.rules import Rules
from instep.tree.scan.touched import Gone, Identity, Overflow, Touched
from instep.tree.watch.limits import unwatched
from instep.tree.watch.watch import Watcher

log = logging.getLogger(__name__)


def mounts_below(root: bytes, table: bytes) -> frozenset[bytes]:
    """The mount points properly below ``root``, relative to it."""
    top = root.rstrip(b"/") + b"/"
    found = map(mount_point, table.splitlines())
    return frozenset(at[len(top) :] for at in found if at.startswith(top))


class MountWatch:
    """Calls ``changed(mounted, unmounted)`` with paths below the root. Where the kernel has no such list it is
    never called, and scans find the mounts."""

    def __init__(self, root: Path, changed: Callable[[frozenset[bytes], frozenset[bytes]], None]) -> None:
        self._root = os.fsencode(resolved(root))
        self._changed = changed
        self._table = self._epoll = None
        try:
            self._table = open(MOUNTS, "rb")  # noqa: SIM115  closed by close()
        except OSError:
            return
        self._known = self._read()
        # The list is always readable. That it changed is an exceptional event, which takes an epoll of its own.
        self._epoll = select.epoll()
        self._epoll.register(self._table, select.EPOLLPRI)
        asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._told)

    def _read(self) -> frozenset[bytes]:
        assert self._table is not None
        self._table.seek(0)
        return mounts_below(self._root, self._table.read())

    def _told(self) -> None:
        assert self._epoll is not None
        self._epoll.poll(0)
        before, self._known = self._known, self._read()
        if before != self._known:
            self._changed(self._known - before, before - self._known)

    def close(self) -> None:
        if self._epoll is not None:
            asyncio.get_running_loop().remove_reader(self._epoll.fileno())
            self._epoll.close()
        if self._table is not None:
            self._table.close()


AGAIN_S = 2.0
"""A root that cannot be watched (not mounted yet) is retried after this long."""
LIMIT_AGAIN_S = 60.0
"""A limit of the kernel that is used up is retried after this long, and twice as long each time: laying 20,000
watches costs 2 s."""
LIMIT_AGAIN_MOST_S = 600.0


class TreeWatch:
    """Calls ``touched(paths, is_overflow)`` as the kernel reports, and ``told(problem)`` when the watch begins or
    ceases to see all changes. ``drain`` reads the events that the kernel has queued right now, so that a scan takes
    in everything that was written before it began."""

    def __init__(
        self,
        root: Path,
        rules: Rules,
        touched: Callable[[tuple[bytes, ...], bool], None],
        told: Callable[[Trouble | None], None],
        seen: Callable[[bytes, bool], None] = lambda path, is_tree: None,
    ) -> None:
        """``seen`` gets each path as it is read from the kernel, also one that was reported already."""
        self._root = root
        self._rules = rules
        self._touched = touched
        self._told = told
        self._seen = seen
        self.problem: Trouble | None = None
        """Why the watch cannot see all paths, and the command that helps."""
        self._watcher: Watcher | None = None
        self._mounts: MountWatch | None = None
        self._again: asyncio.TimerHandle | None = None
        self._starting = OneTask()
        self._attempt = 0
        """Counts starts and closes: a start that ends late is of no use any more."""
        self._limit_pause_s = LIMIT_AGAIN_S
        self._paths = TouchedPaths()

    @property
    def is_watching(self) -> bool:
        return self._watcher is not None

    @property
    def written(self) -> Container[bytes]:
        """Paths that were written and not closed since, as far as the watch saw."""
        return self._watcher.written if self._watcher is not None else frozenset()

    async def start(self) -> None:
        """Begin; a full scan finds earlier changes. In a thread: 20,000 directories take 2 s, a dead mount for ever."""
        self._watch_mounts()
        await self._start("auto")

    async def _start(self, how: Literal["auto", "fanotify"]) -> None:
        """By fanotify only where inotify watches part of the tree already: it goes on until fanotify watches all."""
        self._stop_waiting()
        self._attempt += 1
        attempt = self._attempt
        watcher = Watcher(self._root, self._rules, how)
        starting = in_own_thread(watcher.start)
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(lambda ended: _close_after(ended, watcher))
            raise
        except (OSError, InstepError) as error:
            watcher.close()
            log.info("cannot watch %s: %s", self._root, error)
            if attempt == self._attempt:
                self._cannot(error, how)
            return
        if attempt != self._attempt:
            watcher.close()  # closed or restarted meanwhile
            return
        if self._watcher is not None:
            self._unwatch(self._watcher)
        self._watcher = watcher
        self._limit_pause_s = LIMIT_AGAIN_S
        asyncio.get_running_loop().add_reader(watcher.fd, self._read)
        self._tell(watcher.problem)

    def _cannot(self, error: OSError | InstepError, how: str) -> None:
        """Try again later. A root that is not there is for the scan to report."""
        pause_s = AGAIN_S
        if isinstance(error, OSError):
            error = unwatched(self._root, error)
        if isinstance(error, ResourceError):
            if how == "auto":
                self._tell(error)
            pause_s = self._limit_pause_s
            self._limit_pause_s = min(2 * pause_s, LIMIT_AGAIN_MOST_S)
        self._again = asyncio.get_running_loop().call_later(pause_s, self._start_again)

    def _tell(self, problem: ResourceError | None) -> None:
        trouble = trouble_of(problem) if problem is not None else None
        if trouble != self.problem:
            self.problem = trouble
            if trouble is not None:
                log.warning("%s: %s; %s", self._root, trouble.reason, trouble.hint)
            self._told(trouble)

    def _start_again(self) -> None:
        self._again = None
        if self._watcher is not None:
            self._unwatch(self._watcher)
        self._starting.begin_alone(self._started_again("auto"))

    async def _started_again(self, how: Literal["auto", "fanotify"]) -> None:
        await self._start(how)
        if self._watcher is not None:
            self._paths.is_everything = True
            self._touched((), True)

    def restart(self, root: Path, rules: Rules) -> None:
        """Watch with other rules or another root."""
        self.close()
        self._root, self._rules = root, rules
        self._watch_mounts()
        self._start_again()

    def seen(self, root: Identity) -> None:
        """This directory is in the root's place: where another is watched, this one is from now on."""
        if self._watcher is not None and self._watcher.identity != root:
            self._start_again()

    def _watch_mounts(self) -> None:
        if self._mounts is not None:
            self._mounts.close()
        self._mounts = MountWatch(self._root, self._remounted)

    def _remounted(self, mounted: frozenset[bytes], unmounted: frozenset[bytes]) -> None:
        """Other files than before stand at these paths; files that an umount uncovered are not watched yet."""
        paths = sorted(mounted | unmounted)
        for path in paths:
            self._paths.add(path, is_tree=True)
        self._touched(tuple(paths), False)
        if unmounted and self._watcher is not None:
            self._start_again()

    def close(self) -> None:
        self._unwatch_all()
        if self._mounts is not None:
            self._mounts.close()
            self._mounts = None

    def _unwatch_all(self) -> None:
        self._attempt += 1
        self._starting.drop()
        self._stop_waiting()
        if self._watcher is not None:
            self._unwatch(self._watcher)

    def _stop_waiting(self) -> None:
        if self._again is not None:
            self._again.cancel()
            self._again = None

    def _unwatch(self, watcher: Watcher) -> None:
        asyncio.get_running_loop().remove_reader(watcher.fd)
        watcher.close()
        self._watcher = None

    def drain(self) -> TouchedPaths:
        """The touched paths since the last drain, up to now. Paths and a loss of track are handed out once and
        together, so that no caller takes one and leaves the other behind."""
        self._take()
        drained, self._paths = self._paths, TouchedPaths()
        return drained

    def look(self) -> None:
        """Report what the kernel has queued right now."""
        if self._watcher is not None:
            self._read()

    def _read(self) -> None:
        new = self._take()
        if new or self._paths.is_everything:
            self._touched(tuple(new), self._paths.is_everything)

    def _take(self) -> list[bytes]:
        watcher = self._watcher
        if watcher is None:
            self._paths.is_everything = True
            return []
        new: list[bytes] = []
        for event in watcher.read():
            match event:
                case Touched(path, kind):
                    self._seen(path, kind == "tree")
                    if self._paths.add(path, is_tree=kind == "tree"):
                        new.append(path)
                case Overflow():
                    self._seen(b"", True)
                    self._paths.is_everything = True
                case Gone():
                    self._paths.is_everything = True
                    self._unwatch_all()
                    self._again = asyncio.get_running_loop().call_later(AGAIN_S, self._start_again)
                    break
        self._mind_limit(watcher)
        return new

    def _mind_limit(self, watcher: Watcher) -> None:
        """Where watches ran out meanwhile, fanotify is tried; until it watches, the rest goes on as it is."""
        problem = watcher.problem
        if self._watcher is not watcher or problem is None or watcher.is_remote:
            return
        is_new = self.problem is None or self.problem.code != problem.error_code
        self._tell(problem)
        if is_new:
            self._starting.begin_alone(self._started_again("fanotify"))


def _close_after(ended: asyncio.Future[Watcher], watcher: Watcher) -> None:
    """No caller waits for this start any more; its outcome is of no interest, its descriptors are."""
    if not ended.cancelled():
        ended.exception()
    watcher.close()
