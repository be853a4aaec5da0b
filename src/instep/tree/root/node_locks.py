"""Whether the nodes that mount a shared root see each other's locks and each other's writes.

Each node keeps two files of its own in ``.instep/locks`` of the root: ``NAME`` under a lock of ``fcntl``,
``NAME.flock`` under one of ``flock``. Another node tries the same locks: one that it gets, while
the owner writes on, is not shared.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from instep.model.ids import FilesetName, NodeName
from instep.tree.root.descriptors import LIST, READ, REPLACE, closing_fd
from instep.tree.root.marker import CONTROL_NAME, open_marked

SEEN_NS = 30_000_000_000
"""A node whose file is older than this, by the file server's clock, does not run, or is not seen."""
_FOLDER = b"locks"
_FLOCK, _NOW = b".flock", b".now"
_OPEN = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_HELD = (errno.EAGAIN, errno.EACCES)


@dataclass(frozen=True, slots=True)
class OtherNode:
    """``fcntl`` and ``flock`` say whether this node sees the lock of that one; None where the call is refused."""

    name: str
    is_seen: bool
    fcntl: bool | None
    flock: bool | None


class NodeLocks:
    """The locks of this node, held until ``close``."""

    def __init__(self, root: Path, fileset: FilesetName, node: NodeName) -> None:
        self._root, self._fileset, self._node = root, fileset, os.fsencode(node)
        self._held: list[int] = []
        self.clock_ahead_ms = 0
        """By how much the file server's clock is ahead of this machine's, as of the last ``renew``."""

    def renew(self) -> None:
        """Hold the locks, and write the time. ``OSError``, and the refusals of a root that is not there."""
        if not self._held:
            with _opened(self._root, self._fileset) as folder:
                for name, lock in ((self._node, _fcntl), (self._node + _FLOCK, _flock)):
                    fd = os.open(name, _OPEN, 0o600, dir_fd=folder)
                    self._held.append(fd)
                    lock(fd)
        before = time.time_ns()
        os.pwrite(self._held[0], b"held\n", 0)
        os.fsync(self._held[0])
        written = os.fstat(self._held[0]).st_mtime_ns
        self.clock_ahead_ms = (written - (before + time.time_ns()) // 2) // 1_000_000

    def close(self) -> None:
        while self._held:
            os.close(self._held.pop())


def other_nodes(root: Path, fileset: FilesetName, node: NodeName) -> tuple[OtherNode, ...]:
    """The other nodes that ever held locks here, and whether theirs are seen from this one. ``OSError``."""
    own = os.fsencode(node)
    with _opened(root, fileset) as folder:
        with closing_fd(os.open(own + _NOW, REPLACE, 0o600, dir_fd=folder)) as fd:
            os.write(fd, b"now\n")
            now = os.fstat(fd).st_mtime_ns
        os.unlink(own + _NOW, dir_fd=folder)
        names = sorted(map(os.fsencode, os.listdir(folder)))
        others = [name for name in names if name != own and not name.endswith((_FLOCK, _NOW))]
        return tuple(_look(folder, name, now) for name in others)


def _look(folder: int, name: bytes, now_ns: int) -> OtherNode:
    with closing_fd(os.open(name, READ, dir_fd=folder)) as fd:
        is_seen = now_ns - os.fstat(fd).st_mtime_ns <= SEEN_NS
    return OtherNode(
        os.fsdecode(name), is_seen, _is_held(folder, name, _fcntl), _is_held(folder, name + _FLOCK, _flock)
    )


def _is_held(folder: int, name: bytes, lock: Callable[[int], None]) -> bool | None:
    try:
        fd = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return None
    with closing_fd(fd):
        try:
            lock(fd)
        except OSError as error:
            return True if error.errno in _HELD else None
        return False


def _fcntl(fd: int) -> None:
    fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _flock(fd: int) -> None:
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def _opened(root: Path, fileset: FilesetName) -> Iterator[int]:
    """The folder of the locks, made where it is missing."""
    with open_marked(root, fileset) as opened, closing_fd(opened.open_dir(CONTROL_NAME)) as control:
        with contextlib.suppress(FileExistsError):
            os.mkdir(_FOLDER, 0o700, dir_fd=control)
        with closing_fd(os.open(_FOLDER, LIST, dir_fd=control)) as folder:
            yield folder
