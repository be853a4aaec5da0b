"""Lays a state of the model on a real directory, with the inode numbers that it had when it was recorded.

A journal names inodes, and a directory that is laid anew has others: ``seated`` lets ``stat`` answer with the recorded
ones, for as long as a recovery runs.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from instep.tree.root import beneath
from tests.support.power.disk import TOP, Kind, State

__all__ = ["seated"]

_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_OTHERS = 1 << 40
"""Added to the numbers of objects that recovery makes, so that none is taken for a recorded one."""
_stat, _lstat, _fstat, _fsync = os.stat, os.lstat, os.fstat, os.fsync


class _Seat:
    def __init__(self, base: Path) -> None:
        self.base = os.fsencode(base)
        self.numbers: dict[tuple[int, int], int] = {}
        self.held: list[int] = []
        """Keep every inode that was laid, so that the file system gives its number to nothing else."""

    def lay(self, state: State) -> None:
        _empty(self.base)
        first: dict[int, bytes] = {TOP: self.base}
        directories = [TOP]
        pending = [TOP]
        while pending:
            directory = pending.pop()
            for name, number in state[directory].names.items():
                path = first[directory] + b"/" + name
                if number in first:
                    os.link(first[number], path, follow_symlinks=False)
                    continue
                first[number] = path
                self._make(path, number, state)
                if state[number].kind is Kind.DIR:
                    pending.append(number)
                    directories.append(number)
        for number, path in first.items():
            if state[number].kind is not Kind.DIR:
                _finish(path, number, state)
        for number in reversed(directories):
            _finish(first[number], number, state)
        self._know(self.base, TOP)

    def _make(self, path: bytes, number: int, state: State) -> None:
        inode = state[number]
        match inode.kind:
            case Kind.DIR:
                os.mkdir(path, 0o700)
            case Kind.SYMLINK:
                os.symlink(inode.data, path)
            case Kind.FILE:
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                try:
                    os.write(fd, inode.data)
                finally:
                    os.close(fd)
        self._know(path, number)

    def _know(self, path: bytes, number: int) -> None:
        found = _lstat(path)
        self.numbers[(found.st_dev, found.st_ino)] = number if number != TOP else found.st_ino
        self.held.append(os.open(path, _PATH))

    def answer(self, found: os.stat_result) -> os.stat_result:
        number = self.numbers.get((found.st_dev, found.st_ino), found.st_ino + _OTHERS)
        fields = [getattr(found, name) for name in ("st_atime", "st_mtime", "st_ctime")]
        rest = ("st_atime_ns", "st_mtime_ns", "st_ctime_ns", "st_blksize", "st_blocks", "st_rdev")
        plain = (found.st_mode, number, *tuple(found)[2:10], *fields)
        return os.stat_result(plain, {name: getattr(found, name) for name in rest})

    def stat(self, *args: Any, **options: Any) -> os.stat_result:
        return self.answer(_stat(*args, **options))

    def lstat(self, *args: Any, **options: Any) -> os.stat_result:
        return self.answer(_lstat(*args, **options))

    def fstat(self, fd: int) -> os.stat_result:
        return self.answer(_fstat(fd))


def _finish(path: bytes, number: int, state: State) -> None:
    inode = state[number]
    if os.geteuid() == 0 and (inode.uid, inode.gid) != (0, 0):
        os.chown(path, inode.uid, inode.gid, follow_symlinks=False)
    if inode.kind is not Kind.SYMLINK:
        for name, value in inode.xattrs.items():
            os.setxattr(path, name, value)
        os.chmod(path, inode.mode)
    if inode.mtime_ns is not None:
        os.utime(path, ns=(inode.mtime_ns, inode.mtime_ns), follow_symlinks=False)


def _empty(base: bytes) -> None:
    for name in os.listdir(base):
        path = base + b"/" + name
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)


@contextlib.contextmanager
def seated(base: Path, state: State) -> Iterator[None]:
    """``base`` holds ``state``, and ``stat`` knows its inodes by their recorded numbers. Nothing is really synced."""
    seat = _Seat(base)
    seat.lay(state)
    libc: Any = beneath._libc
    syncfs = libc.syncfs
    try:
        os.stat, os.lstat, os.fstat = seat.stat, seat.lstat, seat.fstat
        os.fsync = lambda fd: None
        libc.syncfs = lambda fd: 0
        yield
    finally:
        os.stat, os.lstat, os.fstat, os.fsync = _stat, _lstat, _fstat, _fsync
        libc.syncfs = syncfs
        for fd in seat.held:
            os.close(fd)
