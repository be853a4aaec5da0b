"""Names the resource that this machine lacks when a system call of staging or switching fails."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from instep.errors import ResourceError
from instep.model.paths import shown
from instep.tree.root.place import Place


@contextmanager
def shortage_named(place: Place) -> Iterator[None]:
    """An ``OSError`` of the block as the error that names the lacking resource."""
    try:
        yield
    except OSError as error:
        raise resource_error(error, place) from error


def resource_error(error: OSError, place: Place) -> ResourceError:
    """The error that names the lacking resource; ``OSError`` of staging and switching is always about this machine."""
    hints = {
        errno.ENOSPC: "free space on the file system of the fileset; files staged so far are kept",
        errno.EDQUOT: "raise the quota of the daemon's user; files staged so far are kept",
        errno.EROFS: "remount the file system writable",
        errno.EACCES: "let the daemon's user write the root and its control folder",
        errno.EPERM: "let the daemon's user write the root and its control folder",
        errno.EBUSY: "find the mount or the program that holds it, and end that",
        errno.EXDEV: "let the path lie on one file system and in one project with the control folder",
        errno.EIO: "look at the kernel's log: the disk reports errors",
        errno.EMFILE: "raise LimitNOFILE of the daemon's unit",
        errno.ENFILE: "raise the sysctl fs.file-max",
    }
    codes = {errno.ENOSPC: "disk_full", errno.EDQUOT: "disk_full", errno.EROFS: "read_only"}
    codes |= {errno.EACCES: "no_permission", errno.EPERM: "no_permission"}
    number = error.errno or 0
    where = (
        error.filename
        if isinstance(error.filename, bytes)
        else os.fsencode(str(error.filename or place.root))
    )
    where = place.by_name(where)
    return ResourceError(
        f"{place.fileset}: {error.strerror or error} ({shown(where)})",
        hint=hints.get(number),
        code=codes.get(number, "disk_error"),
        path=shown(where),
        errno=number,
    )
