"""The kind of file system of an open file, where the kind limits the kernel's answers."""

from __future__ import annotations

import ctypes
import struct

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


def remote_kind(fd: int) -> str | None:
    """The kind, where changes can come from elsewhere: the kernel then reports neither all changes nor all
    writers. None for a file system that only this kernel writes to."""
    answer = ctypes.create_string_buffer(_STATFS_BYTES)
    if _libc.fstatfs(ctypes.c_int(fd), answer) < 0:
        return None
    magic: int = struct.unpack_from("l", answer.raw)[0]
    return _REMOTE.get(magic & 0xFFFF_FFFF)
