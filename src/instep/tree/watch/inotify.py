"""Watch a tree by inotify: a watch for every directory, kept right while directories come, go and move."""

from __future__ import annotations

import contextlib
import errno
import os
import select
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from inotify_simple import INotify, flags

from instep.errors import RefusedError, ResourceError
from instep.tree.root.beneath import Root
from instep.tree.root.descriptors import Tolerated
from instep.tree.root.marker import open_root
from instep.tree.scan.rules import Rules
from instep.tree.scan.touched import (
    Gone,
    Identity,
    Overflow,
    Touched,
    WatchEvent,
    Written,
    identity_of,
    is_reserved,
)
from instep.tree.watch.limits import no_instance, too_many_watches

_DIRECTORIES_PER_READ = 256
"""How many directories one ``read`` may walk: some 20 ms; the rest waits for the next ``read``."""

# Plain numbers: an operation on an enumeration costs more than all else that is done for an event.
_FLAGS = int(
    flags.CREATE
    | flags.DELETE
    | flags.MODIFY
    | flags.CLOSE_WRITE
    | flags.ATTRIB
    | flags.MOVED_FROM
    | flags.MOVED_TO
    | flags.ONLYDIR
    | flags.EXCL_UNLINK
)
_ROOT_FLAGS = _FLAGS | int(flags.DELETE_SELF | flags.MOVE_SELF)
_ROOT_GONE = int(flags.DELETE_SELF | flags.MOVE_SELF | flags.UNMOUNT | flags.IGNORED)
_CLOSED_OR_WENT = int(flags.CLOSE_WRITE | flags.DELETE | flags.MOVED_FROM | flags.MOVED_TO)
_WRITTEN_OR_CLOSED = int(flags.MODIFY) | _CLOSED_OR_WENT
_APPEARED_OR_WENT = int(flags.CREATE | flags.DELETE | flags.MOVED_FROM | flags.MOVED_TO)
_OVERFLOW, _IS_DIRECTORY = int(flags.Q_OVERFLOW), int(flags.ISDIR)
_TAKEN_BACK = int(flags.IGNORED | flags.UNMOUNT)


