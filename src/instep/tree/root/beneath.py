"""Access to objects beneath a root and nowhere else, relative to descriptors.

``openat2(2)`` with ``RESOLVE_BENEATH``, no symlinks, no magic links and no mount crossing; where the call is
missing, a walk of components that opens each with ``O_NOFOLLOW`` and compares the device. Also the calls
around ``renameat2(2)`` that Python does not have. A path that leaves the root, or passes a symlink or a
mount, fails with ``OSError`` (``ELOOP``, ``ENOTDIR`` or ``EXDEV``); nothing is followed.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
from collections import OrderedDict
from pathlib import Path
from typing import Self

from instep.tree.root.descriptors import Tolerated, closing_fd

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.syncfs.argtypes = (ctypes.c_int,)

_SYS_OPENAT2 = 437
_SYS_RENAMEAT2 = {"x86_64": 316, "aarch64": 276, "riscv64": 276, "ppc64le": 357, "s390x": 347}
_RESOLVE_NO_XDEV = 0x01
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CACHED_PARENTS = 64
_AGAIN_MAX = 8
"""``openat2`` answers ``EAGAIN`` when a rename raced with the walk; so often we ask again."""


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def _openat2(dir_fd: int, path: bytes, flags: int, mode: int, resolve: int) -> int:
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    number = 0
    for _ in range(_AGAIN_MAX):
        fd = _libc.syscall(
            ctypes.c_long(_SYS_OPENAT2),
            ctypes.c_int(dir_fd),
            ctypes.c_char_p(path),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        if fd >= 0:
            return int(fd)
        number = ctypes.get_errno()
        if number not in (errno.EAGAIN, errno.EINTR):
            break
    raise OSError(number, os.strerror(number), path)


def _probe_openat2() -> bool:
    try:
        os.close(_openat2(-100, b"/", os.O_PATH | os.O_DIRECTORY, 0, 0))
    except OSError:
        return False
    return True


HAS_OPENAT2 = _probe_openat2()
"""Whether this kernel (and its seccomp filter) has ``openat2(2)``."""
NOT_BENEATH = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV})
"""The errors of opening a path when a directory on the way is missing, or is none of the root's own."""


