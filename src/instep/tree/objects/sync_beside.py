"""Writing laid files to disk while more are laid, so that the sync at the end finds little left to write."""

from __future__ import annotations

import os
import threading

from instep.tree.root.beneath import Root, syncfs

BYTES = 12 << 20
"""So much was laid when the next sync begins. A sync of a file system also writes what is not ours: for less the one at
the end is enough."""


class SyncBeside:
    """At most one ``syncfs`` of the tree's file system at a time, in a thread of its own.

    It promises nothing: a caller that needs the files on disk syncs them after ``end``. An error is kept, because the
    kernel reports a failed write to one sync only.
    """

    def __init__(self, tree: Root) -> None:
        self._tree = tree
        self._bytes = 0
        self._thread: threading.Thread | None = None
        self._error: OSError | None = None

    def laid(self, size: int) -> None:
        """``size`` more bytes are in the file system's cache."""
        self._bytes += size
        if self._bytes < BYTES or (self._thread is not None and self._thread.is_alive()):
            return
        self._bytes = 0
        self._thread = threading.Thread(
            target=self._sync, args=(self._tree.open_dir(b""),), name="sync-beside", daemon=True
        )
        self._thread.start()

    def _sync(self, fd: int) -> None:
        try:
            syncfs(fd)
        except OSError as error:
            self._error = error
        finally:
            os.close(fd)

    def end(self) -> None:
        """Wait for the sync that runs. ``OSError`` when it, or one before it, failed: then files that were laid may be
        lost although a later sync succeeds."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error
