"""One file written anew as a whole, only where it still is what its writer read.

For a program that acts beside the daemon with a person's own rights. The new bytes lie in a file without a name until
they are complete and durable; then both files are exchanged, and what came away is looked at. A reader, another name of
the old inode and the tree before an exchange of the root never see a half-written or foreign file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import time
from collections.abc import Collection
from typing import Self

from instep.model.ids import Digest
from instep.tree.objects.digest import digest_fd
from instep.tree.objects.inode import SETID
from instep.tree.objects.rows import RACY_NS
from instep.tree.root.beneath import RenameUnsupportedError, Root, rename_exchange
from instep.tree.root.descriptors import CREATE, READ, closing_fd
from instep.tree.root.records import write_all

_PENDING = b".instep-edit-"
_NO_UNNAMED = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT})
_COPIED = ("user.", "trusted.", "system.posix_acl_access", "security.selinux")
"""Extended attributes of these names go along. Capabilities do not: the kernel takes them from a changed file, too."""
_WINDOW = 1 << 20
_TURNS_MAX = 8


class ChangedMeanwhileError(OSError):
    """Another file has the name by now; it was left there."""

    def __init__(self, path: bytes) -> None:
        super().__init__(errno.ESTALE, "it was changed meanwhile", path)


def open_file(root: Root, path: bytes) -> int | None:
    """A descriptor of the plain file at ``path``; None where the name is free in a directory that is there.

    ``OSError``; ``ELOOP`` where another kind of object lies there. Nothing is followed, and no pipe is waited for.
    """
    directory, name = root.open_parent(path)
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISREG(found.st_mode):
            fd = root.open(path, READ)
            if stat.S_ISREG(os.fstat(fd).st_mode):
                return fd
            os.close(fd)
    except FileNotFoundError:
        return None
    raise OSError(errno.ELOOP, "it is no plain file", path)


class ComparedWrite:
    """A new version of the file at ``path``, with the mode, owner and attributes of the present one.

    Made before the bytes are there, it says by an ``OSError`` whether the caller may write them at all. Close it in any
    case: without ``put`` nothing is left.
    """

    def __init__(self, root: Root, path: bytes) -> None:
        self._root, self._path = root, path
        self._parent = root.open_dir(path.rpartition(b"/")[0])
        self._name = path.rpartition(b"/")[2]
        self._pending: bytes | None = None
        self._fd = -1
        self._present: int | None = None
        try:
            self._present = open_file(root, path)
            self._fd = self._unnamed()
            if self._present is not None:
                self._before = os.fstat(self._present)
                _dress(self._fd, self._present, self._before)
        except BaseException:
            self.close()
            raise

    @property
    def source(self) -> int | None:
        """The present file, lent; None where there is none."""
        return self._present

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._pending is not None:
            self._drop_pending()
        for fd in (self._present, self._fd, self._parent):
            if fd is not None and fd >= 0:
                os.close(fd)
        self._present, self._fd, self._parent = None, -1, -1

    def _unnamed(self) -> int:
        mode = 0o666 if self._present is None else 0o600
        try:
            return os.open(b".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, mode, dir_fd=self._parent)
        except OSError as error:
            if error.errno not in _NO_UNNAMED:
                raise
        self._pending = _PENDING + secrets.token_hex(8).encode()
        return os.open(self._pending, CREATE, mode, dir_fd=self._parent)

    def put(self, source: int, base: Digest | None) -> None:
        """Put the bytes of ``source`` in the place of the file with the digest ``base``; None: in a free place. Durable
        at its end. ``ChangedMeanwhileError`` where something else lies there; ``OSError``."""
        offset = 0
        while data := os.pread(source, _WINDOW, offset):
            write_all(self._fd, data)
            offset += len(data)
        if (None if self._present is None else digest_fd(self._present)[0]) != base:
            raise ChangedMeanwhileError(self._path)
        compared_at_ns = time.time_ns()
        os.fsync(self._fd)
        try:
            if base is None:
                self._link(self._name)
            else:
                self._exchange(base, compared_at_ns)
            self._check_own(self._name)
        except (FileExistsError, FileNotFoundError) as error:
            raise ChangedMeanwhileError(self._path) from error
        os.fsync(self._parent)

    def _exchange(self, base: Digest, compared_at_ns: int) -> None:
        if self._pending is None:
            pending = _PENDING + secrets.token_hex(8).encode()
            self._link(pending)
            self._pending = pending
        self._check_own(self._pending)
        try:
            self._swap()
        except RenameUnsupportedError:
            self._replace()
            return
        is_base = False
        try:
            is_base = self._is_base(base, compared_at_ns)
        finally:
            if not is_base:
                self._swap_back()
        if not is_base:
            raise ChangedMeanwhileError(self._path)

    def _check_own(self, name: bytes) -> None:
        """``ChangedMeanwhileError`` where the name is not the new file's: the owner of the directory can give it to
        another object at any time, also the name under which the new file waits. That object stays."""
        found = os.stat(name, dir_fd=self._parent, follow_symlinks=False)
        if not os.path.samestat(found, os.fstat(self._fd)):
            raise ChangedMeanwhileError(self._path)

    def _link(self, name: bytes) -> None:
        """Give the new file this free name: by its descriptor, for another object may have its present name by now."""
        own = b"/proc/self/fd/%d" % self._fd
        os.link(own, name, dst_dir_fd=self._parent, follow_symlinks=True)

    def _swap(self) -> None:
        assert self._pending is not None
        rename_exchange(self._parent, self._pending, self._parent, self._name)

    def _replace(self) -> None:
        """Without an exchange, as on network storage: a change between this look and the rename is not seen."""
        assert self._pending is not None
        assert self._present is not None
        found = os.stat(self._name, dir_fd=self._parent, follow_symlinks=False)
        if not _is_alike(found, os.fstat(self._present)):
            raise ChangedMeanwhileError(self._path)
        os.rename(self._pending, self._name, src_dir_fd=self._parent, dst_dir_fd=self._parent)
        self._pending = None

    def _is_base(self, base: Digest, compared_at_ns: int) -> bool:
        """Whether the object that came away is the one that was compared, or has its bytes and metadata."""
        assert self._pending is not None
        found = os.stat(self._pending, dir_fd=self._parent, follow_symlinks=False)
        if not stat.S_ISREG(found.st_mode) or _rights(found) != _rights(self._before):
            return False
        if _is_alike(found, self._before) and compared_at_ns - found.st_mtime_ns > RACY_NS:
            return True
        with closing_fd(os.open(self._pending, READ, dir_fd=self._parent)) as fd:
            return stat.S_ISREG(os.fstat(fd).st_mode) and digest_fd(fd)[0] == base

    def _swap_back(self) -> None:
        """Put back what came away. A program that replaced the new file meanwhile keeps its own."""
        assert self._pending is not None
        own = os.fstat(self._fd).st_ino
        for _ in range(_TURNS_MAX):
            try:
                self._swap()
            except FileNotFoundError:  # a program removed the new file: what came away has its name again
                os.rename(self._pending, self._name, src_dir_fd=self._parent, dst_dir_fd=self._parent)
                self._pending = None
                return
            if os.stat(self._pending, dir_fd=self._parent, follow_symlinks=False).st_ino == own:
                return
            own = os.stat(self._name, dir_fd=self._parent, follow_symlinks=False).st_ino
        self._pending = None  # a program's file, which stays
        raise OSError(errno.EBUSY, "a program here puts one file after the other under this name", self._path)

    def _drop_pending(self) -> None:
        assert self._pending is not None
        pending, self._pending = self._pending, None
        with contextlib.suppress(FileNotFoundError):  # the directory's owner removed it
            os.unlink(pending, dir_fd=self._parent)


def remove_pending(root: Root, path: bytes, digests: Collection[Digest]) -> None:
    """Remove the files that a killed write of the file at ``path`` left beside it: those of one of these digests."""
    with closing_fd(root.open_dir(path.rpartition(b"/")[0])) as parent:
        for name in map(os.fsencode, os.listdir(parent)):
            if not name.startswith(_PENDING):
                continue
            with closing_fd(os.open(name, READ, dir_fd=parent)) as fd:
                is_ours = stat.S_ISREG(os.fstat(fd).st_mode) and digest_fd(fd)[0] in digests
            if is_ours:
                os.unlink(name, dir_fd=parent)


def _rights(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_mode, found.st_uid, found.st_gid


def _is_alike(a: os.stat_result, b: os.stat_result) -> bool:
    """Whether both are of one inode that was not written between them. A rename changes its ctime."""
    return (a.st_dev, a.st_ino, a.st_size, a.st_mtime_ns) == (b.st_dev, b.st_ino, b.st_size, b.st_mtime_ns)


def _dress(fd: int, like: int, found: os.stat_result) -> None:
    """Owner first: it takes set-id bits. Those are never set again."""
    made = os.fstat(fd)
    if (made.st_uid, made.st_gid) != (found.st_uid, found.st_gid):
        os.fchown(fd, found.st_uid, found.st_gid)
    for name in os.listxattr(like):
        if name.startswith(_COPIED):
            os.setxattr(fd, name, os.getxattr(like, name))
    os.fchmod(fd, stat.S_IMODE(found.st_mode) & ~SETID)