class Root:
    """A directory and all beneath it. Not for two threads at once; each thread opens its own.

    Paths are relative bytes; ``b""`` is the root itself. ``walk=True`` selects the component walk even where
    ``openat2`` exists. Descriptors of parents are kept in a small cache: code that renames or removes
    a directory beneath the root calls ``forget`` for it.
    """

    def __init__(self, path: Path | str | bytes, *, walk: bool = False) -> None:
        self.path = os.fsencode(path)
        self.fd = os.open(path, _DIRECTORY)
        self.device = os.fstat(self.fd).st_dev
        self.walk = walk or not HAS_OPENAT2
        self._parents: OrderedDict[bytes, int] = OrderedDict()

    def below(self, path: bytes) -> Root:
        """A directory beneath this root as a root of its own. No link is followed on the way."""
        found = Root.__new__(Root)
        found.path, found.fd = os.path.join(self.path, path), self.open(path, _DIRECTORY)
        found.device, found.walk, found._parents = os.fstat(found.fd).st_dev, self.walk, OrderedDict()
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close everything that this object opened and lent."""
        self.forget(b"")
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def open(self, path: bytes, flags: int, mode: int = 0, *, cross_mounts: bool = False) -> int:
        """A new descriptor of ``path``, owned by the caller. ``O_CREAT`` takes ``mode`` less the umask."""
        if self.walk:
            return self._open_by_walk(path, flags, mode, cross_mounts)
        if not (flags & os.O_CREAT or flags & os.O_TMPFILE == os.O_TMPFILE):
            mode = 0  # openat2 refuses a mode that creates nothing
        resolve = _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS
        if not cross_mounts:
            resolve |= _RESOLVE_NO_XDEV
        return _openat2(self.fd, path or b".", flags | os.O_NOFOLLOW, mode, resolve)

    def open_dir(self, path: bytes) -> int:
        """A readable directory descriptor (for listing and ``fsync``), owned by the caller."""
        return self.open(path, os.O_RDONLY | os.O_DIRECTORY)

    def open_parent(self, path: bytes) -> tuple[int, bytes]:
        """The descriptor (``O_PATH``) of the directory that holds ``path``, and the last component.

        The descriptor is lent: it stays open until it falls out of the cache of 64, so it may be used for the
        next call or two, never stored.
        """
        directory, _, name = path.rpartition(b"/")
        return (self.fd if not directory else self._parent_fd(directory)), name

    def _parent_fd(self, directory: bytes) -> int:
        fd = self._parents.get(directory)
        if fd is not None:
            self._parents.move_to_end(directory)
            return fd
        fd = self.open(directory, _DIRECTORY)
        self._parents[directory] = fd
        if len(self._parents) > _CACHED_PARENTS:
            os.close(self._parents.popitem(last=False)[1])
        return fd

    def forget(self, directory: bytes) -> None:
        """Drop the cached descriptors of ``directory`` and of all below it (all, for ``b""``)."""
        prefix = directory + b"/"
        gone = [d for d in self._parents if not directory or d == directory or d.startswith(prefix)]
        for each in gone:
            os.close(self._parents.pop(each))

    def stat(self, path: bytes) -> os.stat_result:
        """``lstat`` of ``path``; the last component may be a symlink or a mount point, no other may."""
        if not path:
            return os.fstat(self.fd)
        fd, name = self.open_parent(path)
        return os.stat(name, dir_fd=fd, follow_symlinks=False)

    def stat_or_none(self, path: bytes) -> os.stat_result | None:
        """``stat``, or None when there is nothing by that path beneath the root: a directory on the way may be a
        symlink or a mount by now, and their targets are not ours."""
        with Tolerated(*NOT_BENEATH):
            return self.stat(path)
        return None

    def names(self, directory: bytes) -> list[bytes]:
        """The names in a directory, sorted."""
        with closing_fd(self.open_dir(directory)) as fd:
            return sorted(map(os.fsencode, os.listdir(fd)))

    def stats(self, directory: bytes) -> list[tuple[bytes, os.stat_result]]:
        """The paths in a directory with their stats, sorted; objects that vanish meanwhile are left out."""
        prefix = directory + b"/" if directory else b""
        found: list[tuple[bytes, os.stat_result]] = []
        with closing_fd(self.open_dir(directory)) as fd:
            for name in sorted(map(os.fsencode, os.listdir(fd))):
                with contextlib.suppress(FileNotFoundError):
                    found.append((prefix + name, os.stat(name, dir_fd=fd, follow_symlinks=False)))
        return found

    def readlink(self, path: bytes) -> bytes:
        fd, name = self.open_parent(path)
        return os.readlink(name, dir_fd=fd)

    def _open_by_walk(self, path: bytes, flags: int, mode: int, cross_mounts: bool) -> int:
        *directories, last = _components(path)
        here = os.dup(self.fd)
        try:
            for name in directories:
                below = os.open(name, _DIRECTORY, dir_fd=here)
                os.close(here)
                here = below
                if not cross_mounts:
                    self._refuse_other_device(os.fstat(here), path)
            if not cross_mounts and not flags & os.O_CREAT:
                # Before the open, because opening a pipe or a device of another mount is an act already.
                self._refuse_other_device(os.stat(last, dir_fd=here, follow_symlinks=False), path)
            fd = os.open(last, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=here)
            try:
                if not cross_mounts:
                    self._refuse_other_device(os.fstat(fd), path)
            except OSError:
                os.close(fd)
                raise
            return fd
        finally:
            os.close(here)

    def _refuse_other_device(self, found: os.stat_result, path: bytes) -> None:
        if found.st_dev != self.device:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)


def _components(path: bytes) -> list[bytes]:
    """The components, never empty; refuses what ``RESOLVE_BENEATH`` refuses (a leading ``/``, any ``..``)."""
    if path.startswith(b"/"):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
    components = [c for c in path.split(b"/") if c not in (b"", b".")]
    if b".." in components:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
    return components or [b"."]


class RenameUnsupportedError(OSError):
    """The kernel or this file system lacks the asked kind of ``renameat2(2)``."""


def rename_noreplace(from_fd: int, from_name: bytes, to_fd: int, to_name: bytes) -> None:
    """Rename; ``FileExistsError`` if the target exists, ``RenameUnsupportedError`` if it cannot be asked."""
    _renameat2(from_fd, from_name, to_fd, to_name, _RENAME_NOREPLACE)


def rename_exchange(from_fd: int, from_name: bytes, to_fd: int, to_name: bytes) -> None:
    """Swap two existing names in one step, whatever their kinds; ``RenameUnsupportedError`` as above."""
    _renameat2(from_fd, from_name, to_fd, to_name, _RENAME_EXCHANGE)


def _renameat2(from_fd: int, from_name: bytes, to_fd: int, to_name: bytes, flags: int) -> None:
    number = _SYS_RENAMEAT2.get(platform.machine())
    if number is None:
        raise RenameUnsupportedError(errno.ENOSYS, "renameat2 is not known on this machine", from_name)
    result = _libc.syscall(
        ctypes.c_long(number),
        ctypes.c_int(from_fd),
        ctypes.c_char_p(from_name),
        ctypes.c_int(to_fd),
        ctypes.c_char_p(to_name),
        ctypes.c_uint(flags),
    )
    if result == 0:
        return
    error = ctypes.get_errno()
    if error in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
        raise RenameUnsupportedError(error, os.strerror(error), from_name)
    raise OSError(error, os.strerror(error), from_name, None, to_name)


def syncfs(fd: int) -> None:
    """Write everything of the file system of ``fd`` to disk (``fd`` must not be ``O_PATH``)."""
    if _libc.syncfs(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
