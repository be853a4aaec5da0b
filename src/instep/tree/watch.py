"""The watcher that the node uses: inotify, and fanotify where inotify has no watches left and root allows it.

inotify comes first because it tells of this tree only; fanotify tells of the whole file system, so that on a busy
one most of what it tells is thrown away, but it needs one mark whatever the number of directories.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from instep.errors import ResourceError
from instep.tree.fanotify import FanotifyWatcher
from instep.tree.inotify import InotifyWatcher
from instep.tree.rules import Rules
from instep.tree.touched import Gone, Overflow, Touched, WatchEvent

__all__ = ["Gone", "Overflow", "Touched", "WatchEvent", "Watcher"]


class Watcher:
    """Tells of touched paths below ``root``. Used by one thread at a time.

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

    def start(self) -> Self:
        """Errors: ``RefusedError`` ``root_missing``; ``ResourceError`` ``too_many_watches`` or ``no_fanotify``."""
        assert self._watcher is None, "a watcher starts once"
        if self._how != "fanotify":
            by_inotify = InotifyWatcher(self._root, self._rules)
            try:
                self._watcher = by_inotify.start()
                return self
            except ResourceError as too_many:
                by_inotify.close()
                if self._how == "inotify":
                    raise
                try:
                    self._watcher = FanotifyWatcher(self._root, self._rules).start()
                except ResourceError:
                    raise too_many from None
                return self
            except BaseException:
                by_inotify.close()
                raise
        self._watcher = FanotifyWatcher(self._root, self._rules).start()
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
    def problem(self) -> ResourceError | None:
        """Why part of the tree is not watched (watches ran out meanwhile); then only full scans see it."""
        return self._watcher.problem if self._watcher is not None else None

    def read(self) -> list[WatchEvent]:
        """What was touched since the last call, each once; an empty list when nothing was."""
        assert self._watcher is not None, "start comes first"
        return self._watcher.read()

    def close(self) -> None:
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = None
