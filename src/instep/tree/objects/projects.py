"""Projects of XFS and ext4: a directory may give its project to objects that are made in it, and refuses objects of
another one. An object that was staged outside of such a directory gets its project first; then it can be renamed into
it.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct

from instep.tree.root.beneath import Root
from instep.tree.root.descriptors import READ, closing_fd

_GET = 0x801C581F
_SET = 0x401C5820
_INHERIT = 0x200
_STRUCT = struct.Struct("=IIIII8x")


def give_project(tree: Root, path: bytes, parent_fd: int) -> bool:
    """Give the object ``path`` of ``tree``, and all below it, the project that the directory ``parent_fd`` gives to
    objects that are made in it; False where that is not why a rename is refused, or cannot be. A symlink has none to
    set."""
    try:
        flags, project = _attributes(os.open(b"/proc/self/fd/%d/." % parent_fd, READ))
        if not flags & _INHERIT:
            return False
        pending = [path]
        while pending:
            here = pending.pop()
            found = tree.stat(here)
            if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
                if here == path:
                    return False
                continue
            _set(tree.open(here, READ), project, is_directory=stat.S_ISDIR(found.st_mode))
            if stat.S_ISDIR(found.st_mode):
                pending += [here + b"/" + name for name in tree.names(here)]
    except OSError:
        return False  # the caller raises what the rename met
    return True


def _attributes(fd: int) -> tuple[int, int]:
    with closing_fd(fd):
        flags, _, _, project, _ = _STRUCT.unpack(fcntl.ioctl(fd, _GET, bytes(_STRUCT.size)))
        return flags, project


def _set(fd: int, project: int, *, is_directory: bool) -> None:
    with closing_fd(fd):
        flags, size, extents, _, cow = _STRUCT.unpack(fcntl.ioctl(fd, _GET, bytes(_STRUCT.size)))
        flags |= _INHERIT if is_directory else 0
        fcntl.ioctl(fd, _SET, _STRUCT.pack(flags, size, extents, project, cow))
