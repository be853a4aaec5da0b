"""Whether a control folder can be written, and the error when it cannot."""

from __future__ import annotations

import errno
import os
import shlex
from pathlib import Path

from instep.errors import ResourceError
from instep.tree.root.descriptors import LIST

_NO_ATTRIBUTE = "user.instep.none"
"""An attribute that nothing has."""


def require_writable_folder(control: Path) -> None:
    """``ResourceError`` when the file system of a control folder takes no writes: nothing can be published from its
    root or applied to it, while it can still be read. Tried by a write that changes nothing, for a file system that
    the kernel stopped after an error may be listed as writable. A folder that is not there is its maker's matter."""
    try:
        fd = os.open(control, LIST)
    except FileNotFoundError:
        return
    try:
        os.removexattr(fd, _NO_ATTRIBUTE)
    except OSError as error:
        if error.errno == errno.EROFS:
            raise unprepared(control, error) from error
    finally:
        os.close(fd)


def unprepared(control: Path, error: OSError) -> ResourceError:
    """The error of a control folder in which nothing can be made."""
    hint = "make the parent writable for the daemon, or set stage to a directory on its file system"
    if error.errno == errno.EROFS:
        at = shlex.quote(str(_mount_point(control.parent)))
        hint = (
            "its file system is mounted read-only: look at the kernel log for the reason, then: "
            f"mount -o remount,rw {at}"
        )
        if os.access(control, os.W_OK):
            hint = (
                "the kernel stopped writes to its file system after an error: look at the kernel log, then stop what "
                f"uses {at}, unmount it, check it with fsck, and mount it again"
            )
    return ResourceError(
        f"the control folder {control} cannot be prepared: {error.strerror}",
        hint=hint,
        code="stage_unusable",
        path=str(control),
    )


def _mount_point(path: Path) -> Path:
    """The mount that ``path`` lies on."""
    return next((each for each in (path, *path.parents) if os.path.ismount(each)), path)
