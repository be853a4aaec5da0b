"""The programs that write a file: the cause of a drift that comes again and again.

Classic fanotify marks on the directories of the named paths report the process of each write, in place or in a
file that is renamed over the old one. That needs root; without it no program is named and everything else goes on.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

from instep.tree.root.beneath import Root
from instep.tree.root.descriptors import closing_fd

_libc = ctypes.CDLL(None, use_errno=True)
_INIT_FLAGS = 0x1 | 0x2  # FAN_CLOEXEC, FAN_NONBLOCK
_MARK_ADD = 0x1
_MASK = 0x2 | 0x8 | 0x08000000  # FAN_MODIFY, FAN_CLOSE_WRITE, FAN_EVENT_ON_CHILD
_METADATA = struct.Struct("=IBBHQii")  # length, version, reserved, header length, mask, fd, pid
_BUFFER = 64 << 10
_DIRECTORIES_MAX = 64
_NAMED_MAX = 256
_ONCE_MAX = 1_000


class Culprits:
    """Watches the directories of paths that were put back, and records which program wrote them next."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._fd = -1
        self._once: dict[bytes, None] = {}
        self._marked: dict[bytes, None] = {}
        self._found: dict[bytes, tuple[int, str]] = {}

    def watch(self, paths: Sequence[bytes]) -> None:
        """Record that these paths were put back: from the second time on, watch for the programs that write them.
        Without the rights for it nothing happens."""
        again = [path for path in paths if path in self._once]
        self._once.update(dict.fromkeys(paths))
        while len(self._once) > _ONCE_MAX:
            del self._once[next(iter(self._once))]
        folders = [f for f in dict.fromkeys(p.rpartition(b"/")[0] for p in again) if f not in self._marked]
        if not folders:
            return
        if self._fd < 0:
            self._fd = _libc.fanotify_init(_INIT_FLAGS, os.O_RDONLY | os.O_CLOEXEC)
        if self._fd < 0:
            return
        try:
            root = Root(self._root)
        except OSError:
            return  # the root went meanwhile: code that needs it reports that
        with root:
            for folder in folders[: max(0, _DIRECTORIES_MAX - len(self._marked))]:
                try:
                    opened = root.open_dir(folder)
                except OSError:
                    continue  # it went meanwhile: the next drift scan shows that
                with closing_fd(opened):
                    where = b"/proc/self/fd/%d" % opened
                    _libc.fanotify_mark(self._fd, _MARK_ADD, ctypes.c_uint64(_MASK), -100, where)
                self._marked[folder] = None

    def root_changed(self) -> None:
        """Another directory is the root now: its directories are marked when something in them is put back again."""
        self._marked.clear()

    def names(self, paths: Iterable[bytes]) -> dict[bytes, str]:
        """Which program wrote each of ``paths`` last, as far as it was seen: ``python3 (process 12)``, or
        ``python3 (ended)``."""
        self._drain()
        found = {path: self._found[path] for path in paths if path in self._found}
        return {
            path: f"{name} (process {pid})" if _program(pid) == name else f"{name} (ended)"
            for path, (pid, name) in found.items()
        }

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._once.clear()
        self._marked.clear()
        self._found.clear()

    def _drain(self) -> None:
        prefix = os.fsencode(os.path.realpath(self._root)).rstrip(b"/") + b"/"
        while self._fd >= 0:
            try:
                data = os.read(self._fd, _BUFFER)
            except BlockingIOError:
                return
            at = 0
            while at < len(data):
                length, _, _, _, _, fd, pid = _METADATA.unpack_from(data, at)
                at += length
                if fd < 0:
                    continue  # the queue ran over: the program that fights writes again
                with closing_fd(fd):
                    path = os.readlink(b"/proc/self/fd/%d" % fd)
                if pid != os.getpid() and path.startswith(prefix):
                    self._note(path[len(prefix) :], pid)

    def _note(self, path: bytes, pid: int) -> None:
        name = _program(pid)
        if name is None:
            return  # it has ended, and nothing says what it was
        self._found.pop(path, None)
        self._found[path] = pid, name
        while len(self._found) > _NAMED_MAX:
            del self._found[next(iter(self._found))]


def _program(pid: int) -> str | None:
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except OSError:
        return None