class InotifyWatcher:
    """One watch a directory. Used by one thread at a time.

    ``start`` lays the watches (2 s for 20,000 directories: run it in a worker thread, before the full scan).
    Then ``fd`` turns readable when ``read`` has something to say or to do; ``read`` never waits.
    """

    def __init__(self, root: Path, rules: Rules) -> None:
        """``ResourceError`` ``too_many_instances`` or ``too_few_descriptors``."""
        self._path = root
        self._rules = rules
        self.identity: Identity | None = None
        try:
            self._inotify = INotify(nonblocking=True)
        except OSError as error:
            raise no_instance(error) from error
        try:
            self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        except OSError as error:
            self._inotify.close()
            raise no_instance(error) from error
        self._epoll = select.epoll()
        self._epoll.register(self._inotify.fileno(), select.EPOLLIN)
        self._epoll.register(self._wake_fd, select.EPOLLIN)
        self._path_of: dict[int, bytes] = {}
        self._watch_of: dict[bytes, int] = {}
        self._below: dict[bytes, set[bytes]] = {}
        self._walks: deque[_Walk] = deque()
        self._is_gone = False
        self.written = Written()
        self.problem: ResourceError | None = None
        """Set when a watch could not be laid: part of the tree is then seen by the full scan only."""

    @property
    def fd(self) -> int:
        return self._epoll.fileno()

    @property
    def directories(self) -> int:
        """How many directories are watched."""
        return len(self._path_of)

    def start(self) -> Self:
        """Open the root and watch every directory; ``RefusedError`` ``root_missing``, ``ResourceError``."""
        with open_root(self._path) as root:
            self.identity = identity_of(root)
        self._walks.append(_Walk(b"", Overflow(b"")))
        while self._walks:
            self._walk_on({})
        if self._is_gone:
            raise RefusedError(f"the root {self._path} went away", code="root_missing", root=str(self._path))
        if self.problem is not None:
            raise self.problem
        return self

    def close(self) -> None:
        self._epoll.close()
        self._inotify.close()
        if self._wake_fd >= 0:
            os.close(self._wake_fd)
            self._wake_fd = -1

    def read(self) -> list[WatchEvent]:
        """The events since the last call, each once; empty when nothing was touched."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake_fd)
        told: dict[WatchEvent, None] = {}
        if self._is_gone:
            return []
        for event in self._inotify.read(timeout=0):
            self._take(event.wd, event.mask, os.fsencode(event.name), told)
        self._walk_on(told)
        if self._walks:
            os.eventfd_write(self._wake_fd, 1)
        return list(told)

    def _take(self, watch: int, mask: int, name: bytes, told: dict[WatchEvent, None]) -> None:
        if mask & _OVERFLOW:
            self._walks.clear()
            self._walks.append(_Walk(b"", Overflow(b"")))
            return
        directory = self._path_of.get(watch)
        if directory is None or self._is_gone:
            return  # after the end, or a watch that was taken back; the code that took it back reported the path
        if not name:
            if not directory and mask & _ROOT_GONE:
                self._end(_why_gone(mask), told)
            elif mask & _TAKEN_BACK:
                self._drop(directory)
            return
        path = directory + b"/" + name if directory else name
        is_dir = bool(mask & _IS_DIRECTORY)
        if is_reserved(path) or self._rules.ignored(path, is_dir):
            return
        if is_dir and mask & _APPEARED_OR_WENT:
            # Both ends of a rename, also of an exchange, are simply looked at anew.
            self._walks.append(_Walk(path, Touched(path, "tree")))
        else:
            if mask & _WRITTEN_OR_CLOSED:
                self.written.saw(path, is_write=not mask & _CLOSED_OR_WENT)
            told[Touched(path, "entry")] = None

    def _end(self, why: str, told: dict[WatchEvent, None]) -> None:
        self._is_gone = True
        self._walks.clear()
        told[Gone(why)] = None

    def _walk_on(self, told: dict[WatchEvent, None]) -> None:
        """Lay some of the pending watches, and report the events of the walks that this completed.

        The root is open only meanwhile: a descriptor kept would hold its mount, and a removed root alive.
        """
        if self._is_gone or not self._walks:
            return
        try:
            root = open_root(self._path)
        except RefusedError as error:
            self._end(error.reason, told)
            return
        with root:
            if identity_of(root) != self.identity:
                self._end("another directory is in the place of the root", told)
                return
            budget = _DIRECTORIES_PER_READ
            while self._walks and budget > 0:
                walk = self._walks[0]
                if not walk.is_started:
                    walk.is_started = True
                    self._drop(walk.top)
                while walk.pending and budget > 0:
                    budget -= 1
                    walk.pending.extend(self._watch(root, walk.pending.pop()))
                if not walk.pending:
                    told[self._walks.popleft().then] = None

    def _watch(self, root: Root, directory: bytes) -> Iterable[bytes]:
        """Watch one directory, then list the directories in it (in this order: none can slip through)."""
        try:
            fd = root.open_dir(directory)
        except OSError:
            return ()  # gone, a file, a mount or unreadable: the scan of this path will say which
        try:
            mask = _FLAGS if directory else _ROOT_FLAGS
            watch = self._inotify.add_watch(b"/proc/self/fd/%d" % fd, mask)
            self._remember(directory, watch)
            prefix = directory + b"/" if directory else b""
            with os.scandir(fd) as listing:
                names = [os.fsencode(each.name) for each in listing if each.is_dir(follow_symlinks=False)]
            below = [prefix + name for name in names]
            return [path for path in below if not is_reserved(path) and not self._rules.ignored(path, True)]
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.ENOMEM):
                self.problem = too_many_watches(self.directories, error)
            return ()
        finally:
            os.close(fd)

    def _remember(self, directory: bytes, watch: int) -> None:
        before = self._path_of.get(watch)
        if before is not None and before != directory:
            # The same inode under its old path: it was moved, and the event of that is still to come.
            self._watch_of.pop(before, None)
        self._path_of[watch] = directory
        self._watch_of[directory] = watch
        if directory:
            self._below.setdefault(directory.rpartition(b"/")[0], set()).add(directory)

    def _drop(self, top: bytes) -> None:
        """Take back the watches of a directory and of all below it."""
        pending = [top]
        if top:
            self._below.get(top.rpartition(b"/")[0], set()).discard(top)
        while pending:
            directory = pending.pop()
            pending.extend(self._below.pop(directory, ()))
            watch = self._watch_of.pop(directory, None)
            if watch is None or self._path_of.get(watch) != directory:
                continue
            del self._path_of[watch]
            with Tolerated(errno.EINVAL):  # the kernel took it back when the directory went
                self._inotify.rm_watch(watch)


class _Walk:
    """Directories that wait to be watched, and the event to report once they are."""

    __slots__ = ("is_started", "pending", "then", "top")

    def __init__(self, top: bytes, then: WatchEvent) -> None:
        self.top = top
        self.pending = [top]
        self.then = then
        self.is_started = False


def _why_gone(mask: int) -> str:
    if mask & flags.UNMOUNT:
        return "the root was unmounted"
    return "the root was renamed" if mask & flags.MOVE_SELF else "the root was removed"
