"""A directory for a while that only the daemon's user may enter, made below one that other users may write."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator

from instep.errors import RefusedError
from instep.model.paths import shown
from instep.tree.objects.laying import remove_contents
from instep.tree.root.descriptors import LIST, Tolerated

_ELSEWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ENOTEMPTY, errno.EEXIST)


@contextlib.contextmanager
def private_directory(parent: int, prefix: bytes) -> Iterator[int]:
    """A descriptor of a new empty directory (0700) in ``parent``; names in it are ours alone. It is emptied through the
    descriptor and removed at the end, whatever its name leads to by then.

    ``RefusedError`` ``directory_replaced`` when another directory came under its name before it was opened.
    """
    name = prefix + secrets.token_hex(8).encode()
    os.mkdir(name, 0o700, dir_fd=parent)
    fd = os.open(name, LIST, dir_fd=parent)
    try:
        found = os.fstat(fd)
        if found.st_uid != os.geteuid() or found.st_mode & 0o077 or os.listdir(fd):
            above = os.readlink(b"/proc/self/fd/%d" % parent)
            raise RefusedError(
                f"{shown(above + b'/' + name)} was replaced by another directory as soon as it was made",
                hint=f"find out which program renames in {shown(above)}, or name a directory that only you may write",
                code="directory_replaced",
                path=shown(above),
            )
        try:
            yield fd
        finally:
            remove_contents(fd)
    finally:
        os.close(fd)
        with Tolerated(*_ELSEWHERE):  # its name leads to an object of another user by now; ours was emptied
            os.rmdir(name, dir_fd=parent)
