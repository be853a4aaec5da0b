"""Whether a control folder can be written, and the error when it cannot."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from instep.errors import ResourceError
from instep.tree.root.descriptors import LIST
from instep.tree.root.os_errors import help_for

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
    if error.errno not in (errno.EACCES, errno.EPERM):
        hint = help_for(error.errno or 0, control)[1]
    return ResourceError(
        f"the control folder {control} cannot be prepared: {error.strerror}",
        hint=hint,
        code="stage_unusable",
        path=str(control),
    )
