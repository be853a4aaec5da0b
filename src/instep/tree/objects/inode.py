"""One object of a tree, held by a descriptor while its mode, owner, times or attributes are changed.

The owner of a tree may put anything under a name between two system calls of a daemon with more rights: a symlink,
another directory, a hard link to a file of root's. ``chmod`` by name follows such a symlink out of the tree. So the
daemon opens the name once, without following and without an act (``O_PATH``), looks at what it got, and changes that
very object through ``/proc/self/fd``. Design, promise P7.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Self

from instep.tree.root.beneath import NOT_BENEATH, Root
from instep.tree.root.descriptors import Tolerated

SETID = 0o6000
"""Setuid and setgid. Bits that are found on an object are never put on it again: its owner chose them."""

NOT_THERE = NOT_BENEATH | {errno.ESTALE}
"""The errors of changing an object when the object has left its name."""

_HOLD = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class ReplacedError(OSError):
    """Another object than the expected one has this name by now; nothing was done to it."""

    def __init__(self, name: bytes) -> None:
        super().__init__(errno.ESTALE, "another object came in its place", name)


class Inode:
    """What ``name`` in the directory ``dir_fd`` is now. ``stat`` is its stat at that moment, ``at`` a path that leads
    to this object and to no other as long as it is held; a symlink is itself, its target is never touched."""

    __slots__ = ("at", "fd", "name", "stat")

    def __init__(self, dir_fd: int, name: bytes) -> None:
        self.fd = os.open(name, _HOLD, dir_fd=dir_fd)
        self.at = b"/proc/self/fd/%d" % self.fd
        self.name = name
        self.stat = os.fstat(self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        os.close(self.fd)

    def require(self, kind: int, *, ino: int = 0) -> None:
        """``ReplacedError`` unless it is of this kind (``S_IFMT``). With ``ino`` it must be that inode, and a file or
        symlink must have no second name: that one may lie outside the tree."""
        found = self.stat
        if stat.S_IFMT(found.st_mode) != kind:
            raise ReplacedError(self.name)
        if ino and (found.st_ino != ino or (kind != stat.S_IFDIR and found.st_nlink != 1)):
            raise ReplacedError(self.name)

    def require_new_directory(self) -> None:
        """``ReplacedError`` unless it is an empty directory of ours, as one that was made a moment ago."""
        self.require(stat.S_IFDIR)
        if self.stat.st_uid != os.geteuid() or os.listdir(self.at + b"/."):
            raise ReplacedError(self.name)

    def set_mode(self, mode: int) -> None:
        """Not for symlinks, which have none."""
        os.chmod(self.at, mode)

    def set_owner(self, uid: int, gid: int) -> None:
        os.chown(self.at, uid, gid)

    def set_time(self, mtime_ns: int) -> None:
        os.utime(self.at, ns=(mtime_ns, mtime_ns))


def hold_directory(root: Root, path: bytes, ino: int = 0) -> Inode | None:
    """The directory ``path`` beneath ``root``, to be closed by the caller; None where something else is by now, or,
    with ``ino``, another directory."""
    with Tolerated(*NOT_BENEATH):
        held = Inode(*root.open_parent(path))
        if stat.S_ISDIR(held.stat.st_mode) and ino in (0, held.stat.st_ino):
            return held
        held.close()
    return None


def let_owner(dir_fd: int, name: bytes, rights: int) -> bool:
    """Give the owner of the directory ``name`` the ``rights`` that it lacks; whether it has them now. An object
    that is not a directory is left as it is. ``FileNotFoundError``."""
    found = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    if not stat.S_ISDIR(found.st_mode):
        return False
    if found.st_mode & rights == rights:
        return True
    with Inode(dir_fd, name) as held:
        if not stat.S_ISDIR(held.stat.st_mode):
            return False
        held.set_mode((stat.S_IMODE(held.stat.st_mode) & ~SETID) | rights)
    return True
