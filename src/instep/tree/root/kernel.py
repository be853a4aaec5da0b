"""The kernel's answers about a tree and this process: kinds of file systems, mounts, and rights.

The number of the user does not show the rights: a container or a unit file may have taken the capability from root, and
may have given it to another user.
"""

from __future__ import annotations

import ctypes
import os
import re
import struct
import time

from instep.tree.root.beneath import Root

_libc = ctypes.CDLL(None, use_errno=True)
_STATFS_BYTES = 256
_REMOTE = {
    0x6969: "nfs",
    0x517B: "smb",
    0xFE534D42: "smb",
    0xFF534D42: "cifs",
    0x01021997: "9p",
    0x00C36400: "ceph",
    0x65735546: "fuse",
    0x5346414F: "afs",
    0x6B414653: "afs",
    0x73757245: "coda",
    0x0BD00BD0: "lustre",
    0x7461636F: "ocfs2",
    0x01161970: "gfs2",
    0x47504653: "gpfs",
}
"""Magic numbers of ``statfs(2)``: other machines, or a program, change what lies there behind this kernel's back."""
_FINE = frozenset((0xEF53, 0x58465342, 0x9123683E, 0x01021994))
"""ext2 to ext4, XFS, btrfs and tmpfs: each change takes its ``ctime`` from this kernel's clock, in nanoseconds."""
_CLOCK_REALTIME_COARSE = 5
_statx = getattr(_libc, "statx", None)
if _statx is not None:
    _statx.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p)
_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_AT_SYMLINK_NOFOLLOW = 0x100
_STATX_TYPE = 1
_BUFFER_WORDS = 32
_ATTRIBUTES = 1
_ATTRIBUTES_MASK = 7
_FLAGS = ((0x10, "immutable", "i"), (0x20, "append-only", "a"))
MOUNTS = "/proc/self/mountinfo"
_ESCAPE = re.compile(rb"\\([0-7]{3})")
_CAP_DAC_OVERRIDE = 1
_CAPABILITY_VERSION_3 = 0x2008_0522


def remote_kind(fd: int) -> str | None:
    """The kind, where changes can come from elsewhere: the kernel then reports neither all changes nor all
    writers. None for a file system that only this kernel writes to."""
    magic = _magic(fd)
    return None if magic is None else _REMOTE.get(magic)


def change_clock_ns(fd: int) -> int | None:
    """The clock that the file system takes ``ctime`` from, as it stands now: no change that begins after this call gets
    an earlier ``ctime``. None where that does not hold, or is not known.

    It is the kernel's coarse clock, which stands still between two ticks, and for longer where a virtual machine
    loses its processor: the fine clock would say that a tick is over while it is not."""
    return time.clock_gettime_ns(_CLOCK_REALTIME_COARSE) if _magic(fd) in _FINE else None


def _magic(fd: int) -> int | None:
    answer = ctypes.create_string_buffer(_STATFS_BYTES)
    if _libc.fstatfs(ctypes.c_int(fd), answer) < 0:
        return None
    magic: int = struct.unpack_from("l", answer.raw)[0]
    return magic & 0xFFFF_FFFF


def mount_point(line: bytes) -> bytes:
    """The mount point of a line of ``MOUNTS``."""
    point = line.split(b" ", 5)[4]
    return _ESCAPE.sub(lambda m: bytes((int(m[1], 8),)), point) if b"\\" in point else point


def mounts_below(root: bytes) -> list[bytes]:
    """Where something is mounted at or below ``root``, bind mounts too, as this process sees it."""
    found = []
    with open(MOUNTS, "rb") as lines:
        for line in lines:
            point = mount_point(line)
            if point.startswith(root) and (point == root or point.startswith(root + b"/")):
                found.append(point)
    return found


def mounts_in(root: Root) -> frozenset[bytes]:
    """Where something is mounted below ``root``, as paths relative to it; bind mounts of the same device too."""
    top = os.readlink(b"/proc/self/fd/%d" % root.fd)
    return frozenset(point[len(top) + 1 :] for point in mounts_below(top) if point != top)


def set_flag(dir_fd: int | None, name: bytes) -> tuple[str, str] | None:
    """The flag by which ``statx(2)`` says that an object takes no change: in words, and the letter of ``chattr``. None
    also where there is nothing, or where the call is missing."""
    if _statx is None:
        return None
    buffer = (ctypes.c_uint64 * _BUFFER_WORDS)()
    how = _AT_SYMLINK_NOFOLLOW | (0 if name else _AT_EMPTY_PATH)
    if _statx(_AT_FDCWD if dir_fd is None else dir_fd, name, how, _STATX_TYPE, buffer) != 0:
        return None
    found = buffer[_ATTRIBUTES] & buffer[_ATTRIBUTES_MASK]
    return next(((what, letter) for flag, what, letter in _FLAGS if found & flag), None)


def ignores_modes() -> bool:
    """Whether permission bits do not stop this thread: it has ``CAP_DAC_OVERRIDE``. Asked by ``capget(2)`` at every
    apply: a read of ``/proc/thread-self/status`` costs nine times as much."""
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; then the upper halves
    if _libc.capget((ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0), sets) < 0:
        return False
    return bool(sets[0] >> _CAP_DAC_OVERRIDE & 1)
