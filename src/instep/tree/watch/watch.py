"""The watcher that the node uses: inotify, and fanotify where inotify cannot watch and root allows it.

inotify comes first because it reports this tree only; fanotify reports the whole file system, so that on a busy
one most of its events are thrown away, but it needs one mark whatever the number of directories.
"""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import Literal, Self, TypeVar

from instep.errors import ResourceError
from instep.tree.root.kernel import remote_kind
from instep.tree.root.marker import open_root
from instep.tree.scan.rules import Rules
from instep.tree.scan.touched import Identity, WatchEvent
from instep.tree.watch.fanotify import FanotifyWatcher
from instep.tree.watch.inotify import InotifyWatcher
from instep.tree.watch.limits import not_reported

_W = TypeVar("_W", InotifyWatcher, FanotifyWatcher)


class Watcher:
    """Reports touched paths below ``root``. Used by one thread at a time.

    ``start`` may take 2 s for 20,000 directories: run it in a worker thread, before the full scan that it makes
    complete. Then ``fd`` turns readable when ``read`` has something to say or to do; ``read`` never waits.
    """

    def __init__(
        self, root: Path, rules: Rules, how: Literal["auto", "inotify", "fanotify"] = "auto"
    ) -> None:
        self._root = root
        self._rules = rules
        self._how = how
        self._watcher: InotifyWatcher | FanotifyWatcher | None = None
        self._remote: str | None = None

    def start(self) -> Self:
        """Errors: ``RefusedError`` ``root_missing``; ``ResourceError`` ``too_many_watches``, ``too_many_instances``,
        ``too_few_descriptors`` or ``no_fanotify``. The limit of inotify is named where fanotify cannot watch either."""
        assert self._watcher is None, "a watcher starts once"
        if self._how == "fanotify":
            self._watcher = _started(FanotifyWatcher(self._root, self._rules))
        else:
            try:
                self._watcher = _started(InotifyWatcher(self._root, self._rules))
            except (ResourceError, OSError) as lacks:
                if self._how == "inotify":
                    raise
                try:
                    self._watcher = _started(FanotifyWatcher(self._root, self._rules))
                except (ResourceError, OSError):
                    raise lacks from None
        with open_root(self._root) as root:
            self._remote = remote_kind(root.fd)
        return self

    @property
    def fd(self) -> int:
        """For ``add_reader`` or ``poll``."""
        assert self._watcher is not None, "start comes first"
        return self._watcher.fd

    @property
    def how(self) -> str:
        """``inotify`` or ``fanotify``, for the status page."""
        return "fanotify" if isinstance(self._watcher, FanotifyWatcher) else "inotify"

    @property
    def identity(self) -> Identity | None:
        """The directory that is watched."""
        return self._watcher.identity if self._watcher is not None else None

    @property
    def is_remote(self) -> bool:
        """Whether other machines may write to the tree, which no watch of this kernel sees."""
        return self._remote is not None

    @property
    def problem(self) -> ResourceError | None:
        """Why part of the changes is not seen: watches ran out meanwhile, or other machines write there, too. Full
        scans see it."""
        problem = self._watcher.problem if self._watcher is not None else None
        if problem is None and self._remote is not None:
            return not_reported(self._remote, self._root)
        return problem

    @property
    def written(self) -> Container[bytes]:
        """Paths that were written and not closed since, as far as the watch saw."""
        return self._watcher.written if self._watcher is not None else frozenset()

    def read(self) -> list[WatchEvent]:
        """The events since the last call, each once; empty when nothing was touched."""
        assert self._watcher is not None, "start comes first"
        return self._watcher.read()

    def close(self) -> None:
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = None


def _started(watcher: _W) -> _W:
    try:
        return watcher.start()
    except BaseException:
        watcher.close()
        raise
