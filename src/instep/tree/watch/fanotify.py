"""Watch a tree by fanotify: one mark for its whole file system, whatever the number of directories.

Needs root (``CAP_SYS_ADMIN``, and ``CAP_DAC_READ_SEARCH`` to open the file handles that the kernel reports). Every
event of the file system arrives here; those outside the root are dropped. An unmount is not reported: the marker
check of the next full scan finds it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from pathlib import Path
from typing import Self

from instep.errors import RefusedError, ResourceError
from instep.tree.root.beneath import Root
from instep.tree.root.descriptors import closing_fd
from instep.tree.root.marker import open_root
from instep.tree.scan.rules import Rules
from instep.tree.scan.touched import (
    Gone,
    Identity,
    Overflow,
    Touched,
    WatchEvent,
    Written,
    identity_of,
    is_reserved,
)

_libc = ctypes.CDLL(None, use_errno=True)

_INIT_FLAGS = 0x1 | 0x2 | 0x400 | 0x800  # FAN_CLOEXEC, FAN_NONBLOCK, FAN_REPORT_DIR_FID, FAN_REPORT_NAME
_MARK_ADD_FILESYSTEM = 0x1 | 0x100
_AT_FDCWD = -100

_MODIFY, _ATTRIB, _CLOSE_WRITE = 0x2, 0x4, 0x8
_MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x40, 0x80, 0x100, 0x200
_Q_OVERFLOW, _ONDIR = 0x4000, 0x40000000
_MOVED = _MOVED_FROM | _MOVED_TO
_APPEARED_OR_WENT = _MOVED | _CREATE | _DELETE
_CLOSED_OR_WENT = _CLOSE_WRITE | _MOVED | _DELETE
_MASK = _MODIFY | _ATTRIB | _CLOSE_WRITE | _APPEARED_OR_WENT | _ONDIR

_METADATA = struct.Struct("=IBBHQii")  # length, version, reserved, header length, mask, fd, pid
_INFO = struct.Struct("=BBH")  # type, pad, length
_HANDLE = struct.Struct("=Ii")  # length of the handle, type; the handle itself follows
_FSID_BYTES = 8
_INFO_DFID_NAME = 2
_VERSION = 3
_BUFFER = 256 << 10
_READS_MAX = 16
"""How many buffers one ``read`` empties at most; ``fd`` stays readable while more wait."""
_KNOWN_MAX = 16_384


class FanotifyWatcher:
    """Same interface and promises as ``InotifyWatcher``."""

    def __init__(self, root: Path, rules: Rules) -> None:
        self._path = root
        self._rules = rules
        self.fd = -1
        self.identity: Identity | None = None
        self._is_gone = False
        self._known: dict[bytes, bytes | None] = {}
        """Directory by file handle: its path below the root, None outside; good until a directory moves."""
        self.written = Written()
        self.problem: ResourceError | None = None

    def start(self) -> Self:
        """``RefusedError`` ``root_missing``; ``ResourceError`` ``no_fanotify`` where kernel or rights lack."""
        with open_root(self._path) as root:
            self.identity = identity_of(root)
            self.fd = _libc.fanotify_init(_INIT_FLAGS, os.O_RDONLY | os.O_CLOEXEC)
            if self.fd < 0:
                raise _no_fanotify(self._path, ctypes.get_errno())
            marked = _libc.fanotify_mark(
                self.fd,
                ctypes.c_uint(_MARK_ADD_FILESYSTEM),
                ctypes.c_uint64(_MASK),
                _AT_FDCWD,
                b"/proc/self/fd/%d" % root.fd,
            )
            number = ctypes.get_errno() if marked < 0 else self._try_handles(root)
            if number:
                self.close()
                raise _no_fanotify(self._path, number)
        return self

    def _try_handles(self, root: Root) -> int:
        """0 when directories can be opened by handle, else the error number; the mark alone does not say it."""
        buffer = ctypes.create_string_buffer(_HANDLE.pack(128, 0) + bytes(128))
        mount = ctypes.c_int()
        if _libc.name_to_handle_at(root.fd, b"", buffer, ctypes.byref(mount), 0x1000) < 0:  # AT_EMPTY_PATH
            return ctypes.get_errno()
        try:
            with closing_fd(root.open_dir(b"")) as top:
                os.close(_open_by_handle(top, buffer.raw))
        except OSError as error:
            return error.errno or errno.EIO
        return 0

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def read(self) -> list[WatchEvent]:
        told: dict[WatchEvent, None] = {}
        if self._is_gone:
            return []
        events: list[tuple[int, bytes, bytes]] = []
        for _ in range(_READS_MAX):
            try:
                data = os.read(self.fd, _BUFFER)
            except BlockingIOError:
                break
            events += _parse(data)
        if not events:
            return []
        try:
            root = open_root(self._path)
        except RefusedError as error:
            return self._end(error.reason)
        with root:
            if identity_of(root) != self.identity:
                return self._end("another directory is in the place of the root")
            with closing_fd(root.open_dir(b"")) as top:
                self._tell(events, top, told)
        return list(told)

    def _end(self, why: str) -> list[WatchEvent]:
        self._is_gone = True
        return [Gone(why)]

    def _tell(self, events: list[tuple[int, bytes, bytes]], top: int, told: dict[WatchEvent, None]) -> None:
        if any(mask & _ONDIR and mask & _MOVED for mask, _, _ in events) or len(self._known) > _KNOWN_MAX:
            self._known.clear()
        here = os.readlink(b"/proc/self/fd/%d" % top)
        for mask, handle, name in events:
            if mask & _Q_OVERFLOW:
                told[Overflow(b"")] = None
                continue
            if handle not in self._known:
                self._known[handle] = _path_below(top, here, handle)
            directory = self._known[handle]
            if directory is None:
                continue
            if name in (b"", b"."):  # of the directory itself
                path = directory
            else:
                path = directory + b"/" + name if directory else name
            is_dir = bool(mask & _ONDIR)
            if not path or is_reserved(path) or self._rules.ignored(path, is_dir):
                continue
            if not is_dir and mask & (_MODIFY | _CLOSED_OR_WENT):
                self.written.saw(path, is_write=not mask & _CLOSED_OR_WENT)
            told[Touched(path, "tree" if is_dir and mask & _APPEARED_OR_WENT else "entry")] = None


def _parse(data: bytes) -> list[tuple[int, bytes, bytes]]:
    """``(mask, file handle of the directory, name)`` of each event; the handle is empty for an overflow."""
    found: list[tuple[int, bytes, bytes]] = []
    at = 0
    while at < len(data):
        length, version, _, header, mask, fd, _ = _METADATA.unpack_from(data, at)
        assert version == _VERSION, f"fanotify speaks version {version}"
        if fd >= 0:
            os.close(fd)
        handle = name = b""
        info, end = at + header, at + length
        while info < end:
            kind, _, size = _INFO.unpack_from(data, info)
            if kind == _INFO_DFID_NAME:
                start = info + _INFO.size + _FSID_BYTES
                stop = start + _HANDLE.size + _HANDLE.unpack_from(data, start)[0]
                handle, name = data[start:stop], data[stop : info + size].split(b"\0", 1)[0]
            info += size
        if handle or mask & _Q_OVERFLOW:
            found.append((mask, handle, name))
        at = end
    return found


def _open_by_handle(mount_fd: int, handle: bytes) -> int:
    fd: int = _libc.open_by_handle_at(mount_fd, ctypes.c_char_p(handle), os.O_PATH | os.O_CLOEXEC)
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return fd


def _path_below(top: int, here: bytes, handle: bytes) -> bytes | None:
    """The path of a directory relative to the root; None when it is outside or gone."""
    try:
        fd = _open_by_handle(top, handle)
    except OSError as error:
        if error.errno in (errno.ESTALE, errno.ENOENT):
            return None  # removed meanwhile: the event of its removal names its parent
        raise
    with closing_fd(fd):
        path = os.readlink(b"/proc/self/fd/%d" % fd)
    if path == here:
        return b""
    prefix = here.rstrip(b"/") + b"/"
    return path[len(prefix) :] if path.startswith(prefix) else None


def _no_fanotify(root: Path, number: int) -> ResourceError:
    return ResourceError(
        f"fanotify cannot watch {root}: {os.strerror(number)}",
        hint="fanotify needs root and a kernel from 5.9 on; inotify needs neither",
        code="no_fanotify",
    )
