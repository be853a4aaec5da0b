"""Records the disk operations of this process below one directory: the calls of ``os``, and those made by ``ctypes``.

An inode is known by its real number; descriptors keep all of them open, so that no number comes twice. A call that is
not known here ends the run, and so does a directory that differs from the record: a recorder that overlooks a
call would prove nothing.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from instep.tree.root import beneath
from tests.support.power.calls import Calls, Libc, Real
from tests.support.power.disk import TOP, Event, Inode, Kind, Note, Op, Slot, State, Sync, replayed

__all__ = ["Recorder", "recording"]

_PASSED_THROUGH = frozenset(("_renameat2", "_openat2", "write_all", "with_folder"))
"""Functions that say nothing about why a call was made."""
_SHARED = frozenset(
    ("sync_directory", "sync_each", "sync_dir", "syncfs", "fsync_name", "append_records", "append_record")
)
"""Functions of many callers: the caller is named as well. The caller of ``sync`` of a writer of records is named,
too."""
_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class Recorder:
    """The events so far, and the inodes that are known."""

    def __init__(self, base: Path, real: Real) -> None:
        self.base = os.fsencode(base)
        self.real = real
        self.events: list[Event] = []
        self._numbers: dict[tuple[int, int], int] = {}
        """Device and real number to the number here; they are equal but for the top."""
        self._held: list[int] = []
        self.initial = self._everything()

    def close(self) -> None:
        for fd in self._held:
            self.real.close(fd)
        self._held.clear()

    # The known state ---------------------------------------------------------------------------------------------

    def _everything(self) -> State:
        state: State = {}
        pending = [self.base]
        while pending:
            path = pending.pop()
            number = self.learn(path)
            if number in state:
                continue
            state[number] = inode = inode_of(path)
            if inode.kind is Kind.DIR:
                for name in os.listdir(path):
                    inode.names[name] = self.learn(path + b"/" + name)
                    pending.append(path + b"/" + name)
        return state

    def learn(self, path: bytes) -> int:
        found = self.real.stat(path, follow_symlinks=False)
        key = (found.st_dev, found.st_ino)
        if key not in self._numbers:
            self._held.append(self.real.open(path, _PATH))
            self._numbers[key] = TOP if path == self.base else found.st_ino
        return self._numbers[key]

    def inode(self, path: Any, dir_fd: int | None = None, *, follow: bool = True) -> int | None:
        """The number of the object there; None when it is missing, or outside of the recorded directory."""
        with contextlib.suppress(FileNotFoundError):
            if isinstance(path, int):
                found = self.real.fstat(path)
            else:
                found = self.real.stat(path, dir_fd=dir_fd, follow_symlinks=follow)
            return self._numbers.get((found.st_dev, found.st_ino))
        return None

    def slot(self, path: Any, dir_fd: int | None) -> Slot | None:
        """The directory and name that ``path`` stands for; None when that directory is not recorded."""
        raw = os.fsencode(path)
        directory, slash, name = raw.rstrip(b"/").rpartition(b"/")
        parent = self.inode(directory or slash or b".", dir_fd)
        return None if parent is None else (parent, name)

    # The record -----------------------------------------------------------------------------------------

    def note(self, text: str) -> None:
        """Something became durable elsewhere, such as live in the node's store."""
        self.events.append(Note(text))

    def named(
        self, *sets: tuple[Slot, int | None], new: tuple[int, Inode] | None = None, emptied: int = -1
    ) -> None:
        self.events.append(Op("name", _caller(), sets=sets, new=new, emptied=emptied))

    def made(self, slot: Slot, path: Any, dir_fd: int | None) -> None:
        """A new object has its first name."""
        parent = self.real.open(os.path.dirname(os.fsencode(path)) or b".", os.O_PATH, dir_fd=dir_fd)
        try:
            where = b"/proc/self/fd/%d/%b" % (parent, slot[1])
            number, inode = self.learn(where), inode_of(where)
        finally:
            self.real.close(parent)
        self.named((slot, number), new=(number, inode))

    def wrote(self, inode: int, offset: int, data: bytes) -> None:
        self.events.append(Op("write", _caller(), inode=inode, offset=offset, data=bytes(data)))

    def resized(self, inode: int, size: int) -> None:
        self.events.append(Op("size", _caller(), inode=inode, size=size))

    def changed(self, inode: int, home: int, meta: dict[str, object]) -> None:
        self.events.append(Op("meta", _caller(), inode=inode, meta=tuple(meta.items()), home=home))

    def synced(self, inode: int | None, fd: int) -> None:
        path = os.readlink(b"/proc/self/fd/%d" % fd)
        self.events.append(Sync(inode, _caller(), os.path.relpath(path, self.base)))

    def check(self) -> None:
        """The record must give the very directory that is there."""
        told = replayed(self.initial, self.events, len(self.events), frozenset())
        found = self._everything()
        for number, inode in found.items():
            mine = told[number]
            mine.mtime_ns = inode.mtime_ns if mine.mtime_ns is None else mine.mtime_ns
            assert mine == inode, f"a call was overlooked: {number} is {inode}, and is recorded as {mine}"


def inode_of(path: bytes) -> Inode:
    found = os.lstat(path)
    kind, data = Kind.DIR, b""
    if stat.S_ISLNK(found.st_mode):
        kind, data = Kind.SYMLINK, os.readlink(path)
    elif stat.S_ISREG(found.st_mode):
        kind, data = Kind.FILE, Path(os.fsdecode(path)).read_bytes()
    xattrs: dict[str, bytes] = {}
    for name in os.listxattr(path, follow_symlinks=False):
        xattrs[name] = os.getxattr(path, name, follow_symlinks=False)
    mode = stat.S_IMODE(found.st_mode)
    return Inode(kind, mode, found.st_uid, found.st_gid, found.st_mtime_ns, data, xattrs=xattrs)


def _caller() -> str:
    """The innermost line of the product that asked; with the one that called it, where that says why."""
    frame = sys._getframe(1)
    found: list[str] = []
    while frame.f_back is not None:
        _, is_ours, name = frame.f_code.co_filename.rpartition("/src/instep/")
        function = frame.f_code.co_name
        if is_ours and function not in _PASSED_THROUGH:
            found.append(f"{name.removesuffix('.py')}:{function}:{frame.f_lineno}")
            if function not in _SHARED and (function, name) != ("sync", "tree/root/records.py"):
                break
        frame = frame.f_back
    return " < ".join(found)


@contextlib.contextmanager
def recording(base: Path) -> Iterator[Recorder]:
    """Everything that happens below ``base`` meanwhile is written down, and checked at the end; one thread only."""
    real = Real()
    recorder = Recorder(base, real)
    calls, libc = Calls(recorder), beneath._libc
    try:
        with real.replaced_by(calls):
            beneath._libc = Libc(recorder, libc)  # type: ignore[assignment]
            try:
                yield recorder
            finally:
                beneath._libc = libc
        recorder.check()
    finally:
        recorder.close()
